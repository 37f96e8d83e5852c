package agent_test

// What an agent finds that comes back late, or under another configuration:
// no busy runner may be ended because of it.

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mirego/tasuki/internal/agent"
	"github.com/mirego/tasuki/internal/api"
	"github.com/mirego/tasuki/internal/emulator"
	"github.com/mirego/tasuki/internal/journal"
	"github.com/mirego/tasuki/internal/runner"
	"github.com/mirego/tasuki/internal/vm"
	"github.com/mirego/tasuki/internal/vm/fake"
)

// rewrite changes a runner's record while no agent runs.
func (w *world) rewrite(name string, change func(*runner.Record)) {
	w.t.Helper()
	j, err := journal.Open(filepath.Join(w.home, "journal"))
	if err != nil {
		w.t.Fatal(err)
	}
	records, err := j.All()
	if err != nil {
		w.t.Fatal(err)
	}
	for _, rec := range records {
		if rec.Name == name {
			change(&rec)
			if err := j.Put(rec); err != nil {
				w.t.Fatal(err)
			}
			return
		}
	}
	w.t.Fatalf("the journal does not name %s", name)
}

// abandon ends an agent at once, as a second signal does.
func (w *world) abandon(h *host) {
	w.t.Helper()
	h.end()
	if err := <-h.done; err != nil {
		w.t.Fatal(err)
	}
}

// The agent was killed while a runner left, the runner took a job, and the
// agent comes back after the deadline of that state.
func TestALeavingRunnerThatIsAtWorkStays(t *testing.T) {
	t.Parallel()
	w := newWorld(t, emulator.Options{LockDuration: 30 * time.Second})
	w.program = programDir(t, "15s") // longer than GitHub may be wrong just after a job
	first := w.run(fake.Faults{}, nil)
	run := w.submit(1)
	busy := w.runner(first, runner.Busy)
	w.abandon(first)
	w.rewrite(busy.Name, func(r *runner.Record) {
		r.State, r.Since = runner.Leaving, time.Now().Add(-10*time.Minute)
	})
	second := w.run(fake.Faults{}, nil)
	w.concluded(run, "success")
	w.finish(second)
}

// A runner that was on its way when the agent ended gets its time again: that
// nobody looked is not its failure.
func TestAnAdoptedRunnerGetsItsTimeAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t, emulator.Options{})
	first := w.run(fake.Faults{}, nil)
	idle := w.runner(first, runner.Idle)
	w.abandon(first)
	w.rewrite(idle.Name, func(r *runner.Record) {
		r.State, r.Since = runner.Registering, time.Now().Add(-time.Hour)
	})
	second := w.run(fake.Faults{}, nil)
	w.until("a runner waits", func() bool { return second.Status().Pools[0].Idle == 1 })
	if got := w.runner(second, runner.Idle); got.Name != idle.Name {
		t.Errorf("%s waits, want the adopted %s", got.Name, idle.Name)
	}
	w.finish(second)
}

// outage is GitHub's REST service with times when it answers nothing, while
// the service that hands out jobs goes on.
type outage struct {
	agent.GitHub
	down atomic.Bool
}

var errOutage = errors.New("502 Bad Gateway")

func (o *outage) Runners(ctx context.Context) ([]runner.Remote, error) {
	if o.down.Load() {
		return nil, errOutage
	}
	return o.GitHub.Runners(ctx)
}

func (o *outage) Runner(ctx context.Context, id int64) (runner.Remote, bool, error) {
	if o.down.Load() {
		return runner.Remote{}, false, errOutage
	}
	return o.GitHub.Runner(ctx, id)
}

func (o *outage) Remove(ctx context.Context, id int64) error {
	if o.down.Load() {
		return errOutage
	}
	return o.GitHub.Remove(ctx, id)
}

// GitHub cannot be asked whether a runner that shall go is at work, and it
// takes a job just then.
func TestUnboundRunnerWhileGitHubIsDown(t *testing.T) {
	t.Parallel()
	w := newWorld(t, emulator.Options{LockDuration: 15 * time.Second})
	w.program = programDir(t, "3s")
	var gh *outage
	h := w.run(fake.Faults{}, func(o *agent.Options) {
		gh = &outage{GitHub: o.Pools[0].GitHub}
		o.Pools[0].GitHub = gh
		deadlines(o, map[runner.State]time.Duration{runner.Leaving: 300 * time.Millisecond})
	})
	idle := w.runner(h, runner.Idle)
	gh.down.Store(true)
	if err := h.Drain(""); err != nil {
		t.Fatal(err)
	}
	w.until("it says why it cannot leave", func() bool {
		for _, r := range h.Status().Runners {
			if r.Name == idle.Name && r.State == runner.Leaving && strings.Contains(r.Reason, errOutage.Error()) {
				return time.Since(r.Since) > time.Second // long after the state's deadline
			}
		}
		return len(h.Status().Runners) == 0
	})
	run := w.submit(1)
	w.until("it is at work", func() bool {
		r, _ := w.em.RunState(run)
		return r.Status == "completed" || len(h.Status().Runners) == 1 && h.Status().Runners[0].State == runner.Busy
	})
	gh.down.Store(false)
	w.concluded(run, "success")
	w.finish(h)
}

