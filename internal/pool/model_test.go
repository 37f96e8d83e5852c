package pool_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/mirego/tasuki/internal/pool"
	"github.com/mirego/tasuki/internal/runner"
)

// model is a host and GitHub in simulated time, two seconds at a time. GitHub
// assigns to each set at most as many jobs as the set announces, counts those
// that run, takes back what was not begun after lapse, and assigns it again.
type model struct {
	now    time.Time
	slots  int
	boot   time.Duration
	lapse  time.Duration
	decide func(time.Time, []pool.Want, []pool.Seen, pool.Limits) []pool.Action
	sets   []*set
	guests []*modelGuest
	made   int

	ran, lapsed, assigned, yields, aged int
	wrong                               []string
}

type set struct {
	name          string
	announces     int
	warm, room    int
	arrivals      []arrival // not yet come, by time
	queue         []arrival
	waiting       []*assignment
	running       int
	hungry, yield time.Time
	starved       time.Duration // the longest time that it wanted and had none
}

type arrival struct {
	at     time.Time
	length time.Duration
}

type assignment struct {
	since time.Time
	arrival
}

type modelGuest struct {
	pool.Seen
	of   *set
	end  time.Time // of the present state, where time ends it
	took time.Duration
}

func (m *model) step() {
	m.now = m.now.Add(2 * time.Second)
	for _, s := range m.sets {
		m.gitHub(s)
	}
	for _, g := range m.guests {
		m.live(g)
	}
	m.guests = slices.DeleteFunc(m.guests, func(g *modelGuest) bool { return g.State == runner.Deleting })
	m.pass()
}

func (m *model) gitHub(s *set) {
	for len(s.arrivals) > 0 && !s.arrivals[0].at.After(m.now) {
		s.queue, s.arrivals = append(s.queue, s.arrivals[0]), s.arrivals[1:]
	}
	s.waiting = slices.DeleteFunc(s.waiting, func(a *assignment) bool {
		if m.now.Sub(a.since) < m.lapse {
			return false
		}
		m.lapsed++
		s.queue = append([]arrival{a.arrival}, s.queue...)
		return true
	})
	for len(s.queue) > 0 && len(s.waiting)+s.running < s.announces {
		s.waiting = append(s.waiting, &assignment{since: m.now, arrival: s.queue[0]})
		s.queue = s.queue[1:]
		m.assigned++
	}
}

// live lets time pass for one guest.
func (m *model) live(g *modelGuest) {
	enter := func(s runner.State, d time.Duration) { g.State, g.Since, g.end = s, m.now, m.now.Add(d) }
	switch {
	case g.State == runner.Idle && len(g.of.waiting) > 0:
		job := g.of.waiting[0]
		g.of.waiting, g.of.running = g.of.waiting[1:], g.of.running+1
		enter(runner.Busy, job.length)
	case g.State == runner.Idle || m.now.Before(g.end):
	case g.State == runner.Connecting:
		enter(runner.Idle, 0)
	case g.State == runner.Busy:
		g.of.running--
		m.ran++
		enter(runner.Leaving, time.Second)
	case g.State == runner.Leaving:
		enter(runner.Stopping, time.Second)
	case g.State == runner.Stopping:
		enter(runner.Deleting, 0)
	}
}

func (m *model) pass() {
	var wants []pool.Want
	for _, s := range m.sets {
		d := pool.Demand{Warm: s.warm, Headroom: s.room}
		for _, a := range s.waiting {
			d.Jobs = append(d.Jobs, a.since)
		}
		has := slices.ContainsFunc(m.guests, func(g *modelGuest) bool { return g.of == s && !g.State.Ending() })
		switch {
		case has || d.Runners() == 0 && len(s.queue) == 0:
			s.hungry = time.Time{}
		case s.hungry.IsZero():
			s.hungry = m.now
		default:
			s.starved = max(s.starved, m.now.Sub(s.hungry))
		}
		wants = append(wants, pool.Want{Pool: s.name, Demand: d, Hungry: s.hungry, Yielded: s.yield})
	}
	var seen []pool.Seen
	for _, g := range m.guests {
		seen = append(seen, g.Seen)
	}
	for _, act := range m.decide(m.now, wants, seen, pool.Limits{Slots: m.slots}) {
		m.act(act)
	}
	if len(m.guests) > m.slots {
		m.complain("%d guests on %d slots", len(m.guests), m.slots)
	}
}

