# Forgets a program that ended.
[ -d "$state" ] || exit 0
if lives supervisor || lives program; then exit 3; fi
if [ ! -s "$state/supervisor" ]; then
  sleep 1 # it may be just starting
  if lives supervisor; then exit 3; fi
fi
# Away in one step: a half removed folder would be a claim.
mv "$state" "$state.old.$$" && rm -rf "$state.old.$$"
