# Forgets a program that ended.
[ -d "$state" ] || exit 0
# The supervisor ends a moment after it has written the exit status.
n=0
while [ -s "$state/exit" ] && lives supervisor && [ "$n" -lt 100 ]; do
  n=$((n + 1))
  sleep 0.05
done
if lives supervisor || lives program; then exit 3; fi
if [ ! -s "$state/supervisor" ]; then
  sleep 1 # it may be just starting
  if lives supervisor; then exit 3; fi
fi
# Away in one step: a half removed folder would be a claim.
mv "$state" "$state.old.$$" && rm -rf "$state.old.$$"
