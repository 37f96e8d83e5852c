# Moves $part, which put.sh wrote, to $path.
path=$(home "$path")
mv -f "$part" "$path" || { rm -f "$part"; exit 4; }
