package console

import (
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/mirego/tasuki/internal/api"
	"github.com/mirego/tasuki/internal/event"
	"github.com/mirego/tasuki/internal/runner"
	"github.com/mirego/tasuki/internal/why"
)

// How much a Feed remembers.
const (
	feedAge  = 6 * time.Hour
	feedRuns = 5000
)

// Feed remembers what happened lately. It is an event.Sink; give it every event
// from the agent's start on, so that its slots are those of the history. The
// zero value is ready, and its methods may be called at the same time.
type Feed struct {
	mu      sync.Mutex
	slots   event.Slots
	seq     uint64 // counts changes
	seen    uint64 // counts events, of any kind
	runs    []*lane
	live    map[string]*lane
	pulls   map[string]why.Pull // by pool
	changed chan struct{}       // closed with the next change; nil: nobody waits
}

// lane is what one runner did in its slot.
type lane struct {
	seq    uint64
	slot   int
	runner string
	pool   string
	job    runner.Job
	failed bool
	spans  []span
	ended  time.Time // zero: it goes on
}

// span is a stay in a phase.
type span struct {
	phase phase
	start time.Time
}

// phase is what a person wants to know of a state at a glance.
type phase string

// The phases; the empty one is a free slot.
const (
	starting phase = "starting"
	waiting  phase = "idle"
	working  phase = "busy"
	ending   phase = "ending"
	kept     phase = "held"
)

func phaseOf(s runner.State) phase {
	switch {
	case s == runner.Busy:
		return working
	case s == runner.Idle:
		return waiting
	case s == runner.Held:
		return kept
	case s.Ending():
		return ending
	}
	return starting
}

// Emit implements event.Sink.
func (f *Feed) Emit(e event.Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	seat := f.slots.See(e)
	f.seen++
	switch e.Kind {
	case event.RunnerMoved:
		f.move(e, seat.Slot)
	case event.RunnerJob:
		if l := f.live[e.Runner]; l != nil {
			l.job.Learn(e.Job)
			f.touch(l)
		} else if i := f.last(e.Runner); i >= 0 {
			f.runs[i].job.Learn(e.Job)
			f.touch(f.runs[i])
		}
	case event.ImagePulling:
		if f.pulls == nil {
			f.pulls = map[string]why.Pull{}
		}
		f.pulls[e.Pool] = why.Pull{Done: e.Done, Total: e.Total, At: e.Time}
	case event.ImageReady, event.ImageFailed:
		delete(f.pulls, e.Pool)
	}
	if f.changed != nil {
		close(f.changed)
		f.changed = nil
	}
}

// last finds a runner that gave its slot back.
func (f *Feed) last(name string) int {
	for i := len(f.runs) - 1; i >= 0; i-- {
		if f.runs[i].runner == name {
			return i
		}
	}
	return -1
}

func (f *Feed) move(e event.Event, slot int) {
	l := f.live[e.Runner]
	if l == nil {
		if slot < 0 || !e.To.TakesSlot() {
			return
		}
		l = &lane{slot: slot, runner: e.Runner, pool: e.Pool}
		if i := f.last(e.Runner); i >= 0 { // of an agent before this one
			l.spans = f.runs[i].spans
			f.runs = slices.Delete(f.runs, i, i+1)
		} else if e.Record != nil {
			for _, v := range e.Record.Steps {
				l.enter(v.State, v.Start)
			}
		}
		if f.live == nil {
			f.live = map[string]*lane{}
		}
		f.live[e.Runner] = l
		f.runs = append(f.runs, l)
	}
	l.job.Learn(e.Job)
	if e.Record != nil {
		l.job.Learn(e.Record.Job)
		l.failed = l.failed || e.Record.Failed
	}
	l.failed = l.failed || e.Failed
	if e.To.TakesSlot() {
		l.enter(e.To, e.Time)
	} else {
		l.ended = e.Time
		delete(f.live, e.Runner)
	}
	f.touch(l)
	f.forget(e.Time)
}

// enter adds a state to what a runner did.
func (l *lane) enter(s runner.State, at time.Time) {
	p := phaseOf(s)
	if n := len(l.spans); n > 0 && (l.spans[n-1].phase == p || !at.After(l.spans[n-1].start)) {
		return
	}
	l.spans = append(l.spans, span{p, at})
}

func (f *Feed) touch(l *lane) {
	f.seq++
	l.seq = f.seq
}

// forget drops what is too old or too much.
func (f *Feed) forget(now time.Time) {
	stale := func(l *lane) bool { return !l.ended.IsZero() && now.Sub(l.ended) > feedAge }
	if len(f.runs) > feedRuns || len(f.runs) > 0 && stale(f.runs[0]) {
		f.runs = slices.DeleteFunc(f.runs, stale)
		f.runs = f.runs[max(0, len(f.runs)-feedRuns):]
	}
}