// renamed is a driver under another name.
type renamed struct {
	*fake.Driver
	name string
}

func (r renamed) Capabilities() vm.Capabilities {
	c := r.Driver.Capabilities()
	c.Driver = r.name
	return c
}

// A guest whose driver no pool uses is left alone; a pool that uses it again
// adopts its runner, busy as it is.
func TestADriverThatComesBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t, emulator.Options{LockDuration: 15 * time.Second})
	w.program = programDir(t, "4s")
	first := w.run(fake.Faults{}, nil)
	run := w.submit(1)
	busy := w.runner(first, runner.Busy)
	w.abandon(first)

	other, err := fake.New(fake.Options{Dir: filepath.Join(t.TempDir(), "other"), Installation: installation, Prefix: "tasuki"})
	if err != nil {
		t.Fatal(err)
	}
	second := w.run(fake.Faults{}, func(o *agent.Options) {
		o.Pools[0].Driver = renamed{other, "other"}
		o.Pools[0].Spec.Standby = 0
	})
	w.until("the agent says that a guest is left alone", func() bool {
		return strings.Contains(strings.Join(second.Status().Problems, "\n"), busy.Name)
	})
	if err := second.Reconfigure(first.opt.Pools, 2, 0); err != nil {
		t.Fatal(err)
	}
	if got := w.runner(second, runner.Busy); got.Name != busy.Name {
		t.Errorf("%s is busy, want the adopted %s", got.Name, busy.Name)
	}
	if problems := second.Status().Problems; strings.Contains(strings.Join(problems, "\n"), busy.Name) {
		t.Errorf("problems after the adoption: %q", problems)
	}
	w.concluded(run, "success")
	w.finish(second)
}

// slowJournal holds the first record with a hold until it is let go.
type slowJournal struct {
	agent.Journal
	reached, release chan struct{}
	once             atomic.Bool
}

func (j *slowJournal) Put(r runner.Record) error {
	if !r.HoldUntil.IsZero() && j.once.CompareAndSwap(false, true) {
		close(j.reached)
		<-j.release
	}
	return j.Journal.Put(r)
}

// A hold that is written down while a job begins must not take the runner back
// to where it was.
func TestHoldWhileAJobBegins(t *testing.T) {
	t.Parallel()
	w := newWorld(t, emulator.Options{})
	w.program = programDir(t, "8s")
	slow := &slowJournal{reached: make(chan struct{}), release: make(chan struct{})}
	h := w.run(fake.Faults{}, func(o *agent.Options) {
		slow.Journal, o.Journal = o.Journal, slow
	})
	idle := w.runner(h, runner.Idle)
	held := make(chan error, 1)
	go func() { held <- h.Hold(idle.Name, time.Hour) }()
	<-slow.reached
	run := w.submit(1)
	w.until("the job starts", func() bool {
		r, _ := w.em.RunState(run)
		return r.Jobs[0].Status == "in_progress"
	})
	time.Sleep(time.Second) // long enough for a transition that does not wait
	close(slow.release)
	if err := <-held; err != nil {
		t.Fatal(err)
	}
	w.until("the runner is busy", func() bool {
		return slices.ContainsFunc(h.Status().Runners, func(r api.Runner) bool { return r.Name == idle.Name && r.State == runner.Busy })
	})
	records, err := slow.All()
	if err != nil {
		t.Fatal(err)
	}
	for _, rec := range records {
		if rec.Name == idle.Name && (rec.State != runner.Busy || rec.HoldUntil.IsZero()) {
			t.Errorf("the journal says %s, hold %v; want busy and a hold", rec.State, rec.HoldUntil)
		}
	}
	w.concluded(run, "success")
	w.runner(h, runner.Held)
	if err := h.Hold(idle.Name, 0); err != nil {
		t.Fatal(err)
	}
	w.finish(h)
}

// mute is GitHub whose lists never say that a runner is busy, as they lag
// behind in the field.
type mute struct {
	agent.GitHub
	jobs atomic.Int64 // calls of Job
}

func (m *mute) Runners(ctx context.Context) ([]runner.Remote, error) {
	all, err := m.GitHub.Runners(ctx)
	for i := range all {
		all[i].Busy = false
	}
	return all, err
}

func (m *mute) Runner(ctx context.Context, id int64) (runner.Remote, bool, error) {
	r, there, err := m.GitHub.Runner(ctx, id)
	r.Busy = false
	return r, there, err
}

func (m *mute) Job(ctx context.Context, name string, since time.Time) (runner.Job, bool, error) {
	m.jobs.Add(1)
	return m.GitHub.Job(ctx, name, since)
}

// silence makes a world's runner program write nothing. It is read when the
// program starts.
func silence(t *testing.T, w *world) {
	t.Helper()
	path := filepath.Join(w.program, "run")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	quiet := strings.Replace(string(b), "#!/bin/sh\n", "#!/bin/sh\nexec >/dev/null 2>&1\n", 1)
	if err := os.WriteFile(path, []byte(quiet), 0o700); err != nil {
		t.Fatal(err)
	}
}
