// Package local is the channel into a fake guest, whose inside is a folder of
// this host and the processes that were started there.
//
// It shares a convention with the driver of such guests, vm/fake. The guest's
// address is the path of its root folder, which is the home of its user. The
// file beside it, ROOT.on, holds the proc.ID of the process that stands for
// the hypervisor: the guest has power for as long as that process lives.
// Whatever runs inside carries Mark=ROOT in its environment, by which the
// driver finds and ends it. Nothing else of our environment gets inside.
package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/mirego/tasuki/internal/base/proc"
	"github.com/mirego/tasuki/internal/guest"
)

// Mark is the environment variable of all that runs in a fake guest; its value
// is the guest's root folder.
const Mark = "TASUKI_FAKE_GUEST"

// errClosed is why a channel ended that its owner closed.
var errClosed = fmt.Errorf("the channel was closed: %w", guest.ErrUnreachable)

// Dialer opens channels into fake guests.
type Dialer struct{}

// Dial implements guest.Dialer. Keys and passwords are not looked at.
func (Dialer) Dial(ctx context.Context, target guest.Target) (guest.Channel, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("cannot reach guest %q: %w", target.Guest, context.Cause(ctx))
	}
	power, err := power(target.Address)
	if err != nil {
		return nil, fmt.Errorf("cannot reach guest %q: %w", target.Guest, err)
	}
	c := &channel{root: target.Address, user: target.User, power: power}
	c.open, c.close = context.WithCancelCause(context.Background())
	return c, nil
}

// power returns the process that gives the guest its power.
func power(root string) (proc.ID, error) {
	text, err := os.ReadFile(root + ".on")
	if err != nil {
		return proc.ID{}, fmt.Errorf("it has no power: %w", guest.ErrUnreachable)
	}
	var id proc.ID
	if err := json.Unmarshal(text, &id); err != nil || !id.Alive() {
		return proc.ID{}, fmt.Errorf("it has no power: %w", guest.ErrUnreachable)
	}
	return id, nil
}

type channel struct {
	root, user string
	power      proc.ID
	open       context.Context // ends when the channel is closed
	close      context.CancelCauseFunc
}

// Run implements guest.Channel. When ctx ends or the channel is closed, the
// script's process group is killed; what it detached goes on.
func (c *channel) Run(ctx context.Context, cmd guest.Command) (int, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(c.open, func() { cancel(errClosed) })()
	if err := c.usable(); err != nil {
		return 0, err
	}
	stdin, done, err := input(cmd.Stdin)
	if err != nil {
		return 0, fmt.Errorf("cannot run a script in the guest: %w", err)
	}
	defer done()
	_, err = proc.Run(ctx, proc.Cmd{
		Path:   "sh",
		Args:   []string{"-c", c.guard() + cmd.Script},
		Env:    c.env(),
		Bare:   true,
		Dir:    c.root,
		Stdin:  stdin,
		Stdout: cmd.Stdout,
		Stderr: cmd.Stderr,
		Live:   true,
	})
	// A guest that lost its power meanwhile took the script with it.
	if ctx.Err() == nil {
		if err := c.usable(); err != nil {
			return 0, err
		}
	}
	var exit *proc.ExitError
	switch {
	case err == nil:
		return 0, nil
	case errors.As(err, &exit):
		return exit.Code, nil
	}
	return 0, fmt.Errorf("cannot run a script in the guest: %w", err)
}

// input returns r as a pipe. os/exec would wait for a reader that blocks even
// when the script has ended; the goroutine here is left to its Read instead.
func input(r io.Reader) (stdin io.Reader, done func(), err error) {
	if r == nil {
		return nil, func() {}, nil
	}
	from, to, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	go func() {
		defer to.Close()
		_, _ = io.Copy(to, r)
	}()
	return from, func() { _ = from.Close() }, nil
}

// usable says whether the guest still has the power that it had at first.
func (c *channel) usable() error {
	if c.open.Err() != nil {
		return fmt.Errorf("cannot run a script in the guest: %w", errClosed)
	}
	if !c.power.Alive() {
		return fmt.Errorf("cannot run a script in the guest: it has no power: %w", guest.ErrUnreachable)
	}
	return nil
}

// guard ends a script that begins when the guest has no power any more. One
// that passes it began before the power went, so the driver finds it.
func (c *channel) guard() string {
	return fmt.Sprintf("kill -0 %d 2>/dev/null || exit 255\n", c.power.PID)
}

func (c *channel) env() []string {
	return []string{
		Mark + "=" + c.root,
		"HOME=" + c.root,
		"USER=" + c.user,
		"LOGNAME=" + c.user,
		"SHELL=/bin/sh",
		"PATH=" + os.Getenv("PATH"),
		"LANG=C.UTF-8",
	}
}

// Close implements guest.Channel.
func (c *channel) Close() error {
	c.close(errClosed)
	return nil
}
