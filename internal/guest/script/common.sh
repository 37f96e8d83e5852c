# What every script of ours begins with: the folder that holds the state of the
# runner program, and the identity of a process.
#
#   supervisor  "PID START" of the supervisor, written when it is ready
#   program     "PID START" of the program as it was last started
#   log         what the program wrote
#   exit        its exit status, written when it ended
#   alive       a FIFO that the supervisor holds open for as long as it lives
mask=$(umask)
umask 077
if [ -z "${HOME:-}" ]; then HOME=$(eval "echo ~$(id -un)"); fi
state=$HOME/.tasuki/runner

# started PID prints when that process started, and nothing once it is gone or
# a zombie. On Linux it needs no other program; procps may be absent there.
started() {
  if [ -r /proc/self/stat ]; then
    { IFS= read -r stat <"/proc/$1/stat"; } 2>/dev/null || return 0
    set -- ${stat##*) }
    case $1 in Z | X) ;; *) echo "${20}" ;; esac
  else
    set -- $(ps -o state= -o lstart= -p "$1" 2>/dev/null)
    case ${1:-Z} in Z*) ;; *) shift; echo "$*" ;; esac
  fi
}

# lives FILE says whether the process that FILE names still runs.
lives() {
  read -r pid start 2>/dev/null <"$state/$1" && [ -n "$start" ] && [ "$(started "$pid")" = "$start" ]
}

# home PATH prints PATH with a leading "~/" made the home of the user.
home() {
  case $1 in "~/"*) printf '%s\n' "$HOME/${1#"~/"}" ;; *) printf '%s\n' "$1" ;; esac
}

# by PATH prints what a command that writes PATH begins with: nothing where the
# user may, else sudo if it asks for no password.
by() {
  dir=${1%/*}/
  while [ ! -d "$dir" ] && [ -n "${dir%/}" ]; do dir=${dir%/}; dir=${dir%/*}/; done
  if [ ! -w "${dir:-/}" ] && sudo -n true 2>/dev/null; then echo "sudo -n"; fi
}
