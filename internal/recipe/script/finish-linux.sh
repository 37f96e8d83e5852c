#!/bin/sh
# Makes a guest image of the machine that a build ran in: who logs in and how,
# the host key, the network; then what is left of the build goes.
set -eu
umask 022
user=${TASUKI_USER:?} login=${TASUKI_LOGIN:?}
home=$(getent passwd "$user" | cut -d: -f6)
group=$(id -gn "$user")

# No usable password, which is not the same as locked: sshd refuses the locked.
case $(getent shadow "$user" | cut -d: -f2) in '!'*) usermod -p '*' "$user" ;; esac

# The login key of each guest is a credential, which systemd puts in place.
version=$(systemctl --version | sed -n 's/^systemd \([0-9]*\).*/\1/p')
if [ "${version:-0}" -lt 252 ]; then
	echo "systemd ${version:-?} is too old: guests get their login key through a credential, from 252 on" >&2
	exit 1
fi
if [ "$user" != root ]; then
	mkdir -p /etc/tmpfiles.d /etc/systemd/system/systemd-tmpfiles-setup.service.d
	{
		printf 'd %s/.ssh 0700 %s %s - -\n' "$home" "$user" "$group"
		printf 'f^ %s/.ssh/authorized_keys 0600 %s %s - ssh.authorized_keys.%s\n' "$home" "$user" "$group" "$user"
	} >/etc/tmpfiles.d/tasuki-login.conf
	printf '[Service]\nLoadCredential=ssh.authorized_keys.%s\n' "$user" \
		>/etc/systemd/system/systemd-tmpfiles-setup.service.d/tasuki.conf
fi

# The host key: one per image, which its label names, or one per guest.
rm -f /etc/ssh/ssh_host_*
if [ "${TASUKI_HOST_KEY:?}" = true ]; then
	ssh-keygen -q -t ed25519 -N '' -C '' -f /etc/ssh/ssh_host_ed25519_key
else
	cat >/etc/systemd/system/tasuki-host-key.service <<'UNIT'
[Unit]
Description=SSH host keys of this guest
Before=ssh.service sshd.service
[Service]
Type=oneshot
ExecStart=/usr/bin/ssh-keygen -A
[Install]
WantedBy=multi-user.target
UNIT
	systemctl enable -q tasuki-host-key.service
fi

# cloud-init did its work. Its network is that of this one machine.
if [ -d /etc/cloud ]; then
	touch /etc/cloud/cloud-init.disabled
	rm -rf /var/lib/cloud /var/log/cloud-init*
	rm -f /etc/sudoers.d/90-cloud-init-users
	if [ -x /lib/systemd/systemd-networkd ] || [ -x /usr/lib/systemd/systemd-networkd ]; then
		rm -f /etc/netplan/*.yaml /etc/network/interfaces.d/*cloud-init* /etc/systemd/network/*cloud-init*
		mkdir -p /etc/systemd/network
		printf '[Match]\nType=ether\nKind=!*\n[Network]\nDHCP=yes\n' >/etc/systemd/network/80-tasuki.network
		systemctl enable -q systemd-networkd.service
	fi
fi

# A pool may give its guests a larger disk.
if command -v growpart >/dev/null 2>&1; then
	mkdir -p /usr/local/lib/tasuki
	cat >/usr/local/lib/tasuki/grow <<'GROW'
#!/bin/sh
# Grows the root partition and its file system to the size of the disk.
from=$(findmnt -no SOURCE /) || exit 0
name=${from##*/}
part=$(cat "/sys/class/block/$name/partition") || exit 0
disk=$(basename "$(dirname "$(readlink -f "/sys/class/block/$name")")")
growpart "/dev/$disk" "$part" || true
exec /lib/systemd/systemd-growfs /
GROW
	chmod 0755 /usr/local/lib/tasuki/grow
	printf '[Unit]\nDescription=Grow the disk\n[Service]\nType=oneshot\nExecStart=/usr/local/lib/tasuki/grow\n[Install]\nWantedBy=multi-user.target\n' \
		>/etc/systemd/system/tasuki-grow.service
	systemctl enable -q tasuki-grow.service
fi

# What is left of the build.
if command -v apt-get >/dev/null 2>&1; then
	apt-get clean
	rm -rf /var/lib/apt/lists/*
	mkdir -p /var/lib/apt/lists/partial
fi
rm -rf /tmp/tasuki-build "$home/.cache" "$home/.bash_history" /root/.bash_history /root/.cache /var/tmp/*
journalctl -q --rotate 2>/dev/null || true
journalctl -q --vacuum-time=1s 2>/dev/null || true
find /var/log -type f -exec truncate -s 0 {} +
rm -f /var/lib/systemd/random-seed /var/lib/dbus/machine-id /etc/hostname
: >/etc/machine-id
for key in /root/.ssh/authorized_keys "$home/.ssh/authorized_keys" "$(getent passwd "$login" | cut -d: -f6)/.ssh/authorized_keys"; do
	rm -f "$key"
done
fstrim -a 2>/dev/null || true
sync
