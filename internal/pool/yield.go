package pool

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/mirego/tasuki/internal/runner"
)

// yield lets waiting runners give way to claims that found no free slot.
func (h *host) yield() {
	for _, p := range h.pools { // who ends anyway can neither give way nor serve a job
		p.ready = slices.DeleteFunc(p.ready, func(s Seen) bool { return h.stopped(s.Name) })
	}
	for {
		p := h.first(func(p *party) bool { return p.missing[0].kind != headroom })
		if p == nil {
			return
		}
		c := p.missing[0]
		p.missing = p.missing[1:]
		p.held++ // as if it had the slot already
		p.unserved++
		if !h.awaits(p) {
			h.makeRoom(p, c)
		}
	}
}

// awaits says whether a slot that p can use will be free soon, and gives it to p.
func (h *host) awaits(p *party) bool {
	for _, driver := range slices.Sorted(maps.Keys(h.coming)) {
		if h.coming[driver] > 0 && (driver == p.Driver || !h.full(p.Driver)) {
			h.coming[driver]--
			return true
		}
	}
	return false
}

// makeRoom stops the runner that is missed least and whose slot p can use.
func (h *host) makeRoom(p *party, c claim) {
	var from *party
	for _, q := range h.pools {
		if h.gives(q, p, c) && (from == nil || gladder(q, from)) {
			from = q
		}
	}
	if from == nil {
		return
	}
	i := h.victim(from)
	victim := from.ready[i]
	from.ready = slices.Delete(from.ready, i, i+1)
	reason := fmt.Sprintf("gives way to pool %s, which shall always have %d waiting", p.Pool, p.Demand.Warm)
	switch {
	case c.aged:
		reason = fmt.Sprintf("gives way to pool %s, which has had no runner since %s", p.Pool, p.Hungry.UTC().Format(clock))
	case c.kind == load:
		reason = fmt.Sprintf("gives way to a job that waits in pool %s since %s", p.Pool, c.since.UTC().Format(clock))
	}
	h.actions = append(h.actions, Action{Verb: Stop, Pool: from.Pool, Runner: victim.Name, Reason: reason, Yields: true})
}

// gives says whether q can let a runner go for p's claim.
func (h *host) gives(q, p *party, c claim) bool {
	if q == p || h.victim(q) < 0 || (h.full(p.Driver) && q.Driver != p.Driver) {
		return false
	}
	switch {
	case len(q.ready) > q.Demand.Runners():
		return true // headroom, or nothing
	case len(q.ready) <= len(q.Demand.Jobs) || c.kind != load:
		return false
	}
	// What is lost is warm. For another pool's turn the last runner goes only
	// after it has waited in vain for long: pools whose floors do not fit on the
	// host take turns, slowly.
	last := len(q.ready)+q.working <= 1
	return !c.aged || !last || h.idle(q.ready[h.victim(q)]) >= longIdle
}

// idle is for how long a runner has waited for a job.
func (h *host) idle(s Seen) time.Duration {
	if s.State != runner.Idle {
		return 0
	}
	return h.now.Sub(s.Since)
}

// gladder says whether a runner of p is missed less than one of q.
func gladder(p, q *party) bool {
	if over := p.over() > 0; over != (q.over() > 0) {
		return over
	}
	if stuck := !p.Blocked.None(); stuck == q.Blocked.None() {
		return !stuck // a pool that cannot start another keeps what it has
	}
	return len(p.ready) > len(q.ready)
}

// over is how many runners wait beyond jobs and warm floor.
func (p *party) over() int { return len(p.ready) - p.Demand.Runners() }

// victim returns which of the waiting runners can go, the one that is farthest
// from a job: -1 for none.
func (h *host) victim(p *party) int {
	for i, s := range slices.Backward(p.ready) {
		hasTurn := s.Aged && h.idle(s) < turn
		if !hasTurn {
			return i
		}
	}
	return -1
}

func (h *host) stopped(name string) bool {
	return slices.ContainsFunc(h.actions, func(a Action) bool { return a.Verb == Stop && a.Runner == name })
}
