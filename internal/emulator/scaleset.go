package emulator

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/mirego/tasuki/internal/emulator/workflow"
)

// ScaleSetOptions say how the scale-set service behaves. The zero value is what github.com does, as far as
// others measured it: jobs are assigned directly, and routed by labels.
type ScaleSetOptions struct {
	// Acquire makes the service offer jobs as JobAvailable, to be acquired, as a GitHub Enterprise Server
	// does. Otherwise they arrive as JobAssigned with a runnerRequestId of 0.
	Acquire bool
	// ByName routes a job to the set that runs-on names alone. Otherwise a set serves the jobs whose labels
	// it has all.
	ByName bool
	// AssignTimeout is how long an assigned job waits for a runner of the set until the assignment lapses,
	// and an available one until it is offered again: 5 min when zero.
	AssignTimeout time.Duration
	// Assignments is how often a job is assigned until it only waits in the queue for whichever runner of a
	// fitting set comes: 3 when zero.
	Assignments int
	// SessionTimeout is how long a session without a poll keeps others from opening one, and is given jobs:
	// 50 s when zero.
	SessionTimeout time.Duration
	// AdminTokenLife and QueueTokenLife are how long those tokens are good: 1 h each when zero.
	AdminTokenLife, QueueTokenLife time.Duration
	// DormantAfter is how long a set lives without a session: 7 days when zero.
	DormantAfter time.Duration
	// ZeroTrapdoor withholds for ever, from a set that announces a capacity of 0, the jobs that are queued
	// meanwhile. Otherwise they are assigned once it announces more.
	ZeroTrapdoor bool
	// ZeroIDs makes workflowRunId, and runnerRequestId in either flow, 0.
	ZeroIDs bool
	// NoExpiry leaves the claim exp out of the admin token: clients that rely on it break.
	NoExpiry bool
}

func (o ScaleSetOptions) withDefaults() ScaleSetOptions {
	o.Assignments = cmp.Or(max(o.Assignments, 0), 3)
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{
		{&o.AssignTimeout, 5 * time.Minute},
		{&o.SessionTimeout, 50 * time.Second},
		{&o.AdminTokenLife, time.Hour},
		{&o.QueueTokenLife, time.Hour},
		{&o.DormantAfter, 7 * 24 * time.Hour},
	} {
		if *d.field <= 0 {
			*d.field = d.value
		}
	}
	return o
}

// scaleSet is a runner scale set: it holds jobs, and its runners take no others.
type scaleSet struct {
	id      int64
	name    string
	scope   scope
	group   group
	labels  []label
	frozen  bool // its runners do not update themselves
	created time.Time
	base    string // the emulator's address as the set's listener sees it

	session   *setSession
	connected time.Time // when a session was last in use
	announced bool      // capacity is that of this session
	capacity  int       // how many jobs it may hold in all

	jobs    map[*job]struct{}  // assigned, running ones included
	offered map[*job]time.Time // available, and since when
	news    []news             // not in a message yet
	sent    []*setMessage      // not acknowledged, oldest first
}

// setSession is the one listener that a scale set has.
type setSession struct {
	id       string
	owner    string
	lastSeen time.Time // when its last poll ended
	polls    int
	turn     int64 // the newest poll's number; older ones are answered empty
}

// claim is what ties a job to a scale set.
type claim struct {
	set        *scaleSet // whose it is; nil until it is assigned
	assignedAt time.Time
	lapseAt    time.Time // when the assignment lapses
	jobID      string    // its name in messages: another one for each assignment
	requestID  int64     // its number in the flow with acquisition
	lapses     int
	acquired   bool               // by acquirejobs
	trapped    map[*scaleSet]bool // sets that will never hear of it
}

// live says whether the set's listener is there.
func (s *scaleSet) live(now time.Time, timeout time.Duration) bool {
	return s.session != nil && (s.session.polls > 0 || now.Sub(s.session.lastSeen) < timeout)
}

// room is how many more jobs the set may hold now.
func (e *Emulator) room(s *scaleSet, now time.Time) int {
	if !s.announced || !s.live(now, e.opts.ScaleSets.SessionTimeout) {
		return 0
	}
	return max(s.capacity-len(s.jobs)-len(s.offered), 0)
}

// setMisfit says why the set may never have the job, or nothing. The lock is held.
func (e *Emulator) setMisfit(s *scaleSet, j *job) string {
	if why := e.excluded(s.scope, s.group, j); why != "" {
		return why
	}
	if j.claim.trapped[s] {
		return "it announced a capacity of 0 when the job was queued"
	}
	if e.opts.ScaleSets.ByName {
		if want := j.def.RunsOn.Labels; len(want) != 1 || !strings.EqualFold(want[0], s.name) {
			return "runs-on does not name it alone"
		}
		return ""
	}
	return lacks(s.labels, j)
}

