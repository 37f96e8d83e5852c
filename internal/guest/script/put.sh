# Writes standard input beside $path, and its size and name to standard output.
# A channel that breaks looks like the end of the input, so the file is moved
# to its place only by a second script, once the sizes agree.
path=$(home "$path")
case $path in */*) ;; *) path=./$path ;; esac
if [ -d "$path" ]; then
  echo "$path is a folder" >&2
  exit 3
fi
as=$(by "$path")
(umask "$mask" && $as mkdir -p "${path%/*}/") && part=$($as mktemp "$path.XXXXXX") || exit 4
$as tee "$part" >/dev/null && size=$($as cat "$part" | wc -c) && $as chmod "$mode" "$part" || { $as rm -f "$part"; exit 4; }
printf '%s %s\n' "$((size))" "$part"
