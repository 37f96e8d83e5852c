package tart

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/mirego/tasuki/internal/base/backoff"
	"github.com/mirego/tasuki/internal/base/logtail"
	"github.com/mirego/tasuki/internal/base/proc"
	"github.com/mirego/tasuki/internal/vm"
)

// markName is in the environment of each tart run of ours, with the path of the
// guest's folder: one that was started and not yet written down is found by it.
const markName = "TASUKI_TART_GUEST"

func (d *Driver) mark(name string) string {
	return markName + "=" + filepath.Join(d.opt.Home, name)
}

// Start implements vm.Driver. It returns when tart run holds the machine and
// its control socket is there, or a few seconds after the former. Where the
// hypervisor refuses although a slot should be free, it is asked again for a
// while, since a slot that was just left takes a moment, and then the error is
// vm.ErrLeaked.
func (d *Driver) Start(ctx context.Context, name string) error {
	unlock, err := d.lock(ctx, name)
	if err != nil {
		return err
	}
	defer unlock()
	g, err := d.guest(name)
	if err != nil {
		return err
	}
	if pid, err := holder(g.machine); err != nil || pid != 0 {
		return err
	}
	if g.broken != "" {
		return fmt.Errorf("cannot start the guest %q: it is broken, destroy it: %s", name, g.broken)
	}
	if err = d.readVersion(ctx); err == nil {
		err = d.startWithin(ctx, g)
	}
	if err != nil {
		return fmt.Errorf("cannot start the guest %q: %w", name, err)
	}
	return nil
}

// startWithin starts the guest unless the limit is reached.
func (d *Driver) startWithin(ctx context.Context, g *guest) error {
	patient, cancel := context.WithTimeout(ctx, d.times.slot)
	defer cancel()
	pace := backoff.Policy{First: 100 * time.Millisecond, Most: 2 * time.Second}
	for n := 1; ; n++ {
		if err := d.slotFree(ctx); err != nil {
			return err
		}
		err := d.startOnce(ctx, g)
		if err == nil {
			d.slotTaken(ctx)
			return nil
		}
		if !errors.Is(err, vm.ErrLimit) || d.Capabilities().MaxGuests == 0 {
			return err
		}
		if backoff.Sleep(patient, pace.Delay(n, nil)) == nil {
			continue
		}
		if ctx.Err() != nil {
			return fmt.Errorf("%w: %w", context.Cause(ctx), err)
		}
		return d.slotRefused(ctx, err)
	}
}

// startOnce starts tart run. What it started is gone again when it returns an
// error.
func (d *Driver) startOnce(ctx context.Context, g *guest) (err error) {
	leave, err := d.takeTurn(ctx)
	if err != nil {
		return err
	}
	left := false
	defer func() {
		if !left {
			leave()
		}
	}()
	for _, stale := range []string{g.path(logFile), filepath.Join(g.machine, controlFile)} {
		if err := os.Remove(stale); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if err := writeJSON(g.path(runFile), run{}); err != nil {
		return err
	}
	id, err := proc.Detach(proc.Cmd{Path: d.opt.Path, Args: runArguments(g.rec), Env: append(d.env(), d.mark(g.name))}, g.path(logFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // which is one that has ended already
		return errors.Join(err, os.Remove(g.path(runFile)))
	}
	err = writeJSON(g.path(runFile), run{id})
	if err == nil {
		err = d.await(ctx, g, id, func() { leave(); left = true })
	}
	if err == nil {
		return nil
	}
	// The caller may have given up; a process that nobody wants must go all the same.
	undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), d.times.cut)
	defer cancel()
	return errors.Join(err, d.cut(undo, g), os.Remove(g.path(runFile)))
}

// await waits until tart run has started the guest, and calls held once it
// holds the machine's lock.
func (d *Driver) await(ctx context.Context, g *guest, id proc.ID, held func()) error {
	ctx, cancel := context.WithTimeoutCause(ctx, d.times.start, fmt.Errorf("tart run did not hold the machine within %v", d.times.start))
	defer cancel()
	var since time.Time
	for wait := time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		if !id.Alive() {
			return ended(g)
		}
		pid, err := holder(g.machine)
		if err != nil {
			return err
		}
		if pid == id.PID && since.IsZero() {
			since = time.Now()
			held()
		}
		if !since.IsZero() {
			_, err := os.Lstat(filepath.Join(g.machine, controlFile))
			if err == nil || time.Since(since) >= d.times.settle {
				return nil
			}
		}
		if err := backoff.Sleep(ctx, wait); err != nil {
			return err
		}
	}
}

// lastWords returns the end of what tart run said.
func lastWords(path string) string {
	tail, err := logtail.Read(path, 8<<10)
	if err != nil {
		return ""
	}
	return ownWords(string(tail))
}

// runArguments are those of tart run. None of them is secret.
func runArguments(rec record) []string {
	m := rec.Machine
	disk := "sync=none" // it is thrown away: what the host holds of it need not reach its disk
	if m.DiskSync != "" {
		disk = "sync=" + m.DiskSync
	}
	if m.DiskCache != "" {
		disk += ",caching=" + m.DiskCache
	}
	args := []string{"run", "--no-graphics", "--no-audio", "--no-clipboard", "--root-disk-opts", disk}
	if m.Nested {
		args = append(args, "--nested")
	}
	for _, s := range m.Shares {
		share := s.Name + ":" + s.Path
		if !s.Writable {
			share += ":ro"
		}
		args = append(args, "--dir", share)
	}
	return append(append(args, networkArguments(rec.Network, m.OpenNetwork)...), rec.Name)
}

// networkArguments are softnet's: it lets a guest out to the internet and not
// into private networks, so neither to the host's nor to another guest.
func networkArguments(n vm.Network, open bool) []string {
	if open {
		return nil
	}
	allow, block := append([]string(nil), n.Allow...), append([]string(nil), n.Block...)
	if n.Mode == vm.Isolated {
		block = append(block, "0.0.0.0/0")
	}
	for _, f := range n.Forwards {
		if ap, err := netip.ParseAddrPort(f.Guest); err == nil {
			allow = append(allow, netip.PrefixFrom(ap.Addr(), ap.Addr().BitLen()).String())
		}
	}
	args := []string{"--net-softnet"}
	if len(allow) > 0 {
		args = append(args, "--net-softnet-allow", strings.Join(allow, ","))
	}
	if len(block) > 0 {
		args = append(args, "--net-softnet-block", strings.Join(block, ","))
	}
	return args
}