func (m *model) act(act pool.Action) {
	of := m.sets[slices.IndexFunc(m.sets, func(s *set) bool { return s.name == act.Pool })]
	switch act.Verb {
	case pool.Start:
		m.made++
		g := &modelGuest{of: of, end: m.now.Add(m.boot)}
		g.Seen = pool.Seen{Name: fmt.Sprint("g", m.made), Pool: of.name, State: runner.Connecting, Since: m.now, Aged: act.Aged}
		m.guests = append(m.guests, g)
		if act.Aged {
			m.aged++
		}
	case pool.Stop:
		g := m.guests[slices.IndexFunc(m.guests, func(g *modelGuest) bool { return g.Name == act.Runner })]
		if g.State != runner.Idle && g.State != runner.Connecting {
			m.complain("stopped a runner that is %s", g.State)
			return
		}
		g.State, g.Since, g.end = runner.Leaving, m.now, m.now.Add(time.Second)
		if act.Yields {
			m.yields++
			of.yield = m.now
			m.checkOwnLoad(of)
		}
	}
}

// checkOwnLoad complains if a pool gave a runner away that its own jobs need.
func (m *model) checkOwnLoad(s *set) {
	ready := 0
	for _, g := range m.guests {
		if g.of == s && (g.State == runner.Idle || g.State.OnItsWay()) {
			ready++
		}
	}
	if ready < len(s.waiting) {
		m.complain("pool %s gave a runner away: %d left for %d jobs", s.name, ready, len(s.waiting))
	}
}

func (m *model) complain(format string, args ...any) {
	m.wrong = append(m.wrong, m.now.Format("15:04:05 ")+fmt.Sprintf(format, args...))
}

func (m *model) run(d time.Duration) {
	for end := m.now.Add(d); m.now.Before(end) && len(m.wrong) == 0; {
		m.step()
	}
}

// traffic draws the jobs of one set.
func traffic(rnd *rand.Rand, d, every time.Duration, length func() time.Duration) []arrival {
	var out []arrival
	for t := at; t.Before(at.Add(d)); {
		t = t.Add(time.Duration(rnd.ExpFloat64() * float64(every)))
		for range 1 + rnd.IntN(3) { // they come in bursts
			out = append(out, arrival{at: t, length: length()})
		}
	}
	return out
}

// oldestFirst is the oracle: it knows nothing but jobs and slots, and gives a
// free slot to the job that waits longest.
func oldestFirst(_ time.Time, wants []pool.Want, seen []pool.Seen, limits pool.Limits) []pool.Action {
	type job struct {
		of    string
		since time.Time
	}
	var jobs []job
	for _, w := range wants {
		ready := 0
		for _, s := range seen {
			if s.Pool == w.Pool && (s.State == runner.Idle || s.State.OnItsWay()) {
				ready++
			}
		}
		for _, since := range w.Demand.Jobs[min(ready, len(w.Demand.Jobs)):] {
			jobs = append(jobs, job{w.Pool, since})
		}
	}
	slices.SortStableFunc(jobs, func(a, b job) int { return a.since.Compare(b.since) })
	var out []pool.Action
	for _, j := range jobs[:min(len(jobs), limits.Slots-len(seen))] {
		out = append(out, pool.Action{Verb: pool.Start, Pool: j.of})
	}
	return out
}

const lapse = 5 * time.Minute

