package github

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/google/go-github/v82/github"

	"github.com/mirego/tasuki/internal/runner"
)

const (
	// maxRuns bounds how many runs one search looks into: each is a request.
	maxRuns = 20
	// maxFound bounds how many places of jobs are remembered.
	maxFound = 1000
)

// place is where a runner's job is.
type place struct{ run, job int64 }

// Job returns the job that the runner of this name took since then, false if
// none is found. Only a repository's runs can be searched: GitHub has no such
// list for organisations and enterprises, and there the answer is always false.
// A search costs up to some 20 requests, a job that was found before one.
func (c *Client) Job(ctx context.Context, name string, since time.Time) (runner.Job, bool, error) {
	if !c.scope.repository() {
		return runner.Job{}, false, nil
	}
	c.mu.Lock()
	at, known := c.found[name]
	c.mu.Unlock()
	if known {
		job, err := c.job(ctx, at.job)
		if status(err) != http.StatusNotFound {
			return c.tell(job, err)
		}
		c.remember(name, place{})
	}
	job, err := c.search(ctx, name, since)
	if err == nil && job != nil {
		c.remember(name, place{job.GetRunID(), job.GetID()})
	}
	return c.tell(job, err)
}

func (c *Client) tell(job *github.WorkflowJob, err error) (runner.Job, bool, error) {
	if err != nil || job == nil {
		return runner.Job{}, false, c.explain("find a runner's job", err)
	}
	return runner.Job{
		ID: job.GetID(), Name: job.GetName(), Repository: c.scope.name, Workflow: job.GetWorkflowName(),
		RunID: job.GetRunID(), URL: job.GetHTMLURL(), Conclusion: job.GetConclusion(),
		Queued:    job.GetCreatedAt().UTC(),
		Started:   job.GetStartedAt().UTC(),
		Completed: job.GetCompletedAt().UTC(),
	}, true, nil
}

// clockSlack is how far our clock may be from GitHub's, whose times are whole
// seconds besides.
const clockSlack = 5 * time.Minute

// search looks into the runs that are under way, then into those that ended
// since, the newest first.
func (c *Client) search(ctx context.Context, name string, since time.Time) (*github.WorkflowJob, error) {
	looked := 0
	for _, state := range []string{"in_progress", "completed"} {
		var got struct {
			Runs *[]*github.WorkflowRun `json:"workflow_runs"`
		}
		q := url.Values{"status": {state}, "per_page": {strconv.Itoa(perPage)}}
		if _, err := c.call(ctx, http.MethodGet, "/actions/runs?"+q.Encode(), nil, &got); err != nil {
			return nil, err
		}
		if got.Runs == nil {
			return nil, errNoAnswer
		}
		for _, run := range *got.Runs {
			if run.UpdatedAt != nil && run.GetUpdatedAt().Before(since.Add(-clockSlack)) && state == "completed" {
				continue
			}
			if looked++; looked > maxRuns {
				c.log.Debug("search for a job ended early", "runner", name, "runs", maxRuns)
				return nil, nil
			}
			job, err := c.jobIn(ctx, run.GetID(), name)
			if err != nil || job != nil {
				return job, err
			}
		}
	}
	return nil, nil
}

// jobIn looks through all attempts of a run: a job that was started again
// leaves the runner of its first attempt in the list.
func (c *Client) jobIn(ctx context.Context, run int64, name string) (*github.WorkflowJob, error) {
	for page := 1; page <= maxPages; page++ {
		var got struct {
			Jobs *[]*github.WorkflowJob `json:"jobs"`
		}
		path := fmt.Sprintf("/actions/runs/%d/jobs?filter=all&per_page=%d&page=%d", run, perPage, page)
		_, err := c.call(ctx, http.MethodGet, path, nil, &got)
		if status(err) == http.StatusNotFound {
			return nil, nil // deleted meanwhile
		}
		if err != nil {
			return nil, err
		}
		if got.Jobs == nil {
			return nil, errNoAnswer
		}
		for _, job := range *got.Jobs {
			if job.GetRunnerName() == name {
				return job, nil
			}
		}
		if len(*got.Jobs) < perPage {
			return nil, nil
		}
	}
	return nil, errors.New("the run has too many jobs")
}

func (c *Client) job(ctx context.Context, id int64) (*github.WorkflowJob, error) {
	job := new(github.WorkflowJob)
	_, err := c.call(ctx, http.MethodGet, fmt.Sprintf("/actions/jobs/%d", id), nil, job)
	if err == nil && job.ID == nil {
		err = errNoAnswer
	}
	return job, err
}

// remember keeps where a job is; the zero place forgets it.
func (c *Client) remember(name string, at place) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.found) >= maxFound {
		clear(c.found) // they can be searched again
	}
	if at == (place{}) {
		delete(c.found, name)
		return
	}
	c.found[name] = at
}
