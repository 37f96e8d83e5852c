# Removes $part, which put.sh wrote.
rm -f "$part"
