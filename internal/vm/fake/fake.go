// Package fake is a driver whose guests are only bookkeeping: a folder, a
// sleeping process that stands for the hypervisor, and whatever runs inside.
//
// A fake guest is the folder DIR/NAME: guest.json says whom it is for, root is
// the inside, and root.on holds the proc.ID of the sleeping process. The guest
// has power while that process lives, so guests outlive the agent as real ones
// do. What package guest/local starts inside carries TASUKI_FAKE_GUEST=ROOT in
// its environment, by which PowerOff finds and ends it. The package is for
// tests, benchmarks and for trying Tasuki without a hypervisor; it isolates
// nothing. Ending what runs inside needs /proc, so Linux.
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
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/mirego/tasuki/internal/base/atomicfile"
	"github.com/mirego/tasuki/internal/base/backoff"
	"github.com/mirego/tasuki/internal/base/proc"
	"github.com/mirego/tasuki/internal/vm"
)

// mark is what guest/local puts into the environment of all that runs inside.
const mark = "TASUKI_FAKE_GUEST"

// Options say where the guests are and what goes wrong with them. A fault is
// nil where nothing does; it is asked for each guest at each call.
type Options struct {
	Dir          string // the guests' folders
	Installation string
	Prefix       string // of our guests' names; empty: any name is ours
	MaxGuests    int    // as vm.Capabilities; 0: no limit
	OS, Arch     string // of the guests; empty: "linux", this machine's

	// BootDelay is how long a guest has no address after its start.
	BootDelay func(name string) time.Duration
	// StartFault makes Start fail.
	StartFault func(name string) error
	// DestroyFault makes PowerOff and Destroy fail, before they do anything.
	DestroyFault func(name string) error
	// ListFault makes List fail; it may also block to make it hang.
	ListFault func(ctx context.Context) error
}

// Driver implements vm.Driver, vm.PowerOffer and vm.Addresser.
type Driver struct {
	opt Options

	mu    sync.Mutex
	locks map[string]*sync.Mutex // one call at a time for each guest
}

// New makes the folder and returns a driver on it.
func New(opt Options) (*Driver, error) {
	if opt.Dir == "" {
		return nil, errors.New("cannot make a fake driver without a folder")
	}
	dir, err := filepath.Abs(opt.Dir)
	if err != nil {
		return nil, fmt.Errorf("cannot make a fake driver: %w", err)
	}
	opt.Dir = dir
	if err := os.MkdirAll(opt.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("cannot make the folder of fake guests: %w", err)
	}
	if opt.OS == "" {
		opt.OS = "linux"
	}
	if opt.Arch == "" {
		opt.Arch = runtime.GOARCH
	}
	return &Driver{opt: opt, locks: map[string]*sync.Mutex{}}, nil
}

// record is guest.json.
type record struct {
	Owner   vm.Owner  `json:"owner"`
	Image   string    `json:"image"`
	Created time.Time `json:"created"`
}

// Capabilities implements vm.Driver.
func (d *Driver) Capabilities() vm.Capabilities {
	return vm.Capabilities{
		Driver: "fake", GuestOS: d.opt.OS, GuestArch: d.opt.Arch, MaxGuests: d.opt.MaxGuests,
		Accel: "none", AccelReason: "fake guests are folders and processes of this host",
	}
}

// Create implements vm.Driver.
func (d *Driver) Create(ctx context.Context, spec vm.Spec) error {
	if err := d.check(ctx, spec.Name); err != nil {
		return fmt.Errorf("cannot create guest: %w", err)
	}
	if err := vm.CheckSpec(spec, d.Capabilities()); err != nil {
		return fmt.Errorf("cannot create guest %q: %w", spec.Name, err)
	}
	if spec.Owner.Installation != "" && d.opt.Installation != "" && spec.Owner.Installation != d.opt.Installation {
		return fmt.Errorf("cannot create guest %q for installation %q: this is %q: %w", spec.Name, spec.Owner.Installation, d.opt.Installation, vm.ErrSpec)
	}
	defer d.lock(spec.Name)()
	if _, err := os.Lstat(d.path(spec.Name, "")); err == nil {
		return nil // whole or broken: it is left as it is
	}
	b, err := json.Marshal(record{Owner: spec.Owner, Image: spec.Image.Digest, Created: time.Now().UTC()})
	if err != nil {
		return err
	}
	if err := os.MkdirAll(d.root(spec.Name), 0o700); err != nil {
		return fmt.Errorf("cannot create guest %q: %w", spec.Name, err)
	}
	if err := atomicfile.Write(d.path(spec.Name, "guest.json"), b, 0o600); err != nil {
		return fmt.Errorf("cannot create guest %q: %w", spec.Name, err)
	}
	return nil
}

