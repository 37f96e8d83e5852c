package github_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mirego/tasuki/internal/runner"
)

func TestJobIsFoundByTheRunnersName(t *testing.T) {
	jobs := map[string]string{
		"1": `{"jobs":[{"id":10,"run_id":1,"name":"lint","runner_name":"other"},{"id":11,"run_id":1,"name":"queued","runner_name":null}]}`,
		"2": `{"jobs":[{"id":20,"run_id":2,"name":"test (linux)","workflow_name":"ci","runner_name":"tasuki-a","html_url":"https://x/20",
			"created_at":"2026-11-23T19:59:00Z","started_at":"2026-11-23T20:00:00Z","status":"in_progress","conclusion":null}]}`,
	}
	c, f := serve(t, "octo/demo", map[string]http.HandlerFunc{
		"GET " + repo + "runs": func(w http.ResponseWriter, r *http.Request) {
			if r.FormValue("status") == "in_progress" {
				answer(200, `{"workflow_runs":[{"id":1}]}`)(w, r)
				return
			}
			answer(200, `{"workflow_runs":[{"id":9,"updated_at":"2026-11-23T19:00:00Z"},{"id":2,"updated_at":"2026-11-23T20:00:00Z"}]}`)(w, r)
		},
		"GET " + repo + "runs/{id}/jobs": func(w http.ResponseWriter, r *http.Request) {
			answer(200, jobs[r.PathValue("id")])(w, r)
		},
		"GET " + repo + "jobs/20": answer(200, `{"id":20,"run_id":2,"name":"test (linux)","status":"completed","conclusion":"failure"}`),
	})
	got, found, err := c.Job(t.Context(), "tasuki-a", now.Add(-time.Minute))
	want := runner.Job{ID: 20, RunID: 2, Name: "test (linux)", Workflow: "ci", Repository: "octo/demo", URL: "https://x/20",
		Queued: now.Add(-time.Minute), Started: now}
	if diff := cmp.Diff(want, got); diff != "" || !found || err != nil {
		t.Errorf("%t, %v (-want +got):\n%s", found, err, diff)
	}
	// The run that ended before was not looked into, and now one request is enough.
	before := len(f.asked)
	got, found, err = c.Job(t.Context(), "tasuki-a", now)
	if got.Conclusion != "failure" || !found || err != nil || len(f.asked) != before+1 {
		t.Errorf("%v, %t, %v, asked %v", got, found, err, f.asked[before:])
	}
	if strings.Contains(fmt.Sprint(f.asked), "runs/9") {
		t.Errorf("asked for an old run: %v", f.asked)
	}
	if got, found, err := c.Job(t.Context(), "tasuki-b", now.Add(-time.Minute)); found || err != nil {
		t.Errorf("tasuki-b: %v, %t, %v", got, found, err)
	}
}

func TestASearchForAJobIsBounded(t *testing.T) {
	var runs []string
	for id := range 100 {
		runs = append(runs, fmt.Sprintf(`{"id":%d}`, id+1))
	}
	c, f := serve(t, "octo/demo", map[string]http.HandlerFunc{
		"GET " + repo + "runs":           answer(200, `{"workflow_runs":[`+strings.Join(runs, ",")+`]}`),
		"GET " + repo + "runs/{id}/jobs": answer(200, `{"jobs":[]}`),
	})
	if _, found, err := c.Job(t.Context(), "a", now); found || err != nil {
		t.Errorf("%t, %v", found, err)
	}
	if len(f.asked) > 25 {
		t.Errorf("asked %d times", len(f.asked))
	}
}

func TestAnOrganisationHasNoJobSearch(t *testing.T) {
	c, f := serve(t, "octo", nil)
	if _, found, err := c.Job(t.Context(), "a", now); found || err != nil || len(f.asked) != 0 {
		t.Errorf("%t, %v, asked %v", found, err, f.asked)
	}
}
