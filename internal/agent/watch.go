package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/mirego/tasuki/internal/base/atomicfile"
	"github.com/mirego/tasuki/internal/event"
	"github.com/mirego/tasuki/internal/runner"
	"github.com/mirego/tasuki/internal/vm"
)

const (
	observeTimeout = 30 * time.Second // for one listing by a driver or by GitHub
	orphanGrace    = 2 * time.Minute  // before a registration that nobody backs is removed
	removeTimeout  = 2 * time.Minute  // for taking one orphan away
)

// driverState is what was last seen of a hypervisor. Guarded by Agent.mu.
type driverState struct {
	removing map[string]bool // guests of ours that belong to nobody
}

// scopeState is what was last seen of a scope at GitHub. Guarded by Agent.mu.
type scopeState struct {
	orphans map[int64]time.Time // when a registration without a guest was first seen
	poke    chan struct{}       // asks for a listing soon
}

// watchAll starts the watchers that the pools need and do not have. Those of
// drivers and scopes stay while the agent runs, since runners of pools that
// are no more may need them. The caller holds a.mu.
func (a *Agent) watchAll() {
	if a.life == nil {
		return
	}
	for _, p := range a.pools {
		if p.stop == nil {
			ctx, stop := context.WithCancel(a.life)
			p.stop = stop
			a.work.Go(func() { a.watchImage(ctx, p) })
		}
		a.watchDriverOf(p.Driver)
		a.watchScopeOf(p.GitHub)
	}
}

func (a *Agent) watchDriverOf(d vm.Driver) {
	if a.drivers[d] != nil {
		return
	}
	ctx, state := a.life, &driverState{removing: map[string]bool{}}
	a.drivers[d] = state
	a.work.Go(func() {
		every(ctx, a.opt.Tick, nil, func() { a.observeGuests(ctx, d, state) })
	})
}

func (a *Agent) watchScopeOf(g GitHub) {
	if a.scopes[g] != nil {
		return
	}
	ctx, state := a.life, &scopeState{orphans: map[int64]time.Time{}, poke: make(chan struct{}, 1)}
	a.scopes[g] = state
	a.work.Go(func() {
		every(ctx, a.opt.Resync, state.poke, func() { a.observeScope(ctx, g, state) })
	})
}

// every calls f now and then at a pace, or when poked, until ctx ends.
func every(ctx context.Context, pace time.Duration, poke <-chan struct{}, f func()) {
	for {
		f()
		select {
		case <-ctx.Done():
			return
		case <-poke:
		case <-time.After(pace):
		}
	}
}

// observeGuests tells the keepers what their guests do, and takes away guests
// of ours that nobody keeps.
func (a *Agent) observeGuests(ctx context.Context, d vm.Driver, state *driverState) {
	name := d.Capabilities().Driver
	ctx, cancel := context.WithTimeoutCause(ctx, observeTimeout, fmt.Errorf("%s did not answer within %v", name, observeTimeout))
	defer cancel()
	asked := time.Now()
	guests, err := d.List(ctx)
	if err != nil {
		if !errors.Is(err, context.Canceled) {
			a.problem("driver "+name, fmt.Sprintf("cannot list guests: %v", err))
		}
		return
	}
	a.problem("driver "+name, "")

	a.mu.Lock()
	defer a.mu.Unlock()
	byName := map[string]vm.Instance{}
	for _, g := range guests {
		byName[g.Name] = g
		if a.keepers[g.Name] == nil && !state.removing[g.Name] {
			state.removing[g.Name] = true
			a.work.Go(func() { a.removeGuest(d, state, g) })
		}
	}
	for _, k := range a.keepers {
		if k.pool.Driver == d {
			g, there := byName[k.name]
			k.observeGuest(g, there, asked)
		}
	}
}

