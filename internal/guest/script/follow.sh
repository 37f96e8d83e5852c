# Copies the log from $from (bytes to leave out) to standard output until the
# program ended, then writes "ended CODE SIZE" as the last line to standard
# error; CODE is -1 where nobody saw it end, SIZE the log's. What tail had not
# read by then is the caller's to fetch.
[ -d "$state" ] || exit 3
n=0
until [ -s "$state/supervisor" ] || [ "$n" -ge 100 ]; do
  n=$((n + 1))
  sleep 0.05
done

tail=
if [ ! -s "$state/exit" ] && [ -p "$state/alive" ]; then
  # As a writer too, opening a FIFO never waits. Then we are a reader alone,
  # and reading ends when the supervisor is gone: no polling.
  exec 4<>"$state/alive" 5<"$state/alive" 4>&-
  pace=
  if tail -s 0.1 -c 0 /dev/null 2>/dev/null; then pace='-s 0.1'; fi # for tails without inotify
  tail $pace -c "+$((from + 1))" -f "$state/log" 5<&- 2>/dev/null &
  tail=$!
  trap 'kill -9 $tail 2>/dev/null' EXIT
  cat <&5 >/dev/null
fi

code=
while :; do
  # It may write its status between a look for it and a look for the process.
  lives supervisor || lives program || gone=1
  if [ -s "$state/exit" ]; then
    read -r code <"$state/exit"
    break
  fi
  if [ -n "${gone:-}" ]; then
    code=-1
    break
  fi
  # Only a program whose supervisor was killed is waited for like this.
  sleep 1
done
if [ -n "$tail" ]; then
  trap - EXIT
  kill -9 "$tail" 2>/dev/null
  wait "$tail" 2>/dev/null
fi
size=$(wc -c 2>/dev/null <"$state/log") || size=0
echo "ended $code $((size))" >&2
