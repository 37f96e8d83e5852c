package pool

import (
	"time"

	"github.com/mirego/tasuki/internal/runner"
	"github.com/mirego/tasuki/internal/wait"
)

// Want is what one pool asks of the host now.
type Want struct {
	Pool   string
	Driver string // what runs its guests; only compared with Limits.Drivers
	Demand Demand
	Most   int // runners at once; 0: no bound of the pool's own
	// Blocked, if not None, says why no runner can be started for the pool
	// now: its image is being pulled, GitHub refuses us, it backs off.
	Blocked wait.Reason
	// Drain: start nothing, and let those that wait for a job go.
	Drain bool
	// Hungry is since when the pool wants a runner and has none at all; zero:
	// it has one, or wants none.
	Hungry time.Time
	// Yielded is when a runner of the pool gave way to another pool's job last.
	Yielded time.Time
}

// Seen is one runner as it was observed.
type Seen struct {
	Name   string
	Pool   string
	Driver string
	State  runner.State
	Since  time.Time // when it entered State
	// Outdated, if not empty, says why a runner that still waits for a job
	// should give way to a new one (a newer image, changed settings).
	Outdated string
	// Aged: the Action that started it said so.
	Aged bool
}

// waits says whether the runner has no job, and will take one or does already.
func (s Seen) waits() bool { return s.State == runner.Idle || s.State.OnItsWay() }

// Limits is what the host has.
type Limits struct {
	Slots int // guests at once over all pools
	// Drivers is how many guests at once the hypervisor of a driver runs; a
	// driver that is not there, or has 0, is bounded by Slots alone; one that has
	// less runs none.
	Drivers map[string]int
	// Taken counts guests that hold a slot and belong to no runner seen.
	Taken int
}

// Verb is what an Action does.
type Verb string

// The verbs.
const (
	Start Verb = "start" // begin one runner for Pool
	Stop  Verb = "stop"  // end Runner, if GitHub agrees that it is not at work
	Wait  Verb = "wait"  // Pool wants a runner and cannot have it, because of Waits
)

// Action is one thing to do.
type Action struct {
	Verb   Verb
	Pool   string
	Runner string      // for Stop
	Reason string      // of a Stop
	Waits  wait.Reason // of a Wait: for what
	// Aged, of a Start: the pool had waited so long that its turn came before
	// jobs of others. Such a runner does not give way before it had its turn.
	Aged bool
	// Yields, of a Stop: the runner gives way to another pool.
	Yields bool
}

// How pools share the slots over time.
const (
	// lapse is when GitHub takes an assigned job back that no runner has begun.
	lapse = 5 * time.Minute
	// together: jobs that were assigned within the same quarter of a minute
	// count as equally old, and the pool with the fewest slots goes first.
	together = 15 * time.Second
	// patience is how long a pool may have no runner at all before it is
	// treated as if a job had been assigned to it then.
	patience = 2 * lapse
	// turn is how long a runner that got its slot by patience waits for a job
	// before it may have to give way.
	turn = lapse
	// longIdle is how long a pool's only runner waits in vain before the turn of
	// a pool that has none comes.
	longIdle = 30 * time.Minute
	// calm is how long a pool that gave way starts nothing that is not for a
	// job: more jobs of the other pool may follow, and would only end it again.
	calm = 2 * time.Minute
	// spare is how long a runner that nothing asks for any more is kept: where a
	// job was withdrawn, another may follow.
	spare = 30 * time.Second
	// soon bounds how long a runner that leaves is counted upon as a free slot.
	soon = time.Minute
)

// Decide compares what the pools want with what is there, at a time, and says
// what to do. It is pure: the same input gives the same actions.
//
// Each pool has claims to slots: one for each assigned job, then those of its
// warm floor, then its headroom. The runners that wait, or are on their way,
// serve the first of them. A free slot goes to the job that waits longest,
// whoever's it is, so one that is about to lapse comes before all else; then to
// the warm floor of the pool that has the smallest share of it, then to
// headroom. A pool that has had nothing for long counts as a job that waits.
//
// Where no slot is free a waiting runner of another pool gives way to a job, if
// no job of its own pool needs it. Decide never stops a busy runner and never
// starts more guests than there are slots.
func Decide(now time.Time, wants []Want, seen []Seen, limits Limits) []Action {
	h := look(now, wants, seen, limits)
	h.endStrays(seen)
	for _, p := range h.pools {
		h.endWaiting(p)
	}
	h.start()
	h.yield()
	h.wait()
	return h.actions
}

// host is one look at a host, and what is decided so far.
type host struct {
	now     time.Time
	limits  Limits
	seen    []Seen
	pools   []*party // in the order of the configuration
	taken   int      // slots
	drivers map[string]int
	coming  map[string]int // slots that will be free soon, by driver
	actions []Action
}

// party is one pool among those that share the host.
type party struct {
	Want
	ready   []Seen  // wait or are on their way: the surest of a job first
	held    int     // slots
	working int     // busy runners
	ending  int     // runners that leave, with their slots
	missing []claim // what no runner serves
	slots   int     // given to it now
	// unserved counts the claims that found no free slot.
	unserved int
}

func look(now time.Time, wants []Want, seen []Seen, limits Limits) *host {
	h := &host{now: now, limits: limits, seen: seen, taken: limits.Taken, drivers: map[string]int{}, coming: map[string]int{}}
	byName := map[string]*party{}
	for _, w := range wants {
		p := &party{Want: w}
		byName[w.Pool] = p
		h.pools = append(h.pools, p)
	}
	for _, s := range seen {
		if s.State.TakesSlot() {
			h.taken++
			h.drivers[s.Driver]++
		}
		if leaves(s.State) && now.Sub(s.Since) < soon {
			h.coming[s.Driver]++
		}
		if p := byName[s.Pool]; p != nil {
			p.count(s)
		}
	}
	for _, p := range h.pools {
		p.rank()
		p.missing = p.claims(now)
		p.missing = p.missing[min(len(p.ready), len(p.missing)):]
	}
	return h
}

func (p *party) count(s Seen) {
	if s.State.TakesSlot() {
		p.held++
	}
	switch {
	case s.waits():
		p.ready = append(p.ready, s)
	case s.State == runner.Busy:
		p.working++
	case s.State.Ending() && s.State.TakesSlot():
		p.ending++
	}
}

// leaves says whether a runner in s frees its slot within moments.
func leaves(s runner.State) bool { return s == runner.Leaving || s == runner.Stopping }

// free says whether a slot is free for a guest of this driver.
func (h *host) free(driver string) bool {
	return h.taken < h.limits.Slots && !h.full(driver)
}

// full says whether the driver's hypervisor runs as many guests as it may.
func (h *host) full(driver string) bool {
	most := h.limits.Drivers[driver]
	return most < 0 || most > 0 && h.drivers[driver] >= most
}

// start gives the free slots to claims.
func (h *host) start() {
	for {
		p := h.first(func(p *party) bool { return h.free(p.Driver) })
		if p == nil {
			return
		}
		h.actions = append(h.actions, Action{Verb: Start, Pool: p.Pool, Aged: p.missing[0].aged})
		h.taken++
		h.drivers[p.Driver]++
		p.missing = p.missing[1:]
		p.held++
		p.slots++
	}
}
