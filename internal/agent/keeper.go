package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/mirego/tasuki/internal/base/backoff"
	"github.com/mirego/tasuki/internal/event"
	"github.com/mirego/tasuki/internal/guest"
	"github.com/mirego/tasuki/internal/image"
	"github.com/mirego/tasuki/internal/runner"
	"github.com/mirego/tasuki/internal/vm"
)

// retryPace is how a keeper repeats a step that failed and may pass.
var retryPace = backoff.Policy{First: 100 * time.Millisecond, Most: 10 * time.Second}

// Causes that end a stay in a state before its work is done.
var errAgentEnds = errors.New("the agent ends")

type stopRequest struct{ reason string }

func (e stopRequest) Error() string { return e.reason }

type guestDied struct{ reason string }

func (e guestDied) Error() string { return e.reason }

type deadlinePassed struct {
	state runner.State
	after time.Duration
}

func (e deadlinePassed) Error() string { return fmt.Sprintf("still %s after %v", e.state, e.after) }

// keeper walks one runner through its life. Its goroutine alone changes the
// record, and so reads it without mu; others read copies, set HoldUntil and
// send requests.
type keeper struct {
	a    *Agent
	pool Pool // as it was when the runner was made
	// strange: pool.GitHub is not the scope that the runner registered in.
	strange bool
	name    string
	labels  []string
	image   image.Local
	holds   string // the digest that is held for it
	config  string
	aged    bool // as pool.Action.Aged; forgotten when the agent ends

	writing sync.Mutex // one change of the record and its file at a time; taken before mu

	mu       sync.Mutex
	rec      runner.Record
	entered  time.Time               // when this agent knew of the state first: what was asked before says nothing of it
	cut      context.CancelCauseFunc // ends the current stay
	stopped  string                  // a stop was requested, and why
	remote   remoteView
	died     string     // why the guest is known to be dead
	console  string     // file of the guest's console, as its driver said last
	told     runner.Job // what a listener said of its job since it was last read
	hasWord  bool       // and whether it said anything
	released bool       // it was decided that the guest is not held
	tried    time.Time  // when GitHub was asked last to let a lingering runner go

	changed    chan struct{} // a hold was set, or GitHub's view changed
	credential runner.Credential
	channel    guest.Channel
	follower   *follower
	ended      *guest.Exit // the runner program has ended
	mayCut     bool        // the guest goes even if GitHub says busy
}

// remoteView is how GitHub listed the runner last.
type remoteView struct {
	at      time.Time // of the question; zero: never listed
	there   bool
	missing time.Time // since when it is not listed; zero: it is
	offline time.Time // since when it is listed as offline; zero: it is not
	runner.Remote
}

// startRunner begins a new runner. The caller holds a.mu.
func (a *Agent) startRunner(p *poolState, aged bool) {
	k := a.newKeeper(p.Pool, a.newName(p.Spec.Name))
	k.labels, k.image, k.config, k.aged = p.labels, a.nextImage(p), p.config, aged
	if a.share(p.Images, k.image.Digest) {
		k.holds = k.image.Digest
	}
	k.rec = runner.Record{Name: k.name, Pool: p.Spec.Name, Scope: p.Spec.Scope, Driver: driverName(p.Driver), Created: time.Now().UTC(),
		Image: k.image.Digest, ImageLabels: k.image.Labels, Config: p.config}
	a.keep(k)
}

// adopt goes on with a runner that the journal names. The caller holds a.mu.
func (a *Agent) adopt(rec runner.Record) {
	p, strange := a.poolFor(rec)
	if p == nil {
		a.stranded[rec.Name] = rec
		a.problems["runner "+rec.Name] = fmt.Sprintf("no pool uses driver %q any more: its guest is left alone; configure one, or remove it by hand", rec.Driver)
		return
	}
	delete(a.stranded, rec.Name)
	delete(a.problems, "runner "+rec.Name)
	k := a.newKeeper(p.Pool, rec.Name)
	k.entered = time.Now()
	if rec.Since.After(k.entered) { // the clock was set back meanwhile
		rec.Since = k.entered
	}
	k.labels, k.config, k.rec, k.strange = p.labels, p.config, rec, strange
	k.mayCut = rec.State == runner.Leaving && rec.Failed && rec.Came() == runner.Busy
	a.log.Info("adopted a runner", "runner", rec.Name, "pool", rec.Pool, "state", rec.State)
	a.keep(k)
}

// poolFor returns the pool to adopt a runner into. A pool that was removed
// from the configuration is stood in for by one with the same driver; strange
// says that even the scope is another, so that its GitHub knows nothing of the
// runner.
func (a *Agent) poolFor(rec runner.Record) (p *poolState, strange bool) {
	var substitute *poolState
	for _, p := range a.pools {
		if driverName(p.Driver) != rec.Driver {
			continue
		}
		same := p.Spec.Scope == rec.Scope
		if same && p.Spec.Name == rec.Pool {
			return p, false
		}
		if substitute == nil || (same && substitute.Spec.Scope != rec.Scope) {
			substitute = p
		}
	}
	return substitute, substitute != nil && substitute.Spec.Scope != rec.Scope
}

