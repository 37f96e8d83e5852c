// Package scaleset lets a pool serve the jobs that GitHub assigns to a runner
// scale set.
//
// A scale set is a kind of runner at GitHub: a name, a runner group, and labels
// that are fixed when it is made. GitHub assigns jobs to it, tells of them in
// messages, and lets one listener at a time hear those: the one that holds the
// set's session. A Set is that listener for one pool, says how many runners the
// pool wants because of what it heard, and registers the pool's runners with
// the set. Runners of a set take its jobs and no others, and any of them takes
// any of its jobs.
//
// A Service is the way to GitHub's Actions service, for one scope. Its calls
// are ours, with the shapes of github.com/actions/scaleset: that library's own
// client takes secrets as text once and for ever, holds one lock over polls of
// 50 s, keeps neither status nor Retry-After of a refusal, and panics on three
// replies. It proves ours in the tests.
//
// What is known is the book, in a file per pool: which scale sets are ours, by
// id; the last message that was dealt with; the jobs that we heard of, by their
// job id and nothing else, since the other numbers of a message may be 0; and the
// runners that we registered. It is written before a message is acknowledged,
// and a message that comes again changes nothing. The rules by which it forgets
// are in book.go.
//
// A set is never deleted because the agent ends: that would orphan its runners.
// When the pool's labels, group or name change, another set takes over; the old
// one announces that it holds no more jobs, and is deleted, if we made it, when
// it is empty.
package scaleset

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/mirego/tasuki/internal/pool"
	"github.com/mirego/tasuki/internal/runner"
	"github.com/mirego/tasuki/internal/wait"
)

// Options are what a Set keeps for its whole life.
type Options struct {
	Service      *Service
	Pool         string
	Installation string // of this host's agent; tells our sessions from those of others
	Host         string // for people
	File         string // where the book is kept
	// After is the Set that kept the same file before, if any: Listen begins
	// when that one's has returned.
	After  *Set
	Log    *slog.Logger   // nil: slog.Default
	Random func() float64 // in [0, 1), for pauses; nil: math/rand/v2
}

// Settings are what may change while a Set listens.
type Settings struct {
	Name   string   // of the scale set
	Group  string   // runner group by name; empty: the default one
	Labels []string // that workflows can name; the set's name is one more
	// Capacity is how many jobs the set may hold in all, running ones included.
	Capacity int
	Warm     int // see pool.Demand
	Headroom int
}

// Ear is what a Set tells while it listens. Nil functions are not called.
type Ear struct {
	Changed            func()
	Started, Completed func(runnerName string, job runner.Job)
	Problem            func(wait.Reason)
}

// Set is the scale set of one pool. Its methods may be called at the same time.
type Set struct {
	opt Options
	svc *Service
	log *slog.Logger

	kick chan struct{} // settings or the drain have changed

	saving sync.Mutex // held while the file is written

	mu       sync.Mutex
	settings Settings
	book     *book
	drained  bool
	ear      Ear
	problem  wait.Reason
	past     map[string]runner.Job // what runners did lately, by name
	deaf     chan struct{}         // closed when Listen has returned
}

// New reads the book. It sends nothing: Listen does.
func New(o Options, s Settings) (*Set, error) {
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.Random == nil {
		o.Random = rand.Float64
	}
	set := &Set{
		opt: o, svc: o.Service, log: o.Log.With("pool", o.Pool),
		kick: make(chan struct{}, 1), past: map[string]runner.Job{}, settings: s,
	}
	if err := set.load(); err != nil {
		return nil, err
	}
	return set, nil
}

