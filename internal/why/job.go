package why

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/mirego/tasuki/internal/runner"
)

// lapse is after how long GitHub gives a queued job up. Source: docs.github.com,
// "Actions limits".
const lapse = 24 * time.Hour

// OfJob says why a job waits, or that it does not.
func OfJob(f Facts) Answer {
	a, over := notQueued(f)
	if !over {
		a = ofQueued(f)
		a.Waits = true
		if !f.Job.Created.IsZero() && f.Now.After(f.Job.Created) {
			a.Details = append(a.Details, fmt.Sprintf("it waits for %s, with runs-on: %s; GitHub gives it up after %s",
				span(f.Now.Sub(f.Job.Created)), list(f.Job.Labels), span(lapse)))
		}
	}
	a.Subject = subject(f.Job)
	for _, u := range f.Unseen {
		a.Details = append(a.Details, "not seen: "+u)
	}
	return a
}

func subject(j Job) string { return fmt.Sprintf("job %d %q of %s", j.ID, j.Name, j.Repository) }

// notQueued answers for a job that waits for no runner.
func notQueued(f Facts) (Answer, bool) {
	j := f.Job
	switch {
	case j.Status == "completed":
		text := "it is over: " + cmp.Or(j.Conclusion, "no conclusion")
		if j.Runner != "" {
			text += ", on runner " + j.Runner
		}
		return Answer{Reason: Ended, Text: text + ago(j.Completed, f.Now)}, true
	case j.Status == "in_progress":
		return Answer{Reason: Running, Text: fmt.Sprintf("it runs on %s%s", cmp.Or(j.Runner, "a runner"), lasting(j.Started, f.Now)),
			Details: onHost(f, j.Runner)}, true
	case f.Run.Status == "completed":
		return Answer{Reason: RunEnded, Waits: true,
			Text: fmt.Sprintf("it is queued although its run %d has ended (%s): no runner will ever get it", f.Run.ID, cmp.Or(f.Run.Conclusion, "no conclusion")),
			Mend: "start the run again at GitHub, or leave it: it holds no runner up", Page: j.URL}, true
	case j.Status == "waiting":
		return Answer{Reason: Approval, Waits: true, Text: "it waits for an approval of its environment, and for no runner",
			Mend: "review the deployment", Page: j.URL}, true
	case j.Status == "pending" || j.Status == "requested":
		return Answer{Reason: Approval, Waits: true, Text: "GitHub has not queued it: it waits for its concurrency group, or for an approval of the run",
			Mend: "look at the run", Page: j.URL}, true
	}
	return Answer{}, false
}

// onHost says in which pool of this host a runner is.
func onHost(f Facts, name string) []string {
	if f.Host.Status == nil || name == "" {
		return nil
	}
	for _, r := range f.Host.Status.Runners {
		if r.Name == name {
			return []string{fmt.Sprintf("that runner is in pool %q of this host, %s", r.Pool, r.State)}
		}
	}
	return []string{"that runner is not of this host"}
}

func ofQueued(f Facts) Answer {
	var here, elsewhere []Pool // that have the labels
	for _, p := range f.Pools {
		switch {
		case len(p.lacks(f.Job)) > 0:
		case Covers(p.Scope, f.Job.Repository):
			here = append(here, p)
		default:
			elsewhere = append(elsewhere, p)
		}
	}
	switch {
	case len(here) > 0:
		return ofFitting(f, here)
	case len(elsewhere) > 0:
		p := elsewhere[0]
		return Answer{Reason: Scope, Details: others(f),
			Text: fmt.Sprintf("pool %q has its labels, and registers for %s, where no job of %s arrives", p.Name, p.Scope, f.Job.Repository),
			Mend: fmt.Sprintf("add a pool with scope: %s, or %s", f.Job.Repository, owner(f.Job.Repository))}
	case hosted(f.Job.Labels):
		return Answer{Reason: Hosted, Details: others(f),
			Text: fmt.Sprintf("it asks for %s, which are GitHub's own runners", list(f.Job.Labels)),
			Mend: "look at GitHub's status and your spending limit, or write runs-on: [self-hosted, …]", Page: "https://www.githubstatus.com"}
	}
	return ofMisfit(f)
}

// ofMisfit answers for a job whose labels no pool has.
func ofMisfit(f Facts) Answer {
	a := Answer{Reason: Labels, Mend: "change the job's runs-on, or add the label to a pool: labels: […], then tasuki reload"}
	pools := slices.Clone(f.Pools)
	slices.SortStableFunc(pools, func(x, y Pool) int { return cmp.Compare(len(x.lacks(f.Job)), len(y.lacks(f.Job))) })
	a.Text = fmt.Sprintf("no pool of this host has all its labels %s", list(f.Job.Labels))
	if len(pools) == 0 {
		a.Text = "this host has no pools"
	} else {
		a.Text += fmt.Sprintf(": the nearest, %q, lacks %s", pools[0].Name, strings.Join(pools[0].lacks(f.Job), ", "))
	}
	for _, p := range pools {
		a.Details = append(a.Details, fmt.Sprintf("pool %q has %s", p.Name, list(p.Labels)))
	}
	a.Details = append(a.Details, others(f)...)
	return a
}

