package tart

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/mirego/tasuki/internal/base/backoff"
	"github.com/mirego/tasuki/internal/vm"
)

// row is a machine as tart lists it. Keys that we do not know are of no
// matter: they changed before.
type row struct {
	Name    string
	State   string
	Running bool
}

// rows asks tart for its machines. It meets one that is just deleted, or a
// configuration that is just written, and fails then, so it is asked twice.
func (d *Driver) rows(ctx context.Context) (map[string]row, error) {
	leave, err := d.takeTurn(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	all, err := d.askRows(ctx)
	_, failed := errors.AsType[*callError](err)
	if failed || errors.Is(err, errTorn) {
		if err := backoff.Sleep(ctx, 50*time.Millisecond); err != nil {
			return nil, err
		}
		all, err = d.askRows(ctx)
	}
	if err != nil {
		return nil, err
	}
	byName := make(map[string]row, len(all))
	for _, r := range all {
		byName[r.Name] = r
	}
	return byName, nil
}

// errTorn: tart printed what is no list.
var errTorn = errors.New("cannot read what tart list printed")

func (d *Driver) askRows(ctx context.Context) ([]row, error) {
	out, err := d.call(ctx, call{args: []string{"list", "--source", "local", "--format", "json"}, limit: d.times.list})
	if err != nil {
		return nil, err
	}
	var all []row
	if err := json.Unmarshal([]byte(out), &all); err != nil {
		return nil, fmt.Errorf("%w: %w", errTorn, err)
	}
	return all, nil
}

// List implements vm.Driver.
func (d *Driver) List(ctx context.Context) ([]vm.Instance, error) {
	rows, err := d.rows(ctx)
	if err != nil {
		return nil, fmt.Errorf("cannot list the guests: %w", err)
	}
	entries, err := os.ReadDir(d.opt.Home) // sorted by name
	if err != nil {
		return nil, fmt.Errorf("cannot list the guests: %w", err)
	}
	d.countSlots(ctx)
	var all []vm.Instance
	for _, e := range entries {
		if !e.IsDir() || !d.ours(e.Name()) {
			continue
		}
		g, err := d.guest(e.Name())
		if errors.Is(err, vm.ErrNotFound) {
			continue // not ours, or deleted this moment
		}
		if err != nil {
			return nil, fmt.Errorf("cannot list the guests: %w", err)
		}
		if g.broken != "" && d.names.Busy(g.name) {
			continue // being made or deleted by us this moment
		}
		in, err := d.instance(g, rows[g.name])
		if err != nil {
			return nil, fmt.Errorf("cannot list the guest %q: %w", g.name, err)
		}
		all = append(all, in)
	}
	return all, nil
}

// instance says what a guest is and in which state. The lock decides: tart's
// row may be a moment old.
func (d *Driver) instance(g *guest, r row) (vm.Instance, error) {
	in := vm.Instance{Name: g.name, State: vm.Stopped, Owner: g.rec.Owner, Created: g.rec.Created, Image: g.rec.Image}
	if _, err := os.Stat(g.path(logFile)); err == nil {
		in.Console = g.path(logFile)
	}
	pid, err := holder(g.machine)
	switch {
	case err != nil:
		return in, err
	case g.broken != "":
		in.State, in.Reason = vm.Broken, g.broken
	case pid != 0:
		in.State = vm.Running
	case r.State == "suspended":
		in.Reason = "it is suspended"
	default:
		// One that was powered off by us has no run.json any more.
		if _, ran := g.readRun(); ran {
			in.Reason = ended(g).Error()
		}
	}
	return in, nil
}
