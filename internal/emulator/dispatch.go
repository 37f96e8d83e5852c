package emulator

import (
	"cmp"
	"crypto/rsa"
	"fmt"
	"slices"
	"strings"
	"time"
)

// runner is one registration.
type runner struct {
	id         int64
	name       string
	scope      scope
	group      group
	labels     []label
	ephemeral  bool
	workFolder string
	os, arch   string
	version    string
	created    time.Time
	clientID   string
	tokenURL   string // what its token requests must name as audience
	key        *rsa.PublicKey
	set        *scaleSet // whose jobs alone it takes; nil for other runners

	gone    departure
	left    time.Time
	session *session
	job     *job // offered or running
}

// departure says how a registration ended.
type departure int

const (
	registered departure = iota
	served               // ephemeral, and its job is over
	deleted              // by an API call, or never used
)

type label struct {
	name string
	kind string // "read-only" or "custom"
}

type group struct {
	id   int64
	name string
}

// scope is what a runner is registered for: a repository, an organization or an enterprise.
type scope struct {
	kind string // repos, orgs, enterprises
	name string // octo/demo, octo, big
}

// covers says whether runners of the scope may have the repository's jobs.
func (s scope) covers(repository string) bool {
	owner, _, _ := strings.Cut(repository, "/")
	switch s.kind {
	case "repos":
		return strings.EqualFold(s.name, repository)
	case "orgs":
		return strings.EqualFold(s.name, owner)
	}
	return true
}

func (s scope) is(o scope) bool { return s.kind == o.kind && strings.EqualFold(s.name, o.name) }

// path returns what follows the host in the scope's address for people.
func (s scope) path() string {
	if s.kind == "enterprises" {
		return "enterprises/" + s.name
	}
	return s.name
}

// session is the open line of a runner program.
type session struct {
	id        string
	runner    *runner
	lastSeen  time.Time // when its last poll ended, or its job was last renewed
	polls     int       // polls that are held now
	turn      int64     // the newest poll's number; older ones are answered empty
	messageID int64
}

// online says whether the runner program is there: it polls, or did a moment ago, or renewed its job. A busy
// runner may be offline, as at GitHub, until its lock ends.
func (r *runner) online(now time.Time, after time.Duration) bool {
	return r.session != nil && (r.session.polls > 0 || now.Sub(r.session.lastSeen) < after)
}

func (r *runner) busy() bool { return r.job != nil && r.job.phase == running }

// misfit says why the runner may not have the job, or nothing. The lock is held.
func (e *Emulator) misfit(r *runner, j *job) string {
	switch s := j.claim.set; {
	case s != nil && s == r.set:
		return "" // which of its runners the set's job goes to is all the same
	case s != nil:
		return fmt.Sprintf("the job is assigned to scale set %q", s.name)
	case r.set != nil && e.stuck(j):
		return e.setMisfit(r.set, j)
	case r.set != nil:
		return fmt.Sprintf("it takes the jobs of scale set %q alone", r.set.name)
	}
	if why := e.excluded(r.scope, r.group, j); why != "" {
		return why
	}
	return lacks(r.labels, j)
}

// excluded says why runners of that scope and group are out of the question for the job, or nothing.
func (e *Emulator) excluded(s scope, g group, j *job) string {
	rule := e.opts.GroupRules[g.name]
	switch want := j.def.RunsOn.Group; {
	case !s.covers(e.opts.Repository):
		return fmt.Sprintf("it is registered for %s", s.path())
	case want != "" && !strings.EqualFold(want, g.name):
		return fmt.Sprintf("it is in group %q", g.name)
	case s.kind != "repos" && rule.Closed:
		return fmt.Sprintf("its group %q does not admit %s", g.name, e.opts.Repository)
	case s.kind != "repos" && e.opts.Public && !rule.AllowPublic:
		return fmt.Sprintf("its group %q does not admit public repositories", g.name)
	}
	return ""
}

// lacks says which labels that the job wants are missing, or nothing.
func lacks(labels []label, j *job) string {
	var missing []string
	for _, want := range j.def.RunsOn.Labels {
		if !slices.ContainsFunc(labels, func(l label) bool { return strings.EqualFold(l.name, want) }) {
			missing = append(missing, want)
		}
	}
	if len(missing) > 0 {
		return fmt.Sprintf("it lacks %s", strings.Join(missing, ", "))
	}
	return ""
}

// offer gives the runner the oldest queued job that fits, or nil. The lock is held.
func (e *Emulator) offer(r *runner) *job {
	var best *job
	for j := range e.active {
		if j.phase != queued || e.misfit(r, j) != "" {
			continue
		}
		if best == nil || byAge(j, best) < 0 {
			best = j
		}
	}
	if best == nil {
		return nil
	}
	if r.set != nil && best.claim.set == nil {
		e.hold(r.set, best)
	}
	e.withdraw(best)
	best.phase, best.runner, best.offeredAt, best.acknowledged = offered, r, time.Now(), false
	best.requestGUID, best.requestID = newGUID(), e.next("request")
	r.job = best
	e.log.Info("job offered", "job", best.def.Name, "runner", r.name)
	e.changed()
	return best
}

// requeue takes an offered job back. The lock is held.
func (e *Emulator) requeue(j *job) {
	e.log.Info("job not picked up, queued again", "job", j.def.Name, "runner", j.runner.name)
	j.runner.job = nil
	j.runner, j.phase, j.requeued = nil, queued, j.requeued+1
	e.changed()
}

// remove ends a registration. The lock is held.
func (e *Emulator) remove(r *runner, how departure) {
	r.gone, r.left = how, time.Now()
	if j := r.job; j != nil && j.phase == offered {
		e.requeue(j)
	}
	e.log.Info("runner removed", "runner", r.name)
	e.changed()
}

// admit adds a registration. It forgets those that left long ago. The lock is held.
func (e *Emulator) admit(r *runner) {
	for id, old := range e.runners {
		if old.gone != registered && time.Since(old.left) > time.Hour {
			delete(e.runners, id)
		}
	}
	r.id, r.created, r.clientID = e.next("runner"), time.Now(), newGUID()
	e.runners[r.id] = r
	e.log.Info("runner registered", "runner", r.name, "id", r.id, "ephemeral", r.ephemeral)
	e.changed()
}

// named returns the registration of that name in the scope, or nil. The lock is held.
func (e *Emulator) named(s scope, name string) *runner {
	for _, r := range e.runners {
		if r.gone == registered && r.scope.is(s) && strings.EqualFold(r.name, name) {
			return r
		}
	}
	return nil
}

// registeredIn returns the scope's registrations by id. The lock is held.
func (e *Emulator) registeredIn(match func(scope) bool) []*runner {
	var out []*runner
	for _, r := range e.runners {
		if r.gone == registered && match(r.scope) {
			out = append(out, r)
		}
	}
	slices.SortFunc(out, func(a, b *runner) int { return cmp.Compare(a.id, b.id) })
	return out
}

func (e *Emulator) groups() []group {
	out := []group{{1, "Default"}}
	for i, name := range e.opts.Groups {
		out = append(out, group{int64(i + 2), name})
	}
	return out
}

func (e *Emulator) groupByID(id int64) (group, bool) {
	for _, g := range e.groups() {
		if g.id == id {
			return g, true
		}
	}
	return group{}, false
}
