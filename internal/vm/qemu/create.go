package qemu

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mirego/tasuki/internal/base/atomicfile"
	"github.com/mirego/tasuki/internal/base/proc"
	"github.com/mirego/tasuki/internal/image"
	"github.com/mirego/tasuki/internal/vm"
)

// What a guest gets where its spec does not say.
const (
	defaultCPUs      = 2
	defaultMemoryMiB = 2048
)

// Names of folders that are not guests (yet, or any more).
const (
	makingPrefix   = ".making-"
	deletingPrefix = ".deleting-"
)

// Create implements vm.Driver. The guest is made in a folder beside and
// appears by a rename, whole.
func (d *Driver) Create(ctx context.Context, spec vm.Spec) error {
	rec, err := d.recordOf(spec)
	if err != nil {
		return fmt.Errorf("cannot create the guest %q: %w", spec.Name, err)
	}
	unlock, err := d.lock(ctx, spec.Name)
	if err != nil {
		return err
	}
	defer unlock()
	dir := filepath.Join(d.opt.Home, spec.Name)
	if _, err := os.Lstat(dir); err == nil {
		_, err := d.guest(spec.Name)
		if errors.Is(err, vm.ErrNotFound) {
			return fmt.Errorf("cannot create the guest %q: %q is there and is not ours: %w", spec.Name, dir, vm.ErrSpec)
		}
		return err
	}
	if err := d.make(ctx, spec, rec, dir); err != nil {
		return fmt.Errorf("cannot create the guest %q: %w", spec.Name, err)
	}
	return nil
}

func (d *Driver) make(ctx context.Context, spec vm.Spec, rec record, dir string) error {
	making := filepath.Join(d.opt.Home, makingPrefix+spec.Name)
	if err := os.RemoveAll(making); err != nil {
		return err
	}
	if err := os.Mkdir(making, 0o700); err != nil {
		return err
	}
	d.step("folder made")
	lock, err := takeLock(making, os.O_RDONLY, unix.LOCK_EX)
	if err != nil || lock == nil {
		return cmp.Or(err, errors.New("another program makes it"))
	}
	defer lock.Close()
	err = d.fill(ctx, spec, rec, making)
	if err == nil {
		d.step("folder filled")
		err = os.Rename(making, dir)
	}
	if err != nil {
		return errors.Join(err, os.RemoveAll(making))
	}
	d.step("folder renamed")
	return atomicfile.SyncDir(d.opt.Home)
}

// fill makes the files of a guest that has not been started.
func (d *Driver) fill(ctx context.Context, spec vm.Spec, rec record, dir string) error {
	if err := writeJSON(filepath.Join(dir, recordFile), rec); err != nil {
		return err
	}
	d.step("record written")
	args := []string{"create", "-q", "-f", "qcow2", "-F", formatOf(spec.Image.Disk), "-b", spec.Image.Disk, filepath.Join(dir, diskFile)}
	size, err := diskSize(spec)
	if err != nil {
		return err
	}
	args = append(args, fmt.Sprint(size))
	if _, err := proc.Run(ctx, proc.Cmd{Path: d.opt.Img, Args: args}); err != nil {
		return fmt.Errorf("cannot clone the disk %q: %w", spec.Image.Disk, err)
	}
	d.step("disk cloned")
	if rec.Boot.Firmware == "" {
		return nil
	}
	return copyFile(filepath.Join(dir, varsFile), cmp.Or(rec.Boot.NVRAM, firmwareVars(rec.Boot.Firmware)))
}

// diskSize is the size of the guest's disk in bytes: what the spec asks for,
// but never less than the image's, and in whole sectors of 4 KiB.
func diskSize(spec vm.Spec) (int64, error) {
	size := spec.Image.DiskSize
	if formatOf(spec.Image.Disk) == "raw" {
		info, err := os.Stat(spec.Image.Disk)
		if err != nil {
			return 0, err
		}
		size = info.Size()
	}
	const sector = 4096
	size = max(size, int64(spec.DiskGB)*1e9)
	return (size + sector - 1) / sector * sector, nil
}

