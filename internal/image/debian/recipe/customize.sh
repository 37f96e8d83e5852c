# Turns the tree that mmdebstrap made into a guest. It runs as root, or as root of
# a user namespace, with the tree as $1. The files of folder files and the runner
# program are in the tree already; what the host needs beside the disk is left in
# /run/host of it. EPOCH is in the environment.
set -eu
root=${1:?}
export LC_ALL=C
umask 022

# Without a usable password, which is not the same as locked: sshd refuses the locked.
chroot "$root" useradd --no-create-home --shell /bin/bash --password '*' runner
cp "$root"/etc/skel/.[a-z]* "$root/home/runner/"
chmod 0440 "$root/etc/sudoers.d/runner"
chroot "$root" chown -R runner:runner /home/runner

# One host key per image: its public half travels in the image's labels.
rm -f "$root"/etc/ssh/ssh_host_*
chroot "$root" ssh-keygen -q -t ed25519 -N '' -C '' -f /etc/ssh/ssh_host_ed25519_key

# Boot does four things: journal, login keys, network, sshd. Under emulation each
# further unit and generator costs a tenth of a second or more.
units=$root/etc/systemd/system
mkdir -p "$root/etc/systemd/system-generators"
for generator in "$root"/usr/lib/systemd/system-generators/*; do
	ln -sf /dev/null "$root/etc/systemd/system-generators/${generator##*/}"
done
for unit in \
	systemd-udevd.service systemd-udevd-control.socket systemd-udevd-kernel.socket \
	systemd-udev-trigger.service systemd-udev-settle.service systemd-machine-id-commit.service \
	systemd-logind.service systemd-timesyncd.service systemd-pstore.service systemd-random-seed.service \
	systemd-rfkill.socket systemd-update-utmp.service systemd-update-utmp-runlevel.service \
	systemd-network-generator.service systemd-modules-load.service systemd-sysusers.service \
	systemd-firstboot.service systemd-binfmt.service systemd-boot-system-token.service \
	systemd-journal-flush.service systemd-remount-fs.service systemd-ask-password-console.path \
	systemd-ask-password-wall.path systemd-user-sessions.service systemd-tmpfiles-clean.timer \
	systemd-tmpfiles-setup-dev.service kmod-static-nodes.service modprobe@.service \
	sys-kernel-config.mount sys-kernel-debug.mount sys-kernel-tracing.mount \
	sys-fs-fuse-connections.mount dev-hugepages.mount dev-mqueue.mount \
	proc-sys-fs-binfmt_misc.automount getty@tty1.service getty-static.service getty.target \
	apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer fstrim.timer e2scrub_all.timer \
	remote-fs.target systemd-initctl.socket ssh.service; do
	ln -sf /dev/null "$units/$unit"
done
rm -rf "$units"/*.wants
mkdir "$units/sysinit.target.wants"
for unit in guest-sshd guest-net guest-grow; do
	ln -s "../$unit.service" "$units/sysinit.target.wants/$unit.service"
done
ln -sf /lib/systemd/system/multi-user.target "$units/default.target"
ln -sf /run/resolv.conf "$root/etc/resolv.conf"

# The initrd: klibc's shell and four of its tools, and the drivers.
set -- "$root"/lib/modules/*
version=${1##*/}
initrd=$root/run/initrd
mkdir -p "$initrd/bin" "$initrd/lib" "$initrd/dev" "$initrd/root" "$initrd/modules"
for tool in sh insmod mount run-init sleep; do
	cp "$root/usr/lib/klibc/bin/$tool" "$initrd/bin/"
done
cp "$root"/lib/klibc-*.so "$initrd/lib/"
mv "$root/usr/local/lib/guest/init" "$initrd/init"
for driver in virtio_pci virtio_blk virtio_net qemu_fw_cfg; do
	chroot "$root" modprobe -S "$version" --show-depends "$driver"
done | sed -n 's/^insmod \([^ ]*\).*/\1/p' | awk '!seen[$0]++' | while read -r module; do
	cp "$root$module" "$initrd/modules/"
	echo "${module##*/}" >>"$initrd/modules/modules.list"
done
find "$initrd" -exec touch -h -d "@$EPOCH" {} +
host=$root/run/host
mkdir "$host"
chroot "$root" sh -c 'cd /run/initrd && find . | LC_ALL=C sort | cpio --reproducible -o -H newc --quiet -R 0:0' >"$host/initrd"
mv "$root/boot/vmlinuz-$version" "$host/vmlinuz"
cp "$root/etc/ssh/ssh_host_ed25519_key.pub" "$host/host-key"
rm -rf "$initrd"
