#!/bin/bash
# As actions/runner's run.sh: starts run-helper.sh again while it returns 2.
cd "$(dirname "$0")" || exit 1
while :; do
	./run-helper.sh "$@"
	status=$?
	[ "$status" -eq 2 ] || exit "$status"
	echo "Restarting runner..."
done