// ofFitting answers for a job that some pools could take.
func ofFitting(f Facts, pools []Pool) Answer {
	var admitted []Pool
	for _, p := range pools {
		if p.Refused == "" {
			admitted = append(admitted, p)
		}
	}
	if len(admitted) == 0 {
		p := pools[0]
		return Answer{Reason: Group, Text: fmt.Sprintf("%s, so pool %q never hears of it", p.Refused, p.Name),
			Mend: "admit the repository to the group", Page: p.Page, Details: others(f)}
	}
	if f.Host.Status == nil {
		return Answer{Reason: NoAgent, Text: fmt.Sprintf("pool %q could take it, and %s", admitted[0].Name, cmp.Or(f.Host.Absent, "no agent runs on this host")),
			Mend: "tasuki host run", Details: others(f)}
	}
	// The pool that comes closest to taking it speaks for all.
	answers := make([]Answer, len(admitted))
	for i, p := range admitted {
		answers[i] = OfPool(p.Name, f.Host, f.Now)
	}
	best := 0
	for i := range answers {
		if hope(answers[i].Reason) > hope(answers[best].Reason) {
			best = i
		}
	}
	a := forJob(f, admitted[best], answers[best])
	for i, p := range admitted {
		if i != best {
			a.Details = append(a.Details, fmt.Sprintf("pool %q could take it too: %s", p.Name, answers[i].Text))
		}
	}
	return a
}

// hope orders reasons of pools by how soon a job is taken.
func hope(r Reason) int {
	return slices.Index([]Reason{Starting, Ready}, r) // -1, 0, 1
}

// forJob turns what a pool waits for into why a job waits for it.
func forJob(f Facts, p Pool, of Answer) Answer {
	a := of
	switch of.Reason {
	case Ready:
		idle := 0
		for _, s := range f.Host.Status.Pools {
			if s.Name == p.Name {
				idle = s.Idle
			}
		}
		if idle == 0 { // a scale set that GitHub has asked for nothing
			a.Reason = NotOffered
			a.Text = fmt.Sprintf("GitHub has not offered it yet: pool %q has its labels, and starts a runner as soon as it is asked to", p.Name)
		} else {
			a.Reason = NotOffered
			a.Text = fmt.Sprintf("GitHub has not offered it yet: %s of pool %q with these labels", waiting(idle), p.Name)
		}
		a.Mend, a.Page = "wait a minute, then look at GitHub's status; tasuki github check --repository "+f.Job.Repository+" tries the way", "https://www.githubstatus.com"
		a.Details = append(a.Details, others(f)...)
	default:
		a.Text = fmt.Sprintf("pool %q could take it: %s", p.Name, of.Text)
	}
	return a
}

func waiting(idle int) string {
	if idle == 1 {
		return "1 runner waits idle"
	}
	return fmt.Sprintf("%d runners wait idle", idle)
}

// others says which runners of others could take the job.
func others(f Facts) []string {
	var names []string
	for _, r := range f.Others {
		if len(missing(f.Job.Labels, r.Labels)) > 0 {
			continue
		}
		names = append(names, fmt.Sprintf("%s (%s)", r.Name, remoteState(r)))
	}
	if len(names) == 0 {
		return nil
	}
	more := ""
	if n := len(names) - 5; n > 0 {
		names, more = names[:5], fmt.Sprintf(" and %d more", n)
	}
	return []string{"runners with its labels that are not of this host: " + strings.Join(names, ", ") + more}
}

func remoteState(r runner.Remote) string {
	switch {
	case r.Busy:
		return "busy"
	case r.Online:
		return "idle"
	}
	return "offline"
}

// Covers says whether runners of a scope may get jobs of a repository. Which
// organisations an enterprise has is not known here: it covers all.
func Covers(scope, repository string) bool {
	first, _, two := strings.Cut(scope, "/")
	switch {
	case strings.EqualFold(first, "enterprises") && two:
		return true
	case two:
		return strings.EqualFold(scope, repository)
	}
	return strings.EqualFold(scope, owner(repository))
}

func owner(repository string) string {
	o, _, _ := strings.Cut(repository, "/")
	return o
}

// lacks returns the job's labels that the pool has not.
func (p Pool) lacks(j Job) []string { return missing(j.Labels, p.Labels) }

// missing returns what is wanted and not there. GitHub does not tell upper from
// lower case.
func missing(want, have []string) []string {
	var out []string
	for _, w := range want {
		if !slices.ContainsFunc(have, func(h string) bool { return strings.EqualFold(h, w) }) {
			out = append(out, w)
		}
	}
	return out
}

// hosted says whether labels are those of GitHub's own runners. Source:
// docs.github.com, "Choosing GitHub-hosted runners".
func hosted(labels []string) bool {
	return len(labels) > 0 && !slices.ContainsFunc(labels, func(l string) bool {
		system, version, ok := strings.Cut(strings.ToLower(l), "-")
		return !ok || version == "" || !slices.Contains([]string{"ubuntu", "windows", "macos"}, system) ||
			!strings.HasPrefix(version, "latest") && (version[0] < '0' || version[0] > '9')
	})
}
