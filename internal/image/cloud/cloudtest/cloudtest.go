// Package cloudtest makes disks of the kind that distributions publish for
// clouds, for tests: GPT, an EFI system partition, cloud-init, no user and no
// key. They are Debian's packages; nothing of a published image is in them.
package cloudtest

import (
	"crypto/sha256"
	_ "embed" // for the script below
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mirego/tasuki/internal/base/proc"
)

// script makes the disk, as a customize hook of mmdebstrap's.
//
//go:embed cloudimage.sh
var script string

// packages are what a cloud image of Debian's has, and what its making needs.
const packages = "linux-image-cloud-ARCH,initramfs-tools,lz4,zstd,systemd-sysv,systemd-boot-efi,dosfstools,mtools,fdisk," +
	"cloud-init,cloud-guest-utils,openssh-server,sudo,udev,dbus,e2fsprogs,util-linux,iproute2,kmod,python3"

// Disk makes a cloud image for an architecture that programs of this machine can
// run on, or takes it from the cache that test runs share. It takes minutes the
// first time. It returns the raw disk's path and its checksum, "sha256:HEX".
func Disk(t testing.TB, arch string) (path, checksum string) {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = t.TempDir()
	}
	include := strings.ReplaceAll(packages, "ARCH", arch)
	key := sha256.Sum256([]byte(include + script))
	path = filepath.Join(cache, "tasuki", "test-images", "cloud-"+hex.EncodeToString(key[:8])+".img")
	if _, err := os.Stat(path); err != nil {
		build(t, path, arch, include)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		t.Fatal(err)
	}
	return path, "sha256:" + hex.EncodeToString(h.Sum(nil))
}

func build(t testing.TB, disk, arch, include string) {
	t.Helper()
	work, err := os.MkdirTemp("", "cloud")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(work)
	out := filepath.Join(work, "disk")
	// The root of an ordinary user's namespace is another user.
	if err := errors.Join(os.Chmod(work, 0o777), os.WriteFile(out, nil, 0o666), os.Chmod(out, 0o666), os.MkdirAll(filepath.Dir(disk), 0o700)); err != nil {
		t.Fatal(err)
	}
	_, err = proc.Run(t.Context(), proc.Cmd{Path: "mmdebstrap", Args: []string{
		"--variant=minbase", "--format=null", "--skip=cleanup", "--arch=" + arch, "--include=" + include, "--aptopt=Acquire::Retries 3",
		"--customize-hook=" + script, "bookworm", "/dev/null",
	}, Env: []string{"DISK=" + out, "MKE2FS=/sbin/mke2fs"}, Dir: "/"})
	if err != nil {
		t.Fatal(err)
	}
	part := disk + ".part"
	if _, err := proc.Run(t.Context(), proc.Cmd{Path: "cp", Args: []string{"--sparse=always", out, part}}); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(part, disk); err != nil {
		t.Fatal(err)
	}
}
