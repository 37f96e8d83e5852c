package tart

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/mirego/tasuki/internal/base/atomicfile"
	"github.com/mirego/tasuki/internal/base/proc"
	"github.com/mirego/tasuki/internal/image"
	"github.com/mirego/tasuki/internal/vm"
)

// Files of a guest's folder, and of tart's for its machine.
const (
	recordFile  = "guest.json"
	runFile     = "run.json"
	logFile     = "run.log"
	configFile  = "config.json"
	controlFile = "control.sock"

	deletingPrefix = ".deleting-"
)

// recordVersion is the form of guest.json.
const recordVersion = 1

// record is guest.json.
type record struct {
	Version int        `json:"version"`
	Name    string     `json:"name"`
	Owner   vm.Owner   `json:"owner"`
	Created time.Time  `json:"created"`
	Image   string     `json:"image"` // digest
	Network vm.Network `json:"network"`
	Machine vm.Machine `json:"machine,omitzero"`
	// Made says that the machine was cloned and set.
	Made bool `json:"made"`
}

// run is run.json. It is there from before a start until we power the guest
// off, so one without a process is a death.
type run struct {
	Tart proc.ID `json:"tart"`
}

// guest is one folder of ours.
type guest struct {
	name    string
	dir     string // ours
	machine string // tart's
	rec     record
	broken  string // why only Destroy helps; "" if it does not
}

func (g *guest) path(file string) string { return filepath.Join(g.dir, file) }

func (d *Driver) machinePath(name string) string { return filepath.Join(d.opt.TartHome, "vms", name) }

// guest reads a guest's folder. ErrNotFound: there is none, or it is not ours.
func (d *Driver) guest(name string) (*guest, error) {
	if !d.ours(name) {
		return nil, fmt.Errorf("cannot find the guest %q: %w", name, vm.ErrNotFound)
	}
	g := &guest{name: name, dir: filepath.Join(d.opt.Home, name), machine: d.machinePath(name)}
	data, err := os.ReadFile(g.path(recordFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("cannot find the guest %q: %w", name, vm.ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read the guest %q: %w", name, err)
	}
	if err := json.Unmarshal(data, &g.rec); err != nil {
		g.rec, g.broken = record{}, fmt.Sprintf("its %s cannot be read: %v", recordFile, err)
		return g, nil
	}
	switch {
	case g.rec.Owner.Installation != d.opt.Installation:
		return nil, fmt.Errorf("cannot use the guest %q: it belongs to the installation %q: %w", name, g.rec.Owner.Installation, vm.ErrNotFound)
	case g.rec.Version != recordVersion:
		g.broken = fmt.Sprintf("its %s has the version %d, this program knows %d", recordFile, g.rec.Version, recordVersion)
	case !g.rec.Made:
		g.broken = "it was cloned by half"
	default:
		if _, err := os.Stat(filepath.Join(g.machine, configFile)); errors.Is(err, fs.ErrNotExist) {
			g.broken = "tart does not have it any more"
		}
	}
	return g, nil
}

func writeJSON(path string, v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return atomicfile.Write(path, append(data, '\n'), 0o600)
}

// readRun returns the last start that was not ended by us; false if there is
// none.
func (g *guest) readRun() (r run, there bool) {
	data, err := os.ReadFile(g.path(runFile))
	if err != nil {
		return run{}, false
	}
	_ = json.Unmarshal(data, &r) // a torn one is a start all the same
	return r, true
}

// holder returns the process that holds the lock of a machine's config.json, 0
// if none does. We hold no such lock, which closing the file would drop.
func holder(machine string) (int, error) {
	f, err := os.OpenFile(filepath.Join(machine, configFile), os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer f.Close()
	lock := syscall.Flock_t{Type: syscall.F_WRLCK, Whence: io.SeekStart}
	if err := syscall.FcntlFlock(f.Fd(), syscall.F_GETLK, &lock); err != nil {
		return 0, fmt.Errorf("cannot ask for the lock of %q: %w", f.Name(), err)
	}
	if lock.Type == syscall.F_UNLCK {
		return 0, nil
	}
	return int(lock.Pid), nil
}

// running is a macOS machine of anybody's that runs under tart here.
type running struct {
	name   string
	darwin bool
}

// runningMachines looks at the locks of all machines in tart's folder, without
// asking tart.
func (d *Driver) runningMachines() ([]running, error) {
	entries, err := os.ReadDir(filepath.Join(d.opt.TartHome, "vms"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("cannot read tart's folder: %w", err)
	}
	var all []running
	for _, e := range entries {
		dir := d.machinePath(e.Name())
		if pid, err := holder(dir); err != nil || pid == 0 {
			continue // gone this moment, or not ours to see
		}
		var c struct{ OS string }
		data, err := os.ReadFile(filepath.Join(dir, configFile))
		if err == nil {
			err = json.Unmarshal(data, &c)
		}
		// One whose configuration cannot be read counts: better one guest less.
		all = append(all, running{e.Name(), err != nil || c.OS != image.OSLinux})
	}
	return all, nil
}

// isRun says whether a process is the tart run of this machine.
func isRun(pid int, name string) bool {
	args, err := proc.Args(pid)
	return err == nil && runsMachine(args, name)
}

// runsMachine says whether a command line is that of the machine's tart run.
func runsMachine(args []string, name string) bool {
	return slices.Contains(args, "run") && args[len(args)-1] == name
}

// sweep removes folders that a crash left half deleted.
func (d *Driver) sweep() error {
	entries, err := os.ReadDir(d.opt.Home)
	if err != nil {
		return fmt.Errorf("cannot read the folder of the guests: %w", err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), deletingPrefix+d.opt.Prefix) {
			if err := os.RemoveAll(filepath.Join(d.opt.Home, e.Name())); err != nil {
				return fmt.Errorf("cannot remove what a crash left: %w", err)
			}
		}
	}
	return nil
}