// Start implements vm.Driver.
func (d *Driver) Start(ctx context.Context, name string) error {
	if err := d.check(ctx, name); err != nil {
		return fmt.Errorf("cannot start guest: %w", err)
	}
	defer d.lock(name)()
	if _, err := d.read(name); err != nil {
		return fmt.Errorf("cannot start guest %q: %w", name, vm.ErrNotFound)
	}
	if d.power(name).Alive() {
		return nil
	}
	if d.opt.StartFault != nil {
		if err := d.opt.StartFault(name); err != nil {
			return fmt.Errorf("cannot start guest %q: %w", name, err)
		}
	}
	d.mu.Lock() // starts are counted one after the other
	defer d.mu.Unlock()
	if d.opt.MaxGuests > 0 && d.running() >= d.opt.MaxGuests {
		return fmt.Errorf("cannot start guest %q: %d run: %w", name, d.opt.MaxGuests, vm.ErrLimit)
	}
	id, err := proc.Detach(proc.Cmd{Path: "sleep", Args: []string{"1000000000"}, Env: []string{mark + "=" + d.root(name)}}, d.path(name, "console.log"))
	if err != nil {
		return fmt.Errorf("cannot start guest %q: %w", name, err)
	}
	b, err := json.Marshal(id)
	if err != nil {
		return err
	}
	if err := atomicfile.Write(d.root(name)+".on", b, 0o600); err != nil {
		_ = id.Kill(context.WithoutCancel(ctx))
		return fmt.Errorf("cannot start guest %q: %w", name, err)
	}
	return nil
}

// PowerOff implements vm.PowerOffer.
func (d *Driver) PowerOff(ctx context.Context, name string) error {
	if err := d.fault(ctx, name); err != nil {
		return fmt.Errorf("cannot power off guest %q: %w", name, err)
	}
	defer d.lock(name)()
	return d.powerOff(ctx, name)
}

// Destroy implements vm.Driver.
func (d *Driver) Destroy(ctx context.Context, name string) error {
	if err := d.fault(ctx, name); err != nil {
		return fmt.Errorf("cannot destroy guest %q: %w", name, err)
	}
	defer d.lock(name)()
	if _, err := os.Lstat(d.path(name, "")); errors.Is(err, fs.ErrNotExist) || !d.ours(name) {
		return nil
	}
	if err := d.powerOff(ctx, name); err != nil {
		return err
	}
	// guest.json goes first: what is left without it is shown as broken.
	if err := os.Remove(d.path(name, "guest.json")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot destroy guest %q: %w", name, err)
	}
	if err := os.RemoveAll(d.path(name, "")); err != nil {
		return fmt.Errorf("cannot destroy guest %q: %w", name, err)
	}
	return nil
}

// powerOff ends the guest's power first, so that nothing new begins inside,
// and then all that runs there.
func (d *Driver) powerOff(ctx context.Context, name string) error {
	on := d.root(name) + ".on"
	if _, err := os.Lstat(on); errors.Is(err, fs.ErrNotExist) {
		return nil // it never ran, or all of it was ended
	}
	if err := d.power(name).Kill(ctx); err != nil {
		return fmt.Errorf("cannot power off guest %q: %w", name, err)
	}
	for wait := time.Millisecond; ; wait = min(2*wait, 100*time.Millisecond) {
		inside, err := proc.Marked(mark + "=" + d.root(name))
		if err != nil {
			return fmt.Errorf("cannot power off guest %q: %w", name, err)
		}
		if len(inside) == 0 {
			break
		}
		for _, id := range inside {
			_ = id.Signal(syscall.SIGKILL, false)
		}
		if err := backoff.Sleep(ctx, wait); err != nil {
			return fmt.Errorf("cannot power off guest %q: %d processes go on: %w", name, len(inside), err)
		}
	}
	if err := atomicfile.Remove(on); err != nil {
		return fmt.Errorf("cannot power off guest %q: %w", name, err)
	}
	return nil
}