// assign gives queued jobs, the oldest first, to sets with room; where several fit, to the one that holds
// the fewest. The lock is held.
func (e *Emulator) assign() {
	now := time.Now()
	room := map[*scaleSet]int{}
	for _, s := range e.sets {
		if n := e.room(s, now); n > 0 {
			room[s] = n
		}
	}
	if len(room) == 0 {
		return
	}
	for _, j := range e.unassigned() {
		var fits []*scaleSet
		for s := range room {
			if _, offered := s.offered[j]; room[s] > 0 && !offered && e.setMisfit(s, j) == "" {
				fits = append(fits, s)
			}
		}
		slices.SortFunc(fits, func(a, b *scaleSet) int {
			return cmp.Or(cmp.Compare(len(a.jobs), len(b.jobs)), cmp.Compare(a.id, b.id))
		})
		for _, s := range fits {
			room[s]--
			if !e.opts.ScaleSets.Acquire {
				e.give(s, j)
				break
			}
			if j.claim.requestID == 0 && !e.opts.ScaleSets.ZeroIDs {
				j.claim.requestID = e.next("runnerRequest")
			}
			s.offered[j] = now
			e.tell(s, jobAvailable, j)
		}
	}
}

// unassigned returns the queued jobs that no set holds and that may be assigned, oldest first. The lock is held.
func (e *Emulator) unassigned() []*job {
	var out []*job
	for j := range e.active {
		if j.phase == queued && j.claim.set == nil && j.claim.lapses < e.opts.ScaleSets.Assignments {
			out = append(out, j)
		}
	}
	slices.SortFunc(out, byAge)
	return out
}

func byAge(a, b *job) int { return cmp.Or(a.queuedAt.Compare(b.queuedAt), cmp.Compare(a.id, b.id)) }

// give assigns a job to a set. The lock is held.
func (e *Emulator) give(s *scaleSet, j *job) {
	e.hold(s, j)
	e.log.Info("job assigned", "job", j.def.Name, "scale_set", s.name, "lapses", j.claim.lapses)
	e.tell(s, jobAssigned, j)
}

func (e *Emulator) hold(s *scaleSet, j *job) {
	e.withdraw(j)
	j.claim.set, j.claim.assignedAt = s, time.Now()
	j.claim.lapseAt = j.claim.assignedAt.Add(e.lapseOf())
	if j.claim.jobID == "" {
		j.claim.jobID = j.def.ID
	}
	s.jobs[j] = struct{}{}
}

// withdraw takes back what sets were offered of a job. The lock is held.
func (e *Emulator) withdraw(j *job) {
	for _, s := range e.sets {
		delete(s.offered, j)
	}
}

// lapse ends an assignment that no runner came for: the set hears that the job was cancelled, and the job,
// under another name, is assigned again. The lock is held.
func (e *Emulator) lapse(j *job) {
	s := j.claim.set
	e.log.Info("assignment lapsed", "job", j.def.Name, "scale_set", s.name)
	e.tellResult(s, j, "canceled")
	j.claim.lapses++ // first: it may be assigned again at once
	e.release(j)
}

// release throws an assigned job back to the queue. The lock is held.
func (e *Emulator) release(j *job) {
	delete(j.claim.set.jobs, j)
	j.claim.set, j.claim.jobID, j.claim.acquired = nil, newGUID(), false
	e.changed()
}

// stuck says whether the job is not assigned any more, but given to whichever runner of a fitting set polls.
func (e *Emulator) stuck(j *job) bool {
	return j.claim.set == nil && j.claim.lapses >= e.opts.ScaleSets.Assignments
}

// settle tells the job's set, if it has one, that the job is over. The lock is held.
func (e *Emulator) settle(j *job) {
	e.withdraw(j)
	s := j.claim.set
	if s == nil {
		return
	}
	delete(s.jobs, j)
	result := map[string]string{
		workflow.Success: "succeeded", workflow.Failure: "failed", workflow.Cancelled: "canceled", workflow.Skipped: "skipped",
	}[j.conclusion]
	e.tellResult(s, j, result)
}

// trap keeps a job that is queued now from the sets that announce a capacity of 0. The lock is held.
func (e *Emulator) trap(j *job) {
	for _, s := range e.sets {
		closed := s.announced && s.capacity == 0 && s.live(time.Now(), e.opts.ScaleSets.SessionTimeout)
		if closed && e.setMisfit(s, j) == "" && e.trapdoor() {
			if j.claim.trapped == nil {
				j.claim.trapped = map[*scaleSet]bool{}
			}
			j.claim.trapped[s] = true
		}
	}
}

