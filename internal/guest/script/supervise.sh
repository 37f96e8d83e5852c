# The supervisor: sh -c TEXT NAME KIND DIR UMASK PAUSE MOST SETUP, with "export"
# commands, and the function setup if SETUP says so, on its standard input. It is the parent of the program, in a session
# of its own. File 3 is the FIFO: nobody else may hold it, so that its end is
# seen at once however it ends.
kind=$1 dir=$2 mask=$3 pause=$4 most=$5 setup=$6
mkdir "$state" 2>/dev/null || exit 0 # the claim: another one was first
mkfifo "$state/alive" || exit 1
exec 3<>"$state/alive"
env=$(cat 3>&-)
: >"$state/log"
echo "$$ $(started $$)" >"$state/supervisor.new" && mv "$state/supervisor.new" "$state/supervisor" 3>&- || exit 1

case $kind in
act) set -- "$dir/github-act-runner" run --terminal=false ;;
official)
  # run.sh would hide the exit status (its run-helper.sh turns 1, 5 and what it
  # does not know into 0), so the listener is run as run-helper.sh runs it.
  if [ -x "$dir/bin/Runner.Listener" ]; then
    set -- "$dir/bin/Runner.Listener" run
  else
    set -- "$dir/run.sh"
  fi
  ;;
*) set -- "$dir/run" ;;
esac

end() {
  echo "$1" >"$state/exit.new"
  mv "$state/exit.new" "$state/exit" 3>&-
}

# A program that registers by itself does so first. What an earlier registration
# in this guest left would be refused.
if [ "$setup" = yes ]; then
  (
    exec 3>&-
    me=$(exec sh -c 'echo "$PPID"')
    echo "$me $(started "$me")" >"$state/program"
    umask "$mask"
    case $kind in
    official)
      cd "$dir" || exit 126
      rm -f .runner .credentials .credentials_rsaparams
      if [ -x ./config.sh ]; then set -- ./config.sh; else set -- ./bin/Runner.Listener configure; fi
      ;;
    act)
      cd "$HOME" || exit 126
      rm -f settings.json
      set -- "$dir/github-act-runner" configure
      ;;
    *)
      cd "$HOME" || exit 126
      set -- "$dir/configure"
      ;;
    esac
    eval "$env"
    setup "$@"
  ) </dev/null >>"$state/log" 2>&1 || {
    end 78
    exit
  }
fi

tries=0
while :; do
  (
    exec 3>&-
    me=$(exec sh -c 'echo "$PPID"')
    echo "$me $(started "$me")" >"$state/program"
    umask "$mask"
    if [ "$kind" = official ]; then
      cd "$dir" || exit 126
      export ACTIONS_RUNNER_RETURN_VERSION_DEPRECATED_EXIT_CODE=1
    else
      cd "$HOME" || exit 126
    fi
    # Last: what is set here may have any name.
    eval "$env"
    exec "$@"
  ) </dev/null >>"$state/log" 2>&1
  code=$?
  # 2: "retryable, launch again in 5 seconds", as run-helper.sh does.
  [ "$kind" = official ] && [ "$code" -eq 2 ] && [ "$tries" -lt "$most" ] || break
  tries=$((tries + 1))
  sleep "$pause" 3>&-
done
end "$code"
