package qemu

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/mirego/tasuki/internal/base/backoff"
	"github.com/mirego/tasuki/internal/base/proc"
	"github.com/mirego/tasuki/internal/vm"
)

// portTries is how often a start is repeated because somebody took its port
// between our look and QEMU's.
const portTries = 5

// errPortTaken is a start that is worth another port.
var errPortTaken = errors.New("its port was taken")

// Start implements vm.Driver. It returns when QEMU answers and runs the guest.
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
	if g.broken != "" {
		return fmt.Errorf("cannot start the guest %q: it is broken, destroy it: %s", name, g.broken)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout, fmt.Errorf("QEMU did not answer within %v", startTimeout))
	defer cancel()
	lock, err := g.hold(ctx)
	if err != nil {
		return fmt.Errorf("cannot start the guest %q: %w", name, err)
	}
	if lock == nil {
		return nil // it runs
	}
	defer lock.Close() // QEMU has it by then, or nobody shall
	for range portTries {
		if err = d.startOnce(ctx, g, lock); !errors.Is(err, errPortTaken) {
			break
		}
		d.log.Debug("guest's port was taken, trying another", "guest", name)
	}
	if err != nil {
		return fmt.Errorf("cannot start the guest %q: %w", name, err)
	}
	return nil
}

// startOnce starts QEMU on a port that is free now. What it started is gone
// again when it returns an error.
func (d *Driver) startOnce(ctx context.Context, g *guest, lock *os.File) (err error) {
	for _, stale := range []string{qmpFile, pidFile, logFile, passtLog} {
		if err := os.Remove(g.path(stale)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	var r run
	if r.SSHPort, err = freePort(); err != nil {
		return err
	}
	d.step("port chosen")
	if err := writeJSON(g.path(runFile), r); err != nil {
		return err
	}
	d.step("start written down")
	defer func() {
		if err != nil {
			err = d.undoStart(ctx, g, r, err)
		}
	}()
	m := machine{
		Rec: g.rec, Arch: d.arch, Accel: d.accel.Name, Sandbox: runtime.GOOS == "linux",
		SSHPort: r.SSHPort, Relay: d.opt.Relay,
	}
	files := []*os.File{lock} // 3
	if g.rec.Network.Mode == vm.Internet {
		passt, socket, err := d.startPasst(g, r.SSHPort)
		if err != nil {
			return err
		}
		defer socket.Close()
		r.Passt, m.NetFD = passt, 4
		files = append(files, socket)
	}
	d.step("network started")
	if r.QEMU, err = proc.Detach(proc.Cmd{Path: d.opt.QEMU, Args: m.arguments(), Dir: g.dir, Files: files}, g.path(logFile)); err != nil {
		return err
	}
	d.step("qemu started")
	if err := writeJSON(g.path(runFile), r); err != nil {
		return err
	}
	d.step("process written down")
	if err := g.await(ctx, r); err != nil {
		return err
	}
	d.step("qemu answers")
	return nil
}

// await waits until QEMU answers and runs the guest, or has ended.
func (g *guest) await(ctx context.Context, r run) error {
	for wait := time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		err := g.answers(ctx)
		if err == nil && g.rec.Network.Mode == vm.Internet && !r.Passt.Alive() {
			return errors.New("its passt ended")
		}
		if err == nil || !r.QEMU.Alive() {
			return err
		}
		if backoff.Sleep(ctx, wait) != nil {
			return fmt.Errorf("%w (last: %w)", context.Cause(ctx), err)
		}
	}
}

// answers returns nil if QEMU answers and runs the guest.
func (g *guest) answers(ctx context.Context) error {
	// A QEMU that took the connection and hangs is asked again.
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	m, err := dialQMP(ctx, g.path(qmpFile))
	if err != nil {
		return err
	}
	defer m.close()
	var status struct {
		Running bool
		Status  string
	}
	if err := m.execute(ctx, "query-status", nil, &status); err != nil {
		return err
	}
	if !status.Running {
		return fmt.Errorf("QEMU holds the guest in the state %q", status.Status)
	}
	return nil
}

// undoStart ends what a failed start left and says why it failed, from QEMU's
// own words where it has said any.
func (d *Driver) undoStart(ctx context.Context, g *guest, r run, cause error) error {
	// The caller may have given up; a process that nobody wants must go all the same.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), killTimeout)
	defer cancel()
	alive := r.QEMU.Alive()
	for _, id := range []proc.ID{r.QEMU, r.Passt} {
		if id.PID == 0 {
			continue
		}
		if err := id.Kill(ctx); err != nil {
			cause = errors.Join(cause, err)
		}
	}
	err := cause
	if words := lastWords(g.path(logFile)); words != "" && !alive {
		err = startError(words)
	} else if words := lastWords(g.path(passtLog)); words != "" && r.Passt.PID != 0 && !alive {
		err = fmt.Errorf("%w: passt says: %s", cause, words)
	}
	return errors.Join(err, os.Remove(g.path(runFile)))
}

// startError turns QEMU's last words into an error that says what to do.
func startError(words string) error {
	has := func(part string) bool { return strings.Contains(words, part) }
	switch {
	case has("Could not set up host forwarding"):
		return fmt.Errorf("%w: %s", errPortTaken, words)
	case has("annot set up guest memory"), has("Cannot allocate memory"):
		return fmt.Errorf("%w: %s", vm.ErrLimit, words)
	case has("/dev/kvm") && has("ermission denied"):
		return fmt.Errorf("%s; let this user use it: sudo usermod -aG kvm %s, and log in again", words, userName())
	case has("seccomp") || has("sandbox"):
		return fmt.Errorf("%s; this QEMU was built without its sandbox: use your distribution's", words)
	default:
		return errors.New(words)
	}
}

func userName() string {
	if name := os.Getenv("USER"); name != "" {
		return name
	}
	return filepath.Base(os.Getenv("HOME"))
}
