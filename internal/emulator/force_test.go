package emulator_test

import (
	"testing"
	"time"

	"github.com/mirego/tasuki/internal/emulator"
	"github.com/mirego/tasuki/internal/emulator/protorunner"
	"github.com/mirego/tasuki/internal/emulator/workflow"
	"github.com/mirego/tasuki/internal/github"
	"github.com/mirego/tasuki/internal/runner"
)

// A runner whose guest was cut off never confirms a cancellation.
func TestForceCancelNeedsNoRunner(t *testing.T) {
	e := emulator.New(emulator.Options{PollHold: 50 * time.Millisecond})
	c, err := github.New(github.Options{URL: "http://127.0.0.1:1", Scope: "octo/demo", HTTP: emulator.Transport{Handler: e.Handler()}})
	if err != nil {
		t.Fatal(err)
	}
	cred, err := c.Credential(t.Context(), runner.Registration{Name: "a", Labels: []string{"self-hosted"}})
	if err != nil {
		t.Fatal(err)
	}
	w, err := workflow.Parse("ci.yml", []byte("on: push\njobs:\n  one:\n    runs-on: [self-hosted]\n    steps: [{run: sleep}]\n  two:\n    needs: one\n    runs-on: [self-hosted]\n    steps: [{run: sleep}]\n"))
	if err != nil {
		t.Fatal(err)
	}
	run, err := e.Submit(w, "")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		done <- protorunner.Run(t.Context(), cred.Env[github.JITConfigKey].Reveal(), protorunner.Options{Client: e.Client(), Hold: time.Hour, Renew: 50 * time.Millisecond})
	}()
	for {
		if got, _, err := c.Runner(t.Context(), cred.ID); err != nil {
			t.Fatal(err)
		} else if got.Busy {
			break
		}
	}
	for range 2 { // the second finds it completed
		if err := e.ForceCancel(run); err != nil {
			t.Fatal(err)
		}
	}
	state := e.State()
	if got := state.Runs[0]; got.Conclusion != "cancelled" || len(state.Runners) != 0 {
		t.Errorf("run %q, runners %v", got.Conclusion, state.Runners)
	}
	for _, j := range state.Runs[0].Jobs {
		if j.Status != "completed" {
			t.Errorf("job %s is %s", j.Name, j.Status)
		}
	}
	<-done
	if e.ForceCancel(1) == nil {
		t.Error("a run that is not there was cancelled")
	}
}
