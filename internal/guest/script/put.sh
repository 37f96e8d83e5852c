# Writes standard input beside $path, and its size and name to standard output.
# A channel that breaks looks like the end of the input, so the file is moved
# to its place only by a second script, once the sizes agree.
path=$(home "$path")
case $path in */*) ;; *) path=./$path ;; esac
if [ -d "$path" ]; then
  echo "$path is a folder" >&2
  exit 3
fi
(umask "$mask" && mkdir -p "${path%/*}/") && part=$(mktemp "$path.XXXXXX") || exit 4
cat >"$part" && size=$(wc -c <"$part") && chmod "$mode" "$part" || { rm -f "$part"; exit 4; }
printf '%s %s\n' "$((size))" "$part"
