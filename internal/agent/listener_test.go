package agent_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mirego/tasuki/internal/agent"
	"github.com/mirego/tasuki/internal/emulator"
	"github.com/mirego/tasuki/internal/pool"
	"github.com/mirego/tasuki/internal/runner"
	"github.com/mirego/tasuki/internal/vm/fake"
	"github.com/mirego/tasuki/internal/wait"
)

// listener is a demand that tests set, and that says what they want.
type listener struct {
	mu    sync.Mutex
	want  pool.Demand
	ear   agent.Ear
	calls []string // "listen", "drain", "resume", "ended"
	slow  chan struct{}
}

func (l *listener) note(call string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.calls = append(l.calls, call)
}

func (l *listener) heard() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.calls, " ")
}

func (l *listener) Want() pool.Demand {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.want
}

// set changes the demand, and tells of it while it holds its lock.
func (l *listener) set(d pool.Demand) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.want = d
	if l.ear.Changed != nil {
		l.ear.Changed()
	}
}

func (l *listener) Listen(ctx context.Context, to agent.Ear) {
	l.mu.Lock()
	l.ear = to
	l.calls = append(l.calls, "listen")
	l.mu.Unlock()
	<-ctx.Done()
	if l.slow != nil {
		<-l.slow
	}
	l.note("ended")
}

func (l *listener) Drain(drained bool) {
	if drained {
		l.note("drain")
	} else {
		l.note("resume")
	}
}

// listens makes the first pool of a host listen.
func listens(l *listener) func(*agent.Options) {
	return func(o *agent.Options) { o.Pools[0].Demand = l }
}

func (w *world) said(l *listener, want string) {
	w.t.Helper()
	w.until("the listener was told "+want, func() bool { return l.heard() == want })
}

func TestAListenerGoesOnAsLongAsItsPool(t *testing.T) {
	t.Parallel()
	w := newWorld(t, emulator.Options{})
	l := &listener{slow: make(chan struct{})}
	h := w.run(fake.Faults{}, listens(l))
	w.said(l, "resume listen")
	changed := append([]agent.Pool(nil), h.opt.Pools...)
	changed[0].Spec.Labels = []string{"other"}
	if err := h.Reconfigure(changed, 2, 0); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		do   func(string) error
		pool string
		want string
	}{
		{h.Drain, "fake", "resume listen drain"},
		{h.Drain, "", "resume listen drain"},
		{h.Resume, "", "resume listen drain"},
		{h.Resume, "fake", "resume listen drain resume"},
	} {
		if err := step.do(step.pool); err != nil {
			t.Fatal(err)
		}
		w.said(l, step.want)
	}
	without := append([]agent.Pool(nil), h.opt.Pools...)
	without[0].Demand = nil
	for _, pools := range [][]agent.Pool{without, h.opt.Pools} { // wanted again before it has ended
		if err := h.Reconfigure(pools, 2, 0); err != nil {
			t.Fatal(err)
		}
	}
	w.said(l, "resume listen drain resume")
	close(l.slow)
	w.said(l, "resume listen drain resume ended resume listen")
	w.finish(h)
	w.said(l, "resume listen drain resume ended resume listen ended") // and no drain: GitHub keeps the jobs for the next agent
}

func TestADrainOutlivesTheAgent(t *testing.T) {
	t.Parallel()
	w := newWorld(t, emulator.Options{})
	first := w.run(fake.Faults{}, nil)
	w.runner(first, runner.Idle)
	if err := first.Drain("fake"); err != nil {
		t.Fatal(err)
	}
	if err := first.Drain(""); err != nil {
		t.Fatal(err)
	}
	w.finish(first)
	l := &listener{want: pool.Demand{Warm: 1}}
	second := w.run(fake.Faults{}, listens(l))
	w.said(l, "drain listen")
	if s := second.Status(); !s.Draining || !s.Pools[0].Draining {
		t.Errorf("the next agent has host and pool draining %v, %v", s.Draining, s.Pools[0].Draining)
	}
	for _, name := range []string{"", "fake"} {
		if err := second.Resume(name); err != nil {
			t.Fatal(err)
		}
	}
	w.said(l, "drain listen resume")
	w.runner(second, runner.Idle)
	w.finish(second)
	third := w.run(fake.Faults{}, nil)
	w.runner(third, runner.Idle)
	w.finish(third)
}

