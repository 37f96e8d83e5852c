package qemu

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/mirego/tasuki/internal/vm"
)

// List implements vm.Driver. It asks no QEMU anything, so one that hangs holds
// nobody up.
func (d *Driver) List(ctx context.Context) ([]vm.Instance, error) {
	entries, err := os.ReadDir(d.opt.Home) // sorted by name
	if err != nil {
		return nil, fmt.Errorf("cannot list the guests: %w", err)
	}
	var all []vm.Instance
	for _, e := range entries {
		if ctx.Err() != nil {
			return nil, fmt.Errorf("cannot list the guests: %w", context.Cause(ctx))
		}
		if !e.IsDir() || !d.ours(e.Name()) {
			continue
		}
		g, err := d.guest(e.Name())
		if errors.Is(err, vm.ErrNotFound) {
			continue // not ours, or deleted this moment
		}
		if err != nil {
			return nil, err
		}
		in, err := g.instance()
		if err != nil {
			return nil, fmt.Errorf("cannot list the guest %q: %w", e.Name(), err)
		}
		all = append(all, in)
	}
	return all, nil
}

// instance says what the guest is and in which state.
func (g *guest) instance() (vm.Instance, error) {
	in := vm.Instance{
		Name: g.name, State: vm.Stopped, Owner: g.rec.Owner, Created: g.rec.Created, Image: g.rec.Image,
	}
	if _, err := os.Stat(g.path(consoleFile)); err == nil {
		in.Console = g.path(consoleFile)
	}
	if g.broken != "" {
		in.State, in.Reason = vm.Broken, g.broken
		return in, nil
	}
	held, err := g.held()
	if err != nil {
		return in, err
	}
	if held {
		in.State = vm.Running
		return in, g.boundConsole()
	}
	// One that was powered off by us has no run.json any more.
	if _, err := os.Stat(g.path(runFile)); err == nil {
		in.Reason = g.reason()
	}
	return in, nil
}