// recordOf checks a spec, without looking at any guest, and completes it.
func (d *Driver) recordOf(spec vm.Spec) (record, error) {
	if err := d.checkSpec(spec); err != nil {
		return record{}, err
	}
	how, err := d.bootOf(spec.Image)
	if err != nil {
		return record{}, err
	}
	return record{
		Version: recordVersion, Name: spec.Name, Owner: spec.Owner,
		Created: time.Now().UTC().Round(time.Millisecond), Image: spec.Image.Digest, Boot: how,
		User: cmp.Or(spec.Image.Labels[image.LabelUser], "root"),
		CPUs: cmp.Or(spec.CPUs, defaultCPUs), MemoryMiB: cmp.Or(spec.MemoryMiB, defaultMemoryMiB),
		Network: spec.Network, LoginKey: strings.TrimSpace(spec.LoginKey),
		Hostname: cmp.Or(spec.Hostname, spec.Name), UUID: newUUID(), Media: spec.Media,
	}, nil
}

// checkSpec adds what only this driver asks for to the rules of all.
func (d *Driver) checkSpec(spec vm.Spec) error {
	if err := vm.CheckSpec(spec, d.Capabilities()); err != nil {
		return err
	}
	if !d.ours(spec.Name) {
		return fmt.Errorf("its name does not begin with %q: %w", d.opt.Prefix, vm.ErrSpec)
	}
	if spec.Owner.Installation != d.opt.Installation {
		return fmt.Errorf("it belongs to the installation %q, this one is %q: %w", spec.Owner.Installation, d.opt.Installation, vm.ErrSpec)
	}
	for _, path := range spec.Media {
		if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() || !filepath.IsAbs(path) {
			return fmt.Errorf("the medium %q is not the absolute path of a file: %w", path, vm.ErrSpec)
		}
	}
	return d.checkNetwork(spec.Network)
}

// bootOf reads how an image's guests come up.
func (d *Driver) bootOf(img image.Local) (boot, error) {
	if img.Disk == "" || !filepath.IsAbs(img.Disk) {
		return boot{}, fmt.Errorf("the image has no disk: %w", vm.ErrSpec)
	}
	if _, err := os.Stat(img.Disk); err != nil {
		return boot{}, fmt.Errorf("the image's disk cannot be used: %w: %w", err, vm.ErrSpec)
	}
	switch how := img.Labels[image.LabelBoot]; how {
	case image.BootKernel:
		if img.Kernel == "" {
			return boot{}, fmt.Errorf("the image boots by kernel and has none: %w", vm.ErrSpec)
		}
		return boot{Kernel: img.Kernel, Initrd: img.Initrd, Cmdline: img.Labels[image.LabelCmdline]}, nil
	case image.BootFirmware, "":
		uefi, err := d.wantsUEFI(img)
		if err != nil || !uefi {
			return boot{}, err
		}
		code, err := d.firmware()
		return boot{Firmware: code, NVRAM: img.NVRAM}, err
	default:
		return boot{}, fmt.Errorf("the image boots by %q; %q and %q are known: %w", how, image.BootKernel, image.BootFirmware, vm.ErrSpec)
	}
}

func copyFile(to, from string) (err error) {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dst.Close()) }()
	_, err = io.Copy(dst, src)
	return err
}

// sweep finishes what was being made or deleted when we were killed. What
// another process still makes is locked, and left alone.
func (d *Driver) sweep() error {
	entries, err := os.ReadDir(d.opt.Home)
	if err != nil {
		return fmt.Errorf("cannot read the folder of the guests: %w", err)
	}
	for _, e := range entries {
		name, making := strings.CutPrefix(e.Name(), makingPrefix)
		if !making {
			var deleting bool
			if name, deleting = strings.CutPrefix(e.Name(), deletingPrefix); !deleting {
				continue
			}
		}
		if !strings.HasPrefix(name, d.opt.Prefix) {
			continue
		}
		if err := sweepOne(filepath.Join(d.opt.Home, e.Name())); err != nil {
			return fmt.Errorf("cannot remove what a crash left: %w", err)
		}
	}
	return nil
}

func sweepOne(dir string) error {
	lock, err := takeLock(dir, os.O_RDONLY, unix.LOCK_EX)
	if errors.Is(err, fs.ErrNotExist) || err == nil && lock == nil {
		return nil
	}
	if err != nil {
		return err
	}
	defer lock.Close()
	return os.RemoveAll(dir)
}