// load reads the book and turns to the present settings.
func (s *Set) load() error {
	b, err := readBook(s.opt.File)
	if errors.Is(err, errDamaged) {
		// The pools of the whole host shall not wait for a person. Sets that are
		// found again are not deleted: we do not know any more who made them.
		aside := fmt.Sprintf("%s.damaged-%d", s.opt.File, time.Now().Unix())
		if failed := os.Rename(s.opt.File, aside); failed != nil {
			return errors.Join(err, failed)
		}
		s.log.Error("the scale set's book was damaged and is begun anew", "err", err, "kept_as", aside)
		b, err = &book{}, nil
	}
	if err != nil {
		return err
	}
	b.clamp(time.Now())
	b.Pool, b.Installation = s.opt.Pool, s.opt.Installation
	s.mu.Lock()
	defer s.mu.Unlock()
	s.book = b
	s.turn(time.Now())
	return nil
}

// Configure takes changed settings over. A set whose name, group or labels
// differ drains, and another takes over.
func (s *Set) Configure(next Settings) {
	s.mu.Lock()
	s.settings = next
	s.turn(time.Now())
	s.mu.Unlock()
	s.wake()
	s.changed()
}

// Drain makes the set announce that it holds no more jobs, or that it does
// again. Jobs that are queued at GitHub meanwhile may never be given to it.
func (s *Set) Drain(drained bool) {
	s.mu.Lock()
	same := s.drained == drained
	s.drained = drained
	s.mu.Unlock()
	if !same {
		s.wake()
	}
}

// wake makes the listeners look at settings and drain.
func (s *Set) wake() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, g := range s.book.Sets {
		g.interrupt()
	}
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

// turn makes the first of the book's sets the one that the settings mean. The
// caller holds s.mu.
func (s *Set) turn(now time.Time) {
	labels := s.labels()
	means := func(g *generation) bool {
		return !g.dropping && g.Base == s.settings.Name && strings.EqualFold(g.Group, s.settings.Group) &&
			g.URL == s.svc.client.Web() && g.Scope == s.svc.client.Scope() && sameLabels(g.Labels, labels)
	}
	i := slices.IndexFunc(s.book.Sets, means)
	var current *generation
	if i >= 0 {
		current = s.book.Sets[i]
		s.book.Sets = slices.Delete(s.book.Sets, i, i+1)
		current.Draining = time.Time{}
	} else {
		current = newGeneration()
		current.Base, current.Group, current.Labels = s.settings.Name, s.settings.Group, labels
		current.URL, current.Scope = s.svc.client.Web(), s.svc.client.Scope()
	}
	for _, g := range s.book.Sets {
		if g.Draining.IsZero() {
			g.Draining = now
		}
	}
	// One that was never made has nothing to drain, and one whose session was
	// never ours is somebody else's.
	s.book.Sets = slices.DeleteFunc(s.book.Sets, func(g *generation) bool {
		return g.ID == 0 && !g.Making || !g.Heard && !g.Made && !g.Making && len(g.Jobs)+len(g.Runners) == 0
	})
	s.book.Sets = slices.Insert(s.book.Sets, 0, current)
}

// labels are the settings' and the name. The caller holds s.mu.
func (s *Set) labels() []string {
	var out []string
	for _, l := range append(slices.Clone(s.settings.Labels), s.settings.Name) {
		if l != "" && !slices.ContainsFunc(out, func(o string) bool { return strings.EqualFold(o, l) }) {
			out = append(out, l)
		}
	}
	return out
}

func sameLabels(a, b []string) bool {
	fold := func(in []string) []string {
		out := make([]string, len(in))
		for i, l := range in {
			out[i] = strings.ToLower(l)
		}
		slices.Sort(out)
		return slices.Compact(out)
	}
	return slices.Equal(fold(a), fold(b))
}

