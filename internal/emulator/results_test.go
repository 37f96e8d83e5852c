package emulator_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/mirego/tasuki/internal/emulator"
)

// atWork is a runner by hand that holds a job.
type atWork struct {
	*hand
	run  int64
	job  emulator.JobState
	plan string
	feed string
}

func work(t *testing.T) *atWork {
	t.Helper()
	w := start(t, emulator.Options{PollHold: time.Second})
	h := newHand(t, w, "vm-1", "self-hosted", "linux")
	h.connect()
	a := &atWork{hand: h, run: submit(t, w.Emulator, oneJob)}
	o := h.poll(t.Context(), "Online")
	_, body := h.call(t.Context(), "POST", "/run/acquirejob", `{"jobMessageId":"`+o.Request+`"}`)
	var m struct {
		Plan      struct{ PlanID string }
		Resources struct {
			Endpoints []struct {
				Authorization struct{ Parameters map[string]string }
				Data          map[string]string
			}
		}
	}
	h.decode(body, &m)
	a.plan, a.feed = m.Plan.PlanID, m.Resources.Endpoints[0].Data["FeedStreamUrl"]
	h.token = m.Resources.Endpoints[0].Authorization.Parameters["AccessToken"]
	a.refresh()
	return a
}

func (a *atWork) refresh() {
	state, _ := a.w.RunState(a.run)
	a.job = state.Jobs[0]
}

// sign asks for an address to upload to.
func (a *atWork) sign(call, field, step string) string {
	a.t.Helper()
	code, body := a.call(a.t.Context(), "POST", "/twirp/results.services.receiver.Receiver/"+call, `{"step_backend_id":"`+step+`"}`)
	var out map[string]string
	a.decode(body, &out)
	if code != 200 || !strings.Contains(out[field], "?") || out["soft_size_limit"] != "1073741824" {
		a.t.Errorf("%s is answered %d %s", call, code, body)
	}
	return out[field]
}

func (a *atWork) put(address, kind, text string) int {
	a.t.Helper()
	req, err := http.NewRequestWithContext(a.t.Context(), "PUT", address, strings.NewReader(text))
	if err != nil {
		a.t.Fatal(err)
	}
	req.Header.Set("x-ms-blob-type", kind)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		a.t.Fatal(err)
	}
	resp.Body.Close()
	return resp.StatusCode
}

func TestLogsAreTakenLiveInBlocksAndWhole(t *testing.T) {
	a := work(t)
	step := a.job.Steps[0].ID
	log := func() string {
		a.refresh()
		return a.job.Steps[0].Log
	}

	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, _, err := websocket.Dial(ctx, a.feed, nil); err == nil {
		t.Error("the feed was opened without a token")
	}
	conn, _, err := websocket.Dial(ctx, a.feed, &websocket.DialOptions{HTTPHeader: http.Header{"Authorization": {"Bearer " + a.token}}})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.CloseNow()
	frame, _ := json.Marshal(map[string]any{"count": 2, "value": []string{"live 1", "live 2"}, "stepId": step, "startLine": 1})
	if err := conn.Write(ctx, websocket.MessageText, frame); err != nil {
		t.Fatal(err)
	}
	until(t, a.w.Emulator, "the live lines are there", func(s emulator.State) bool {
		return s.Runs[0].Jobs[0].Steps[0].Log == "live 1\nlive 2\n"
	})

	address := a.sign("GetStepLogsSignedBlobURL", "logs_url", step)
	for i, p := range []struct{ suffix, kind, text string }{
		{"", "AppendBlob", ""}, {"&comp=appendblock", "", "one\n"}, {"&comp=appendblock&seal=true", "", "two\n"},
	} {
		if code := a.put(address+p.suffix, p.kind, p.text); code != http.StatusCreated {
			t.Errorf("block %d is answered %d, want 201", i, code)
		}
		if i == 1 && log() != "live 1\nlive 2\n" {
			t.Errorf("half an upload hides the live lines: %q", log())
		}
	}
	if got := log(); got != "one\ntwo\n" {
		t.Errorf("the appended log is %q", got)
	}
	if code := a.put(address, "BlockBlob", "whole\n"); code != http.StatusCreated || log() != "whole\n" {
		t.Errorf("a whole log is answered %d and reads %q", code, log())
	}
	a.put(a.sign("GetStepSummarySignedBlobURL", "summary_url", step), "BlockBlob", "# done")
	a.put(a.sign("GetJobDiagLogsSignedBlobURL", "diag_logs_url", ""), "BlockBlob", "zip")
	a.put(a.sign("GetJobLogsSignedBlobURL", "logs_url", ""), "BlockBlob", "all of it\n")
	if a.refresh(); a.job.Steps[0].Summary != "# done" {
		t.Errorf("the summary is %q", a.job.Steps[0].Summary)
	}
	if got, _ := a.w.JobLog(fmt.Sprint(a.job.ID)); got != "all of it\n" {
		t.Errorf("the job's log is %q", got)
	}
	path, sig, _ := strings.Cut(address, "?")
	for _, forged := range []string{path, path + "?sig=x", path + "x?" + sig} {
		if code := a.put(forged, "BlockBlob", "forged"); code != http.StatusForbidden {
			t.Errorf("%s is answered %d, want 403", forged, code)
		}
	}
}

