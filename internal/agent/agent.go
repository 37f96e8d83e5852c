// Package agent keeps the runners of one host.
//
// It is a reconcile loop. Watchers observe what is there, each at its own pace:
// one for each hypervisor driver, one for each scope at GitHub, one for each
// pool's image. A pass compares that with what the pools want (pool.Decide) and
// begins or ends runners; it only looks at memory and never waits. Each runner
// has a keeper that walks it through its states, writes each transition to the
// journal before acting on it, and emits it as an event.
//
// Guests outlive the agent: an agent that starts finds the journal, adopts
// every runner in it, whatever its state, and takes away what belongs to
// nobody. A busy runner is ended only when its guest is dead, its job took
// longer than the pool allows, or GitHub agreed.
package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/mirego/tasuki/internal/api"
	"github.com/mirego/tasuki/internal/base/secret"
	"github.com/mirego/tasuki/internal/event"
	"github.com/mirego/tasuki/internal/guest"
	"github.com/mirego/tasuki/internal/image"
	"github.com/mirego/tasuki/internal/pool"
	"github.com/mirego/tasuki/internal/runner"
	"github.com/mirego/tasuki/internal/vm"
	"github.com/mirego/tasuki/internal/wait"
)

// Sentinels of the control calls.
var (
	// ErrNoRunner: this host keeps no runner of that name.
	ErrNoRunner = errors.New("no such runner on this host")
	// ErrNoPool: this host has no pool of that name.
	ErrNoPool = errors.New("no such pool on this host")
	// ErrEnding: the runner's guest is shut down, or about to be.
	ErrEnding = errors.New("its guest is being shut down")
)

// GitHub is one scope at GitHub. Its methods may be called at the same time
// and are bounded by their context. An error that has a method
// RetryAfter() time.Duration says when to come back.
type GitHub interface {
	// Credential registers a runner that takes one job. Errors:
	// runner.ErrExists, runner.ErrDenied.
	Credential(ctx context.Context, r runner.Registration) (runner.Credential, error)
	// Runners returns every runner of the scope.
	Runners(ctx context.Context) ([]runner.Remote, error)
	// Runner returns one; false: GitHub does not know it.
	Runner(ctx context.Context, id int64) (runner.Remote, bool, error)
	// Remove takes a runner away; one that is gone is no error. Errors:
	// runner.ErrBusy while it executes a job.
	Remove(ctx context.Context, id int64) error
	// Job returns the job that a runner took; false where that cannot be found.
	Job(ctx context.Context, runnerName string, since time.Time) (runner.Job, bool, error)
}

// Images brings images to this host.
type Images interface {
	// Image returns the image that ref means now, from this host if it is
	// there, else pulled, which may take minutes; progress, which may be nil, is
	// told how far it is. A value may also be an ImageStore.
	Image(ctx context.Context, ref string, progress func(image.Progress)) (image.Local, error)
}

// Journal is what we wrote down about live runners. Put is durable when it
// returns.
type Journal interface {
	Put(runner.Record) error
	Delete(name string) error
	All() ([]runner.Record, error)
}

// Pool is a pool with everything that it works on. One Driver, GitHub or
// Images value may serve several pools.
type Pool struct {
	Spec   pool.Spec
	Driver vm.Driver
	Dialer guest.Dialer
	GitHub GitHub
	Images Images
	// Demand is nil for a constant Spec.Standby.
	Demand Demand
}

// Options are what an Agent needs.
type Options struct {
	Host         string // for people
	Installation string // lower-case letters and digits, unique to this home
	Prefix       string // of runner names; empty: "tasuki"
	Version      string
	Home         string // keys/ and logs/ are made below it
	Slots        int    // guests at once over all pools
	// DrainTimeout bounds how long Shutdown waits for busy runners; 0: 1 h.
	DrainTimeout time.Duration
	// Tick is the pace of the pass and of watching the drivers; 0: 2 s.
	Tick time.Duration
	// Resync is the pace of listing GitHub's runners; 0: 30 s.
	Resync time.Duration
	// LostReply is how long after we stopped listening GitHub may still do what
	// we asked for; 0: 15 s.
	LostReply time.Duration
	// ImageRefresh is the pace of asking what an image reference means; 0: 1 min.
	ImageRefresh time.Duration
	// ImageFloor is how many bytes stay free on the disk of an ImageStore, as
	// long as there are images that nobody needs.
	ImageFloor int64

	// Logs says how long logs of runners that are gone are kept.
	Logs Logs

	Pools []Pool
	// Releases of the runner program, for guests whose image carries an older
	// one; nil: every guest runs the image's.
	Releases Releases
	Journal  Journal
	Events   event.Sink // nil: nobody listens
	Log      *slog.Logger
	// Reboot is the command that reboots the host, run when slots of it have leaked
	// and nobody is at work; empty: it is left to people.
	Reboot []string
	// LeakLasts is how long slots must have leaked before; 0: 15 min, in which the
	// driver has tried one again.
	LeakLasts time.Duration
	// NewKey makes a login key for one guest: the private key in PEM and the
	// public one in authorized_keys form.
	NewKey func() (private secret.String, public string, err error)
}

