#!/bin/sh
# The user of a macOS image must be there: making one needs the setup assistant.
set -eu
user=${TASUKI_USER:?}
id "$user" >/dev/null 2>&1 || {
	echo "the base image has no user $user; name the one it has under user:" >&2
	exit 1
}
printf '%s ALL=(ALL) NOPASSWD: ALL\n' "$user" >/etc/sudoers.d/90-tasuki
chmod 0440 /etc/sudoers.d/90-tasuki