// setsDue returns when something happens to a set by itself; zero if nothing does. The lock is held.
func (e *Emulator) setsDue() time.Time {
	var first time.Time
	now := time.Now()
	sooner := func(at time.Time) {
		if first.IsZero() || at.Before(first) {
			first = at
		}
	}
	for _, s := range e.sets {
		for _, n := range s.news {
			if n.due.After(now) { // the others wait for a poll, not for time
				sooner(n.due)
			}
		}
		for _, since := range s.offered {
			sooner(since.Add(e.opts.ScaleSets.AssignTimeout))
		}
		if s.session == nil || s.session.polls == 0 {
			sooner(s.connected.Add(e.opts.ScaleSets.DormantAfter))
		}
	}
	return first
}

// ringSets does what is due. The lock is held.
func (e *Emulator) ringSets(now time.Time) {
	for _, s := range e.sets {
		for j, since := range s.offered {
			if !now.Before(since.Add(e.opts.ScaleSets.AssignTimeout)) {
				delete(s.offered, j)
			}
		}
		idle := s.session == nil || s.session.polls == 0
		if idle && !now.Before(s.connected.Add(e.opts.ScaleSets.DormantAfter)) {
			e.log.Info("dormant scale set removed", "scale_set", s.name)
			e.dropSet(s)
		}
	}
}

// dropSet removes a set: what it held and did not start is queued again, its idle runners are registered no
// more. The lock is held.
func (e *Emulator) dropSet(s *scaleSet) {
	delete(e.sets, s.id)
	for _, r := range e.runners {
		if r.set == s && r.gone == registered && !r.busy() {
			e.remove(r, deleted)
		}
	}
	for j := range s.jobs {
		if j.phase == queued {
			e.release(j)
		}
	}
	s.session = nil
	e.changed()
}

// setNamed returns the set of that name in the group, or nil. The lock is held.
func (e *Emulator) setNamed(in scope, groupID int64, name string) *scaleSet {
	for _, s := range e.sets {
		if s.scope.is(in) && s.group.id == groupID && strings.EqualFold(s.name, name) {
			return s
		}
	}
	return nil
}

// setsIn returns the scope's sets by id. The lock is held.
func (e *Emulator) setsIn(match func(scope) bool) []*scaleSet {
	var out []*scaleSet
	for _, s := range e.sets {
		if match(s.scope) {
			out = append(out, s)
		}
	}
	slices.SortFunc(out, func(a, b *scaleSet) int { return cmp.Compare(a.id, b.id) })
	return out
}

// EvictSessions ends the sessions of all scale sets behind their owners' backs: polls and refreshes fail
// from now on, and a new session may be opened at once.
func (e *Emulator) EvictSessions() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, s := range e.sets {
		e.evict(s)
	}
}

// evict ends the set's session, if it has one. The lock is held.
func (e *Emulator) evict(s *scaleSet) {
	if s.session == nil {
		return
	}
	e.log.Info("session ended", "scale_set", s.name, "owner", s.session.owner)
	s.session, s.announced = nil, false
	e.changed()
}

// waitingForSet says what a job waits for as far as scale sets are concerned, or nothing. The lock is held.
func (e *Emulator) waitingForSet(j *job) string {
	if s := j.claim.set; s != nil {
		why := fmt.Sprintf("for a runner of scale set %s, which it is assigned to", s.name)
		if j.claim.lapses > 0 {
			why += fmt.Sprintf(" (%d assignments lapsed)", j.claim.lapses)
		}
		return why
	}
	if e.stuck(j) {
		return fmt.Sprintf("for a runner of a scale set: %d assignments lapsed, it is not assigned again", j.claim.lapses)
	}
	var full, misfits []string
	now := time.Now()
	for _, s := range e.setsIn(func(scope) bool { return true }) {
		switch why := e.setMisfit(s, j); {
		case why != "":
			misfits = append(misfits, s.name+": "+why)
		case !s.live(now, e.opts.ScaleSets.SessionTimeout):
			full = append(full, s.name+": nobody listens")
		default:
			if _, ok := s.offered[j]; ok {
				full = append(full, s.name+": offered, not acquired")
			} else {
				full = append(full, fmt.Sprintf("%s: holds %d of %d", s.name, len(s.jobs)+len(s.offered), s.capacity))
			}
		}
	}
	switch {
	case len(full) > 0:
		return "for a scale set: " + strings.Join(full, ", ")
	case len(misfits) > 0:
		return "for a scale set: none fits (" + strings.Join(misfits, "; ") + ")"
	}
	return ""
}

// hasPlainRunners says whether a runner without a scale set is registered. The lock is held.
func (e *Emulator) hasPlainRunners() bool {
	for _, r := range e.runners {
		if r.gone == registered && r.set == nil {
			return true
		}
	}
	return false
}