// Agent keeps the runners of one host. Make it with New, then Run it once; all
// other methods may be called at any time, from anywhere.
type Agent struct {
	opt     Options
	log     *slog.Logger
	wake    chan struct{}
	started time.Time
	life    context.Context // of the keepers and watchers; set by Run
	work    sync.WaitGroup  // keepers, watchers and listeners
	mail    mail

	mu        sync.Mutex
	pools     []*poolState
	drivers   map[vm.Driver]*driverState
	scopes    map[GitHub]*scopeState
	keepers   map[string]*keeper
	problems  map[string]string       // by source
	memories  map[string]*imageMemory // of the pools' images, by pool
	stores    map[ImageStore]bool     // that are watched
	holds     map[holdKey]*hold
	listeners map[Listener]*listening
	stranded  map[string]runner.Record // that no pool can adopt, by name; their guests are left alone
	ended     map[string]time.Time     // runners that ended lately: an older listing may still hold their guests
	drained   bool                     // the host takes no new runners
	stopping  bool                     // and the agent ends
	rebooting rebooting
	stopped   time.Time     // since when
	ending    chan struct{} // closed when stopping
}

// New checks the options and returns an agent that has done nothing yet.
func New(o Options) (*Agent, error) {
	if o.Installation == "" || o.Home == "" || o.Journal == nil || o.NewKey == nil {
		return nil, errors.New("cannot make an agent without installation, home, journal and login keys")
	}
	if o.Events == nil {
		o.Events = event.Discard
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	o.Prefix = orDefault(o.Prefix, "tasuki")
	o.Tick = orDefault(o.Tick, 2*time.Second)
	o.Resync = orDefault(o.Resync, 30*time.Second)
	o.LostReply = orDefault(o.LostReply, 15*time.Second)
	o.ImageRefresh = orDefault(o.ImageRefresh, time.Minute)
	o.DrainTimeout = orDefault(o.DrainTimeout, time.Hour)
	o.LeakLasts = orDefault(o.LeakLasts, 15*time.Minute)
	o.Logs.Runs = orDefault(o.Logs.Runs, 200)
	o.Logs.Age = orDefault(o.Logs.Age, 7*24*time.Hour)
	a := &Agent{
		opt: o, log: o.Log.With("host", o.Host), wake: make(chan struct{}, 1),
		drivers: map[vm.Driver]*driverState{}, scopes: map[GitHub]*scopeState{},
		keepers: map[string]*keeper{}, listeners: map[Listener]*listening{}, problems: map[string]string{}, memories: map[string]*imageMemory{},
		stores: map[ImageStore]bool{}, holds: map[holdKey]*hold{}, stranded: map[string]runner.Record{},
		ended: map[string]time.Time{}, ending: make(chan struct{}),
	}
	if err := a.setPools(o.Pools); err != nil {
		return nil, err
	}
	return a, nil
}

// Run keeps the runners until ctx ends or Shutdown has finished. When ctx
// ends it returns soon and leaves every guest as it is, for the next agent to
// adopt. It returns an error only if it could not begin.
func (a *Agent) Run(ctx context.Context) error {
	life, end := context.WithCancelCause(ctx)
	defer a.releaseImages()
	defer a.work.Wait()
	defer end(errors.New("the agent ends"))
	if err := a.begin(life); err != nil {
		return err
	}
	a.sweepLogs()
	a.emit(event.Event{Kind: event.HostStarted})
	defer a.emit(event.Event{Kind: event.HostStopped})

	tick := time.NewTicker(a.opt.Tick)
	defer tick.Stop()
	var deadline <-chan time.Time
	for {
		a.pass()
		if a.isStopping() {
			if deadline == nil {
				deadline = time.After(a.drainTimeout())
			}
			if a.settled() {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-deadline:
			a.log.Warn("drain timeout passed; busy runners stay and the next agent adopts them")
			return nil
		case <-a.wake:
		case <-tick.C:
		}
	}
}

// begin adopts what the journal names and starts the watchers.
func (a *Agent) begin(life context.Context) error {
	records, err := a.opt.Journal.All()
	if err != nil {
		return fmt.Errorf("cannot read the journal: %w", err)
	}
	if err := a.makeFolders(); err != nil {
		return err
	}
	if err := a.sweepKeys(records); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.readDrained(); err != nil {
		return err
	}
	if err := a.readImages(); err != nil {
		return err
	}
	a.readReboot()
	a.life, a.started = life, time.Now()
	for _, rec := range records {
		a.adopt(rec)
	}
	a.watchAll()
	a.listenAll()
	return nil
}

// Shutdown takes no more runners and lets Run return when no runner is busy any
// more, or after the drain timeout. It does not wait. Listeners end at once:
// GitHub gives this host no more jobs that nobody would begin, and keeps them
// for who listens next.
func (a *Agent) Shutdown() {
	a.mu.Lock()
	if !a.stopping {
		a.stopping, a.stopped = true, time.Now()
		close(a.ending)
	}
	a.listenAll()
	a.mu.Unlock()
	a.emit(event.Event{Kind: event.HostDraining, Reason: "the agent ends when its busy runners have finished"})
	a.poke()
}

func (a *Agent) drainTimeout() time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.opt.DrainTimeout
}

func (a *Agent) isStopping() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.stopping
}