func TestStepsAreToldByTimesWhateverTheirNumbers(t *testing.T) {
	a := work(t)
	step := a.job.Steps[0].ID
	update := func(body string) {
		t.Helper()
		code, reply := a.call(t.Context(), "POST", "/twirp/github.actions.results.api.v1.WorkflowStepUpdateService/WorkflowStepsUpdate",
			`{"steps":[`+body+`],"change_order":1}`)
		if code != 200 || reply != `{"ok":true}` {
			t.Errorf("an update is answered %d %s", code, reply)
		}
		a.refresh()
	}
	begun := `{"external_id":"` + step + `","number":2,"name":"Run it","status":1,"conclusion":0,"started_at":"2026-01-01T00:00:00.0000000Z"`
	update(`{"external_id":"setup","number":1,"name":"Set up job","status":6,"conclusion":2,"started_at":"2026-01-01T00:00:00Z","completed_at":"2026-01-01T00:00:01Z"},` + begun + `}`)
	if s := a.job.Steps; len(s) != 2 || s[0].Name != "Set up job" || s[0].Conclusion != "success" || s[1].Status != "in_progress" {
		t.Errorf("the steps are %+v", s)
	}
	update(strings.Replace(begun, `"conclusion":0`, `"conclusion":7`, 1) + `,"completed_at":"2026-01-01T00:00:02Z"}`)
	if s := a.job.Steps[1]; s.Status != "completed" || s.Conclusion != "skipped" || s.Completed.Sub(s.Started) != 2*time.Second {
		t.Errorf("the step is %+v", s)
	}
	code, reply := a.call(t.Context(), "POST", "/run/completejob", `{"planId":"`+a.plan+`","jobId":"`+a.job.GUID+`","conclusion":"failed",
		"Outputs":{"K":{"Value":"v","IsSecret":false}},
		"annotations":[{"level":"FAILURE","message":"bad"},{"level":2,"message":"careful"}]}`)
	if a.refresh(); code != 200 || a.job.Conclusion != "failure" || a.job.Outputs["K"] != "v" ||
		len(a.job.Annotations) != 2 || a.job.Annotations[1] != (emulator.Annotation{Level: "warning", Message: "careful"}) {
		t.Errorf("completing is answered %d %s; the job is %+v", code, reply, a.job)
	}
	if code, _ = a.call(t.Context(), "POST", "/run/renewjob", "{}"); code != http.StatusNotFound {
		t.Errorf("renewing a completed job is answered %d, want 404", code)
	}
}

func TestOnlyCheckoutIsResolved(t *testing.T) {
	a := work(t)
	path := "/actions/build/" + a.plan + "/jobs/" + a.job.GUID + "/runnerresolve/actions"
	code, reply := a.call(t.Context(), "POST", path, `{"actions":[{"action":"actions/cache","version":"v4"}]}`)
	if code != http.StatusUnprocessableEntity || !strings.Contains(reply, "actions/cache@v4") {
		t.Errorf("another action is answered %d %s", code, reply)
	}
	code, reply = a.call(t.Context(), "POST", path, `{"actions":[{"action":"actions/checkout","version":"v4"}]}`)
	var out struct {
		Actions map[string]struct {
			SHA string `json:"resolved_sha"`
			Tar string `json:"tar_url"`
		}
	}
	a.decode(reply, &out)
	got := out.Actions["actions/checkout@v4"]
	if code != 200 || len(got.SHA) != 40 {
		t.Fatalf("checkout is answered %d %s", code, reply)
	}
	resp, err := http.Get(got.Tar)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "application/gzip" {
		t.Errorf("the archive is answered %d %s", resp.StatusCode, resp.Header.Get("Content-Type"))
	}
}
