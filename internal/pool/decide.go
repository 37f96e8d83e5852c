package pool

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/mirego/tasuki/internal/runner"
)

// Want is what one pool asks of the host now.
type Want struct {
	Pool    string
	Standby int // runners that shall wait or be on their way
	Most    int // runners at once; 0: no bound of the pool's own
	// Blocked, if not empty, says why no runner can be started for the pool
	// now: its image is being pulled, GitHub refuses us, it backs off.
	Blocked string
	// Drain: start nothing, and let those that wait for a job go.
	Drain bool
}

// Seen is one runner as it was observed.
type Seen struct {
	Name  string
	Pool  string
	State runner.State
	Since time.Time
	// Outdated, if not empty, says why a runner that still waits for a job
	// should give way to a new one (a newer image, changed settings).
	Outdated string
}

// Limits is what the host has.
type Limits struct {
	Slots int // guests at once over all pools
	// Taken counts guests that hold a slot and belong to no runner seen:
	// those of other programs, where the hypervisor's limit counts them.
	Taken int
}

// Verb is what an Action does.
type Verb string

// The verbs.
const (
	Start Verb = "start" // begin one runner for Pool
	Stop  Verb = "stop"  // end Runner, if GitHub agrees that it is not at work
	Wait  Verb = "wait"  // Pool wants a runner and cannot have it, because of Reason
)

// Action is one thing to do.
type Action struct {
	Verb   Verb
	Pool   string
	Runner string // for Stop
	Reason string
}

// Decide compares what the pools want with what is there and says what to do.
// It is pure: the same input gives the same actions. It never stops a busy
// runner, never starts more guests than there are slots, and gives a free slot
// to the pool that has the smallest share of what it wants.
func Decide(wants []Want, seen []Seen, limits Limits) []Action {
	var actions []Action
	free := limits.Slots - limits.Taken
	held := map[string]int{}
	for _, s := range seen {
		if s.State.TakesSlot() {
			free--
			held[s.Pool]++
		}
	}
	actions = append(actions, stops(wants, seen)...)

	short := shortages(wants, seen, held)
	for ; free > 0; free-- {
		s := neediest(short)
		if s == nil {
			break
		}
		actions = append(actions, Action{Verb: Start, Pool: s.pool})
		s.missing--
		s.room--
		s.have++
	}
	for _, s := range short {
		if s.missing > 0 {
			actions = append(actions, Action{Verb: Wait, Pool: s.pool, Reason: s.reason(seen, limits)})
		}
	}
	return actions
}

// shortage is what a pool lacks.
type shortage struct {
	pool    string
	want    int // runners that shall wait or be on their way
	have    int
	missing int
	room    int // how many more the pool's own bound allows
	most    int
	blocked string
}

// shortages counts for each pool the runners that wait or are on their way.
func shortages(wants []Want, seen []Seen, held map[string]int) []*shortage {
	var out []*shortage
	for _, w := range wants {
		if w.Drain {
			continue
		}
		s := &shortage{pool: w.Pool, want: w.Standby, most: w.Most, room: math.MaxInt, blocked: w.Blocked}
		for _, r := range seen {
			if r.Pool == w.Pool && (r.State == runner.Idle || r.State.OnItsWay()) {
				s.have++
			}
		}
		if w.Most > 0 {
			s.room = w.Most - held[w.Pool]
		}
		s.missing = max(0, s.want-s.have)
		out = append(out, s)
	}
	return out
}

// neediest returns the pool that may start a runner and has the smallest share
// of what it wants; among equals the first in the configuration.
func neediest(short []*shortage) *shortage {
	var best *shortage
	for _, s := range short {
		if s.missing <= 0 || s.room <= 0 || s.blocked != "" {
			continue
		}
		if best == nil || s.have*best.want < best.have*s.want {
			best = s
		}
	}
	return best
}

// reason says why the pool lacks runners.
func (s *shortage) reason(seen []Seen, limits Limits) string {
	switch {
	case s.blocked != "":
		return s.blocked
	case s.room <= 0:
		return fmt.Sprintf("the pool has as many runners as it may (max: %d)", s.most)
	}
	return noSlot(seen, limits)
}

// stops names the waiting runners that are too many, outdated, of a draining
// pool or of a pool that is no more.
func stops(wants []Want, seen []Seen) []Action {
	var actions []Action
	byPool := map[string]Want{}
	for _, w := range wants {
		byPool[w.Pool] = w
	}
	waiting := map[string]int{}
	// One after the other, and only while the pool has what it wants and can get
	// more: a pool that rolls to a new image, a bad one perhaps, keeps its capacity.
	rolling, have := map[string]bool{}, map[string]int{}
	for _, s := range seen {
		if (s.State.OnItsWay() && s.Outdated == "") || (s.State.Ending() && s.State.TakesSlot()) {
			rolling[s.Pool] = true
		}
		if s.State == runner.Idle || s.State.OnItsWay() {
			have[s.Pool]++
		}
	}
	for _, w := range wants {
		if w.Blocked != "" || have[w.Pool] < w.Standby {
			rolling[w.Pool] = true
		}
	}
	// Count the youngest as the surplus: the oldest is the closest to a job.
	ordered := slices.Clone(seen)
	slices.SortStableFunc(ordered, func(a, b Seen) int {
		return cmp.Or(cmp.Compare(rank(a.State), rank(b.State)), a.Since.Compare(b.Since))
	})
	for _, s := range ordered {
		if s.State != runner.Idle && !s.State.OnItsWay() {
			continue
		}
		w, known := byPool[s.Pool]
		waiting[s.Pool]++
		reason := ""
		switch {
		case !known:
			reason = "its pool is no longer configured"
		case w.Drain:
			reason = "draining"
		case s.Outdated != "" && !rolling[s.Pool]:
			reason = s.Outdated
			rolling[s.Pool] = true
		case waiting[s.Pool] > w.Standby:
			reason = fmt.Sprintf("more runners wait than the pool wants (standby: %d)", w.Standby)
		}
		if reason != "" {
			actions = append(actions, Action{Verb: Stop, Pool: s.Pool, Runner: s.Name, Reason: reason})
		}
	}
	return actions
}

func rank(s runner.State) int {
	if s == runner.Idle {
		return 0
	}
	return 1
}

// noSlot says by what the slots are taken.
func noSlot(seen []Seen, limits Limits) string {
	count := map[string]int{}
	for _, s := range seen {
		if s.State.TakesSlot() {
			word := string(s.State)
			if s.State.OnItsWay() {
				word = "starting"
			}
			count[word+" in pool "+s.Pool]++
		}
	}
	if limits.Taken > 0 {
		count["of other programs"] = limits.Taken
	}
	var parts []string
	for what, n := range count {
		parts = append(parts, fmt.Sprintf("%d %s", n, what))
	}
	slices.Sort(parts)
	if len(parts) == 0 {
		return fmt.Sprintf("no free slot (the host has %d)", limits.Slots)
	}
	return fmt.Sprintf("no free slot: the host has %d, taken by %s", limits.Slots, strings.Join(parts, ", "))
}

func unique(labels []string) []string {
	var out []string
	for _, l := range labels {
		if l != "" && !slices.ContainsFunc(out, func(o string) bool { return strings.EqualFold(o, l) }) {
			out = append(out, l)
		}
	}
	return out
}