// settled says whether a stopping agent has nothing more to wait for. What is
// still held for a person, or waits for GitHub's answer for long, the next agent
// takes over.
func (a *Agent) settled() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, k := range a.keepers {
		rec := k.record()
		held := rec.State == runner.Held && time.Now().Before(rec.HoldUntil)
		waits := (rec.State == runner.Leaving || rec.State == runner.Lingering) && k.knownFor() >= lingerPatience
		if waits && rec.State == runner.Lingering {
			waits = k.triedSince(a.stopped) // GitHub is asked once more
		}
		if !held && !waits {
			return false
		}
	}
	return true
}

// poke asks for a pass soon.
func (a *Agent) poke() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

func (a *Agent) emit(e event.Event) {
	e.Time, e.Host = time.Now().UTC(), a.opt.Host
	a.opt.Events.Emit(e)
}

// problem keeps what is wrong for people to see; an empty text means that it
// is well again.
func (a *Agent) problem(source, text string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.setProblem(source, text)
}

// setProblem is problem for a caller that holds a.mu.
func (a *Agent) setProblem(source, text string) {
	old := a.problems[source]
	if text == "" {
		delete(a.problems, source)
	} else {
		a.problems[source] = text
	}
	switch {
	case text != "" && text != old:
		a.log.Warn("problem", "source", source, "err", text)
	case text == "" && old != "":
		a.log.Info("problem is over", "source", source)
	}
}

