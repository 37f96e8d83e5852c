# Cleans the tree and writes the disk. It runs as customize.sh does. DISK is the
# disk to make, an empty file of its final size; MKE2FS and FSUUID are in the
# environment too.
set -eu
root=${1:?}
umask 022

# Nothing of the build stays: no lists, caches, logs, names, ids or leftovers in /run.
rm -rf "$root"/run/* "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/* "$root"/var/cache/debconf/*-old \
	"$root"/var/log/* "$root"/tmp/* "$root"/var/tmp/* "${root:?}"/boot/* "$root"/vmlinuz* "$root"/initrd.img* \
	"$root"/var/lib/dpkg/*-old "$root"/etc/*- "$root"/var/lib/systemd/random-seed
rm -rf "$root"/usr/share/man/* "$root"/usr/share/locale/* "$root"/usr/share/info/*
mkdir -p "$root/var/lib/apt/lists/partial" "$root/var/cache/apt/archives/partial"
: >"$root/etc/machine-id"
rm -f "$root/var/lib/dbus/machine-id" "$root/etc/hostname"
echo '127.0.0.1 localhost' >"$root/etc/hosts"

# The disk, without what mmdebstrap has mounted in the tree. No journal: a guest
# that loses power is deleted, not repaired.
bare=$(mktemp -d)
mount --bind "$root" "$bare"
"$MKE2FS" -q -F -t ext4 -O ^has_journal -m 0 -L guest -U "$FSUUID" \
	-E "lazy_itable_init=1,root_owner=0:0,hash_seed=$FSUUID" -d "$bare" "$DISK"
umount "$bare"
rmdir "$bare"
