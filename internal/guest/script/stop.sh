# Ends the program if it runs: asks, then insists.
for sig in TERM KILL; do
  n=0
  while lives program; do
    [ "$n" -gt 0 ] || kill -s "$sig" "$pid" 2>/dev/null
    [ "$n" -lt 60 ] || break
    n=$((n + 1))
    sleep 0.05
  done
done
# A supervisor that waits to start it again would do so.
n=0
while lives supervisor; do
  [ "$n" -lt 40 ] || kill -s KILL "$pid" 2>/dev/null
  [ "$n" -lt 100 ] || exit 4
  n=$((n + 1))
  sleep 0.05
done
! lives program
