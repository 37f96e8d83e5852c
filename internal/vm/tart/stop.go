package tart

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/mirego/tasuki/internal/base/atomicfile"
	"github.com/mirego/tasuki/internal/base/backoff"
	"github.com/mirego/tasuki/internal/base/proc"
	"github.com/mirego/tasuki/internal/vm"
)

// PowerOff implements vm.PowerOffer. The process of tart run is told to cut the
// guest's power, and killed if it does not.
func (d *Driver) PowerOff(ctx context.Context, name string) error {
	unlock, err := d.lock(ctx, name)
	if err != nil {
		return err
	}
	defer unlock()
	g, err := d.guest(name)
	if errors.Is(err, vm.ErrNotFound) {
		return nil
	}
	if err == nil {
		err = d.cut(ctx, g)
	}
	if err != nil {
		return fmt.Errorf("cannot power off the guest %q: %w", name, err)
	}
	return atomicfile.Remove(g.path(runFile))
}

// cut ends the guest's tart run: by SIGINT, which cuts the guest's power and
// gives its slot back, then by SIGKILL. It asks tart nothing, which may hang
// (incident freeze-in-stop). Returned without an error, nobody holds the guest.
func (d *Driver) cut(ctx context.Context, g *guest) error {
	ctx, cancel := context.WithTimeoutCause(ctx, d.times.cut, fmt.Errorf("it still held the machine after %v", d.times.cut))
	defer cancel()
	begun := time.Now()
	told := map[proc.ID]bool{}
	for wait := 2 * time.Millisecond; ; wait = min(2*wait, 100*time.Millisecond) {
		found, err := d.processes(g)
		if err != nil {
			return err
		}
		pid, err := holder(g.machine)
		if err != nil {
			return err
		}
		if len(found) == 0 {
			if pid == 0 {
				return nil
			}
			// One without a command line is just ending, its lock with it.
			if args, err := proc.Args(pid); err == nil && !runsMachine(args, g.name) {
				return fmt.Errorf("process %d holds its lock and is no tart run of it: left alone", pid)
			}
		}
		for _, id := range found {
			if err := d.end(id, told, time.Since(begun) >= d.times.grace); err != nil {
				return err
			}
		}
		if err := backoff.Sleep(ctx, wait); err != nil {
			return err
		}
	}
}

// end tells a process once to end, and kills one that had its time.
func (d *Driver) end(id proc.ID, told map[proc.ID]bool, kill bool) error {
	sig := syscall.SIGINT
	switch {
	case kill:
		sig = syscall.SIGKILL
		_ = id.Signal(syscall.SIGCONT, false)
	case told[id]:
		return nil
	}
	told[id] = true
	if err := id.Signal(sig, false); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot signal process %d: %w", id.PID, err)
	}
	return nil
}

// processes finds the guest's tart run: as it was written down, as the lock
// names it, and by its mark where neither is there yet. A process counts only
// if its command line says so, whatever its number.
func (d *Driver) processes(g *guest) ([]proc.ID, error) {
	var found []proc.ID
	if r, ok := g.readRun(); ok && r.Tart.Alive() {
		found = append(found, r.Tart)
	}
	pid, err := holder(g.machine)
	if err != nil {
		return nil, err
	}
	if pid != 0 {
		if id, err := proc.Identify(pid); err == nil {
			found = append(found, id)
		}
	}
	if len(found) == 0 {
		if found, err = proc.Marked(d.mark(g.name)); err != nil {
			return nil, err
		}
	}
	found = slices.DeleteFunc(found, func(id proc.ID) bool { return !isRun(id.PID, g.name) })
	slices.SortFunc(found, func(a, b proc.ID) int { return a.PID - b.PID })
	return slices.Compact(found), nil
}

// Destroy implements vm.Driver.
func (d *Driver) Destroy(ctx context.Context, name string) error {
	unlock, err := d.lock(ctx, name)
	if err != nil {
		return err
	}
	defer unlock()
	g, err := d.guest(name)
	if errors.Is(err, vm.ErrNotFound) {
		return nil
	}
	if err == nil {
		err = d.remove(ctx, g)
	}
	if err != nil {
		return fmt.Errorf("cannot destroy the guest %q: %w", name, err)
	}
	return nil
}

// remove takes a guest away: its power, its machine, its folder.
func (d *Driver) remove(ctx context.Context, g *guest) error {
	if err := d.here(); err != nil {
		return err
	}
	if !g.rec.Made {
		if err := d.endMaking(ctx, g); err != nil {
			return err
		}
	}
	if err := d.cut(ctx, g); err != nil {
		return err
	}
	if err := d.removeMachine(ctx, g); err != nil {
		return err
	}
	d.mu.Lock()
	delete(d.addresses, g.name)
	d.mu.Unlock()
	deleting := filepath.Join(d.opt.Home, deletingPrefix+g.name)
	if err := os.RemoveAll(deleting); err != nil {
		return err
	}
	if err := os.Rename(g.dir, deleting); err != nil {
		return err
	}
	return os.RemoveAll(deleting)
}

// endMaking ends the calls that make a guest and have outlived the agent that
// made them: a clone that ends later would bring the machine back, and nobody
// would know it.
func (d *Driver) endMaking(ctx context.Context, g *guest) error {
	found, err := proc.Marked(d.mark(g.name))
	if err != nil {
		return err
	}
	for _, id := range found {
		if isRun(id.PID, g.name) {
			continue // cut ends it, with its slot
		}
		if err := id.Kill(ctx); err != nil {
			return fmt.Errorf("cannot end process %d, which makes it: %w", id.PID, err)
		}
	}
	return nil
}

// deleteTries is how often tart is asked to delete a machine.
const deleteTries = 6

// removeMachine deletes the machine. tart refuses for a moment after a kill;
// where it refuses for good, or hangs, the folder is removed without it once
// nobody holds it (incident cut-vm-leaks-directory).
func (d *Driver) removeMachine(ctx context.Context, g *guest) error {
	pace := backoff.Policy{First: 50 * time.Millisecond, Most: time.Second}
	for n := 1; n <= deleteTries; n++ {
		if _, err := os.Lstat(g.machine); errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		_, err := d.inTurn(ctx, call{args: []string{"delete", g.name}, limit: d.times.delete})
		if err == nil || noSuchMachine(err) || errors.Is(err, errHung) {
			break
		}
		if ctx.Err() != nil {
			return err
		}
		d.log.Debug("tart does not delete a machine", "guest", g.name, "err", err)
		if says(err, "is running") {
			if err := d.cut(ctx, g); err != nil {
				return err
			}
		}
		if err := backoff.Sleep(ctx, pace.Delay(n, nil)); err != nil {
			return err
		}
	}
	if _, err := os.Lstat(g.machine); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return d.removeFolder(ctx, g)
}

// removeFolder removes what tart left of a machine, as tart would: under the
// turn, when nobody holds it.
func (d *Driver) removeFolder(ctx context.Context, g *guest) error {
	leave, err := d.takeTurn(ctx)
	if err != nil {
		return err
	}
	defer leave()
	if pid, err := holder(g.machine); err != nil || pid != 0 {
		return errors.Join(err, fmt.Errorf("process %d still holds its machine", pid))
	}
	if !strings.HasPrefix(g.machine, d.machinePath(d.opt.Prefix)) {
		return fmt.Errorf("%q is no machine of ours", g.machine)
	}
	d.log.Warn("machine removed without tart, which did not", "guest", g.name)
	return os.RemoveAll(g.machine)
}
