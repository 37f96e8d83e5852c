package qemu

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mirego/tasuki/internal/base/backoff"
	"github.com/mirego/tasuki/internal/base/proc"
)

// takeLock opens and locks a file or folder. It returns nil and no error where
// another process holds the lock. The lock belongs to the open file: a program
// that inherits the file holds it until it ends.
func takeLock(path string, flag int, how int) (*os.File, error) {
	f, err := os.OpenFile(path, flag, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
		switch {
		case err == nil:
			return f, nil
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EWOULDBLOCK):
			return nil, f.Close()
		default:
			_ = f.Close()
			return nil, fmt.Errorf("cannot lock %q: %w", path, err)
		}
	}
}

// held says whether a QEMU, or one who is about to start it, holds the guest.
func (g *guest) held() (bool, error) {
	f, err := takeLock(g.path(lockFile), os.O_RDONLY, unix.LOCK_SH)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil // it was never started
	}
	if err != nil {
		return false, err
	}
	if f == nil {
		return true, nil
	}
	return false, f.Close()
}

// lookers is how long one who only looks at the lock may keep us from it.
const lookers = 250 * time.Millisecond

// hold takes the guest's lock to start or delete it. It returns nil where a
// QEMU has it.
func (g *guest) hold(ctx context.Context) (*os.File, error) {
	deadline := time.Now().Add(lookers)
	for {
		f, err := takeLock(g.path(lockFile), os.O_RDWR|os.O_CREATE, unix.LOCK_EX)
		if f != nil || err != nil {
			return f, err
		}
		if _, ok := g.process(); ok || time.Now().After(deadline) {
			return nil, nil
		}
		if err := backoff.Sleep(ctx, 2*time.Millisecond); err != nil {
			return nil, err
		}
	}
}

// process finds the guest's QEMU: written down by who started it, or, if that
// one was killed before it could, named by the lock that QEMU itself keeps on
// its pid file.
func (g *guest) process() (proc.ID, bool) {
	if r, err := g.readRun(); err == nil && r.QEMU.Alive() {
		return r.QEMU, true
	}
	f, err := os.OpenFile(g.path(pidFile), os.O_RDWR, 0)
	if err != nil {
		return proc.ID{}, false
	}
	defer f.Close()
	lock := unix.Flock_t{Type: unix.F_WRLCK}
	if err := unix.FcntlFlock(f.Fd(), unix.F_GETLK, &lock); err != nil || lock.Type == unix.F_UNLCK || lock.Pid <= 0 {
		return proc.ID{}, false
	}
	id, err := proc.Identify(int(lock.Pid))
	return id, err == nil
}

// kill ends the guest's QEMU, whatever it is doing, and returns its lock.
// It asks nobody: a QEMU that hangs is ended like any other.
func (g *guest) kill(ctx context.Context) (*os.File, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, killTimeout,
		fmt.Errorf("it still held %s after %v", lockFile, killTimeout))
	defer cancel()
	for {
		lock, err := g.hold(ctx)
		if err != nil {
			return nil, fmt.Errorf("cannot power off the guest %q: %w", g.name, err)
		}
		if lock != nil {
			g.killPasst(ctx)
			return lock, nil
		}
		// A QEMU that has only just been started may not be known yet: look again.
		if id, ok := g.process(); ok {
			if err := id.Kill(ctx); err != nil {
				return nil, fmt.Errorf("cannot power off the guest %q: %w", g.name, err)
			}
		}
	}
}

// killPasst ends what carries the network. It ends by itself when QEMU does:
// this is for the one that hangs.
func (g *guest) killPasst(ctx context.Context) {
	if r, err := g.readRun(); err == nil && r.Passt.Alive() {
		_ = r.Passt.Kill(ctx)
	}
}
