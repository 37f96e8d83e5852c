// Package fake is a driver whose guests are bookkeeping and processes of this
// host, for tests and rehearsals: hundreds of them are cheap, and each trouble
// that a hypervisor can make is an option.
//
// A guest is a folder below Options.Dir:
//
//	NAME/guest.json    who it is for
//	NAME/root/         its disk, and the home of the user inside; the address
//	NAME/root.on       the proc.ID of the process that stands for the hypervisor
//	NAME/boot.json     when it has an address
//	NAME/console.log   what that process printed
//	.half-NAME/        a guest that is being made or deleted
//	leaked             if it is there: how many slots have leaked, as a number
//
// That process is real, detached, and the truth: the guest runs for as long as
// it lives, so guests outlive the agent, and a reboot of the host ends them.
// Whatever runs inside is started through the channel guest/local with Mark in
// its environment; by it PowerOff and Destroy find and end it, whoever started
// it and whatever became of its parents.
//
// On macOS the system hides the environment of /bin/sh and the like, so that
// what runs inside can outlive its guest there.
package fake

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/mirego/tasuki/internal/base/atomicfile"
	"github.com/mirego/tasuki/internal/base/namelock"
	"github.com/mirego/tasuki/internal/base/proc"
	"github.com/mirego/tasuki/internal/vm"
)

// Mark is the environment variable of all that runs in a guest; its value is
// the guest's address. The channel guest/local knows the same word.
const Mark = "TASUKI_FAKE_GUEST"

// Options says where guests live and what trouble they make.
type Options struct {
	Dir          string // made if missing; absolute paths come of it
	Installation string // whose guests are ours
	Prefix       string // begins the name of every guest of ours; may be ""
	MaxGuests    int    // 0: no limit
	// BootDelay is how long a guest takes from Start to its address; nil: no time.
	BootDelay func(name string) time.Duration
	Faults    Faults
}

// Driver is a vm.Driver, a vm.PowerOffer, a vm.Addresser and a vm.SlotCounter.
type Driver struct {
	opts  Options
	dir   string
	names namelock.Set
	slots sync.Mutex // held while a guest is counted and started

	mu    sync.Mutex
	tries map[attempt]int
}

var (
	_ vm.Driver      = (*Driver)(nil)
	_ vm.PowerOffer  = (*Driver)(nil)
	_ vm.Addresser   = (*Driver)(nil)
	_ vm.SlotCounter = (*Driver)(nil)
)

// New opens the driver on a folder, whose guests it adopts.
func New(opts Options) (*Driver, error) {
	dir, err := filepath.Abs(opts.Dir)
	if err != nil || opts.Dir == "" {
		return nil, fmt.Errorf("cannot keep fake guests in %q: %w", opts.Dir, errors.Join(err, fs.ErrInvalid))
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("cannot keep fake guests: %w", err)
	}
	return &Driver{opts: opts, dir: dir, tries: make(map[attempt]int)}, nil
}

// Capabilities implements vm.Driver.
func (d *Driver) Capabilities() vm.Capabilities {
	return vm.Capabilities{
		Driver: "fake", GuestOS: "linux", GuestArch: runtime.GOARCH,
		MaxGuests: d.opts.MaxGuests,
		Accel:     "none", AccelReason: "fake guests are processes of this host",
	}
}

// Create implements vm.Driver.
func (d *Driver) Create(ctx context.Context, spec vm.Spec) error {
	if err := d.check(spec); err != nil {
		return fmt.Errorf("cannot create guest %q: %w", spec.Name, err)
	}
	err := d.do(ctx, OpCreate, spec.Name, func() error {
		if _, ok := d.look(spec.Name); ok {
			return nil
		}
		if _, err := os.Lstat(d.folder(spec.Name)); err == nil {
			return fmt.Errorf("another installation has a guest of this name: %w", vm.ErrSpec)
		}
		half := d.half(spec.Name)
		if err := os.MkdirAll(filepath.Join(half, rootDir), 0o700); err != nil {
			return err
		}
		err := writeJSON(filepath.Join(half, recordFile), record{
			Owner: spec.Owner, Image: spec.Image.Digest, Created: time.Now().UTC(), LoginKey: spec.LoginKey,
		})
		if err != nil {
			return err
		}
		return os.Rename(half, d.folder(spec.Name))
	})
	if err != nil {
		return fmt.Errorf("cannot create guest %q: %w", spec.Name, err)
	}
	return nil
}

// Start implements vm.Driver.
func (d *Driver) Start(ctx context.Context, name string) error {
	err := d.do(ctx, OpStart, name, func() error {
		d.slots.Lock()
		defer d.slots.Unlock()
		in, ok := d.look(name)
		switch {
		case !ok:
			return vm.ErrNotFound
		case in.State == vm.Running:
			return nil
		case in.State == vm.Broken:
			return errors.New(in.Reason)
		}
		leaked := d.Slots().Leaked
		if most := d.opts.MaxGuests; most > 0 && leaked > 0 && d.running()+leaked >= most {
			return fmt.Errorf("%d of %d run: %w", d.running(), most, vm.ErrLeaked)
		}
		if most := d.opts.MaxGuests; most > 0 && d.running() >= most {
			return fmt.Errorf("%d of %d run: %w", most, most, vm.ErrLimit)
		}
		return d.boot(name)
	})
	if err != nil {
		return fmt.Errorf("cannot start guest %q: %w", name, err)
	}
	return nil
}

