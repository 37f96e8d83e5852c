package why

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/mirego/tasuki/internal/api"
	"github.com/mirego/tasuki/internal/base/human"
	"github.com/mirego/tasuki/internal/wait"
)

// OfPool says why a pool has fewer runners than it wants, or that it has all.
// The name is one of the host's pools; the host has an agent.
func OfPool(name string, h Host, now time.Time) Answer {
	i := -1
	if h.Status != nil {
		i = slices.IndexFunc(h.Status.Pools, func(p api.Pool) bool { return p.Name == name })
	}
	a := Answer{Reason: NoAgent, Text: "no agent of this host keeps such a pool", Mend: "tasuki status lists the pools; tasuki reload takes a changed configuration over", Waits: true}
	if i >= 0 {
		a = ofPool(h.Status.Pools[i], h, now)
	}
	a.Subject = fmt.Sprintf("pool %q", name)
	return a
}

func ofPool(p api.Pool, h Host, now time.Time) Answer {
	s := h.Status
	a := Answer{Waits: true}
	switch {
	case s.Stopping:
		a.Reason, a.Text, a.Mend = Draining, "the agent ends when its busy runners have", "start it again: tasuki host run"
	case s.Draining:
		a.Reason, a.Text, a.Mend = Draining, "the host is drained: it starts no runners", "tasuki resume"
	case p.Draining:
		a.Reason, a.Text, a.Mend = Draining, "the pool is drained: it starts no runners", "tasuki resume "+p.Name
	case !p.Waits.None():
		a = ofWait(p, h, now)
	case s.Slots == 0:
		a.Reason, a.Text, a.Mend = NoCapacity, "the host has no slots", "raise host.slots, then tasuki reload"
	default:
		a = ofSupply(p, s, now)
	}
	if !p.Deaf.None() {
		a.Reason, a.Text, a.Mend, a.Waits = Reason(p.Deaf.Code), p.Deaf.Text, cmp.Or(mends[p.Deaf.Code], a.Mend), true
	}
	a.Details = append([]string{supply(p)}, a.Details...)
	for _, problem := range s.Problems {
		if mentions(problem, p.Name) && !strings.HasSuffix(problem, a.Text) { // and not said already
			a.Details = append(a.Details, "problem: "+problem)
		}
	}
	return a
}

// mentions says whether a problem is about a pool: the agent's sources end in
// "pool NAME", or in several names with commas between.
func mentions(problem, pool string) bool {
	source, _, _ := strings.Cut(problem, ": ")
	_, names, ok := strings.Cut(source, "pool ")
	return ok && slices.Contains(strings.Split(names, ", "), pool)
}

// supply is what the pool has and wants.
func supply(p api.Pool) string {
	return fmt.Sprintf("it wants %d waiting and has %d idle, %d on their way, %d busy", p.Standby, p.Idle, p.Starting, p.Busy)
}

// ofSupply answers for a pool that the agent does not say to wait.
func ofSupply(p api.Pool, s *api.Status, now time.Time) Answer {
	if p.Idle == 0 && p.Starting > 0 {
		a := Answer{Reason: Starting, Waits: true, Text: fmt.Sprintf("%d of its runners are on their way", p.Starting)}
		for _, r := range s.Runners {
			if r.Pool == p.Name && r.State.OnItsWay() {
				a.Details = append(a.Details, fmt.Sprintf("%s is %s%s", r.Name, r.State, lasting(r.Since, now)))
			}
		}
		if len(a.Details) == 1 {
			a.Text = "its runner is on its way: " + a.Details[0]
			a.Details = nil
		}
		return a
	}
	if p.Idle == 0 && p.Standby == 0 && !p.Listens {
		return Answer{Reason: NoCapacity, Waits: true, Text: "it wants no runner (standby: 0)", Mend: "raise its standby, then tasuki reload"}
	}
	return Answer{Reason: Ready, Text: "it has all the runners it wants"}
}

// mends are what a person can do, by what a pool waits for.
var mends = map[wait.Code]string{
	wait.Pulling:    "wait; tasuki events --follow shows how far it is",
	wait.NoImage:    "mend what it says: the reference, the registry's login, the registry",
	wait.NoSlot:     "wait, raise host.slots, or lower the standby of another pool",
	wait.Most:       "wait, or raise its max",
	wait.Yielded:    "wait, or raise host.slots",
	wait.Deprecated: "let the host bring the newest runner program, or build the image with it",
	wait.SetHeld:    "stop the other host's pool, give this one a scaleset name of its own, or use standby: many hosts share a pool so",
	wait.Limited:    "wait; fewer hosts for each credential, or a GitHub App",
	wait.Denied:     "tasuki github check",
	wait.Failing:    "tasuki events shows where they fail; tasuki logs RUNNER what the program said",
}

// ofWait answers for a pool that the agent says to wait.
func ofWait(p api.Pool, h Host, now time.Time) Answer {
	a := Answer{Reason: Reason(p.Waits.Code), Text: p.Waits.Text, Mend: mends[p.Waits.Code], Waits: true}
	switch a.Reason {
	case Pulling:
		if pull, ok := h.Pulls[p.Name]; ok && pull.Total > 0 {
			a.Text = fmt.Sprintf("its image %s is on its way: %s of %s%s", p.Image, human.Bytes(pull.Done), human.Bytes(pull.Total), ago(pull.At, now))
		}
	case NoSlot, Most, Yielded:
		a.Details = taken(h.Status, now)
	case Failing, Denied, Deprecated:
		a.Details = failures(p, h.Status)
	}
	return a
}

// taken says which runners hold the host's slots, the longest first.
func taken(s *api.Status, now time.Time) []string {
	runners := slices.Clone(s.Runners)
	slices.SortFunc(runners, func(a, b api.Runner) int { return a.Since.Compare(b.Since) })
	var out []string
	for _, r := range runners {
		if !r.State.TakesSlot() {
			continue
		}
		line := fmt.Sprintf("%s of pool %q is %s%s", r.Name, r.Pool, r.State, lasting(r.Since, now))
		if r.Job.Name != "" {
			line += fmt.Sprintf(" with %q", r.Job.Name)
		}
		out = append(out, line)
	}
	return out
}

// failures says how the pool's runners that are still here failed.
func failures(p api.Pool, s *api.Status) []string {
	var out []string
	for _, r := range s.Runners {
		if r.Pool == p.Name && r.Failed && r.Failure != "" {
			out = append(out, r.Name+": "+r.Failure)
		}
	}
	return out
}

// span is a duration with as many units as people read.
func span(d time.Duration) string {
	switch d = d.Round(time.Second); {
	case d < time.Minute:
		return d.String()
	case d < time.Hour:
		return strings.TrimSuffix(d.String(), "0s")
	}
	text := strings.TrimSuffix(d.Round(time.Minute).String(), "0s")
	return strings.TrimSuffix(text, "0m")
}

// lasting is " for 3m" since a time; nothing for none.
func lasting(t, now time.Time) string {
	if t.IsZero() || now.Before(t) {
		return ""
	}
	return " for " + span(now.Sub(t))
}

// ago is ", 3m ago" for a time; nothing for none.
func ago(t, now time.Time) string {
	if t.IsZero() || now.Before(t) {
		return ""
	}
	return fmt.Sprintf(", %s ago", span(now.Sub(t)))
}

func list(labels []string) string { return "[" + strings.Join(labels, ", ") + "]" }