// Want says what is asked of the pool now. It answers from memory.
func (s *Set) Want() pool.Demand {
	s.mu.Lock()
	defer s.mu.Unlock()
	now, current := time.Now(), s.book.Sets[0]
	name := cmp.Or(current.Name, current.Base)
	jobs := s.jobs(now)
	switch {
	case current.holder != "":
		return pool.Demand{Jobs: jobs, Why: fmt.Sprintf("scale set %s: %s holds its session", name, current.holder)}
	case current.ID == 0 && !s.problem.None():
		return pool.Demand{Jobs: jobs, Why: fmt.Sprintf("scale set %s: %s", name, s.problem)}
	case current.ID == 0:
		return pool.Demand{Jobs: jobs, Why: fmt.Sprintf("scale set %s: not there yet", name)}
	}
	d := pool.Demand{Jobs: jobs, Warm: s.settings.Warm, Headroom: s.settings.Headroom}
	if !current.known { // the set may be another host's
		d.Warm, d.Headroom = 0, 0
	}
	d.Why = fmt.Sprintf("scale set %s: %d assigned, warm: %d", name, len(jobs), d.Warm)
	if d.Headroom > 0 {
		d.Why += fmt.Sprintf(", headroom: %d", d.Headroom)
	}
	return d
}

// jobs returns since when each job of the sets that are ours waits. The caller
// holds s.mu.
func (s *Set) jobs(now time.Time) (since []time.Time) {
	for _, g := range s.serving() {
		if g.holder == "" && g.ID != 0 {
			since = append(since, g.waiting(now)...)
		}
	}
	slices.SortFunc(since, time.Time.Compare)
	return since[:min(len(since), max(s.settings.Capacity, 1))]
}

// has says whether a set is still in the book.
func (s *Set) has(g *generation) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Contains(s.book.Sets, g)
}

// serving returns the sets of this service, those that drain included. The
// caller holds s.mu.
func (s *Set) serving() []*generation {
	var out []*generation
	for _, g := range s.book.Sets {
		if g.URL == s.svc.client.Web() && g.Scope == s.svc.client.Scope() {
			out = append(out, g)
		}
	}
	return out
}

// Listen hears of jobs until ctx ends, and returns soon after; it mends what
// breaks by itself. The sessions are closed then, the sets stay.
func (s *Set) Listen(ctx context.Context, to Ear) {
	if before := s.opt.After; before != nil && !before.silent(ctx) {
		return
	}
	if s.opt.After != nil {
		if err := s.load(); err != nil {
			s.log.Error("the scale set's book cannot be read", "err", err)
		}
	}
	deaf := make(chan struct{})
	s.mu.Lock()
	s.ear, s.deaf = to, deaf
	s.mu.Unlock()
	var work sync.WaitGroup
	defer close(deaf)
	defer s.saveLast()
	defer work.Wait()
	busy := map[*generation]bool{}
	s.changed()
	for {
		s.mu.Lock()
		for _, g := range s.serving() {
			if !busy[g] {
				busy[g] = true
				work.Go(func() { s.keep(ctx, g) })
			}
		}
		s.mu.Unlock()
		select {
		case <-ctx.Done():
			return
		case <-s.kick:
		}
	}
}

// saveLast writes down what the next agent need not ask again.
func (s *Set) saveLast() {
	if err := s.save(); err != nil {
		s.log.Warn("the scale set's book was not written at the end", "err", err)
	}
}

// silent waits until no Listen is under way, false if ctx ended first.
func (s *Set) silent(ctx context.Context) bool {
	s.mu.Lock()
	deaf := s.deaf
	s.mu.Unlock()
	if deaf == nil {
		return true
	}
	select {
	case <-deaf:
		return true
	case <-ctx.Done():
		return false
	}
}

// changed tells that Want may answer something else.
func (s *Set) changed() {
	s.mu.Lock()
	tell := s.ear.Changed
	s.mu.Unlock()
	if tell != nil {
		tell()
	}
}

// report tells what is wrong with the set that the settings mean; None ends it.
func (s *Set) report(g *generation, trouble wait.Reason) {
	s.mu.Lock()
	current := s.book.Sets[0] == g
	same := s.problem == trouble
	if current {
		s.problem = trouble
	}
	tell := s.ear.Problem
	s.mu.Unlock()
	if current && !same && tell != nil {
		tell(trouble)
	}
}

// errClosed ends a session that shall be opened anew.
var errClosed = errors.New("the session is over")
