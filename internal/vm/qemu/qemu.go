// Package qemu is the driver for Linux guests under QEMU, with KVM, HVF, or
// emulation where there is neither.
//
// A guest is a folder of the driver's home, named as the guest:
//
//	guest.json   who the guest is for and how it runs; makes the folder ours
//	disk.qcow2   a copy-on-write overlay over the image's raw disk
//	run.lock     held (flock) for as long as its QEMU lives
//	run.json     written before each start: address, and QEMU's process
//	qmp.sock     QEMU's control socket
//	console.log  what the guest wrote to its serial console
//	qemu.log     what QEMU itself had to say
//
// A folder appears and disappears by a rename, so one that List shows is whole
// unless somebody else damaged it. Folders whose names begin with a dot are
// being made or deleted; the next Create, Destroy or New finishes them.
//
// The truth about a running guest is run.lock. We take it before QEMU starts
// and QEMU inherits it, so there is no instant at which a crash of ours hides
// a guest, and no stale file, reused process number or loss of power that
// shows one which is not there.
//
// The disk is an overlay and no reflink clone: it works on every file system,
// takes one short program and 200 kB, and leaves one way to test. What a
// raw clone would save, a table look-up in each first read, is little beside
// what the guest's own work costs.
package qemu

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/mirego/tasuki/internal/base/namelock"
	"github.com/mirego/tasuki/internal/base/proc"
	"github.com/mirego/tasuki/internal/image"
	"github.com/mirego/tasuki/internal/vm"
)

// Options say where guests live and whose they are.
type Options struct {
	Home         string   // folder of the guests; made if it is missing
	Installation string   // guests of another installation are not ours
	Prefix       string   // begins the name of every guest of ours
	Accel        string   // "auto", "kvm", "hvf" or "tcg"; "" means auto
	Arch         string   // the guests', in GOARCH form; "" means this machine's. Another's are emulated.
	Relay        []string // a program and its arguments, to which HOST:PORT is added: it connects its stdin and stdout to there
	Log          *slog.Logger

	// QEMU, Img and Passt are paths of qemu-system-ARCH, qemu-img and passt;
	// "" means the one on PATH.
	QEMU, Img, Passt string
}

// Driver makes and runs guests under QEMU. It implements vm.Driver,
// vm.PowerOffer and vm.Addresser, and stores nothing but its home.
type Driver struct {
	opt   Options
	log   *slog.Logger
	arch  string // of its guests
	accel accel

	names namelock.Set

	step func(string) // called between steps; tests die in it
}

var (
	_ vm.Driver     = (*Driver)(nil)
	_ vm.PowerOffer = (*Driver)(nil)
	_ vm.Addresser  = (*Driver)(nil)
)

// New makes a driver on a home, finishes what a crash left half deleted there,
// and finds out how guests can be run. The first time after a boot of the
// machine the latter takes up to 6 s where hardware virtualisation does not
// work; the answer is kept in the home.
func New(opt Options) (*Driver, error) {
	d := &Driver{
		opt: opt, log: cmp.Or(opt.Log, slog.New(slog.DiscardHandler)), arch: cmp.Or(opt.Arch, runtime.GOARCH),
		step: func(string) {},
	}
	if d.opt.Home == "" || d.opt.Prefix == "" || d.opt.Installation == "" {
		return nil, errors.New("cannot make a QEMU driver without home, installation and prefix")
	}
	if err := vm.CheckName(d.opt.Prefix + "x"); err != nil {
		return nil, fmt.Errorf("cannot use the prefix %q: %w", d.opt.Prefix, err)
	}
	var err error
	if d.opt.Home, err = filepath.Abs(d.opt.Home); err != nil {
		return nil, fmt.Errorf("cannot use the home %q: %w", opt.Home, err)
	}
	if err := d.findPrograms(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(d.opt.Home, 0o700); err != nil {
		return nil, fmt.Errorf("cannot make the folder of the guests: %w", err)
	}
	if err := d.sweep(); err != nil {
		return nil, err
	}
	if d.accel, err = d.chooseAccel(context.Background()); err != nil {
		return nil, err
	}
	d.log.Info("qemu is ready", "accel", d.accel.Name, "reason", d.accel.Reason)
	return d, nil
}

// systemNames are QEMU's names for the architectures that we know.
var systemNames = map[string]string{image.ArchAMD64: "x86_64", image.ArchARM64: "aarch64"}

// debianNames are the packages that bring qemu-system-ARCH.
var debianNames = map[string]string{image.ArchAMD64: "qemu-system-x86", image.ArchARM64: "qemu-system-arm qemu-efi-aarch64"}

func (d *Driver) findPrograms() error {
	system := systemNames[d.arch]
	if system == "" {
		return fmt.Errorf("cannot run guests for %q: %w", d.arch, vm.ErrUnsupported)
	}
	var err error
	if d.opt.QEMU, err = proc.Look(cmp.Or(d.opt.QEMU, "qemu-system-"+system)); err != nil {
		return d.installHint(err)
	}
	if d.opt.Img, err = proc.Look(cmp.Or(d.opt.Img, "qemu-img")); err != nil {
		return d.installHint(err)
	}
	return nil
}

func (d *Driver) installHint(err error) error {
	hint := "sudo apt-get install " + debianNames[d.arch] + " qemu-utils"
	if runtime.GOOS == "darwin" {
		hint = "brew install qemu"
	}
	return fmt.Errorf("%w; install it: %s", err, hint)
}

// Capabilities implements vm.Driver.
func (d *Driver) Capabilities() vm.Capabilities {
	return vm.Capabilities{
		Driver: "qemu", GuestOS: image.OSLinux, GuestArch: d.arch,
		Accel: d.accel.Name, AccelReason: d.accel.Reason,
	}
}

// Address implements vm.Addresser: the loopback port that leads to the guest's
// port 22.
func (d *Driver) Address(ctx context.Context, name string) (string, error) {
	g, err := d.guest(name)
	if err != nil {
		return "", err
	}
	if held, err := g.held(); err != nil || !held {
		return "", errors.Join(fmt.Errorf("cannot give an address of the guest %q: it does not run", name), err)
	}
	run, err := g.readRun()
	if err != nil || run.SSHPort == 0 {
		return "", errors.Join(fmt.Errorf("cannot give an address of the guest %q yet", name), err)
	}
	return fmt.Sprintf("127.0.0.1:%d", run.SSHPort), nil
}

// lock waits for the guest's lock or for the end of ctx.
func (d *Driver) lock(ctx context.Context, name string) (unlock func(), err error) {
	if unlock, err = d.names.Lock(ctx, name); err != nil {
		return nil, fmt.Errorf("cannot wait for the guest %q: %w", name, err)
	}
	return unlock, nil
}

// ours says whether a name can be one of our guests'.
func (d *Driver) ours(name string) bool {
	return strings.HasPrefix(name, d.opt.Prefix) && vm.CheckName(name) == nil
}

// startTimeout bounds how long QEMU may take until it answers, killTimeout how
// long a killed one may take until it is gone.
const (
	startTimeout = 30 * time.Second
	killTimeout  = 10 * time.Second
)