// boot gives a guest its power.
func (d *Driver) boot(name string) error {
	var delay time.Duration
	if d.opts.BootDelay != nil {
		delay = d.opts.BootDelay(name)
	}
	b := boot{Ready: time.Now().Add(delay), Never: d.opts.Faults.NeverBoots.of(name)}
	if err := writeJSON(d.file(name, bootFile), b); err != nil {
		return err
	}
	script := `echo booting; exec sleep 2147483647`
	dies := d.opts.Faults.DiesBooting.of(name)
	if dies {
		script = fmt.Sprintf(`echo booting; sleep %.3f; echo "kernel panic"; exit 1`, delay.Seconds())
	}
	// The guest's hypervisor bears its mark too: between its start and the
	// file that names it, kill -9 of us would leave it to nobody.
	power, err := proc.Detach(proc.Cmd{
		Path: "sh", Args: []string{"-c", script}, Dir: d.folder(name),
		Bare: true, Env: []string{d.mark(name), "PATH=" + os.Getenv("PATH")},
	}, d.file(name, consoleFile))
	if dies && errors.Is(err, fs.ErrNotExist) {
		err = nil // dead before it was seen; no process is power that is off
	}
	if err != nil {
		return err
	}
	return writeJSON(d.root(name)+".on", power)
}

// PowerOff implements vm.PowerOffer.
func (d *Driver) PowerOff(ctx context.Context, name string) error {
	err := d.do(ctx, OpPowerOff, name, func() error {
		if in, ok := d.look(name); !ok || in.State == vm.Broken {
			return nil
		}
		if err := d.cut(ctx, name); err != nil {
			return err
		}
		return absent(os.Remove(d.root(name) + ".on"))
	})
	if err != nil {
		return fmt.Errorf("cannot power guest %q off: %w", name, err)
	}
	return nil
}

// Destroy implements vm.Driver.
func (d *Driver) Destroy(ctx context.Context, name string) error {
	err := d.do(ctx, OpDestroy, name, func() error {
		if _, ok := d.look(name); !ok {
			return nil
		}
		if err := d.cut(ctx, name); err != nil {
			return err
		}
		if err := os.RemoveAll(d.half(name)); err != nil {
			return err
		}
		if err := absent(os.Rename(d.folder(name), d.half(name))); err != nil {
			return err
		}
		return os.RemoveAll(d.half(name))
	})
	if err != nil {
		return fmt.Errorf("cannot destroy guest %q: %w", name, err)
	}
	return nil
}

// cut ends the guest's hypervisor and all that runs inside. Returned without an
// error, nothing of it is left.
func (d *Driver) cut(ctx context.Context, name string) error {
	if power, ok := d.power(name); ok {
		if err := power.Kill(ctx); err != nil {
			return err
		}
	}
	// What is seen may start more before it dies: look until nothing is seen.
	for {
		inside, err := proc.Marked(d.mark(name))
		if err != nil || len(inside) == 0 {
			return err
		}
		for _, id := range inside {
			if err := id.Signal(syscall.SIGKILL, false); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		for _, id := range inside {
			if err := id.Kill(ctx); err != nil {
				return err
			}
		}
	}
}

// Crash ends a running guest behind the driver's back, as when its hypervisor
// dies.
func (d *Driver) Crash(ctx context.Context, name string) error { return d.cut(ctx, name) }

// PowerLoss ends all guests of ours as a hard reset of the host does: what is
// on the disk still says that they run.
func (d *Driver) PowerLoss(ctx context.Context) error {
	all, err := d.list()
	for _, in := range all {
		err = errors.Join(err, d.cut(ctx, in.Name))
	}
	return err
}

// List implements vm.Driver.
func (d *Driver) List(ctx context.Context) ([]vm.Instance, error) {
	if err := d.before(ctx, OpList, ""); err != nil {
		return nil, fmt.Errorf("cannot list guests: %w", err)
	}
	all, err := d.list()
	if err != nil {
		return nil, fmt.Errorf("cannot list guests: %w", err)
	}
	return all, nil
}

// Address implements vm.Addresser with the guest's root folder, an address for
// the channel guest/local.
func (d *Driver) Address(ctx context.Context, name string) (string, error) {
	if err := d.before(ctx, OpAddress, name); err != nil {
		return "", fmt.Errorf("cannot tell the address of guest %q: %w", name, err)
	}
	in, ok := d.look(name)
	if !ok {
		return "", fmt.Errorf("cannot tell the address of guest %q: %w", name, vm.ErrNotFound)
	}
	var b boot
	err := readJSON(d.file(name, bootFile), &b)
	if in.State != vm.Running || err != nil || b.Never || time.Now().Before(b.Ready) {
		return "", fmt.Errorf("cannot tell the address of guest %q: it is %s and has none yet", name, in.State)
	}
	return d.root(name), nil
}

// do runs one operation on a guest, alone.
func (d *Driver) do(ctx context.Context, op Op, name string, work func() error) error {
	if err := d.before(ctx, op, name); err != nil {
		return err
	}
	if vm.CheckName(name) != nil || !strings.HasPrefix(name, d.opts.Prefix) {
		// Not ours, whatever it is.
		if op == OpDestroy || op == OpPowerOff {
			return nil
		}
		return vm.ErrNotFound
	}
	unlock, err := d.names.Lock(ctx, name)
	if err != nil {
		return err
	}
	defer unlock()
	return work()
}

func writeJSON(path string, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return atomicfile.Write(path, text, 0o600)
}

func readJSON(path string, v any) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, v)
}

// absent makes nothing of the error that a file is not there.
func absent(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
