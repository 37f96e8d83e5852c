# Moves $part, which put.sh wrote, to $path.
path=$(home "$path")
as=$(by "$path")
$as mv -f "$part" "$path" || { $as rm -f "$part"; exit 4; }
