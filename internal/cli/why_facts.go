package cli

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/mirego/tasuki/internal/api"
	"github.com/mirego/tasuki/internal/client"
	"github.com/mirego/tasuki/internal/config"
	"github.com/mirego/tasuki/internal/event"
	"github.com/mirego/tasuki/internal/github"
	"github.com/mirego/tasuki/internal/pool"
	"github.com/mirego/tasuki/internal/runner"
	"github.com/mirego/tasuki/internal/vm"
	"github.com/mirego/tasuki/internal/why"
)

// pullMemory is how old the last word of a pull may be to be worth repeating.
const pullMemory = time.Hour

// whyFacts gathers what is known of this host and its jobs.
type whyFacts struct {
	cfg     *config.Config
	clients *gitHubs
	host    why.Host
	now     time.Time
}

// newWhyFacts asks the agent. That there is none is a fact too.
func (a *app) newWhyFacts(ctx context.Context, cfg *config.Config) (*whyFacts, error) {
	log, err := a.logger()
	if err != nil {
		return nil, err
	}
	g := &whyFacts{cfg: cfg, clients: newGitHubs(log), now: time.Now().UTC()}
	c := client.New(cfg.Host.Home)
	s, err := c.Status(ctx)
	switch {
	case errors.Is(err, client.ErrNoAgent):
		g.host.Absent = fmt.Sprintf("no agent runs on this host (home %s)", cfg.Host.Home)
		return g, nil
	case err != nil:
		return nil, err
	}
	g.host.Status = &s
	g.host.Pulls, err = pulls(ctx, c, g.now)
	return g, err
}

// pulls returns how far images are on their way, from the newest events.
func pulls(ctx context.Context, c *client.Client, now time.Time) (map[string]why.Pull, error) {
	out := map[string]why.Pull{}
	for e, err := range c.Events(ctx, now.Add(-pullMemory), false) {
		if err != nil {
			return out, err
		}
		if e.Kind == event.ImagePulling {
			out[e.Pool] = why.Pull{Done: e.Done, Total: e.Total, At: e.Time}
		}
	}
	return out, nil
}

func (g *whyFacts) pool(name string) why.Answer {
	a := why.OfPool(name, g.host, g.now)
	if g.host.Status == nil {
		a.Text, a.Mend = g.host.Absent, "tasuki host run --config "+g.cfg.File()
	}
	return a
}

// jobs answers for the job, or for each job of the run, that is asked for.
func (g *whyFacts) jobs(ctx context.Context, t asked) ([]why.Answer, error) {
	c, err := g.client(t)
	if err != nil {
		return nil, err
	}
	run, jobs, err := look(ctx, c, t)
	if limit, ok := errors.AsType[*github.LimitError](err); ok {
		return []why.Answer{{
			Subject: "a job of " + t.repository, Reason: why.Limited, Waits: true, Text: limit.Error(),
			Mend: "wait; nothing of this host asks GitHub before", Details: []string{"not seen: the job"},
		}}, nil
	}
	if err != nil {
		return nil, err
	}
	if len(jobs) == 0 {
		return []why.Answer{{
			Subject: fmt.Sprintf("run %d of %s", run.ID, t.repository), Reason: why.Approval, Waits: run.Status != "completed",
			Text: fmt.Sprintf("it has no jobs yet: it is %s", run.Status), Mend: "look at the run: it may wait for an approval, or for another run",
		}}, nil
	}
	var answers []why.Answer
	admission := map[string]refusal{}
	for _, job := range jobs {
		f := why.Facts{Now: g.now, Job: job, Run: run, Host: g.host}
		if job.Status == "queued" {
			g.reach(ctx, &f, admission)
		}
		answers = append(answers, why.OfJob(f))
	}
	return answers, nil
}

// look returns the run and the jobs that are asked for.
func look(ctx context.Context, c *github.Client, t asked) (why.Run, []why.Job, error) {
	if t.job == 0 {
		return c.LookAtRun(ctx, t.run)
	}
	job, err := c.LookAtJob(ctx, t.job)
	if errors.Is(err, github.ErrNoJob) && t.either {
		if run, jobs, runErr := c.LookAtRun(ctx, t.job); runErr == nil {
			return run, jobs, nil
		}
	}
	if err != nil {
		return why.Run{}, nil, err
	}
	run, _, err := c.LookAtRun(ctx, job.RunID)
	return run, []why.Job{job}, err
}