// List implements vm.Driver.
func (d *Driver) List(ctx context.Context) ([]vm.Instance, error) {
	if d.opt.ListFault != nil {
		if err := d.opt.ListFault(ctx); err != nil {
			return nil, fmt.Errorf("cannot list guests: %w", err)
		}
	}
	if ctx.Err() != nil {
		return nil, fmt.Errorf("cannot list guests: %w", context.Cause(ctx))
	}
	entries, err := os.ReadDir(d.opt.Dir)
	if err != nil {
		return nil, fmt.Errorf("cannot list guests: %w", err)
	}
	var all []vm.Instance
	for _, e := range entries {
		if e.IsDir() && d.ours(e.Name()) {
			all = append(all, d.instance(e.Name()))
		}
	}
	slices.SortFunc(all, func(a, b vm.Instance) int { return strings.Compare(a.Name, b.Name) })
	return all, nil
}

func (d *Driver) instance(name string) vm.Instance {
	in := vm.Instance{Name: name, State: vm.Stopped, Console: d.path(name, "console.log")}
	rec, err := d.read(name)
	if err != nil {
		in.State, in.Reason = vm.Broken, "half made or half deleted: "+err.Error()
		return in
	}
	in.Owner, in.Created, in.Image = rec.Owner, rec.Created, rec.Image
	if id := d.power(name); id.Alive() {
		in.State = vm.Running
	} else if id.PID != 0 {
		in.Reason = fmt.Sprintf("its process %d is gone", id.PID)
	}
	return in
}

// Address implements vm.Addresser: it is the guest's root folder.
func (d *Driver) Address(ctx context.Context, name string) (string, error) {
	if err := d.check(ctx, name); err != nil {
		return "", fmt.Errorf("cannot find the guest's address: %w", err)
	}
	if _, err := d.read(name); err != nil {
		return "", fmt.Errorf("cannot find the address of guest %q: %w", name, vm.ErrNotFound)
	}
	info, err := os.Stat(d.root(name) + ".on")
	if err != nil {
		return "", fmt.Errorf("guest %q has no address: it does not run", name)
	}
	if d.opt.BootDelay != nil && time.Since(info.ModTime()) < d.opt.BootDelay(name) {
		return "", fmt.Errorf("guest %q has no address yet: it boots", name)
	}
	return d.root(name), nil
}

// running counts guests that have power. The caller holds d.mu.
func (d *Driver) running() int {
	entries, _ := os.ReadDir(d.opt.Dir)
	n := 0
	for _, e := range entries {
		if e.IsDir() && d.power(e.Name()).Alive() {
			n++
		}
	}
	return n
}

func (d *Driver) fault(ctx context.Context, name string) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if d.opt.DestroyFault != nil {
		return d.opt.DestroyFault(name)
	}
	return nil
}

func (d *Driver) check(ctx context.Context, name string) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err := vm.CheckName(name); err != nil {
		return err
	}
	if !d.ours(name) {
		return fmt.Errorf("%q does not begin with %q: %w", name, d.opt.Prefix, vm.ErrSpec)
	}
	return nil
}

// ours says whether a folder is a guest of ours: by its prefix, and by whom
// it was made for where that can be read.
func (d *Driver) ours(name string) bool {
	if !strings.HasPrefix(name, d.opt.Prefix) || vm.CheckName(name) != nil {
		return false
	}
	rec, err := d.read(name)
	return err != nil || rec.Owner.Installation == d.opt.Installation || d.opt.Installation == ""
}

func (d *Driver) read(name string) (record, error) {
	b, err := os.ReadFile(d.path(name, "guest.json"))
	if err != nil {
		return record{}, err
	}
	var rec record
	if err := json.Unmarshal(b, &rec); err != nil {
		return record{}, fmt.Errorf("cannot read guest.json: %w", err)
	}
	return rec, nil
}

// power returns the process that stands for the hypervisor; zero if none.
func (d *Driver) power(name string) proc.ID {
	b, err := os.ReadFile(d.root(name) + ".on")
	if err != nil {
		return proc.ID{}
	}
	var id proc.ID
	if json.Unmarshal(b, &id) != nil {
		return proc.ID{}
	}
	return id
}

func (d *Driver) path(name, file string) string { return filepath.Join(d.opt.Dir, name, file) }

func (d *Driver) root(name string) string { return d.path(name, "root") }

// lock lets one call at a time work on a guest, and returns the end of that.
func (d *Driver) lock(name string) (unlock func()) {
	d.mu.Lock()
	l := d.locks[name]
	if l == nil {
		l = &sync.Mutex{}
		d.locks[name] = l
	}
	d.mu.Unlock()
	l.Lock()
	return l.Unlock
}
