#!/bin/sh
# Makes a guest image of the Mac that a build ran in. The user's password stays
# as it is: macOS guests are let in by it, or by tart's guest agent.
set -eu
user=${TASUKI_USER:?}
home=$(dscl . -read "/Users/$user" NFSHomeDirectory | sed 's/^NFSHomeDirectory: //')

rm -f /etc/ssh/ssh_host_*
if [ "${TASUKI_HOST_KEY:?}" = true ]; then
	ssh-keygen -q -t ed25519 -N '' -C '' -f /etc/ssh/ssh_host_ed25519_key
fi # else sshd makes them when it starts

# A guest lives for one job: nothing shall index, update or sleep meanwhile.
mdutil -a -i off >/dev/null 2>&1 || true
softwareupdate --schedule off >/dev/null 2>&1 || true
systemsetup -setsleep Never >/dev/null 2>&1 || true

rm -rf /tmp/tasuki-build "$home/Library/Caches/Homebrew" "$home/.bash_history" "$home/.zsh_history" "$home/.zsh_sessions"
rm -f "$home/.ssh/authorized_keys"
log erase --all >/dev/null 2>&1 || true
find /private/var/log -type f -name '*.log' -exec sh -c ': >"$1"' _ {} \;
sync
