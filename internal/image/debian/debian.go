// Package debian builds the Linux guest image of the demo: Debian 12 with sshd,
// git and a runner program, from Debian's packages.
//
// A build is one run of mmdebstrap. mmdebstrap makes the tree; its hooks make a
// guest of it (recipe/customize.sh) and, still inside mmdebstrap's namespace where
// every file has its right owner, the disk (recipe/disk.sh, "mke2fs -d"). So an ordinary user can build as well as root, and no step
// mounts a disk.
//
// The recipe is everything in this package that decides the outcome: the package
// list, the hook and the files of folder recipe. Its key is the digest of the
// recipe, the runner program and the architecture; an image that was built
// under that key is taken as it is, so a changed recipe needs no version to be
// raised and a second run does nothing. Packages that Debian has updated since
// do not change the key: remove the cached image to take them.
//
// # The guest
//
// It boots by kernel and initrd (image.BootKernel). The disk is one ext4 file
// system without a partition table, /dev/vda. User runner (sudo without
// password) owns the runner program in RunnerDir. Logins are by key alone. The key
// arrives as a systemd credential named "ssh.authorized_keys.runner", root's as
// "ssh.authorized_keys.root", both through SMBIOS strings of type 11
// ("io.systemd.credential.binary:NAME=BASE64"), or fw_cfg on arm64. The host
// name is the kernel's argument systemd.hostname. The machine id is made anew
// at each boot, the address comes by DHCP, the disk is grown to its size.
//
// The image carries the private half of the SSH host key that image.LabelHostKey
// names, so whoever can read the image can pose as a guest of it.
//
// # Boot time
//
// From the start of QEMU 7.2 under emulation (2 cores) to an answered SSH command
// it was 39 s with Debian's own kernel, initrd and services, and is 5 to 6 s. The
// parts were measured one after the other, once each on a busy machine; the last
// one contains up to 5 s of the client's own waiting:
//
//   - 13 s fewer by a small initrd of our own (klibc's shell, eight drivers, no udev);
//   - 7 s fewer by an uncompressed kernel, which QEMU enters directly (PVH);
//   - 7 s fewer by starting nothing but the journal, the login keys, udhcpc and
//     sshd (no udev, networkd, logind, getty, timers, generators);
//   - 6 s fewer by kernel arguments (see cmdline), above all no mitigations, no
//     zeroing of fresh pages and no security modules: a guest serves one job.
//
// QEMU does its part with -M q35,hpet=off,usb=off,smbus=off,sata=off,i8042=off,
// vmport=off -cpu max -smp 2 -nodefaults, virtio disk and network without option
// ROMs. One processor, an older CPU model, machine "pc" and a larger translation
// buffer were slower or no faster; machine "microvm" has no SMBIOS. No arm64 guest
// has been built or booted yet.
package debian

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"time"

	"github.com/mirego/tasuki/internal/base/atomicfile"
	"github.com/mirego/tasuki/internal/image"
)

// RunnerDir is where the guest has the runner program.
const RunnerDir = "/home/runner/actions-runner"

// ActBinary is the name of github-act-runner in RunnerDir.
const ActBinary = "github-act-runner"

// diskSize is the apparent size of the disk in bytes; about 0.4 GB are used.
const diskSize = 4 << 30

// Sentinel errors. Their wrapped messages carry the command that mends it.
var (
	// ErrHost says that this machine lacks something that a build needs.
	ErrHost = errors.New("this machine cannot build the image")
	// ErrRunner says that Options.Runner is no runner for the guest.
	ErrRunner = errors.New("unusable runner program")
	// ErrPackage says that Options.Packages names no package.
	ErrPackage = errors.New("unusable name of a package")
)

// packageForm is how Debian names packages, with a version or architecture
// (Debian policy 5.6.1).
var packageForm = regexp.MustCompile(`^[a-z0-9][a-z0-9.+:=~-]+$`)

// Progress is called with what a build is doing and how much of it is done, from
// 0 to 1 and never decreasing. Calls come one at a time.
type Progress func(done float64, doing string)

