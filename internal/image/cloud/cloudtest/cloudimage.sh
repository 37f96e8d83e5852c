#!/bin/sh
# Makes of the tree $1 a disk like those that distributions publish for clouds:
# GPT, an EFI system partition with a boot loader, ext4 with cloud-init, no user
# and no key. It is a customize hook of mmdebstrap's; DISK is the disk to make.
set -eu
root=${1:?}
export LC_ALL=C

cat >"$root/etc/cloud/cloud.cfg" <<'CFG'
users: []
disable_root: true
preserve_hostname: false
datasource_list: [NoCloud, None]
cloud_init_modules: [growpart, resizefs, set_hostname, users-groups, ssh]
cloud_config_modules: []
cloud_final_modules: []
system_info: {distro: debian, network: {renderers: [networkd]}}
CFG
echo 'LABEL=cloudroot / ext4 rw,noatime 0 1' >"$root/etc/fstab"
: >"$root/etc/machine-id"
rm -f "$root"/etc/ssh/ssh_host_* "$root/etc/hostname"
for unit in apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer fstrim.timer \
	systemd-networkd-wait-online.service systemd-pstore.service getty@tty1.service e2scrub_reap.service; do
	ln -sf /dev/null "$root/etc/systemd/system/$unit"
done
chroot "$root" systemctl enable systemd-networkd ssh >/dev/null 2>&1

# A small initrd: unpacking a large one takes long where it is emulated.
printf 'virtio_pci\nvirtio_blk\nvirtio_net\next4\n' >>"$root/etc/initramfs-tools/modules"
sed -i 's/^MODULES=.*/MODULES=list/; s/^#* *COMPRESS=.*/COMPRESS=lz4/' "$root/etc/initramfs-tools/initramfs.conf"
version=$(cd "$root/lib/modules" && echo *)
chroot "$root" update-initramfs -c -k "$version" >/dev/null 2>&1

case $(chroot "$root" dpkg --print-architecture) in
amd64) from=systemd-bootx64.efi to=BOOTX64.EFI console=ttyS0 ;;
*) from=systemd-bootaa64.efi to=BOOTAA64.EFI console=ttyAMA0 ;;
esac
esp=$root/run/tree
mkdir -p "$esp/EFI/BOOT" "$esp/loader/entries"
cp "$root/usr/lib/systemd/boot/efi/$from" "$esp/EFI/BOOT/$to"
cp "$root/boot/vmlinuz-$version" "$esp/vmlinuz"
cp "$root/boot/initrd.img-$version" "$esp/initrd"
echo 'timeout 0' >"$esp/loader/loader.conf"
cat >"$esp/loader/entries/debian.conf" <<CONF
title Debian
linux /vmlinuz
initrd /initrd
options root=LABEL=cloudroot ro console=$console net.ifnames=0 mitigations=off loglevel=5
CONF
truncate -s 64M "$root/run/esp"
truncate -s 2G "$root/run/disk"
chroot "$root" sh -c 'mkfs.vfat -F 16 -n ESP /run/esp >/dev/null
	cd /run/tree && mcopy -s -i /run/esp EFI loader vmlinuz initrd ::
	printf "label: gpt\nstart=2048, size=131072, type=uefi\nstart=133120, type=linux\n" | sfdisk -q /run/disk
	dd if=/run/esp of=/run/disk bs=1M seek=1 conv=notrunc,sparse status=none'
cp --sparse=always "$root/run/disk" "$DISK"
rm -rf "$root"/run/* "${root:?}"/boot/* "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/* "$root"/usr/share/locale/* "$root"/usr/share/doc/*
mkdir -p "$root/var/lib/apt/lists/partial"

bare=$(mktemp -d)
mount --bind "$root" "$bare"
"$MKE2FS" -q -F -t ext4 -m 0 -L cloudroot -E "offset=$((133120 * 512)),lazy_itable_init=1,root_owner=0:0" -d "$bare" "$DISK" 2029568k
umount "$bare"
rmdir "$bare"
