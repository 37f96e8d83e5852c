package emulator_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-github/v82/github"

	"github.com/mirego/tasuki/internal/base/secret"
	"github.com/mirego/tasuki/internal/emulator"
	"github.com/mirego/tasuki/internal/emulator/protorunner"
)

// status returns the HTTP status of an error of go-github, and GitHub's message.
func status(t *testing.T, err error) (int, string) {
	t.Helper()
	answer, ok := errors.AsType[*github.ErrorResponse](err)
	if !ok {
		t.Fatalf("the error is %v, want one of GitHub's", err)
	}
	return answer.Response.StatusCode, answer.Message
}

func TestRunnersOverREST(t *testing.T) {
	w := start(t, emulator.Options{})
	ctx, actions := t.Context(), w.rest.Actions
	id, config := jit(t, w.rest, "vm-1", "self-hosted", "Linux", "x64")

	got, _, err := actions.GetRunner(ctx, owner, repo, id)
	if err != nil {
		t.Fatal(err)
	}
	if got.GetName() != "vm-1" || got.GetStatus() != "offline" || got.GetBusy() || len(got.Labels) != 3 {
		t.Errorf("the runner is %v", got)
	}
	if c, err := protorunner.ParseJIT(config); err != nil || !strings.HasPrefix(c.Broker, w.base+"/") {
		t.Errorf("the JIT configuration leads to %+v, %v", c, err)
	}

	_, _, err = actions.GenerateRepoJITConfig(ctx, owner, repo, &github.GenerateJITConfigRequest{Name: "VM-1", RunnerGroupID: 1, Labels: []string{"x"}})
	if code, _ := status(t, err); code != http.StatusConflict {
		t.Errorf("a second vm-1 is answered %d, want 409", code)
	}
	_, _, err = actions.GenerateRepoJITConfig(ctx, owner, repo, &github.GenerateJITConfigRequest{Name: "vm-2", RunnerGroupID: 9, Labels: []string{"x"}})
	if code, _ := status(t, err); code != http.StatusNotFound {
		t.Errorf("an unknown group is answered %d, want 404", code)
	}
	resp, err := http.Post(w.base+"/repos/octo/demo/actions/runners/generate-jitconfig", "application/json",
		strings.NewReader(`{"name":"vm-2","labels":["x"]}`))
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	if resp.StatusCode != http.StatusUnprocessableEntity || !strings.Contains(string(body), "missing required key: runner_group_id") {
		t.Errorf("a missing runner_group_id is answered %d %s", resp.StatusCode, body)
	}

	if _, err := actions.RemoveRunner(ctx, owner, repo, id); err != nil {
		t.Errorf("deleting: %v", err)
	}
	_, err = actions.RemoveRunner(ctx, owner, repo, id)
	if code, message := status(t, err); code != http.StatusNotFound || message != "Not Found" {
		t.Errorf("deleting again is answered %d %q", code, message)
	}
	_, _, err = actions.GetRunner(ctx, "somebody", "else", id)
	if code, _ := status(t, err); code != http.StatusNotFound {
		t.Errorf("another repository is answered %d, want 404", code)
	}
}

