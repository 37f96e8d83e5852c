# Removes $part, which put.sh wrote.
$(by "$part") rm -f "$part"
