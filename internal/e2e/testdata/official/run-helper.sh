#!/bin/bash
# As actions/runner's run-helper.sh: what the listener's exit status was is lost.
cd "$(dirname "$0")" || exit 1
bin/Runner.Listener run "$@"
status=$?
case $status in
0) echo "Runner listener exit with 0 return code, stop the service, no retry needed." ;;
2)
	echo "Runner listener exit with retryable error, re-launch runner in 5 seconds."
	sleep 5
	exit 2
	;;
*) echo "Runner listener exit with undefined return code $status, stop the service." ;;
esac
exit 0