// removeGuest destroys a guest that nobody keeps: what a crash left between
// the hypervisor and the journal.
func (a *Agent) removeGuest(d vm.Driver, state *driverState, g vm.Instance) {
	ctx, cancel := context.WithTimeout(a.life, removeTimeout)
	defer cancel()
	err := d.Destroy(ctx, g.Name)
	a.mu.Lock()
	delete(state.removing, g.Name) // the next listing tries again
	a.mu.Unlock()
	if err != nil {
		a.log.Warn("cannot remove a guest that nobody keeps", "guest", g.Name, "err", err)
		return
	}
	_ = os.Remove(a.keyPath(g.Name))
	a.emit(event.Event{Kind: event.OrphanRemoved, Pool: g.Owner.Pool, Runner: g.Name, Reason: "a guest that nobody kept"})
}

// observeScope tells the keepers how GitHub sees their runners, and takes
// away registrations of ours that nobody keeps.
func (a *Agent) observeScope(ctx context.Context, g GitHub, state *scopeState) {
	ctx, cancel := context.WithTimeoutCause(ctx, observeTimeout, fmt.Errorf("GitHub did not answer within %v", observeTimeout))
	defer cancel()
	asked := time.Now()
	remotes, err := g.Runners(ctx)
	if err != nil {
		if !errors.Is(err, context.Canceled) {
			a.problem("github", fmt.Sprintf("cannot list runners: %v", err))
		}
		return
	}
	a.problem("github", "")

	a.mu.Lock()
	defer a.mu.Unlock()
	byName := map[string]runner.Remote{}
	for _, r := range remotes {
		byName[r.Name] = r
	}
	for _, k := range a.keepers {
		if k.pool.GitHub == g {
			r, there := byName[k.name]
			k.observeRemote(r, there, asked)
		}
	}
	a.removeOrphans(g, state, remotes)
}

// removeOrphans removes registrations that carry our installation's prefix and
// belong to no runner, once they were seen so for a while. The caller holds
// a.mu.
func (a *Agent) removeOrphans(g GitHub, state *scopeState, remotes []runner.Remote) {
	now := time.Now()
	still := map[int64]time.Time{}
	for _, r := range remotes {
		if !a.ownName(r.Name) || a.keepers[r.Name] != nil {
			continue
		}
		since, known := state.orphans[r.ID]
		if !known {
			since = now
		}
		still[r.ID] = since
		if now.Sub(since) < orphanGrace || r.Busy {
			continue
		}
		a.work.Go(func() {
			ctx, cancel := context.WithTimeout(a.life, removeTimeout)
			defer cancel()
			if err := g.Remove(ctx, r.ID); err != nil && !errors.Is(err, runner.ErrBusy) {
				a.log.Warn("cannot remove a registration that nobody keeps", "runner", r.Name, "err", err)
				return
			}
			a.emit(event.Event{Kind: event.OrphanRemoved, Runner: r.Name, Reason: "a registration that nobody kept"})
		})
	}
	state.orphans = still
}

// sweepKeys deletes the login keys that a crash left: half-written ones, and
// those of runners that are no more.
func (a *Agent) sweepKeys(records []runner.Record) error {
	dir := filepath.Join(a.opt.Home, "keys")
	if err := atomicfile.Sweep(dir); err != nil {
		return fmt.Errorf("cannot sweep the login keys: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("cannot sweep the login keys: %w", err)
	}
	live := map[string]bool{}
	for _, rec := range records {
		live[rec.Name] = true
	}
	for _, e := range entries {
		if !live[strings.TrimSuffix(e.Name(), ".pub")] {
			_ = os.Remove(filepath.Join(dir, e.Name()))
		}
	}
	return nil
}

func (a *Agent) makeFolders() error {
	for _, dir := range []string{"keys", "logs"} {
		if err := os.MkdirAll(filepath.Join(a.opt.Home, dir), 0o700); err != nil {
			return fmt.Errorf("cannot make the agent's folders: %w", err)
		}
	}
	return nil
}