func driverName(d vm.Driver) string { return d.Capabilities().Driver }

func (a *Agent) newKeeper(p Pool, name string) *keeper {
	return &keeper{a: a, pool: p, name: name, changed: make(chan struct{}, 1)}
}

// keep runs a keeper to its runner's end. The caller holds a.mu.
func (a *Agent) keep(k *keeper) {
	a.keepers[k.name] = k
	a.work.Go(func() {
		defer k.close()
		k.holdImage()
		if !k.live(a.life) {
			return // the agent ends; the journal has the rest
		}
		a.mu.Lock()
		delete(a.keepers, k.name)
		now := time.Now()
		maps.DeleteFunc(a.ended, func(_ string, end time.Time) bool { return now.Sub(end) > 2*observeTimeout })
		a.ended[k.name] = now
		a.mu.Unlock()
		a.sweepLogs()
		a.poke()
	})
}

// live walks the runner from where it is to Gone. It reports false when the
// agent ends before.
func (k *keeper) live(ctx context.Context) bool {
	if k.rec.State == "" && !k.move(ctx, runner.Preparing, "") {
		return false
	}
	for k.rec.State != runner.Gone {
		to, reason := k.stay(ctx)
		if ctx.Err() != nil || !k.move(ctx, to, reason) {
			return false
		}
	}
	return true
}

// stay does the work of the current state, within its deadline, and returns
// what comes next and why.
func (k *keeper) stay(ctx context.Context) (runner.State, string) {
	state := k.rec.State
	stay, cut := context.WithCancelCause(ctx)
	defer cut(nil)
	if d := k.pool.Spec.Deadline(state); d > 0 && !endless(state) {
		from := k.rec.Since
		if state.OnItsWay() {
			from = k.entered // that no agent looked is not the runner's failure
		}
		var cancel context.CancelFunc
		stay, cancel = context.WithDeadlineCause(stay, from.Add(d), deadlinePassed{state, d})
		defer cancel()
	}
	k.mu.Lock()
	k.cut = cut
	switch {
	case k.died != "" && needsGuest(state):
		cut(guestDied{k.died})
	case k.stopped != "" && stoppable(state):
		cut(stopRequest{k.stopped})
	}
	k.mu.Unlock()

	to, reason, err := states[state](k, stay)
	err = explained(err, context.Cause(stay))
	if err != nil && ctx.Err() == nil {
		return k.give(state, err)
	}
	return to, reason
}

// explained puts what ended a stay before what it broke.
func explained(err, cause error) error {
	switch {
	case err == nil || cause == nil || errors.Is(err, cause):
		return err
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return cause
	}
	return fmt.Errorf("%w: %w", cause, err)
}

// give decides what an error in a state leads to.
func (k *keeper) give(state runner.State, err error) (runner.State, string) {
	var stop stopRequest
	switch {
	case state.Ending():
		// The end goes on whatever happens; each ending state retries by itself.
		return states.after(state), err.Error()
	case errors.As(err, &stop):
		return runner.Leaving, stop.reason
	}
	// Who took too long over a job, or is dead, goes even if GitHub says busy.
	var died guestDied
	k.mayCut = state == runner.Busy || errors.As(err, &died)
	reason := fmt.Sprintf("%s: %v", state, err)
	k.fail(reason, err)
	return runner.Leaving, reason
}

// fail notes that the runner does not end as it should.
func (k *keeper) fail(reason string, err error) {
	k.mu.Lock()
	k.rec.Failed, k.rec.Failure = true, reason
	rec := k.rec
	k.mu.Unlock()
	k.a.log.Warn("runner failed", "runner", k.name, "pool", k.rec.Pool, "state", k.rec.State, "err", err)
	if rec.State == runner.Busy {
		return // the pool is well: its runner did get a job
	}
	k.a.mu.Lock()
	defer k.a.mu.Unlock()
	if p := k.a.poolNamed(k.rec.Pool); p != nil {
		if k.a.disproved(p, rec, err) {
			return
		}
		p.failed(reason, err, rec.Created, time.Now())
		if d, ok := errors.AsType[deprecated](err); ok {
			k.a.refuse(p, k.name, d, time.Now())
		}
	}
}

// move writes the transition down, then tells the world. It reports false
// when the agent ends first: nothing may be done that is not written down.
func (k *keeper) move(ctx context.Context, to runner.State, reason string) bool {
	now := time.Now().UTC()
	k.mu.Lock()
	from, since := k.rec.State, k.rec.Since
	next := k.rec
	next.Steps = append([]runner.Visit(nil), k.rec.Steps...)
	k.mu.Unlock()
	if !next.Move(to, reason, now) {
		// A defect of ours, not of the world: say so and take the way that the
		// table has from everywhere.
		k.a.log.Error("transition not in the table", "runner", k.name, "from", from, "to", to)
		if to = states.after(from); !next.Move(to, reason, now) {
			panic(fmt.Sprintf("no way from %q to %q", from, to))
		}
	}
	if !k.write(ctx, next) {
		return false
	}
	e := event.Event{Kind: event.RunnerMoved, Pool: next.Pool, Runner: k.name, From: from, To: to,
		Reason: reason, Failed: next.Failed, Job: next.Job, Image: next.Image, Record: &next}
	if !since.IsZero() {
		e.Took = now.Sub(since).Seconds()
	}
	k.a.emit(e)
	k.a.log.Info("runner moved", "runner", k.name, "pool", next.Pool, "from", from, "to", to, "reason", reason)
	k.a.poke()
	return true
}

