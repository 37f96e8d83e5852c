package github

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/google/go-github/v82/github"

	"github.com/mirego/tasuki/internal/why"
)

// ErrNoJob: GitHub shows no such job or run with this credential.
var ErrNoJob = errors.New("GitHub shows no such job")

// LookAtJob returns one job of the scope, which is a repository. Errors beside
// those of every call: ErrNoJob.
func (c *Client) LookAtJob(ctx context.Context, id int64) (why.Job, error) {
	job, err := c.job(ctx, id)
	if err != nil {
		return why.Job{}, c.unseen(fmt.Sprintf("look at job %d", id), err)
	}
	return c.asked(job), nil
}

// LookAtRun returns one run of the scope, which is a repository, and the jobs of
// its latest attempt, without those that wait for others and do not exist yet.
// Errors beside those of every call: ErrNoJob.
func (c *Client) LookAtRun(ctx context.Context, id int64) (why.Run, []why.Job, error) {
	doing := fmt.Sprintf("look at run %d", id)
	var run github.WorkflowRun
	_, err := c.call(ctx, http.MethodGet, fmt.Sprintf("/actions/runs/%d", id), nil, &run)
	if err == nil && run.ID == nil {
		err = errNoAnswer
	}
	if err != nil {
		return why.Run{}, nil, c.unseen(doing, err)
	}
	out := why.Run{ID: id, Status: run.GetStatus(), Conclusion: run.GetConclusion()}
	var jobs []why.Job
	for page := 1; page <= maxPages; page++ {
		var got struct {
			Jobs *[]*github.WorkflowJob `json:"jobs"`
		}
		path := fmt.Sprintf("/actions/runs/%d/jobs?filter=latest&per_page=%d&page=%d", id, perPage, page)
		if _, err := c.call(ctx, http.MethodGet, path, nil, &got); err != nil {
			return out, nil, c.unseen(doing, err)
		}
		if got.Jobs == nil {
			return out, nil, c.explain(doing, errNoAnswer)
		}
		for _, job := range *got.Jobs {
			jobs = append(jobs, c.asked(job))
		}
		if len(*got.Jobs) < perPage {
			break
		}
	}
	return out, jobs, nil
}

// unseen explains an error about a job. A 404 may be the job, or a credential
// that may not see it: the words are about both.
func (c *Client) unseen(doing string, err error) error {
	switch status(err) {
	case http.StatusNotFound, http.StatusForbidden:
		if limitOf(err, c.now()) == nil {
			return fmt.Errorf("cannot %s of %s: %w: either there is none, or the credential lacks the permission Actions: read for it",
				doing, c.scope.name, ErrNoJob)
		}
	}
	return c.explain(doing, err)
}

func (c *Client) asked(job *github.WorkflowJob) why.Job {
	return why.Job{
		ID: job.GetID(), RunID: job.GetRunID(), Name: job.GetName(), Repository: c.scope.name, URL: job.GetHTMLURL(),
		Status: job.GetStatus(), Conclusion: job.GetConclusion(), Labels: job.Labels, Runner: job.GetRunnerName(),
		Created: job.GetCreatedAt().UTC(), Started: job.GetStartedAt().UTC(), Completed: job.GetCompletedAt().UTC(),
	}
}

// Refusal says why runners of a group of the scope get no jobs of a repository;
// "" if they do. The page is where that is changed.
func (c *Client) Refusal(ctx context.Context, group, repository string) (text, page string, err error) {
	if c.scope.repository() {
		return "", "", nil
	}
	doing := fmt.Sprintf("look at runner group %q", group)
	all, err := c.allGroups(ctx)
	if err != nil {
		return "", "", c.explain(doing, err)
	}
	web := &check{c: c, web: c.account.web()}
	i := slices.IndexFunc(all, func(g runnerGroup) bool { return g.named(group) })
	if i < 0 {
		return fmt.Sprintf("there is no runner group %q", group), web.settings("runner-groups"), nil
	}
	g := all[i]
	page = web.settings(fmt.Sprintf("runner-groups/%d", g.ID))
	if c.scope.enterprise() {
		return "", page, nil // it admits organisations, whose groups admit repositories
	}
	if g.PublicAllowed != nil && !*g.PublicAllowed {
		if repo, known := web.repo(ctx, repository); known && repo.public() {
			return fmt.Sprintf("runner group %q admits no public repository, and %s is one", g.Name, repository), page, nil
		}
	}
	if g.Visibility != "selected" {
		return "", page, nil
	}
	names, err := c.admitted(ctx, g.ID)
	if err != nil {
		return "", page, c.explain(doing, err)
	}
	if !slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(n, repository) }) {
		return fmt.Sprintf("runner group %q does not admit %s", g.Name, repository), page, nil
	}
	return "", page, nil
}

// Web is the address of the account's GitHub for people, without a slash at its
// end.
func (a *Account) Web() string { return a.web() }
