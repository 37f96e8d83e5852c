package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/mirego/tasuki/internal/api"
	"github.com/mirego/tasuki/internal/event"
	"github.com/mirego/tasuki/internal/guest"
	"github.com/mirego/tasuki/internal/image"
	"github.com/mirego/tasuki/internal/runner"
	"github.com/mirego/tasuki/internal/vm"
)

// Status returns what the host does, for people.
func (a *Agent) Status() api.Status {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := api.Status{
		Host: a.opt.Host, Installation: a.opt.Installation, Version: a.opt.Version, PID: os.Getpid(),
		Started: a.started.UTC(), Now: time.Now().UTC(), Draining: a.drained || a.stopping || a.rebooting.drains, Stopping: a.stopping,
		Leaked: a.rebooting.leaked,
		Slots:  a.slots(), Pools: []api.Pool{}, Runners: []api.Runner{},
	}
	for _, source := range slices.Sorted(maps.Keys(a.problems)) {
		s.Problems = append(s.Problems, source+": "+a.problems[source])
	}
	byPool := map[string][]runner.Record{}
	for _, name := range slices.Sorted(maps.Keys(a.keepers)) {
		k := a.keepers[name]
		rec := k.record()
		if rec.State == "" {
			continue
		}
		if rec.State.TakesSlot() {
			s.Taken++
		}
		byPool[rec.Pool] = append(byPool[rec.Pool], rec)
		s.Runners = append(s.Runners, k.status(rec))
	}
	for _, p := range a.pools {
		pool, m := p.status(byPool[p.Spec.Name]), a.memory(p)
		pool.Previous, pool.Rejected, pool.Pinned = m.Previous, m.Rejected, m.Pinned
		p.imageStatus(&pool)
		if l, ok := p.Demand.(Listener); ok {
			pool.Listens = true
			if state := a.listeners[l]; state != nil {
				pool.Deaf = state.trouble
			}
		}
		s.Pools = append(s.Pools, pool)
	}
	return s
}

func (k *keeper) status(rec runner.Record) api.Runner {
	return api.Runner{
		Name: rec.Name, Pool: rec.Pool, State: rec.State, Since: rec.Since, Reason: rec.Reason, Created: rec.Created,
		Job: rec.Job, Hold: rec.HoldUntil, Failed: rec.Failed, Failure: rec.Failure, Steps: rec.Steps,
		Way: rec.Way,
	}
}

func (p *poolState) status(runners []runner.Record) api.Pool {
	want := p.Demand.Want()
	s := api.Pool{
		Name: p.Spec.Name, Scope: p.Spec.Scope, Labels: p.labels, Image: p.Spec.Image, Digest: p.image.Digest,
		Standby: want.Runners(), Demand: want.Why, Jobs: len(want.Jobs), Draining: p.drained, Waits: p.waiting, Deprecated: p.deprecated,
	}
	if len(want.Jobs) > 0 {
		s.OldestJob = want.Jobs[0].UTC()
	}
	for _, r := range runners {
		switch {
		case r.State == runner.Idle:
			s.Idle++
		case r.State == runner.Busy:
			s.Busy++
		case r.State.OnItsWay():
			s.Starting++
		}
	}
	return s
}

// imageStatus adds where the pool's image is from and what is on its way.
func (p *poolState) imageStatus(s *api.Pool) {
	s.ImageArrived = p.image.Arrived
	if built, err := time.Parse(time.RFC3339, p.image.Labels[image.LabelBuilt]); err == nil {
		s.ImageBuilt = built.UTC()
	}
	if p.trial != nil {
		s.Trying = p.trial.Digest
	}
	if p.pull != nil {
		s.Pulling = &api.Pull{Image: p.pull.ref, Since: p.pull.since.UTC(), Done: p.pull.Done, Total: p.pull.Total, Reused: p.pull.Reused}
	}
}

// Hold keeps a runner's guest for d from now once its job is over, for a
// person to look at; 0 lets it go. Errors: ErrNoRunner, ErrEnding where there
// is nothing to keep any more.
func (a *Agent) Hold(name string, d time.Duration) error {
	k, err := a.keeperNamed(name)
	if err != nil {
		return err
	}
	until := time.Time{}
	if d > 0 {
		until = time.Now().UTC().Add(d)
	}
	if !k.setHold(until) {
		return fmt.Errorf("cannot hold %q: %w", name, ErrEnding)
	}
	return k.writeHold()
}

