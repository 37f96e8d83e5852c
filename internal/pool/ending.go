package pool

import (
	"fmt"
	"slices"
)

// endStrays ends the waiting runners of pools that are no more.
func (h *host) endStrays(seen []Seen) {
	for _, s := range seen {
		known := slices.ContainsFunc(h.pools, func(p *party) bool { return p.Pool == s.Pool })
		if s.waits() && !known {
			h.end(s, "its pool is no longer configured")
		}
	}
}

// endWaiting ends the waiting runners of one pool that drains, and those that
// are too many or outdated.
func (h *host) endWaiting(p *party) {
	wanted, rolls := p.Demand.Runners()+p.Demand.Headroom, p.rolls()
	for i, s := range p.ready {
		switch {
		case p.Drain:
			h.end(s, "draining")
		case s.Outdated != "" && rolls:
			h.end(s, s.Outdated)
			rolls = false
		case i >= wanted && h.now.Sub(s.Since) >= spare:
			h.end(s, fmt.Sprintf("more runners wait than the pool wants (%s)", p.Demand.why()))
		}
	}
}

// rolls says whether an outdated runner may give way to a new one: one after
// the other, and only while the pool has what it wants and can get more. A pool
// that rolls to a new image, a bad one perhaps, keeps its capacity.
func (p *party) rolls() bool {
	renewing := slices.ContainsFunc(p.ready, func(s Seen) bool { return s.State.OnItsWay() && s.Outdated == "" })
	return p.Blocked.None() && !renewing && p.ending == 0 && len(p.ready) >= p.Demand.Runners()
}

func (h *host) end(s Seen, reason string) {
	h.actions = append(h.actions, Action{Verb: Stop, Pool: s.Pool, Runner: s.Name, Reason: reason})
	h.coming[s.Driver]++
}
