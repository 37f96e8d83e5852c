package emulator

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

type restRun struct {
	ID         int64     `json:"id"`
	Name       string    `json:"name"`
	Path       string    `json:"path"`
	Number     int64     `json:"run_number"`
	Attempt    int       `json:"run_attempt"`
	Event      string    `json:"event"`
	Branch     string    `json:"head_branch"`
	SHA        string    `json:"head_sha"`
	Status     string    `json:"status"`
	Conclusion *string   `json:"conclusion"`
	Created    time.Time `json:"created_at"`
	Updated    time.Time `json:"updated_at"`
	Started    time.Time `json:"run_started_at"`
	JobsURL    string    `json:"jobs_url"`
	HTMLURL    string    `json:"html_url"`
}

type restStep struct {
	Name       string     `json:"name"`
	Status     string     `json:"status"`
	Conclusion *string    `json:"conclusion"`
	Number     int        `json:"number"`
	Started    *time.Time `json:"started_at"`
	Completed  *time.Time `json:"completed_at"`
}

type restJob struct {
	ID          int64      `json:"id"`
	RunID       int64      `json:"run_id"`
	Attempt     int        `json:"run_attempt"`
	Workflow    string     `json:"workflow_name"`
	Branch      string     `json:"head_branch"`
	SHA         string     `json:"head_sha"`
	Name        string     `json:"name"`
	Status      string     `json:"status"`
	Conclusion  *string    `json:"conclusion"`
	Created     time.Time  `json:"created_at"`
	Started     *time.Time `json:"started_at"`
	Completed   *time.Time `json:"completed_at"`
	Labels      []string   `json:"labels"`
	RunnerID    *int64     `json:"runner_id"`
	RunnerName  *string    `json:"runner_name"`
	GroupID     *int64     `json:"runner_group_id"`
	GroupName   *string    `json:"runner_group_name"`
	Steps       []restStep `json:"steps"`
	HTMLURL     string     `json:"html_url"`
	CheckRunURL string     `json:"check_run_url"`
}

func (r *run) branch() string { return strings.TrimPrefix(r.ref, "refs/heads/") }

func unless[T comparable](v, empty T) *T {
	if v == empty {
		return nil
	}
	return &v
}

func moment(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC().Truncate(time.Second)
	return &t
}

// restRun writes a run as the REST API does. The lock is held.
func (e *Emulator) restRun(r *run, base string) restRun {
	out := restRun{
		ID: r.id, Name: r.title, Path: r.file, Number: r.number, Attempt: 1, Event: "push", Branch: r.branch(), SHA: r.sha,
		Status: r.status(), Created: *moment(r.created), Updated: *moment(r.created), Started: *moment(r.created),
		JobsURL: fmt.Sprintf("%s/api/v3/repos/%s/actions/runs/%d/jobs", base, e.opts.Repository, r.id),
		HTMLURL: fmt.Sprintf("%s/%s/actions/runs/%d", base, e.opts.Repository, r.id),
	}
	if out.Status == "completed" {
		out.Updated = *moment(r.completed)
		out.Conclusion = unless(r.wf.Conclusion(), "")
	}
	return out
}

// restJob writes a job as the REST API does. The lock is held.
func (e *Emulator) restJob(j *job, base string) restJob {
	out := restJob{
		ID: j.id, RunID: j.run.id, Attempt: 1, Workflow: j.run.title, Branch: j.run.branch(), SHA: j.run.sha, Name: j.def.Name,
		Status: j.status(), Conclusion: unless(j.conclusion, ""), Created: *moment(j.created),
		Started: moment(j.startedAt), Completed: moment(j.completedAt), Labels: slices.Clone(j.def.RunsOn.Labels), Steps: []restStep{},
		HTMLURL:     fmt.Sprintf("%s/%s/actions/runs/%d/job/%d", base, e.opts.Repository, j.run.id, j.id),
		CheckRunURL: fmt.Sprintf("%s/api/v3/repos/%s/check-runs/%d", base, e.opts.Repository, j.id),
	}
	if out.Labels == nil {
		out.Labels = []string{}
	}
	if r := j.runner; r != nil && !j.startedAt.IsZero() {
		out.RunnerID, out.RunnerName, out.GroupID, out.GroupName = &r.id, &r.name, &r.group.id, &r.group.name
	}
	for _, s := range j.steps {
		out.Steps = append(out.Steps, restStep{s.name, s.status, unless(s.conclusion, ""), s.number, moment(s.startedAt), moment(s.completedAt)})
	}
	return out
}

