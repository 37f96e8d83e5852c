package pool

import (
	"cmp"
	"slices"
	"time"

	"github.com/mirego/tasuki/internal/runner"
)

// claim is a pool's claim to one slot.
type claim struct {
	kind kind
	// since is when the job was assigned that it is for. A warm claim of a pool
	// that has been hungry for long has one too.
	since time.Time
	aged  bool // the pool's turn has come, whatever its jobs say
}

// kind is what a claim is for. A lower one goes first.
type kind int

const (
	load     kind = iota // a job, or the turn of a pool that has waited for long
	warm                 // the floor that shall always wait
	headroom             // more that wait while nobody else needs the slot
)

// claims returns what the pool asks for, the first first.
func (p *party) claims(now time.Time) []claim {
	if p.Drain {
		return nil
	}
	var out []claim
	jobs := slices.SortedFunc(slices.Values(p.Demand.Jobs), time.Time.Compare)
	for _, since := range jobs {
		out = append(out, claim{kind: load, since: since})
	}
	for range p.Demand.Warm {
		out = append(out, claim{kind: warm})
	}
	if len(out) > 0 && !p.Hungry.IsZero() && now.Sub(p.Hungry) > patience {
		first := &out[0]
		if as := p.Hungry.Add(patience); first.kind != load || as.Before(first.since) {
			*first = claim{kind: load, since: as, aged: true}
		}
	}
	for range p.Demand.Headroom {
		out = append(out, claim{kind: headroom})
	}
	return out
}

// room says whether the pool's own bound lets it hold one more runner.
func (p *party) room() bool { return p.Most <= 0 || p.held < p.Most }

// rests says whether the pool lets others have the slot that it gave away.
func (p *party) rests(now time.Time) bool {
	return !p.Yielded.IsZero() && now.Sub(p.Yielded) < calm
}

// eligible says whether the pool's next claim could have a slot if one is free.
func (p *party) eligible(now time.Time) bool {
	return len(p.missing) > 0 && p.Blocked.None() && p.room() && (p.missing[0].kind == load || !p.rests(now))
}

// first returns the pool whose next claim goes before all others.
func (h *host) first(may func(*party) bool) *party {
	var best *party
	for _, p := range h.pools {
		if p.eligible(h.now) && may(p) && (best == nil || before(p, best)) {
			best = p
		}
	}
	return best
}

// before says whether p's next claim goes before q's; among equals the first in
// the configuration goes first.
func before(p, q *party) bool {
	a, b := p.missing[0], q.missing[0]
	if c := cmp.Compare(a.kind, b.kind); c != 0 {
		return c < 0
	}
	switch a.kind {
	case load:
		return cmp.Or(
			a.since.Truncate(together).Compare(b.since.Truncate(together)),
			cmp.Compare(p.held, q.held),
			a.since.Compare(b.since),
		) < 0
	case warm:
		return p.have()*q.Demand.Runners() < q.have()*p.Demand.Runners()
	}
	return p.have()*(q.Demand.Runners()+q.Demand.Headroom) < q.have()*(p.Demand.Runners()+p.Demand.Headroom)
}

// have counts the runners that wait, come, or are started now.
func (p *party) have() int { return len(p.ready) + p.slots }

// rank sorts the waiting runners: the oldest is the closest to a job.
func (p *party) rank() {
	slices.SortStableFunc(p.ready, func(a, b Seen) int {
		return cmp.Or(cmp.Compare(rank(a.State), rank(b.State)), a.Since.Compare(b.Since))
	})
}

func rank(s runner.State) int {
	if s == runner.Idle {
		return 0
	}
	return 1
}
