// Package proc runs programs. It is the only user of os/exec.
//
// Two ways to run one: Run waits for it, with its output kept and bounded;
// Detach starts it in a session of its own, to outlive us. A process that must
// be found again later is named by an ID: its number and its start time,
// because numbers are used again (after a reboot at the latest). What a process
// leaves running, wherever it went, is found by a mark in its environment.
package proc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// waitDelay bounds how long Run waits for the output pipes of a program that
// was killed or has exited while a grandchild still holds them.
const waitDelay = 2 * time.Second

// maxKept is how many bytes of each output stream a Result keeps, from its end.
const maxKept = 1 << 20

// ErrNotInstalled is returned where the program is not on this machine.
var ErrNotInstalled = errors.New("not installed")

// Cmd says what to run. Secrets belong in Env or Stdin, never in Args.
type Cmd struct {
	Path   string // a program on PATH or a path
	Args   []string
	Env    []string // added to our own environment, "KEY=value"
	Bare   bool     // Env is the whole environment
	Dir    string
	Stdin  io.Reader
	Stdout io.Writer // also gets the output while the program runs; may be nil
	Stderr io.Writer
	Live   bool       // Run keeps no output: what Stdout and Stderr get is all
	Files  []*os.File // open in the program as 3, 4, ...; the caller closes its own

	// Grace is how long Run leaves the program, when ctx ends, to clean up after
	// SIGTERM before the group is killed. 0: it is killed at once.
	Grace time.Duration
}

// Result is what a program left.
type Result struct {
	Stdout, Stderr []byte // the last MiB of each
	Code           int    // exit status; -1 if a signal ended it
}

// ExitError says that a program ended with a status other than 0.
type ExitError struct {
	Path   string
	Code   int // -1 if a signal ended it
	Signal string
	Stderr string // its last lines
}

func (e *ExitError) Error() string {
	what := fmt.Sprintf("exit status %d", e.Code)
	if e.Signal != "" {
		what = "ended by signal: " + e.Signal
	}
	if e.Stderr == "" {
		return fmt.Sprintf("%s: %s", filepath.Base(e.Path), what)
	}
	return fmt.Sprintf("%s: %s: %s", filepath.Base(e.Path), what, e.Stderr)
}

// Run runs a program to its end, in a process group of its own; when ctx ends
// the whole group is killed. A status other than 0 is an *ExitError; a missing
// program is ErrNotInstalled.
func Run(ctx context.Context, c Cmd) (Result, error) {
	cmd, err := command(ctx, c)
	if err != nil {
		return Result{}, err
	}
	var stdout, stderr tail
	cmd.Stdin = c.Stdin
	if c.Live {
		cmd.Stdout, cmd.Stderr = c.Stdout, c.Stderr
	} else {
		cmd.Stdout, cmd.Stderr = tee(&stdout, c.Stdout), tee(&stderr, c.Stderr)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = waitDelay
	if c.Grace > 0 {
		cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
		cmd.WaitDelay = c.Grace
	}

	err = cmd.Run()
	res := Result{Stdout: stdout.bytes(), Stderr: stderr.bytes(), Code: cmd.ProcessState.ExitCode()}
	if ctx.Err() != nil {
		if c.Grace > 0 {
			_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // the leader is gone; its children may not be
		}
		return res, fmt.Errorf("cannot finish %s: %w", filepath.Base(c.Path), context.Cause(ctx))
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return res, exitError(c.Path, exit.ProcessState, res.Stderr)
	}
	if errors.Is(err, exec.ErrWaitDelay) {
		return res, nil // it ended well; a grandchild kept the pipe
	}
	return res, err
}

// Look returns the path of a program, or ErrNotInstalled.
func Look(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("cannot find %q: %w", name, ErrNotInstalled)
	}
	return filepath.Abs(path)
}

func command(ctx context.Context, c Cmd) (*exec.Cmd, error) {
	path, err := Look(c.Path)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, path, c.Args...)
	cmd.Dir = c.Dir
	cmd.ExtraFiles = c.Files
	switch {
	case c.Bare:
		cmd.Env = append([]string{}, c.Env...) // nil would mean our own
	case len(c.Env) > 0:
		cmd.Env = append(os.Environ(), c.Env...)
	}
	return cmd, nil
}

func exitError(path string, state *os.ProcessState, stderr []byte) *ExitError {
	e := &ExitError{Path: path, Code: state.ExitCode(), Stderr: lastLines(stderr, 5)}
	if ws, ok := state.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		e.Signal = ws.Signal().String()
	}
	return e
}

func lastLines(b []byte, n int) string {
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	if len(lines) > n {
		lines = lines[len(lines)-n:]
	}
	return strings.Join(lines, "; ")
}

func tee(kept *tail, also io.Writer) io.Writer {
	if also == nil {
		return kept
	}
	return io.MultiWriter(kept, also)
}

// tail keeps the last maxKept bytes written to it.
type tail struct{ buf bytes.Buffer }

func (t *tail) Write(p []byte) (int, error) {
	t.buf.Write(p)
	if over := t.buf.Len() - 2*maxKept; over > 0 {
		t.buf.Next(t.buf.Len() - maxKept)
	}
	return len(p), nil
}

func (t *tail) bytes() []byte {
	b := t.buf.Bytes()
	return b[max(0, len(b)-maxKept):]
}
