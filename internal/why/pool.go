package why

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/mirego/tasuki/internal/api"
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
	case p.Waits != "":
		a = ofWait(p, h, now)
	case s.Slots == 0:
		a.Reason, a.Text, a.Mend = NoCapacity, "the host has no slots", "raise host.slots, then tasuki reload"
	default:
		a = ofSupply(p, s, now)
	}
	if text := setProblem(p, s); text != "" {
		a.Reason, a.Text, a.Mend, a.Waits = classify(text, a.Mend)
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

// setProblem is what keeps a pool from hearing of jobs; "" if nothing does.
func setProblem(p api.Pool, s *api.Status) string {
	for _, problem := range s.Problems {
		if text, ok := strings.CutPrefix(problem, "jobs of pool "); ok && mentions(problem, p.Name) {
			_, text, _ = strings.Cut(text, ": ")
			return text
		}
	}
	return ""
}

// classify finds the reason in the agent's words.
func classify(text, mend string) (Reason, string, string, bool) {
	for _, row := range waits {
		if strings.HasPrefix(text, row.begins) && strings.Contains(text, row.holds) {
			return row.reason, text, row.mend, true
		}
	}
	return Waiting, text, mend, true
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
	if p.Idle == 0 && p.Standby == 0 && !listens(p) {
		return Answer{Reason: NoCapacity, Waits: true, Text: "it wants no runner (standby: 0)", Mend: "raise its standby, then tasuki reload"}
	}
	return Answer{Reason: Ready, Text: "it has all the runners it wants"}
}

// listens says whether a pool follows a scale set, and so wants none until
// GitHub asks for some.
func listens(p api.Pool) bool { return p.Demand != "" && !strings.HasPrefix(p.Demand, "standby") }

// waits are the agent's words for what a pool waits for, by what they begin
// with or hold. The first row that fits counts.
var waits = []struct {
	reason Reason
	begins string
	holds  string
	mend   string
}{
	{Pulling, "image is being brought to this host", "", "wait; tasuki events --follow shows how far it is"},
	{NoImage, "image not on this host", "", "mend what it says: the reference, the registry's login, the registry"},
	{NoSlot, "no free slot", "", "wait, raise host.slots, or lower the standby of another pool"},
	{Most, "the pool has as many runners as it may", "", "wait, or raise its max"},
	{Yielded, "gave its slot", "", "wait, or raise host.slots"},
	{Deprecated, "", "deprecated", "let the host bring the newest runner program, or build the image with it"},
	{Deprecated, "", "gives no jobs to ", "let the host bring the newest runner program, or build the image with it"},
	{SetHeld, "", "is held by", "stop the other host's pool, give this one a scaleset name of its own, or use standby: many hosts share a pool so"},
	{Limited, "", "GitHub is left alone until", "wait; fewer hosts for each credential, or a GitHub App"},
	{Denied, "", "GitHub refuses us", "tasuki github check"},
	{Failing, "", "failed in a row", "tasuki events shows where they fail; tasuki logs RUNNER what the program said"},
}

// ofWait answers for a pool that the agent says to wait.
func ofWait(p api.Pool, h Host, now time.Time) Answer {
	a := Answer{}
	a.Reason, a.Text, a.Mend, a.Waits = classify(p.Waits, "")
	switch a.Reason {
	case Pulling:
		if pull, ok := h.Pulls[p.Name]; ok && pull.Total > 0 {
			a.Text = fmt.Sprintf("its image %s is on its way: %s of %s%s", p.Image, size(pull.Done), size(pull.Total), ago(pull.At, now))
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

// size is bytes as people read them.
func size(n int64) string {
	for _, u := range []struct {
		bytes int64
		name  string
	}{{1e9, "GB"}, {1e6, "MB"}, {1e3, "kB"}} {
		if n >= u.bytes {
			return fmt.Sprintf("%.1f %s", float64(n)/float64(u.bytes), u.name)
		}
	}
	return fmt.Sprintf("%d B", n)
}