func TestListingRunnersInPagesAndByName(t *testing.T) {
	w := start(t, emulator.Options{})
	var want []string
	for i := range 5 {
		want = append(want, fmt.Sprintf("vm-%d", i))
		jit(t, w.rest, want[i], "self-hosted")
	}
	opts := &github.ListRunnersOptions{ListOptions: github.ListOptions{PerPage: 2}}
	var got []string
	for {
		page, resp, err := w.rest.Actions.ListRunners(t.Context(), owner, repo, opts)
		if err != nil {
			t.Fatal(err)
		}
		if page.TotalCount != 5 {
			t.Errorf("total_count is %d, want 5", page.TotalCount)
		}
		for _, r := range page.Runners {
			got = append(got, r.GetName())
		}
		if resp.NextPage == 0 {
			break
		}
		opts.Page = resp.NextPage
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	page, _, err := w.rest.Actions.ListRunners(t.Context(), owner, repo, &github.ListRunnersOptions{Name: github.Ptr("vm-3")})
	if err != nil || page.TotalCount != 1 || page.Runners[0].GetName() != "vm-3" {
		t.Errorf("by name: %v, %v", page, err)
	}
	org, _, err := w.rest.Actions.ListOrganizationRunners(t.Context(), owner, nil)
	if err != nil || org.TotalCount != 0 {
		t.Errorf("the organization has %v, %v; want none", org, err)
	}
}

func TestOrganizationRunnersTakeTheRepositorysJobs(t *testing.T) {
	w := start(t, emulator.Options{Groups: []string{"fast"}})
	groups, _, err := w.rest.Actions.ListOrganizationRunnerGroups(t.Context(), owner, nil)
	if err != nil || len(groups.RunnerGroups) != 2 || groups.RunnerGroups[1].GetName() != "fast" {
		t.Fatalf("the groups are %v, %v", groups, err)
	}
	config, _, err := w.rest.Actions.GenerateOrgJITConfig(t.Context(), owner, &github.GenerateJITConfigRequest{
		Name: "vm", RunnerGroupID: groups.RunnerGroups[1].GetID(), Labels: []string{"self-hosted", "linux"},
	})
	if err != nil {
		t.Fatal(err)
	}
	run := submit(t, w.Emulator, oneJob)
	if err := protorunner.Run(t.Context(), config.GetEncodedJITConfig(), protorunner.Options{}); err != nil {
		t.Fatal(err)
	}
	if got := finish(t, w.Emulator, run).Conclusion; got != "success" {
		t.Errorf("the run is %q", got)
	}
}

func TestRunsAndJobsOverREST(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := bubble(t, emulator.Options{})
		ctx, actions := t.Context(), w.rest.Actions
		run := submit(t, w.Emulator, chain)
		queued, _, err := actions.ListRepositoryWorkflowRuns(ctx, owner, repo, &github.ListWorkflowRunsOptions{Status: "queued"})
		if err != nil || queued.GetTotalCount() != 1 || queued.WorkflowRuns[0].GetID() != run {
			t.Fatalf("the queued runs are %v, %v", queued, err)
		}
		id, config := jit(t, w.rest, "vm-1", "self-hosted")
		wait := w.program(ctx, config, protorunner.Options{Hold: 1e9})
		synctest.Wait()

		_, err = actions.RemoveRunner(ctx, owner, repo, id)
		if code, message := status(t, err); code != http.StatusUnprocessableEntity || !strings.Contains(message, "currently running a job") {
			t.Errorf("deleting a busy runner is answered %d %q", code, message)
		}
		if r, _, err := actions.GetRunner(ctx, owner, repo, id); err != nil || !r.GetBusy() || r.GetStatus() != "online" {
			t.Errorf("the runner at work is %v, %v", r, err)
		}
		jobs, _, err := actions.ListWorkflowJobs(ctx, owner, repo, run, nil)
		if err != nil || jobs.GetTotalCount() != 1 {
			t.Fatalf("the jobs are %v, %v", jobs, err)
		}
		job := jobs.Jobs[0]
		if job.GetStatus() != "in_progress" || job.GetRunnerName() != "vm-1" || job.GetRunnerID() != id || job.CompletedAt != nil {
			t.Errorf("the running job is %v", job)
		}
		if err := wait(); err != nil {
			t.Fatal(err)
		}
		job, _, err = actions.GetWorkflowJobByID(ctx, owner, repo, job.GetID())
		if err != nil || job.GetConclusion() != "success" || job.Steps[0].GetConclusion() != "success" {
			t.Errorf("the finished job is %v, %v", job, err)
		}
		address, _, err := actions.GetWorkflowJobLogs(ctx, owner, repo, job.GetID(), 1)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := w.Client().Get(address.String())
		if err != nil {
			t.Fatal(err)
		}
		if log, _ := io.ReadAll(resp.Body); !strings.Contains(string(log), "job one on vm-1") {
			t.Errorf("the log is %q", log)
		}
		if _, err := actions.CancelWorkflowRunByID(ctx, owner, repo, run); err != nil && !errors.As(err, new(*github.AcceptedError)) {
			t.Errorf("cancelling: %v", err)
		}
		over, _, err := actions.GetWorkflowRunByID(ctx, owner, repo, run)
		if err != nil || over.GetStatus() != "completed" || over.GetConclusion() != "cancelled" {
			t.Errorf("the cancelled run is %v, %v", over, err)
		}
		_, err = actions.CancelWorkflowRunByID(ctx, owner, repo, run)
		if code, _ := status(t, err); code != http.StatusConflict {
			t.Errorf("cancelling again is answered %d, want 409", code)
		}
	})
}

func TestTheTokenIsAskedFor(t *testing.T) {
	w := start(t, emulator.Options{Token: secret.New("s3cret")})
	if _, _, err := w.rest.Actions.CreateRegistrationToken(t.Context(), owner, repo); err != nil {
		t.Errorf("with the token: %v", err)
	}
	_, _, err := client(t, w.base, nil, "wrong").Actions.CreateRegistrationToken(t.Context(), owner, repo)
	if code, message := status(t, err); code != http.StatusUnauthorized || message != "Bad credentials" {
		t.Errorf("with a wrong token: %d %q", code, message)
	}
	resp, err := http.Get(w.base + "/_emulator/state")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("the state without a token is answered %d, want 401", resp.StatusCode)
	}
	if _, _, err := w.rest.RateLimit.Get(t.Context()); err != nil {
		t.Errorf("rate_limit: %v", err)
	}
}

// The incident jit-lost-reply: the registration was made, the reply was lost, the same name is refused.
func TestJITLostReply(t *testing.T) {
	w := start(t, emulator.Options{Faults: []emulator.Fault{emulator.JITLostReply(1)}})
	req := &github.GenerateJITConfigRequest{Name: "vm-1", RunnerGroupID: 1, Labels: []string{"x"}}
	if _, _, err := w.rest.Actions.GenerateRepoJITConfig(t.Context(), owner, repo, req); err == nil {
		t.Fatal("the reply was not lost")
	}
	_, _, err := w.rest.Actions.GenerateRepoJITConfig(t.Context(), owner, repo, req)
	if code, _ := status(t, err); code != http.StatusConflict {
		t.Errorf("the second try is answered %d, want 409", code)
	}
	if n := len(w.State().Runners); n != 1 {
		t.Errorf("%d runners are registered, want 1", n)
	}
}

func TestTheAdvertisedAddressIsWhatRunnersRead(t *testing.T) {
	w := start(t, emulator.Options{AdvertiseURL: "http://10.0.2.100:8080/"})
	_, config := jit(t, w.rest, "vm-1", "x")
	c, err := protorunner.ParseJIT(config)
	if err != nil {
		t.Fatal(err)
	}
	if c.Broker != "http://10.0.2.100:8080/broker/" || c.TokenURL != "http://10.0.2.100:8080/oauth/token" {
		t.Errorf("the runner is sent to %s and %s", c.Broker, c.TokenURL)
	}
}
