#!/bin/sh
# Puts the runner program into its folder: a tar archive is unpacked, a single
# executable gets the name that its kind has.
set -eu
from=${TASUKI_RUNNER:?} dir=${TASUKI_RUNNER_DIR:?} kind=${TASUKI_RUNNER_KIND:?}
case $dir in \~/*) dir=$HOME/${dir#??} ;; esac
case $from in \~/*) from=$HOME/${from#??} ;; esac
rm -rf "$dir"
mkdir -p "$dir"
if tar -tzf "$from" >/dev/null 2>&1; then
	tar -xzf "$from" -C "$dir"
elif tar -tf "$from" >/dev/null 2>&1; then
	tar -xf "$from" -C "$dir"
else
	case $kind in
	act) name=github-act-runner ;;
	command) name=run ;;
	*)
		echo "the runner's archive is no tar archive" >&2
		exit 1
		;;
	esac
	cp "$from" "$dir/$name"
	chmod 0755 "$dir/$name"
fi
rm -f "$from"
case $kind in
official) [ -x "$dir/bin/Runner.Listener" ] || { echo "the archive holds no bin/Runner.Listener" >&2; exit 1; } ;;
act) [ -x "$dir/github-act-runner" ] || { echo "the archive holds no github-act-runner" >&2; exit 1; } ;;
command) [ -x "$dir/run" ] || { echo "the archive holds no executable \"run\"" >&2; exit 1; } ;;
esac
# The first start of .NET's files is slow, on a Mac above all: it belongs here.
if [ "${TASUKI_RUNNER_WARMUP:-false}" = true ] && [ "$kind" = official ]; then
	(cd "$dir" && ./bin/Runner.Listener warmup)
fi