// note changes the record without a transition, and writes it down.
func (k *keeper) note(ctx context.Context, change func(*runner.Record)) bool {
	k.mu.Lock()
	next := k.rec
	k.mu.Unlock()
	change(&next)
	return k.write(ctx, next)
}

// write makes a record durable and current. It tries until it succeeds.
func (k *keeper) write(ctx context.Context, next runner.Record) bool {
	for n := 1; ; n++ {
		err := k.writeOnce(next)
		if err == nil {
			k.a.problem("journal", "")
			return true
		}
		k.a.problem("journal", err.Error())
		if backoff.Sleep(ctx, retryPace.Delay(n, nil)) != nil {
			return false
		}
	}
}

func (k *keeper) writeOnce(next runner.Record) error {
	k.writing.Lock()
	defer k.writing.Unlock()
	k.mu.Lock()
	next.HoldUntil = k.rec.HoldUntil // others set it
	if k.rec.Failed {
		next.Failed, next.Failure = true, k.rec.Failure
	}
	k.mu.Unlock()
	var err error
	if next.State == runner.Gone {
		err = k.a.opt.Journal.Delete(k.name)
	} else {
		err = k.a.opt.Journal.Put(next)
	}
	if err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if next.State != k.rec.State {
		k.entered = next.Since
	}
	hold := k.rec.HoldUntil
	k.rec = next
	k.rec.HoldUntil = hold
	return nil
}

// knownFor returns how long this agent knows the runner in its state.
func (k *keeper) knownFor() time.Duration {
	k.mu.Lock()
	defer k.mu.Unlock()
	return time.Since(k.entered)
}

// triedSince says whether GitHub was asked to let a lingering runner go since.
func (k *keeper) triedSince(t time.Time) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return !k.tried.Before(t)
}

// record returns a copy of what is known of the runner.
func (k *keeper) record() runner.Record {
	k.mu.Lock()
	defer k.mu.Unlock()
	rec := k.rec
	rec.Steps = append([]runner.Visit(nil), k.rec.Steps...)
	return rec
}

// requestStop asks a runner that has no job to end.
func (k *keeper) requestStop(reason string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.stopped != "" || !stoppable(k.rec.State) {
		return
	}
	k.stopped = reason
	if k.cut != nil {
		k.cut(stopRequest{reason})
	}
}

// observeGuest takes in what the hypervisor says.
func (k *keeper) observeGuest(g vm.Instance, there bool, asked time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if g.Console != "" {
		k.console = g.Console
	}
	if !needsGuest(k.rec.State) || k.rec.State == runner.Cloning || asked.Before(k.entered) {
		return
	}
	switch {
	case !there:
		k.died = "the guest is gone from the hypervisor"
	case g.State != vm.Running:
		k.died = fmt.Sprintf("the guest is %s", g.State)
		if g.Reason != "" {
			k.died += ": " + g.Reason
		}
	default:
		return
	}
	if k.cut != nil {
		k.cut(guestDied{k.died})
	}
}

// observeRemote takes in what GitHub says.
func (k *keeper) observeRemote(r runner.Remote, there bool, asked time.Time) {
	if k.strange {
		return
	}
	k.mu.Lock()
	view := remoteView{at: asked, there: there, Remote: r}
	switch {
	case !there:
		view.missing = orDefault(k.remote.missing, asked)
	case !r.Online:
		view.offline = orDefault(k.remote.offline, asked)
	}
	k.remote = view
	k.mu.Unlock()
	k.nudge()
}

func (k *keeper) nudge() {
	select {
	case k.changed <- struct{}{}:
	default:
	}
}

// close ends what the keeper holds open; the guest is not touched.
func (k *keeper) close() {
	k.a.letGoAll(k.pool.Images, []string{k.holds})
	k.follower.stop()
	k.hangUp()
	if k.rec.State == runner.Gone {
		_ = k.a.removeKeys(k.name)
	}
}

func needsGuest(s runner.State) bool {
	return s == runner.Cloning || s == runner.Connecting || s == runner.Launching ||
		s == runner.Registering || s == runner.Idle || s == runner.Busy || s == runner.Held
}

func stoppable(s runner.State) bool { return s == runner.Idle || s.OnItsWay() }

// endless are states whose deadline does not end the stay: they go on until
// done, and say so.
func endless(s runner.State) bool {
	return s == runner.Leaving || s == runner.Stopping || s == runner.Deleting || s == runner.Lingering || s == runner.Held
}

func env(p Pool) map[string]string { return maps.Clone(p.Spec.Env) }
