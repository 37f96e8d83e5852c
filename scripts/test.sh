#!/bin/sh
# Every test, those with QEMU included; fails if one of them was skipped. Prints
# what failed or was skipped, and go test's line for each package.
set -eu
cd "$(dirname "$0")/.."
mkdir -p bin
log=bin/test.log
if [ "$(uname -s)" = Linux ]; then
	TASUKI_TEST_QEMU=1
	TASUKI_TEST_CLIENTS=1 # what prepare.sh installs must be there
	TASUKI_TEST_BROWSER=1
	export TASUKI_TEST_QEMU TASUKI_TEST_CLIENTS TASUKI_TEST_BROWSER
fi
status=bin/test.status
{
	code=0
	scripts/go test -count=1 -timeout 40m -v "$@" ./... 2>&1 || code=$?
	echo "$code" >"$status"
} | tee "$log" | grep -E -v '^ *(=== |--- PASS)|^PASS$' || true
code=$(cat "$status")
rm -f "$status"
if [ -n "${TASUKI_TEST_QEMU:-}" ] && grep -n 'needs QEMU' "$log" >&2; then
	echo "make test: tests that need QEMU were skipped (above)" >&2
	exit 1
fi
exit "$code"