// A runner starts for an assigned job; what the listener says of the job goes
// into the record, however late; that a job is over is believed when it is seen.
func TestLostCompletedAndLateStarted(t *testing.T) {
	t.Parallel()
	w := newWorld(t, emulator.Options{LockDuration: 20 * time.Second})
	w.program = programDir(t, "4s")
	silence(t, w)
	l := &listener{}
	var gh *mute
	h := w.run(fake.Faults{}, func(o *agent.Options) {
		l.want = pool.Demand{Jobs: []time.Time{time.Now()}}
		gh = &mute{GitHub: o.Pools[0].GitHub}
		o.Pools[0].GitHub, o.Pools[0].Demand = gh, l
	})
	idle := w.runner(h, runner.Idle)
	run := w.submit(1)
	w.until("the job starts", func() bool {
		r, _ := w.em.RunState(run)
		return r.Jobs[0].Status == "in_progress"
	})
	queued := time.Now().Add(-time.Minute).UTC().Round(0)
	told := runner.Job{Name: "build", Repository: "octo/other", Workflow: "CI", Queued: queued}
	l.ear.Started("nobody", told)
	l.ear.Started(idle.Name, told)
	l.set(pool.Demand{})
	if busy := w.runner(h, runner.Busy); busy.Name != idle.Name {
		t.Errorf("busy is %s, want %s", busy.Name, idle.Name)
	}
	told.Conclusion = "success"
	l.ear.Completed(idle.Name, told) // far too early
	w.until("the conclusion is known", func() bool { return w.runner(h, runner.Busy).Job.Conclusion == "success" })
	w.until("its start is known", func() bool { return !w.runner(h, runner.Busy).Job.Started.IsZero() })
	got := w.runner(h, runner.Busy).Job
	got.Started = time.Time{}
	if diff := cmp.Diff(told, got); diff != "" {
		t.Errorf("job (-told +recorded):\n%s", diff)
	}
	w.concluded(run, "success") // its guest was not torn down
	w.finish(h)
	if n := strings.Count(h.logs.String(), "from=busy to=leaving"); n != 1 {
		t.Errorf("the runner left %d times, want once, when its program had ended", n)
	}
	if gh.jobs.Load() > 0 {
		t.Errorf("GitHub was asked %d times for a job of which all was told", gh.jobs.Load())
	}
}

// A job whose Started never comes is seen by the runner's own words and by
// GitHub's list; its Completed, if it comes alone, says so too.
func TestLostStarted(t *testing.T) {
	t.Parallel()
	w := newWorld(t, emulator.Options{LockDuration: 20 * time.Second})
	w.program = programDir(t, "4s")
	silence(t, w)
	l := &listener{want: pool.Demand{Warm: 1}}
	h := w.run(fake.Faults{}, func(o *agent.Options) {
		o.Pools[0].GitHub, o.Pools[0].Demand = &mute{GitHub: o.Pools[0].GitHub}, l
	})
	idle := w.runner(h, runner.Idle)
	run := w.submit(1)
	w.until("the job starts", func() bool {
		r, _ := w.em.RunState(run)
		return r.Jobs[0].Status == "in_progress"
	})
	l.ear.Completed(idle.Name, runner.Job{Conclusion: "success"})
	if busy := w.runner(h, runner.Busy); busy.Name != idle.Name {
		t.Errorf("%s is busy, want %s", busy.Name, idle.Name)
	}
	w.concluded(run, "success")
	w.finish(h)
}

func TestWhatAListenerCannotDoIsSeen(t *testing.T) {
	t.Parallel()
	w := newWorld(t, emulator.Options{})
	l := &listener{}
	h := w.run(fake.Faults{}, listens(l))
	w.said(l, "resume listen")
	l.ear.Problem(wait.Reason{Code: wait.SetHeld, Text: "another host holds the set"})
	problems := func() string { return strings.Join(h.Status().Problems, "\n") }
	w.until("it is a problem", func() bool {
		p := h.Status().Pools[0]
		return problems() == "jobs of pool fake: another host holds the set" && p.Listens && p.Deaf.Code == wait.SetHeld
	})
	l.ear.Problem(wait.Reason{})
	w.until("it is over", func() bool { return problems() == "" && h.Status().Pools[0].Deaf.None() })
	w.finish(h)
}