// client returns one that sees the repository: that of a pool which serves it,
// else of the account whose GitHub the address names, else of the first.
func (g *whyFacts) client(t asked) (*github.Client, error) {
	account := &g.cfg.GitHub.Account
	score := -1
	try := func(a *config.Account, serves bool) {
		points := 0
		if serves {
			points++
		}
		if u, err := url.Parse(a.URL); err == nil && strings.EqualFold(u.Host, t.host) {
			points += 2
		}
		if points > score {
			account, score = a, points
		}
	}
	try(account, false)
	for _, p := range g.cfg.Pools {
		try(g.cfg.Account(p.GitHub), why.Covers(p.Scope, t.repository))
	}
	if u, err := url.Parse(account.URL); err == nil && t.host != "" && !strings.EqualFold(u.Host, t.host) {
		return nil, withHint(fmt.Errorf("the configuration has no account at %s", t.host), "github.url there is "+account.URL)
	}
	return g.clients.scope(*account, t.repository)
}

// refusal is whether a group admits a repository.
type refusal struct {
	text, page string
	err        error
	others     []runner.Remote
	othersErr  error
}

// reach adds what decides who can take a queued job.
func (g *whyFacts) reach(ctx context.Context, f *why.Facts, known map[string]refusal) {
	for _, p := range g.cfg.Pools {
		seen := why.Pool{Name: p.Name, Scope: p.Scope, Group: p.Group, Labels: g.labels(p)}
		if why.Covers(p.Scope, f.Job.Repository) {
			key := accountName(p) + " " + p.Scope + " " + p.Group
			r, asked := known[key]
			if !asked {
				r = g.refusal(ctx, p, f.Job.Repository)
				known[key] = r
			}
			seen.Refused, seen.Page = r.text, r.page
			f.Unseen = addUnseen(f.Unseen, r.err)
			f.Unseen = addUnseen(f.Unseen, r.othersErr)
			for _, o := range r.others {
				if !slices.ContainsFunc(f.Others, func(x runner.Remote) bool { return x.Name == o.Name }) && !g.ours(o.Name) {
					f.Others = append(f.Others, o)
				}
			}
		}
		f.Pools = append(f.Pools, seen)
	}
}

func addUnseen(list []string, err error) []string {
	if err == nil || slices.Contains(list, err.Error()) {
		return list
	}
	return append(list, err.Error())
}

// refusal asks GitHub for a pool's group, and for the runners of its scope.
func (g *whyFacts) refusal(ctx context.Context, p config.Pool, repository string) (r refusal) {
	c, err := g.clients.scope(*g.cfg.Account(p.GitHub), p.Scope)
	if err != nil {
		return refusal{err: err}
	}
	r.text, r.page, r.err = c.Refusal(ctx, p.Group, repository)
	r.others, r.othersErr = c.Runners(ctx)
	return r
}

// ours says whether the agent keeps a runner of that name.
func (g *whyFacts) ours(name string) bool {
	return g.host.Status != nil && slices.ContainsFunc(g.host.Status.Runners, func(r api.Runner) bool { return r.Name == name })
}

// labels are those of the pool's runners: as its agent says, else as they would be.
func (g *whyFacts) labels(p config.Pool) []string {
	if g.host.Status != nil {
		for _, s := range g.host.Status.Pools {
			if s.Name == p.Name {
				return s.Labels
			}
		}
	}
	caps := map[string]vm.Capabilities{
		"qemu": {GuestOS: "linux", GuestArch: runtime.GOARCH},
		"tart": {GuestOS: "darwin", GuestArch: "arm64"},
		"fake": {GuestOS: runtime.GOOS, GuestArch: runtime.GOARCH},
	}[p.Driver]
	return pool.Spec{Labels: p.Labels}.PublishedLabels(caps)
}