// Recall takes in runs of before, which a history kept: the oldest first, none
// that the feed has seen.
func (f *Feed) Recall(runs []api.Run) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var past []*lane
	for _, r := range runs {
		if r.Slot < 0 || f.last(r.Runner) >= 0 {
			continue
		}
		l := &lane{slot: r.Slot, runner: r.Runner, pool: r.Pool, job: r.Job, failed: r.Failed, ended: r.Ended}
		for _, v := range r.Steps {
			if v.State.TakesSlot() {
				l.enter(v.State, v.Start)
			} else if l.ended = v.Start; !l.ended.IsZero() {
				break
			}
		}
		if len(l.spans) == 0 || l.ended.IsZero() {
			continue // it goes on: its next event tells
		}
		f.touch(l)
		past = append(past, l)
	}
	f.runs = append(past, f.runs...)
}

// Settle takes in the runners that are there, which may have had no event yet.
func (f *Feed) Settle(s api.Status) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, r := range s.Runners {
		if f.live[r.Name] != nil || !r.State.TakesSlot() {
			continue
		}
		if f.slots.Adopt(r.Name); f.slots.Of(r.Name) < 0 {
			continue // it gave its slot back meanwhile
		}
		l := &lane{slot: f.slots.Of(r.Name), runner: r.Name, pool: r.Pool, job: r.Job, failed: r.Failed}
		for _, v := range r.Steps {
			l.enter(v.State, v.Start)
		}
		if f.live == nil {
			f.live = map[string]*lane{}
		}
		f.live[r.Name] = l
		f.runs = append(f.runs, l)
		f.touch(l)
	}
}

// slotOf returns the slot of each runner that has one.
func (f *Feed) slotOf() map[string]int {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := map[string]int{}
	for name, l := range f.live {
		out[name] = l.slot
	}
	return out
}

// pulling returns how far pulls are.
func (f *Feed) pulling() map[string]why.Pull {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := map[string]why.Pull{}
	for pool, p := range f.pulls {
		out[pool] = p
	}
	return out
}

// wait returns a channel that is closed with the next event.
func (f *Feed) wait() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.changed == nil {
		f.changed = make(chan struct{})
	}
	return f.changed
}

// laneJSON is a lane for the timeline: small, since there are hundreds.
type laneJSON struct {
	Slot   int    `json:"s"`
	Runner string `json:"r"`
	Pool   string `json:"p"`
	Job    string `json:"j,omitempty"`
	Bad    string `json:"b,omitempty"` // why it is marked: the job's conclusion, or "failed"
	// Spans are pairs: the first letter of a phase, and its start in ms since 1970.
	Spans [][2]any `json:"t"`
	End   int64    `json:"e,omitempty"` // ms since 1970; 0: it goes on
}

// since returns the lanes that changed after a point and did not end before a
// time, and the point of now.
func (f *Feed) since(seq uint64, from time.Time) ([]laneJSON, uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := []laneJSON{}
	for _, l := range f.runs {
		if l.seq <= seq || !l.ended.IsZero() && l.ended.Before(from) {
			continue
		}
		out = append(out, l.json())
	}
	return out, f.seq
}

func (l *lane) json() laneJSON {
	j := laneJSON{Slot: l.slot, Runner: l.runner, Pool: l.pool, Job: jobTitle(l.job)}
	switch {
	case l.failed:
		j.Bad = "failed"
	case badConclusion(l.job.Conclusion):
		j.Bad = l.job.Conclusion
	}
	for _, s := range l.spans {
		j.Spans = append(j.Spans, [2]any{string(s.phase[:1]), s.start.UnixMilli()})
	}
	if !l.ended.IsZero() {
		j.End = l.ended.UnixMilli()
	}
	return j
}

// badConclusion says whether a job's conclusion is one to look at.
func badConclusion(c string) bool {
	return slices.Contains([]string{"failure", "timed_out", "startup_failure"}, c)
}

// jobTitle names a job in a line.
func jobTitle(j runner.Job) string {
	var parts []string
	for _, p := range []string{j.Repository, j.Workflow, j.Name} {
		if p != "" {
			parts = append(parts, p)
		}
	}
	return strings.Join(parts, " / ")
}

// full returns the share of slots' time that went to jobs since a time, from 0
// to 1, and how many jobs were under way in it.
func (f *Feed) full(slots int, from, to time.Time) (share float64, jobs int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var busy time.Duration
	for _, l := range f.runs {
		end := l.ended
		if end.IsZero() {
			end = to
		}
		for i, s := range l.spans {
			until := end
			if i+1 < len(l.spans) {
				until = l.spans[i+1].start
			}
			if s.phase == working && until.After(from) {
				jobs++
				busy += until.Sub(later(s.start, from))
			}
		}
	}
	if all := time.Duration(slots) * to.Sub(from); all > 0 {
		share = min(1, float64(busy)/float64(all))
	}
	return share, jobs
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
