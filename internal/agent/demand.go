package agent

import (
	"context"
	"slices"
	"strings"
	"sync"

	"github.com/mirego/tasuki/internal/pool"
	"github.com/mirego/tasuki/internal/runner"
	"github.com/mirego/tasuki/internal/wait"
)

// Demand says what is asked of a pool now. It answers from memory.
type Demand interface {
	Want() pool.Demand
}

// Listener is a Demand that hears of jobs. The agent runs it, once for each
// value, from when its first pool is there until its last one goes, the agent
// ends or Shutdown is called; the same value in a changed configuration goes on
// undisturbed. Runners that are at work then are followed without it.
type Listener interface {
	Demand
	// Listen returns soon after ctx has ended, and not before: it mends what
	// breaks by itself.
	Listen(ctx context.Context, to Ear)
	// Drain says that the pool takes no more jobs, or takes them again; it is told
	// before Listen as well. It does
	// not wait. It is called when a person drains or resumes the pool or the
	// host, and before Listen where that was so when the agent started. An agent
	// that ends, or shuts down, does not drain: GitHub keeps what is queued for
	// the next one, and would forget it for a set that announces no capacity.
	Drain(drained bool)
}

// Ear is what a Listener tells the agent. Each of its functions may be called
// at any time, from anywhere, with any lock held, and does not wait.
type Ear struct {
	// Changed: Want answers something else than before.
	Changed func()
	// Started and Completed: a runner has taken a job, or has finished it.
	// The job's Conclusion is set by Completed, in the words of the REST API
	// ("success", "failure", "cancelled"). Either may come late, twice or
	// never, and for runners that are not ours.
	Started, Completed func(runnerName string, job runner.Job)
	// Problem says what keeps it from hearing of jobs now; None ends it.
	Problem func(wait.Reason)
}

// listening is a Listener that runs. Guarded by Agent.mu.
type listening struct {
	cancel  context.CancelFunc
	pools   []string // that it is for now; none: it ends
	drained bool
	trouble wait.Reason // what it said last
}

// mail is what listeners said and no pass has heard yet. Its lock is the last
// one that anybody takes, so that a listener can speak whatever it holds.
type mail struct {
	mu     sync.Mutex
	unread []func()
}

func (m *mail) put(f func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.unread = append(m.unread, f)
}

func (m *mail) take() []func() {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := m.unread
	m.unread = nil
	return all
}

// listenAll starts the listeners that the pools need and do not have, and ends
// those of pools that are no more. The caller holds a.mu.
func (a *Agent) listenAll() {
	for _, l := range a.listeners {
		l.pools = nil
	}
	if a.life != nil && a.life.Err() == nil && !a.stopping {
		for _, p := range a.pools {
			l, ok := p.Demand.(Listener)
			if !ok {
				continue
			}
			if a.listeners[l] == nil {
				a.listen(l, a.drained || p.drained)
			}
			a.listeners[l].pools = append(a.listeners[l].pools, p.Spec.Name)
		}
	}
	for _, l := range a.listeners {
		if len(l.pools) == 0 {
			l.cancel()
		}
	}
}

// listen runs a listener to its end. The caller holds a.mu.
func (a *Agent) listen(l Listener, drained bool) {
	ctx, cancel := context.WithCancel(a.life)
	state := &listening{cancel: cancel, drained: drained}
	a.listeners[l] = state
	l.Drain(drained) // it may be told for the second time, or have missed a change
	a.work.Go(func() {
		defer cancel()
		ear := a.ear(state)
		l.Listen(ctx, ear)
		if ctx.Err() == nil { // against its contract; it is not run again in a loop
			ear.Problem(wait.Reason{Code: wait.Other, Text: "the listener for jobs has ended: restart the agent"})
			return
		}
		ear.Problem(wait.Reason{})
		a.mu.Lock()
		defer a.mu.Unlock()
		delete(a.listeners, l)
		a.listenAll() // it may be wanted again by now
	})
}

// ear returns what a listener speaks into. A pass hears it.
func (a *Agent) ear(of *listening) Ear {
	say := func(f func()) {
		a.mail.put(f)
		a.poke()
	}
	told := func(name string, job runner.Job) {
		say(func() {
			a.mu.Lock()
			k := a.keepers[name]
			a.mu.Unlock()
			if k != nil {
				k.hear(job)
			}
		})
	}
	var last string // source of its problem; only a pass touches it
	return Ear{
		Changed: a.poke, Started: told, Completed: told,
		Problem: func(trouble wait.Reason) {
			say(func() {
				a.mu.Lock()
				of.trouble = trouble
				source := demandProblem(of.pools)
				a.mu.Unlock()
				if last != "" && last != source {
					a.problem(last, "")
				}
				last = source
				a.problem(source, trouble.Text)
			})
		},
	}
}

func demandProblem(pools []string) string { return "jobs of pool " + strings.Join(pools, ", ") }

// tellDrain tells the listeners what a person wants of their pools. The caller
// holds a.mu.
func (a *Agent) tellDrain() {
	for l, state := range a.listeners {
		drained := !slices.ContainsFunc(a.pools, func(p *poolState) bool { return p.Demand == Demand(l) && !a.drained && !p.drained })
		if len(state.pools) > 0 && drained != state.drained {
			state.drained = drained
			l.Drain(drained)
		}
	}
}

// hear takes in what a listener says of the runner's job. The runner has, or
// had, a job then; that it is over is believed only when it is seen.
func (k *keeper) hear(job runner.Job) {
	k.mu.Lock()
	k.told.Learn(job)
	k.hasWord = true
	k.mu.Unlock()
	k.nudge()
}

// word returns what was heard of the job since the last call.
func (k *keeper) word() (runner.Job, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	job, has := k.told, k.hasWord
	k.told, k.hasWord = runner.Job{}, false
	return job, has
}
