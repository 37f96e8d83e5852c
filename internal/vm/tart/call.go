package tart

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/mirego/tasuki/internal/base/backoff"
	"github.com/mirego/tasuki/internal/base/logtail"
	"github.com/mirego/tasuki/internal/base/proc"
)

// call is one run of tart.
type call struct {
	args   []string
	env    []string
	limit  time.Duration
	stdout io.Writer // gets it as it comes, too; may be nil
}

// callError is a tart that failed, with its own words.
type callError struct {
	verb string
	code int
	text string
}

func (e *callError) Error() string {
	return fmt.Sprintf("tart %s: %s (status %d)", e.verb, e.text, e.code)
}

// errHung: tart did not end in its time.
var errHung = errors.New("tart hangs")

// env is the environment of every call. CI makes tart print plain lines.
func (d *Driver) env() []string { return []string{"TART_HOME=" + d.opt.TartHome, "CI=true"} }

// call runs tart within a deadline and returns what it printed. An error is a
// *callError where tart ended with one.
func (d *Driver) call(ctx context.Context, c call) (string, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, c.limit, fmt.Errorf("no end within %v: %w", c.limit, errHung))
	defer cancel()
	if ctx.Err() != nil {
		return "", fmt.Errorf("cannot run tart %s: %w", c.args[0], context.Cause(ctx))
	}
	res, err := proc.Run(ctx, proc.Cmd{Path: d.opt.Path, Args: c.args, Env: append(d.env(), c.env...), Stdout: c.stdout})
	if exit, ok := errors.AsType[*proc.ExitError](err); ok {
		words := ownWords(string(res.Stderr))
		if words == "" {
			words = ownWords(string(res.Stdout))
		}
		if words == "" {
			words = "it said nothing"
		}
		return string(res.Stdout), &callError{c.args[0], exit.Code, words}
	}
	if err != nil {
		return "", fmt.Errorf("tart %s: %w", c.args[0], err)
	}
	return string(res.Stdout), nil
}

// noise are lines on stderr that mean nothing for the command they come with.
var noise = []string{"Failed to perform garbage collection:", "OpenTelemetry", "objc["}

// ownWords are what a command said of itself, in one line and bounded.
func ownWords(stderr string) string {
	var kept []string
	for line := range strings.Lines(stderr) {
		line = strings.TrimPrefix(logtail.Printable(strings.TrimSpace(line)), "Error: ")
		if line == "" || strings.HasPrefix(line, "Usage:") || strings.HasPrefix(line, "See 'tart") {
			continue
		}
		isNoise := false
		for _, n := range noise {
			isNoise = isNoise || strings.HasPrefix(line, n)
		}
		if !isNoise {
			kept = append(kept, line)
		}
	}
	text := strings.Join(kept[max(0, len(kept)-3):], "; ")
	return text[max(0, len(text)-500):]
}

// says whether tart failed with these words.
func says(err error, words string) bool {
	failed, ok := errors.AsType[*callError](err)
	return ok && strings.Contains(failed.text, words)
}

// noSuchMachine: tart does not know the name.
func noSuchMachine(err error) bool { return says(err, "does not exist") }

// takeTurn waits until nobody else changes tart's folder.
func (d *Driver) takeTurn(ctx context.Context) (leave func(), err error) {
	select {
	case d.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, fmt.Errorf("cannot wait for other calls of tart: %w", context.Cause(ctx))
	}
	f, err := os.OpenFile(filepath.Join(d.opt.TartHome, turnFile), os.O_RDWR, 0)
	if err != nil {
		<-d.turn
		return nil, d.away(err)
	}
	leave = func() { _ = f.Close(); <-d.turn }
	pace := backoff.Policy{First: 5 * time.Millisecond, Most: 200 * time.Millisecond}
	for n := 1; ; n++ {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return leave, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			leave()
			return nil, fmt.Errorf("cannot wait for other calls of tart: %w", err)
		}
		if err := backoff.Sleep(ctx, pace.Delay(n, nil)); err != nil {
			leave()
			return nil, fmt.Errorf("cannot wait for other calls of tart: %w", err)
		}
	}
}

// inTurn runs tart while nobody else changes its folder.
func (d *Driver) inTurn(ctx context.Context, c call) (string, error) {
	leave, err := d.takeTurn(ctx)
	if err != nil {
		return "", err
	}
	defer leave()
	return d.call(ctx, c)
}
