package proc

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"time"
)

// ID names a process beyond the reuse of its number: the number, when it
// started, and in which boot of the machine.
type ID struct {
	PID   int    `json:"pid"`
	Start string `json:"start"` // opaque: equal only for the same process
}

// Detach starts a program in a session of its own with its output appended to
// logPath (mode 0600), and returns at once. It survives us; nobody waits for
// it but the system, unless we are still there: then it is reaped.
func Detach(c Cmd, logPath string) (ID, error) {
	cmd, err := command(context.Background(), c)
	if err != nil {
		return ID{}, err
	}
	log, err := os.OpenFile(logPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return ID{}, err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return ID{}, fmt.Errorf("cannot start %s: %w", c.Path, err)
	}
	id, idErr := Identify(cmd.Process.Pid)
	// The one goroutine nobody waits for: it ends with the program, which may
	// outlive us, and without it a program that ends first stays a zombie.
	go func() { _ = cmd.Wait() }()
	if idErr != nil {
		return ID{}, fmt.Errorf("cannot start %s: it ended at once: %w", c.Path, idErr)
	}
	return id, nil
}

// Identify returns the ID of a running process, or fs.ErrNotExist.
func Identify(pid int) (ID, error) {
	start, err := startTime(pid)
	if err != nil {
		return ID{}, fmt.Errorf("cannot identify process %d: %w", pid, err)
	}
	return ID{PID: pid, Start: start}, nil
}

// Alive says whether this very process still runs. A zombie does not.
func (id ID) Alive() bool {
	if id.PID <= 0 {
		return false
	}
	now, err := Identify(id.PID)
	return err == nil && now == id
}

// Signal sends sig to the process if it is still the same one; otherwise it
// returns fs.ErrNotExist. With group, the whole process group that it leads.
func (id ID) Signal(sig syscall.Signal, group bool) error {
	if !id.Alive() {
		return fs.ErrNotExist
	}
	pid := id.PID
	if group {
		pid = -pid
	}
	err := syscall.Kill(pid, sig)
	if errors.Is(err, syscall.ESRCH) {
		return fs.ErrNotExist
	}
	return err
}

// Kill ends the process, with its group, and returns when it is gone or ctx
// ends. A process that is gone already is no error.
func (id ID) Kill(ctx context.Context) error {
	if err := id.Signal(syscall.SIGKILL, true); err != nil {
		// It may lead no group.
		if err := id.Signal(syscall.SIGKILL, false); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("cannot kill process %d: %w", id.PID, err)
		}
	}
	for wait := time.Millisecond; id.Alive(); wait = min(2*wait, 100*time.Millisecond) {
		select {
		case <-ctx.Done():
			return fmt.Errorf("cannot kill process %d: %w", id.PID, context.Cause(ctx))
		case <-time.After(wait):
		}
	}
	return nil
}
