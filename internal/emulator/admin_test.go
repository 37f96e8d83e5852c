package emulator_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/mirego/tasuki/internal/emulator"
	"github.com/mirego/tasuki/internal/emulator/protorunner"
)

func TestDrivenFromAnotherProcess(t *testing.T) {
	w := start(t, emulator.Options{})
	request := func(method, path, body string, out any) int {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, w.base+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if out != nil {
			if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
				t.Fatalf("%s %s: %v", method, path, err)
			}
		}
		return resp.StatusCode
	}
	var refused struct{ Message string }
	if code := request("POST", "/_emulator/workflows", `{"name":"bad.yml","contents":"on: push\njobs:\n  a:\n    runs-on: x\n    steps:\n      - ruin: x\n"}`, &refused); code != 422 || !strings.Contains(refused.Message, "bad.yml:6") {
		t.Errorf("a bad workflow is answered %d %q", code, refused.Message)
	}
	if code := request("POST", "/_emulator/workflows", `{"path":"/etc/passwd"}`, nil); code != 403 {
		t.Errorf("a path is answered %d by an emulator without a token, want 403", code)
	}
	contents, _ := json.Marshal(map[string]string{"contents": oneJob})
	var submitted struct {
		RunID int64 `json:"run_id"`
	}
	if code := request("POST", "/_emulator/workflows", string(contents), &submitted); code != 201 {
		t.Fatalf("submitting is answered %d", code)
	}
	var state emulator.State
	request("GET", "/_emulator/state", "", &state)
	if len(state.Runs) != 1 || state.Runs[0].Jobs[0].Status != "queued" {
		t.Errorf("the state is %+v", state)
	}
	_, config := jit(t, w.rest, "vm-1", "self-hosted", "linux")
	if err := protorunner.Run(t.Context(), config, protorunner.Options{}); err != nil {
		t.Fatal(err)
	}
	var run emulator.RunState
	request("GET", fmt.Sprintf("/_emulator/runs/%d?wait=30s", submitted.RunID), "", &run)
	if run.Conclusion != "success" || run.Jobs[0].Steps[0].Log == "" {
		t.Errorf("the run is %+v", run)
	}
	state = emulator.State{}
	request("GET", "/_emulator/state?logs=0", "", &state)
	if log := state.Runs[0].Jobs[0].Steps[0].Log; log != "" {
		t.Errorf("the state without logs holds %q", log)
	}
	if code := request("GET", "/_emulator/jobs/nothing/log", "", nil); code != 404 {
		t.Errorf("an unknown log is answered %d", code)
	}
	if code := request("POST", fmt.Sprintf("/_emulator/runs/%d/cancel", submitted.RunID), "", nil); code != 409 {
		t.Errorf("cancelling a completed run is answered %d", code)
	}
	if code := request("PUT", "/_emulator/faults", `[{"route":"GET /rate_limit","times":1,"status":500}]`, nil); code != 204 {
		t.Errorf("setting faults is answered %d", code)
	}
	for _, want := range []int{500, 200} {
		if code := request("GET", "/api/v3/rate_limit", "", nil); code != want {
			t.Errorf("rate_limit is answered %d, want %d", code, want)
		}
	}
}
