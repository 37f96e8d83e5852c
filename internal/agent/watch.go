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
	"github.com/mirego/tasuki/internal/base/backoff"
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
	guests   []vm.Instance   // as listed last
	listed   bool            // once at least
}

// scopeState is what was last seen of a scope at GitHub. Guarded by Agent.mu.
type scopeState struct {
	name     string
	listed   bool                // once at least
	busy     map[string]bool     // runners that execute a job
	orphans  map[int64]time.Time // when a registration without a guest was first seen
	removing bool                // orphans are being removed
	runners  int                 // in the last list
	fleet    int                 // those of them whose names begin like ours
	kept     int                 // those of them that we keep
}

// watchAll starts the watchers that the pools need and do not have. Those of
// drivers and scopes stay while the agent runs, since runners of pools that
// are no more may need them. The caller holds a.mu.
func (a *Agent) watchAll() {
	if a.life == nil {
		return
	}
	for _, p := range a.pools {
		a.watchStoreOf(p)
		if p.stop == nil {
			ctx, stop := context.WithCancel(a.life)
			p.stop = stop
			a.work.Go(func() { a.watchImage(ctx, p) })
		}
		a.watchDriverOf(p.Driver)
		a.watchScopeOf(p.GitHub, p.Spec.Scope)
	}
}

func (a *Agent) watchDriverOf(d vm.Driver) {
	if a.drivers[d] != nil {
		return
	}
	ctx, state := a.life, &driverState{removing: map[string]bool{}}
	a.drivers[d] = state
	a.work.Go(func() {
		every(ctx, a.opt.Tick, func() { a.observeGuests(ctx, d, state) })
	})
}

func (a *Agent) watchScopeOf(g GitHub, name string) {
	if a.scopes[g] != nil {
		return
	}
	ctx, state := a.life, &scopeState{name: name}
	a.scopes[g] = state
	a.work.Go(func() {
		for {
			a.observeScope(ctx, g, state)
			if backoff.Sleep(ctx, a.resyncPause(state)) != nil {
				return
			}
		}
	})
}

// every calls f at a pace until ctx ends.
func every(ctx context.Context, pace time.Duration, f func()) {
	for {
		f()
		if backoff.Sleep(ctx, pace) != nil {
			return
		}
	}
}

// observeGuests tells the keepers what their guests do, and takes away guests
// of ours that nobody keeps.
func (a *Agent) observeGuests(ctx context.Context, d vm.Driver, state *driverState) {
	name := driverName(d)
	ctx, cancel := context.WithTimeoutCause(ctx, observeTimeout, fmt.Errorf("%s did not answer within %v", name, observeTimeout))
	defer cancel()
	asked := time.Now()
	guests, err := d.List(ctx)
	if err != nil {
		if !errors.Is(err, context.Canceled) {
			a.problem("driver "+name, fmt.Sprintf("cannot list guests: %v", explained(err, context.Cause(ctx))))
		}
		return
	}
	a.problem("driver "+name, "")
	a.seeSlots()

	a.mu.Lock()
	defer a.mu.Unlock()
	state.sawGuests(guests)
	byName := map[string]vm.Instance{}
	for _, g := range guests {
		byName[g.Name] = g
		if a.nobodys(g.Name, asked) && !state.removing[g.Name] {
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

// nobodys says whether a guest of ours may be removed: no record names it, and
// GitHub does not say that its runner executes a job (its record may be what
// was lost). While GitHub does not answer, a guest is removed after a grace.
// The caller holds a.mu; asked is when the guest was listed.
func (a *Agent) nobodys(name string, asked time.Time) bool {
	_, stranded := a.stranded[name]
	if a.keepers[name] != nil || stranded || asked.Before(a.ended[name]) {
		return false
	}
	for _, s := range a.scopes {
		if s.busy[name] || (!s.listed && time.Since(a.started) < orphanGrace) {
			return false
		}
	}
	return true
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
	_ = a.removeKeys(g.Name)
	a.emit(event.Event{Kind: event.OrphanRemoved, Pool: g.Owner.Pool, Runner: g.Name, Reason: "a guest that nobody kept"})
}

// observeScope tells the keepers how GitHub sees their runners, and takes
// away registrations of ours that nobody keeps.
func (a *Agent) observeScope(ctx context.Context, g GitHub, state *scopeState) {
	ctx, cancel := context.WithTimeoutCause(ctx, observeTimeout, errNoAnswer)
	defer cancel()
	asked := time.Now()
	remotes, err := g.Runners(ctx)
	if err != nil {
		if !errors.Is(err, context.Canceled) {
			a.problem("github "+state.name, fmt.Sprintf("cannot list runners: %v", explained(err, context.Cause(ctx))))
		}
		return
	}
	a.problem("github "+state.name, "")

	a.mu.Lock()
	defer a.mu.Unlock()
	byName := map[string]runner.Remote{}
	state.listed, state.busy = true, map[string]bool{}
	state.runners, state.fleet, state.kept = len(remotes), 0, 0
	for _, r := range remotes {
		byName[r.Name] = r
		if strings.HasPrefix(r.Name, short(a.opt.Prefix, 12)+"-") {
			state.fleet++
		}
		if a.keepers[r.Name] != nil {
			state.kept++
		}
		if r.Busy {
			state.busy[r.Name] = true
		}
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
	var due []runner.Remote
	for _, r := range remotes {
		_, stranded := a.stranded[r.Name]
		if !a.ownName(r.Name) || a.keepers[r.Name] != nil || stranded {
			continue
		}
		since, known := state.orphans[r.ID]
		if !known {
			since = now
		}
		still[r.ID] = since
		if now.Sub(since) >= orphanGrace && !r.Busy {
			due = append(due, r)
		}
	}
	state.orphans = still
	if len(due) == 0 || state.removing {
		return
	}
	state.removing = true
	a.work.Go(func() {
		for _, r := range due { // one after the other: there may be thousands
			if a.life.Err() == nil {
				a.removeOrphan(g, r)
			}
		}
		a.mu.Lock()
		state.removing = false
		a.mu.Unlock()
	})
}

func (a *Agent) removeOrphan(g GitHub, r runner.Remote) {
	ctx, cancel := context.WithTimeout(a.life, removeTimeout)
	defer cancel()
	switch err := g.Remove(ctx, r.ID); {
	case errors.Is(err, runner.ErrBusy): // asked again at a later listing
	case err != nil:
		a.log.Warn("cannot remove a registration that nobody keeps", "runner", r.Name, "err", err)
	default:
		a.emit(event.Event{Kind: event.OrphanRemoved, Runner: r.Name, Reason: "a registration that nobody kept"})
	}
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
		name := e.Name()
		for _, suffix := range keySuffixes {
			name = strings.TrimSuffix(name, suffix)
		}
		if !live[name] {
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