// Options says what to build and where.
type Options struct {
	// CacheDir holds one folder for each image that was built, named by its key.
	// It is made where missing. Required.
	CacheDir string
	// OutDir, where set, takes the image in place of a folder in CacheDir.
	OutDir string
	// Runner is the path of a static github-act-runner for the guest, or of a
	// folder in the layout of actions/runner (run.sh, bin/Runner.Listener).
	// Empty: the image has no runner program, and its labels name none.
	Runner string
	// Packages are Debian packages beyond those that every guest has.
	Packages []string
	// Arch is the guest's architecture in GOARCH form. Empty means this machine's,
	// and no other can be built so far: the packages' scripts run here.
	Arch string
	// Mirror replaces Debian's own ("http://deb.debian.org/debian").
	Mirror string
	// Progress may be nil.
	Progress Progress
	// Log may be nil.
	Log *slog.Logger
}

func (o *Options) setDefaults() error {
	if o.CacheDir == "" {
		return errors.New("cannot build a Debian image: CacheDir is required")
	}
	for _, p := range o.Packages {
		if !packageForm.MatchString(p) {
			return fmt.Errorf("cannot build a Debian image: %q is not a package: %w", p, ErrPackage)
		}
	}
	var err error
	if o.CacheDir, err = filepath.Abs(o.CacheDir); err != nil {
		return err
	}
	if o.OutDir != "" {
		if o.OutDir, err = filepath.Abs(o.OutDir); err != nil {
			return err
		}
	}
	o.Arch = cmp.Or(o.Arch, runtime.GOARCH)
	o.Log = cmp.Or(o.Log, slog.New(slog.DiscardHandler))
	if o.Progress == nil {
		o.Progress = func(float64, string) {}
	}
	return nil
}

// Build returns the image of these options, built now unless it was built before.
// Processes that build the same at once wait for the first. When ctx ends, the
// half-built image is removed. Errors: ErrHost, ErrRunner.
func Build(ctx context.Context, o Options) (image.Source, error) {
	if err := o.setDefaults(); err != nil {
		return image.Source{}, err
	}
	p, err := readPayload(o.Runner, o.Arch)
	if err != nil {
		return image.Source{}, err
	}
	key := recipeKey(p, o)
	dir := cmp.Or(o.OutDir, filepath.Join(o.CacheDir, key[:16]))
	if src, err := load(dir, key); err == nil {
		return src, nil
	}
	if err := os.MkdirAll(o.CacheDir, 0o700); err != nil {
		return image.Source{}, fmt.Errorf("cannot make the folder of built images: %w", err)
	}
	unlock, err := lock(ctx, filepath.Join(o.CacheDir, "lock"))
	if err != nil {
		return image.Source{}, err
	}
	defer unlock()
	src, err := load(dir, key)
	if err == nil {
		return src, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		o.Log.Info("cached image is unusable", "dir", dir, "err", err)
	}
	started := time.Now()
	if err := buildInto(ctx, o, p, key, dir); err != nil {
		return image.Source{}, fmt.Errorf("cannot build the Debian image: %w", err)
	}
	o.Log.Info("image built", "dir", dir, "took", time.Since(started).Round(time.Millisecond))
	prune(o.CacheDir, dir, o.Log)
	return load(dir, key)
}

// Cached returns the image of these options if it was built before. Otherwise
// the error is fs.ErrNotExist.
func Cached(o Options) (image.Source, error) {
	if err := o.setDefaults(); err != nil {
		return image.Source{}, err
	}
	p, err := readPayload(o.Runner, o.Arch)
	if err != nil {
		return image.Source{}, err
	}
	key := recipeKey(p, o)
	return load(cmp.Or(o.OutDir, filepath.Join(o.CacheDir, key[:16])), key)
}

// buildInto makes the image in a folder beside dir and renames it when it is whole.
func buildInto(ctx context.Context, o Options, p payload, key, dir string) error {
	if err := preflight(o.Arch); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return err
	}
	sweep(filepath.Dir(dir))
	work, err := os.MkdirTemp(filepath.Dir(dir), workPrefix)
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	host, err := bootstrap(ctx, o, p, key, work)
	if err != nil {
		return err
	}
	meta := metadata{Key: key, Labels: labels(o.Arch, p, key, host, time.Now())}
	data, err := json.MarshalIndent(meta, "", "  ")
	if err != nil {
		return err
	}
	if err := atomicfile.Write(filepath.Join(work, metadataFile), append(data, '\n'), 0o600); err != nil {
		return err
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	o.Progress(1, "image built")
	return os.Rename(work, dir)
}