// Login says how to log in to a runner's guest: by its address, or through a
// tunnel where it has none. Errors: ErrNoRunner, and the driver's where there is
// neither (yet).
func (a *Agent) Login(name string) (api.Login, error) {
	k, err := a.keeperNamed(name)
	if err != nil {
		return api.Login{}, err
	}
	d, ok := k.pool.Driver.(vm.Addresser)
	if !ok {
		return api.Login{}, fmt.Errorf("cannot log in to %q: its driver gives no address: %w", name, vm.ErrUnsupported)
	}
	rec := k.record()
	login := api.Login{
		User: orDefault(rec.User, rec.ImageLabels[image.LabelUser]), KeyFile: a.keyPath(name),
		HostKey: orDefault(rec.ImageLabels[image.LabelHostKey], rec.HostKey),
	}
	if t, ok := k.pool.Dialer.(guest.Tunneler); ok && rec.Up {
		login.Tunnel = t.Tunnel(name)
	}
	ctx, cancel := context.WithTimeout(context.Background(), observeTimeout)
	defer cancel()
	login.Address, err = d.Address(ctx, name)
	if err != nil && len(login.Tunnel) == 0 {
		return api.Login{}, fmt.Errorf("cannot log in to %q: %w", name, err)
	}
	return login, nil
}

func (a *Agent) keeperNamed(name string) (*keeper, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if k := a.keepers[name]; k != nil {
		return k, nil
	}
	return nil, fmt.Errorf("cannot find runner %q: %w", name, ErrNoRunner)
}

// Reconfigure takes over changed pools and limits. Running jobs are not
// touched; runners that wait and were made from other settings give way to new
// ones, one after the other. On an error nothing has changed.
func (a *Agent) Reconfigure(pools []Pool, slots int, drainTimeout time.Duration) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.setPools(pools); err != nil {
		return err
	}
	a.opt.Slots = slots
	a.opt.DrainTimeout = orDefault(drainTimeout, a.opt.DrainTimeout)
	if a.life != nil { // before their driver is watched, which would find guests of nobody
		for _, rec := range a.stranded {
			a.adopt(rec)
		}
	}
	a.watchAll()
	a.listenAll()
	a.tellDrain()
	a.emit(event.Event{Kind: event.HostReloaded})
	a.poke()
	return nil
}

// Teardown removes every runner of ours, busy ones too: from GitHub, from the
// hypervisor, from the journal. Call it after Run has returned.
func (a *Agent) Teardown(ctx context.Context) error {
	records, err := a.opt.Journal.All()
	if err != nil {
		return fmt.Errorf("cannot read the journal: %w", err)
	}
	a.mu.Lock()
	a.life = ctx
	drivers := map[vm.Driver]bool{}
	var keepers []*keeper
	var errs []error
	for _, p := range a.pools {
		drivers[p.Driver] = true
	}
	for _, rec := range records {
		p, strange := a.poolFor(rec)
		if p == nil {
			errs = append(errs, fmt.Errorf("cannot remove %q: no pool uses driver %q", rec.Name, rec.Driver))
			continue
		}
		k := a.newKeeper(p.Pool, rec.Name)
		k.rec, k.strange = rec, strange
		keepers = append(keepers, k)
	}
	a.mu.Unlock()
	for _, k := range keepers {
		errs = append(errs, k.tearDown(ctx))
	}
	for d := range drivers {
		errs = append(errs, destroyAll(ctx, d))
	}
	return errors.Join(errs...)
}

// tearDown ends one runner whatever its state: the guest first, since a
// runner without one cannot be busy for long. It tries until ctx ends.
func (k *keeper) tearDown(ctx context.Context) error {
	if err := k.insist(ctx, "cannot destroy the guest", k.pool.Driver.Destroy); err != nil {
		return fmt.Errorf("cannot destroy guest %q: %s: %w", k.name, k.rec.Reason, err)
	}
	if k.rec.Asked && !k.rec.Left {
		again := func(error) bool { return ctx.Err() == nil }
		if err := retryPace.Retry(ctx, again, k.unregister); err != nil {
			return fmt.Errorf("cannot remove runner %q from GitHub: %w", k.name, err)
		}
	}
	_ = k.a.removeKeys(k.name)
	return k.a.opt.Journal.Delete(k.name)
}

func destroyAll(ctx context.Context, d vm.Driver) error {
	guests, err := d.List(ctx)
	if err != nil {
		return fmt.Errorf("cannot list guests: %w", err)
	}
	var errs []error
	for _, g := range guests {
		errs = append(errs, d.Destroy(ctx, g.Name))
	}
	return errors.Join(errs...)
}