func (e *Emulator) listRuns(w http.ResponseWriter, r *http.Request, _ scope) {
	base, status := e.baseFor(r), r.FormValue("status")
	e.mu.Lock()
	all := []restRun{}
	for _, found := range slices.Backward(e.runs) { // newest first
		out := e.restRun(found, base)
		if status == "" || out.Status == status || out.Conclusion != nil && *out.Conclusion == status {
			all = append(all, out)
		}
	}
	e.mu.Unlock()
	page := e.page(w, r, len(all))
	writeJSON(w, http.StatusOK, map[string]any{"total_count": len(all), "workflow_runs": all[page.from:page.to]})
}

// runAt finds the run that a path names, or nil. The lock is held.
func (e *Emulator) runAt(r *http.Request) *run {
	id, _ := strconv.ParseInt(r.PathValue("id"), 10, 64)
	return e.runByID(id)
}

func (e *Emulator) getRun(w http.ResponseWriter, r *http.Request, _ scope) {
	base := e.baseFor(r)
	e.mu.Lock()
	defer e.mu.Unlock()
	found := e.runAt(r)
	if found == nil {
		githubError(w, http.StatusNotFound, "Not Found")
		return
	}
	writeJSON(w, http.StatusOK, e.restRun(found, base))
}

// listJobs lists the jobs that GitHub would list: those that wait for others do not exist yet.
func (e *Emulator) listJobs(w http.ResponseWriter, r *http.Request, _ scope) {
	base := e.baseFor(r)
	e.mu.Lock()
	found := e.runAt(r)
	all := []restJob{}
	if found != nil {
		for _, j := range found.jobs {
			if j.phase != pending {
				all = append(all, e.restJob(j, base))
			}
		}
	}
	e.mu.Unlock()
	if found == nil {
		githubError(w, http.StatusNotFound, "Not Found")
		return
	}
	page := e.page(w, r, len(all))
	writeJSON(w, http.StatusOK, map[string]any{"total_count": len(all), "jobs": all[page.from:page.to]})
}

func (e *Emulator) getJob(w http.ResponseWriter, r *http.Request, _ scope) {
	base := e.baseFor(r)
	e.mu.Lock()
	defer e.mu.Unlock()
	j := e.jobByID(r.PathValue("id"))
	if j == nil || j.phase == pending {
		githubError(w, http.StatusNotFound, "Not Found")
		return
	}
	writeJSON(w, http.StatusOK, e.restJob(j, base))
}

func (e *Emulator) cancelRun(w http.ResponseWriter, r *http.Request, _ scope) {
	e.mu.Lock()
	found := e.runAt(r)
	over := found != nil && !found.completed.IsZero()
	e.mu.Unlock()
	switch {
	case found == nil:
		githubError(w, http.StatusNotFound, "Not Found")
	case over || e.Cancel(found.id) != nil:
		githubError(w, http.StatusConflict, "Cannot cancel a workflow run that is completed")
	default:
		writeJSON(w, http.StatusAccepted, struct{}{})
	}
}

// redirectLog answers with the address of the job's log, which needs no token for a while.
func (e *Emulator) redirectLog(w http.ResponseWriter, r *http.Request, _ scope) {
	base := e.baseFor(r)
	e.mu.Lock()
	j := e.jobByID(r.PathValue("id"))
	e.mu.Unlock()
	if j == nil || strings.Contains(r.PathValue("id"), "-") {
		githubError(w, http.StatusNotFound, "Not Found")
		return
	}
	http.Redirect(w, r, e.signed(base, "/blob/"+j.def.ID+"/"+blobJobLog), http.StatusFound)
}
