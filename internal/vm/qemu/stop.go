package qemu

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/mirego/tasuki/internal/base/atomicfile"
	"github.com/mirego/tasuki/internal/base/logtail"
	"github.com/mirego/tasuki/internal/base/proc"
	"github.com/mirego/tasuki/internal/vm"
)

// quitTimeout is how long PowerOff waits for QEMU to close the disk itself.
const quitTimeout = 2 * time.Second

// PowerOff implements vm.PowerOffer. QEMU gets a moment to write what it holds
// of the disk, and is killed if it does not take it.
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
	if err != nil {
		return err
	}
	if id, ok := g.process(); ok {
		g.quit(ctx, id)
	}
	lock, err := g.kill(ctx)
	if err != nil {
		return err
	}
	defer lock.Close()
	d.step("powered off")
	return atomicfile.Remove(g.path(runFile))
}

// quit asks QEMU to end and waits a little for it. Its failure is no error:
// the next step is to kill.
func (g *guest) quit(ctx context.Context, id proc.ID) {
	ctx, cancel := context.WithTimeout(ctx, quitTimeout)
	defer cancel()
	m, err := dialQMP(ctx, g.path(qmpFile))
	if err != nil {
		return
	}
	defer m.close()
	if err := m.execute(ctx, "quit", nil, nil); err != nil {
		return
	}
	for id.Alive() && ctx.Err() == nil {
		time.Sleep(2 * time.Millisecond)
	}
}

// Destroy implements vm.Driver. The guest's QEMU is killed, not asked: nobody
// needs its disk any more.
func (d *Driver) Destroy(ctx context.Context, name string) error {
	unlock, err := d.lock(ctx, name)
	if err != nil {
		return err
	}
	defer unlock()
	g, err := d.guest(name)
	if errors.Is(err, vm.ErrNotFound) {
		return d.finishDelete(name)
	}
	if err != nil {
		return err
	}
	lock, err := g.kill(ctx)
	if err != nil {
		return err
	}
	defer lock.Close()
	d.step("killed")
	if err := d.finishDelete(name); err != nil {
		return err
	}
	deleting := filepath.Join(d.opt.Home, deletingPrefix+name)
	if err := os.Rename(g.dir, deleting); err != nil {
		return fmt.Errorf("cannot delete the guest %q: %w", name, err)
	}
	d.step("renamed")
	if err := atomicfile.SyncDir(d.opt.Home); err != nil {
		return fmt.Errorf("cannot delete the guest %q: %w", name, err)
	}
	return d.finishDelete(name)
}

// finishDelete removes what an earlier Destroy or Create left half way.
func (d *Driver) finishDelete(name string) error {
	if !d.ours(name) {
		return nil
	}
	for _, prefix := range []string{deletingPrefix, makingPrefix} {
		if err := sweepOne(filepath.Join(d.opt.Home, prefix+name)); err != nil {
			return fmt.Errorf("cannot delete the guest %q: %w", name, err)
		}
	}
	return nil
}

// Bounds of a death's reason and of a console log.
const (
	reasonBytes = 400
	consoleMost = 16 << 20
	consoleKept = 1 << 20
)

// reason says why a guest that was started and not powered off by us does not
// run: QEMU's last words, or else the guest's.
func (g *guest) reason() string {
	if words := lastWords(g.path(logFile)); words != "" {
		return "its QEMU ended: " + words
	}
	if words := lastWords(g.path(consoleFile)); words != "" {
		return fmt.Sprintf("its QEMU ended without a word (the guest shut down, or this machine lost power); the last line of its console: %q", words)
	}
	return "its QEMU ended without a word (the guest shut down, or this machine lost power)"
}

// lastWords returns the last lines of a log, in one line and bounded.
func lastWords(path string) string {
	tail, err := logtail.Read(path, reasonBytes)
	if err != nil {
		return ""
	}
	lines := strings.FieldsFunc(string(tail), func(r rune) bool { return r == '\n' || r == '\r' })
	var kept []string
	for _, line := range lines[max(0, len(lines)-2):] {
		line = logtail.Printable(strings.TrimSpace(line))
		if _, after, ok := strings.Cut(line, "qemu-system-"); ok {
			_, line, _ = strings.Cut(after, ": ")
		}
		if line != "" {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, "; ")
}

// boundConsole keeps a guest from filling the disk through its console: a log
// that grew too long is cut, with its end kept beside. QEMU appends, so what it
// writes next follows.
func (g *guest) boundConsole() error {
	info, err := os.Stat(g.path(consoleFile))
	if errors.Is(err, fs.ErrNotExist) || err == nil && info.Size() <= consoleMost {
		return nil
	}
	if err != nil {
		return err
	}
	tail, err := logtail.Read(g.path(consoleFile), consoleKept)
	if err != nil {
		return err
	}
	if err := atomicfile.Write(g.path(consoleOld), tail, 0o600); err != nil {
		return err
	}
	return os.Truncate(g.path(consoleFile), 0)
}
