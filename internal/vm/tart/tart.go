// Package tart is the driver for guests under the tart command: macOS guests,
// and Linux ones, on Apple's Virtualization framework.
//
// tart keeps machines and images in a folder of its own, TART_HOME; a guest of
// ours is one of its machines. Beside it, a folder of the driver's home named
// as the guest holds
//
//	guest.json   who the guest is for and how it runs; written before it is cloned, makes it ours
//	run.json     written before each start: tart run's process
//	run.log      what tart run said
//
// so that whatever a crash leaves is found again, and nothing of anybody else
// is touched: tart knows no owners, and a clone replaces a machine of its name.
//
// The truth about a running guest is the lock that the process of tart run
// holds on the machine's config.json. Exit statuses are not: tart run ends with
// 0 when its guest crashed. That process outlives us, in a session of its own;
// it is ended by signals, to a process that is known by its start and its
// command line, and never by asking tart, which may hang.
//
// Calls of tart that change its folder are made one after the other, over all
// processes that use this driver, since tart itself does not lock all of them;
// each has a deadline.
//
// All this was tried against a stand-in (package tarttest) and on no Mac.
package tart

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/mirego/tasuki/internal/base/namelock"
	"github.com/mirego/tasuki/internal/base/proc"
	"github.com/mirego/tasuki/internal/image"
	"github.com/mirego/tasuki/internal/vm"
)

// maxMacGuests is how many macOS guests one Mac may run, whoever started them.
// Source: the macOS software licence agreement, section 2.B.(iii); the
// Virtualization framework enforces it.
const maxMacGuests = 2

// Options say where guests live and whose they are.
type Options struct {
	Home         string // folder of our records; made if it is missing
	TartHome     string // tart's folder; "" means TART_HOME, or ~/.tart
	Installation string // guests of another installation are not ours
	Prefix       string // begins the name of every guest of ours
	Path         string // of the tart program; "" means the one on PATH
	GuestOS      string // image.OSDarwin, the default, or image.OSLinux
	GuestArch    string // "" means this host's
	SSHPort      int    // of the SSH server in guests; 0 means 22
	// Machines counts the virtual machines of all programs on this host; nil
	// means: the processes of Apple's framework, on macOS.
	Machines func(context.Context) (int, error)
	Log      *slog.Logger
}

// Driver makes and runs guests under tart. It implements vm.Driver,
// vm.PowerOffer, vm.Addresser and vm.SlotCounter.
type Driver struct {
	opt   Options
	log   *slog.Logger
	times times
	turn  chan struct{} // one token while a call that changes tart's folder is made

	names namelock.Set

	asked   sync.Mutex // guards program
	program program

	mu        sync.Mutex
	addresses map[string]string // by guest, as last told
	slots     slotState
}

var (
	_ vm.Driver      = (*Driver)(nil)
	_ vm.PowerOffer  = (*Driver)(nil)
	_ vm.Addresser   = (*Driver)(nil)
	_ vm.SlotCounter = (*Driver)(nil)
)

// times are the deadlines of calls, and other patience.
type times struct {
	version, list, clone, set, delete, ip time.Duration
	start                                 time.Duration // until tart run holds the machine's lock
	settle                                time.Duration // from then until it counts as started
	grace                                 time.Duration // between SIGINT and SIGKILL
	cut                                   time.Duration // until the power is off
	slot                                  time.Duration // for a slot that was just left to become free
	leak                                  time.Duration // before a leaked slot is tried again
	stall                                 time.Duration // of a pull that says nothing
}

func defaultTimes() times {
	return times{
		version: 20 * time.Second, list: 20 * time.Second, clone: 5 * time.Minute, set: 30 * time.Second,
		delete: time.Minute, ip: 10 * time.Second, start: time.Minute, settle: 3 * time.Second,
		grace: 5 * time.Second, cut: 30 * time.Second, slot: 10 * time.Second, leak: 10 * time.Minute,
		stall: 20 * time.Minute,
	}
}

// New makes a driver on a home, asks tart for its version and removes what a
// crash left half deleted.
func New(opt Options) (*Driver, error) {
	d := &Driver{
		opt: opt, log: cmp.Or(opt.Log, slog.New(slog.DiscardHandler)), times: defaultTimes(),
		turn: make(chan struct{}, 1), addresses: map[string]string{},
	}
	if d.opt.Home == "" || d.opt.Prefix == "" || d.opt.Installation == "" {
		return nil, errors.New("cannot make a tart driver without home, installation and prefix")
	}
	d.opt.GuestOS = cmp.Or(opt.GuestOS, image.OSDarwin)
	d.opt.GuestArch = cmp.Or(opt.GuestArch, runtime.GOARCH)
	d.opt.SSHPort = cmp.Or(opt.SSHPort, 22)
	if d.opt.Machines == nil {
		d.opt.Machines = frameworkMachines
	}
	var err error
	if d.opt.Path, err = proc.Look(cmp.Or(opt.Path, "tart")); err != nil {
		return nil, fmt.Errorf("%w; install it: brew install openai/tools/tart", err)
	}
	if err := d.findFolders(); err != nil {
		return nil, err
	}
	if err := d.readVersion(context.Background()); err != nil {
		return nil, err
	}
	d.log.Info("tart is ready", "version", d.Version(), "home", d.opt.TartHome)
	return d, d.sweep()
}

// Program is the path of tart, and the environment that it must run in.
func (d *Driver) Program() (path string, env []string) { return d.opt.Path, d.env() }

// Capabilities implements vm.Driver.
func (d *Driver) Capabilities() vm.Capabilities {
	c := vm.Capabilities{
		Driver: "tart", GuestOS: d.opt.GuestOS, GuestArch: d.opt.GuestArch,
		Accel: "vz", AccelReason: "tart " + d.Version(),
	}
	if c.GuestOS == image.OSDarwin {
		c.MaxGuests = maxMacGuests
	}
	return c
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