// pass decides and acts. It only looks at memory.
func (a *Agent) pass() {
	for _, heard := range a.mail.take() {
		heard()
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.considerReboot(time.Now())
	for _, act := range a.decide() {
		switch act.Verb {
		case pool.Start:
			a.startRunner(a.poolNamed(act.Pool), act.Aged)
		case pool.Stop:
			a.keepers[act.Runner].requestStop(act.Reason)
			if p := a.poolNamed(act.Pool); p != nil && act.Yields {
				p.yielded = time.Now()
			}
		}
	}
}

// decide asks pool.Decide and keeps, for each pool, what it waits for.
func (a *Agent) decide() []pool.Action {
	now := time.Now()
	var seen []pool.Seen
	have := map[string]bool{}
	a.judge(now)
	for _, k := range slices.SortedFunc(maps.Values(a.keepers), func(x, y *keeper) int { return strings.Compare(x.name, y.name) }) {
		rec := k.record()
		if rec.State == "" { // begun, and not written down yet
			rec.State, rec.Since = runner.Preparing, now
		}
		if !rec.State.Ending() {
			have[rec.Pool] = true
		}
		seen = append(seen, pool.Seen{Name: k.name, Pool: rec.Pool, Driver: bound(k.pool.Driver), State: rec.State, Since: rec.Since,
			Outdated: a.outdated(rec), Aged: k.aged})
	}
	var wants []pool.Want
	for _, p := range a.pools {
		a.reconsider(p)
		w := pool.Want{
			Pool: p.Spec.Name, Driver: bound(p.Driver), Demand: p.Demand.Want(), Most: p.Spec.Most,
			Blocked: p.blocked(now), Drain: a.drains(p), Yielded: p.yielded,
		}
		w.Hungry = p.hunger(now, have[w.Pool], w.Demand.Runners() > 0 && !w.Drain)
		wants = append(wants, w)
	}
	actions := pool.Decide(now, wants, seen, a.limits())
	for _, p := range a.pools {
		a.waits(p, actions)
	}
	return actions
}

// drains says whether a pool takes no new runners.
func (a *Agent) drains(p *poolState) bool {
	return a.drained || a.stopping || a.rebooting.drains || p.drained
}

func (a *Agent) waits(p *poolState, actions []pool.Action) {
	var reason wait.Reason
	for _, act := range actions {
		if act.Verb == pool.Wait && act.Pool == p.Spec.Name {
			reason = act.Waits
		}
	}
	if reason.Code != p.waiting.Code { // the text counts and changes all the time
		kind := event.PoolWaits
		if reason.None() {
			kind = event.PoolReady
		}
		a.emit(event.Event{Kind: kind, Pool: p.Spec.Name, Reason: reason.Text, Code: reason.Code})
	}
	p.waiting = reason
}

// bound names what bounds the guests of a driver, for pool.Limits: the two macOS
// guests of a Mac are not bounded together with the Linux ones of that driver.
func bound(d vm.Driver) string {
	c := d.Capabilities()
	if c.MaxGuests == 0 {
		return c.Driver + " of " + c.GuestOS
	}
	return c.Driver
}

// limits returns the host's slots, what each driver's hypervisor runs at once,
// and how many slots the guests take that are left alone.
func (a *Agent) limits() pool.Limits {
	l := pool.Limits{Slots: a.opt.Slots, Drivers: map[string]int{}}
	for d := range a.drivers {
		most := d.Capabilities().MaxGuests
		if most == 0 {
			continue
		}
		if c, ok := d.(vm.SlotCounter); ok {
			if most -= c.Slots().Taken(); most <= 0 {
				most = -1 // 0 would mean no bound
			}
		}
		l.Drivers[bound(d)] = most
	}
	for _, rec := range a.stranded {
		if rec.State.TakesSlot() {
			l.Taken++
		}
	}
	return l
}

// slots returns how many guests can run at once with the drivers in use.
func (a *Agent) slots() int {
	sum, most := 0, a.limits().Drivers
	for d := range a.drivers {
		n, bounded := most[bound(d)]
		if !bounded {
			return a.opt.Slots
		}
		sum += max(n, 0)
	}
	if sum == 0 { // nothing is watched yet
		return a.opt.Slots
	}
	return min(a.opt.Slots, sum)
}

// outdated says why a waiting runner should give way to a new one.
func (a *Agent) outdated(rec runner.Record) string {
	p := a.poolNamed(rec.Pool)
	switch {
	case p == nil || !p.ready():
		return ""
	case rec.Config != "" && rec.Config != p.config:
		return "the pool's settings have changed"
	case rec.Image == "" || p.tries(rec.Image):
		return ""
	case p.trial != nil && p.trial.ready:
		return "the pool has a newer image, to be tried"
	case rec.Image != p.image.Digest:
		return "the pool has another image"
	}
	return ""
}

func (a *Agent) poolNamed(name string) *poolState {
	for _, p := range a.pools {
		if p.Spec.Name == name {
			return p
		}
	}
	return nil
}

func (a *Agent) keyPath(name string) string { return filepath.Join(a.opt.Home, "keys", name) }

// keySuffixes are those of a guest's files beside its private key: the public
// one, and the host keys that tasuki ssh was shown first.
var keySuffixes = []string{".pub", api.HostsSuffix}

// removeKeys deletes a guest's login key and what lies beside it.
func (a *Agent) removeKeys(name string) error {
	var errs []error
	for _, suffix := range append([]string{""}, keySuffixes...) {
		if err := os.Remove(a.keyPath(name) + suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func orDefault[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}
