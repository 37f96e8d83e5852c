package github_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/mirego/tasuki/internal/emulator"
	"github.com/mirego/tasuki/internal/emulator/workflow"
	"github.com/mirego/tasuki/internal/github"
	"github.com/mirego/tasuki/internal/runner"
)

func TestLookAtJobs(t *testing.T) {
	c, e := withEmulator(t, "octo/demo", emulator.Options{})
	w, err := workflow.Parse("ci.yml", []byte("on: push\njobs:\n  a:\n    runs-on: [self-hosted, x]\n    steps: [{run: 'true'}]\n  b:\n    needs: a\n    runs-on: y\n    steps: [{run: 'true'}]\n"))
	if err != nil {
		t.Fatal(err)
	}
	id, err := e.Submit(w, "")
	if err != nil {
		t.Fatal(err)
	}
	run, jobs, err := c.LookAtRun(t.Context(), id)
	if err != nil || run.Status != "queued" || run.ID != id || len(jobs) != 1 {
		t.Fatalf("%+v, %+v, %v; want a queued run with one job", run, jobs, err)
	}
	job, err := c.LookAtJob(t.Context(), jobs[0].ID)
	if err != nil || job.Name != "a" || job.Repository != "octo/demo" || job.Status != "queued" || job.RunID != id || len(job.Labels) != 2 || job.Created.IsZero() {
		t.Errorf("%+v, %v", job, err)
	}
	if err := e.Cancel(id); err != nil {
		t.Fatal(err)
	}
	if job, err = c.LookAtJob(t.Context(), job.ID); err != nil || job.Status != "completed" || job.Conclusion != "cancelled" {
		t.Errorf("after a cancellation: %+v, %v", job, err)
	}
	if _, err := c.LookAtJob(t.Context(), 4711); !errors.Is(err, github.ErrNoJob) || errors.Is(err, runner.ErrDenied) {
		t.Errorf("a job that is not there: %v", err)
	}
	if _, _, err := c.LookAtRun(t.Context(), 4711); !errors.Is(err, github.ErrNoJob) {
		t.Errorf("a run that is not there: %v", err)
	}
	e.SetFaults([]emulator.Fault{emulator.RateLimited("", 0, 1<<40)})
	if _, err := c.LookAtJob(t.Context(), job.ID); err == nil || errors.Is(err, github.ErrNoJob) {
		t.Errorf("limited: %v, which is not a job that is not there", err)
	} else if _, ok := errors.AsType[*github.LimitError](err); !ok {
		t.Errorf("limited: %v, want a LimitError", err)
	}
}

func TestRefusal(t *testing.T) {
	rules := map[string]emulator.GroupRule{"closed": {Closed: true}, "open": {AllowPublic: true}}
	for name, tt := range map[string]struct {
		scope, group string
		public       bool
		want         string
	}{
		"a repository has no groups":        {"octo/demo", "", false, ""},
		"the default group":                 {"octo", "", false, ""},
		"it admits selected others":         {"octo", "closed", false, `runner group "closed" does not admit octo/demo`},
		"a public one":                      {"octo", "", true, `admits no public repository, and octo/demo is one`},
		"a public one, where it is allowed": {"octo", "open", true, ""},
		"none of that name":                 {"octo", "nope", false, `there is no runner group "nope"`},
	} {
		t.Run(name, func(t *testing.T) {
			c, _ := withEmulator(t, tt.scope, emulator.Options{Groups: []string{"closed", "open"}, GroupRules: rules, Public: tt.public})
			got, page, err := c.Refusal(t.Context(), tt.group, "octo/demo")
			if err != nil || !strings.Contains(got, tt.want) || tt.want == "" && got != "" {
				t.Errorf("%q, %v; want %q", got, err, tt.want)
			}
			if got != "" && !strings.Contains(page, "/settings/actions/runner-groups") {
				t.Errorf("page %q", page)
			}
		})
	}
}
