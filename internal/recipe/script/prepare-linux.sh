#!/bin/sh
# Makes sure of the image's user: there, and in the sudoers.
set -eu
user=${TASUKI_USER:?}
id "$user" >/dev/null 2>&1 || useradd --create-home --shell /bin/bash "$user"
if [ "$user" != root ]; then
	mkdir -p /etc/sudoers.d
	printf '%s ALL=(ALL) NOPASSWD:ALL\n' "$user" >/etc/sudoers.d/90-tasuki
	chmod 0440 /etc/sudoers.d/90-tasuki
fi
