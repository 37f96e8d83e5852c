# Starts the supervisor unless one was started before. Set before: supervise,
# kind, dir, pause, most, setup. Standard input: "export" commands, and the
# function setup.
ready() {
  n=0
  until [ -s "$state/supervisor" ]; do
    [ "$n" -lt 300 ] || return 1
    n=$((n + 1))
    sleep 0.05
  done
}

if [ ! -d "$state" ]; then
  dir=$(home "$dir")
  case $kind in
  act) need=$dir/github-act-runner ;;
  official) need=$dir/bin/Runner.Listener && [ -x "$need" ] || need=$dir/run.sh ;;
  *) need=$dir/run ;;
  esac
  if [ ! -x "$need" ]; then
    echo "there is no program $need in the guest" >&2
    exit 3
  fi
  mkdir -p "${state%/*}" || exit 4
  export HOME
  env=$(cat)
  # A shell makes what it starts with & ignore SIGINT for good, the steps of a
  # job too, which the official runner cancels by SIGINT. So the first choice
  # is setsid, the second job control (where a shell has it without a terminal).
  if setsid --fork true 2>/dev/null; then
    printf '%s\n' "$env" |
      setsid --fork sh -c "$supervise" tasuki-supervisor "$kind" "$dir" "$mask" "$pause" "$most" "$setup" >/dev/null 2>"$state.err"
  else
    set -m 2>/dev/null
    printf '%s\n' "$env" |
      nohup sh -c "$supervise" tasuki-supervisor "$kind" "$dir" "$mask" "$pause" "$most" "$setup" >/dev/null 2>"$state.err" &
  fi
fi
ready && exit 0
echo "the supervisor did not start: $(cat "$state.err" 2>/dev/null)" >&2
exit 5