// Three sets announce two jobs each, on two slots. Jobs of one length, which
// need the same time to boot, are lost least by whoever serves the oldest first:
// their deadlines stand in the order of their assignments. So where that oracle
// loses none although it is given 45 s less, we lose none either. The 45 s are
// the quarter of a minute within which we call jobs equally old, and half a
// minute because GitHub assigns by what has ended, so that two schedules do not
// see quite the same jobs. Headroom, which the oracle does not have, must not
// change that.
func TestNoJobLapsesThatCouldHaveRun(t *testing.T) {
	t.Parallel()
	possible, busiest := 0, 0
	for seed := range uint64(60) {
		rnd := rand.New(rand.NewPCG(seed, 3))
		length := time.Duration(20+rnd.IntN(120)) * time.Second
		boot := time.Duration(5+rnd.IntN(40)) * time.Second
		// From a third of what two slots can do to all of it; a burst holds two.
		every := time.Duration(float64(length+boot) / 2 * 3 * 2 * (1 + 2*rnd.Float64()))
		var jobs [][]arrival
		for range 3 {
			jobs = append(jobs, traffic(rnd, 2*time.Hour, every, func() time.Duration { return length }))
		}
		build := func(room int) *model {
			m := &model{now: at, slots: 2, boot: boot, lapse: lapse, decide: pool.Decide}
			for i := range jobs {
				m.sets = append(m.sets, &set{name: fmt.Sprint("s", i), announces: 2, room: room, arrivals: slices.Clone(jobs[i])})
			}
			return m
		}
		oracle := build(0)
		oracle.decide, oracle.lapse = oldestFirst, lapse-45*time.Second
		oracle.run(3 * time.Hour)
		if oracle.lapsed > 0 {
			continue
		}
		possible++
		busiest = max(busiest, oracle.ran)
		for _, room := range []int{0, 1} {
			m := build(room)
			m.run(3 * time.Hour)
			if m.lapsed > 0 || m.ran != oracle.ran || len(m.wrong) > 0 {
				t.Errorf("seed %d, headroom %d: %d jobs lapsed and %d of %d ran (%v, boot %v): %q",
					seed, room, m.lapsed, m.ran, oracle.ran, length, boot, m.wrong)
			}
		}
	}
	if possible < 15 || busiest < 70 {
		t.Errorf("only %d of the hosts could run everything, the busiest %d jobs: the test says little", possible, busiest)
	}
}

// Hosts with more work than they can do, and pools that only keep a floor: each
// pool that wants a runner gets one after a bounded time, nobody's jobs lose
// theirs, and slots are taken back no oftener than there is a reason.
func TestNoPoolStarves(t *testing.T) {
	t.Parallel()
	for seed := range uint64(16) {
		rnd := rand.New(rand.NewPCG(seed, 5))
		m := &model{now: at, slots: 1 + rnd.IntN(3), boot: time.Duration(5+rnd.IntN(60)) * time.Second, lapse: lapse, decide: pool.Decide}
		const longest = 20 * time.Minute
		pools := 2 + rnd.IntN(4)
		for i := range pools {
			s := &set{name: fmt.Sprint("s", i), announces: 2, warm: rnd.IntN(3), room: rnd.IntN(2)}
			if rnd.IntN(3) > 0 {
				s.arrivals = traffic(rnd, 6*time.Hour, 2*time.Minute, func() time.Duration {
					return time.Duration(rnd.Int64N(int64(longest)))
				})
			} else {
				s.warm = max(1, s.warm)
			}
			m.sets = append(m.sets, s)
		}
		m.run(6 * time.Hour)
		// Older than a pool's turn are only jobs that were assigned before, for
		// at most the time to a lapse, and the turns of others.
		turns := time.Duration((pools + m.slots - 1) / m.slots)
		bound := 10*time.Minute + lapse + turns*(max(longest, 30*time.Minute)+lapse+m.boot+10*time.Second)
		for _, s := range m.sets {
			if s.starved > bound {
				t.Errorf("seed %d: pool %s had no runner for %v, of %v possible", seed, s.name, s.starved, bound)
			}
		}
		if most := m.assigned + m.aged; m.yields > most {
			t.Errorf("seed %d: %d runners gave way to %d jobs and turns", seed, m.yields, most)
		}
		if len(m.wrong) > 0 {
			t.Errorf("seed %d: %q", seed, m.wrong)
		}
	}
}

// Pools that only keep a floor, and more of it than there are slots, take turns
// so slowly that it costs nothing; where all floors fit, they come to rest.
func TestPoolsComeToRest(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		rnd := rand.New(rand.NewPCG(seed, 9))
		m := &model{now: at, slots: 1 + rnd.IntN(3), boot: 20 * time.Second, lapse: lapse, decide: pool.Decide}
		pools := 1 + rnd.IntN(5)
		for i := range pools {
			m.sets = append(m.sets, &set{name: fmt.Sprint("s", i), announces: 2, warm: 1 + rnd.IntN(2), room: rnd.IntN(3)})
		}
		m.run(time.Hour)
		made, most := m.made, 0
		if pools > m.slots {
			most = 2 * 6 * m.slots // each slot every half an hour
		}
		m.run(6 * time.Hour)
		if m.made-made > most || len(m.wrong) > 0 {
			t.Errorf("seed %d: %d runners started without a reason in six hours, want at most %d: %q", seed, m.made-made, most, m.wrong)
		}
	}
}
