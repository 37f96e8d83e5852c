#!/bin/sh
# boot.sh DIR: systemd as the first process of namespaces of its own, over a
# copy-on-write view of this machine's root. DIR is the same folder inside and
# outside. Nothing it does reaches this machine, and it ends with this process.
set -eu
dir=$1
if [ "${2:-}" != inside ]; then
	# A control group of its own in each hierarchy; whoever started us removes them.
	while IFS=: read -r _ controllers path; do
		case $controllers in
		"") for mount in /sys/fs/cgroup /sys/fs/cgroup/unified; do [ ! -e "$mount/cgroup.procs" ] || break; done ;;
		*) mount=/sys/fs/cgroup/${controllers#name=} ;;
		esac
		group=$mount$path/tasuki-test-$$
		mkdir "$group" 2>/dev/null || continue
		echo "$group" >>"$dir/groups"
		echo $$ >"$group/cgroup.procs" 2>/dev/null || true
	done </proc/self/cgroup
	exec unshare --mount --pid --cgroup --ipc --uts --net --fork --kill-child -- "$0" "$dir" inside
fi

mount --make-rprivate /
view=$dir/view
mkdir -p "$view"
mount -t tmpfs -o size=200g tmpfs "$view" # doctor wants to see room; nothing fills it
mkdir "$view/upper" "$view/work" "$view/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$view/upper,workdir=$view/work" "$view/root"
root=$view/root
mount -t proc proc "$root/proc"
mount -t sysfs -o ro sysfs "$root/sys"
mount --rbind /sys/fs/cgroup "$root/sys/fs/cgroup"
mount -t tmpfs tmpfs "$root/run"
mount -t tmpfs tmpfs "$root/dev"
for name in null zero full random urandom; do
	touch "$root/dev/$name"
	mount --bind "/dev/$name" "$root/dev/$name"
done
ln -s /proc/self/fd "$root/dev/fd"
mkdir -p "$root$dir"
mount --bind "$dir" "$root$dir"

units=$root/etc/systemd/system
rm -f "$units"/*.wants/* # this machine's own services
for unit in dev-hugepages.mount dev-mqueue.mount kmod-static-nodes.service proc-sys-fs-binfmt_misc.automount \
	sys-fs-fuse-connections.mount sys-kernel-config.mount sys-kernel-debug.mount sys-kernel-tracing.mount systemd-binfmt.service \
	systemd-journald-audit.socket systemd-modules-load.service systemd-remount-fs.service systemd-sysctl.service systemd-timesyncd.service \
	systemd-tmpfiles-setup-dev.service systemd-tmpfiles-setup.service systemd-tmpfiles-clean.timer \
	systemd-udev-trigger.service systemd-udevd.service systemd-udevd-control.socket \
	systemd-udevd-kernel.socket; do
	ln -sf /dev/null "$units/$unit"
done
# Not chroot: a process that is in one may make no user namespace, and passt does.
cd "$root"
pivot_root . .
umount --lazy .
exec env -i container=tasuki-test PATH="$PATH" /lib/systemd/systemd --system --unit=basic.target --log-target=null --show-status=no
