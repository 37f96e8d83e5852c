package main

import (
	"bytes"
	"context"
	"errors"
	"net/http/httptest"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-github/v82/github"

	"github.com/mirego/tasuki/internal/base/proc"
	"github.com/mirego/tasuki/internal/emulator"
	"github.com/mirego/tasuki/internal/emulator/workflow"
)

// TestMain lets the test binary stand in for the program.
func TestMain(m *testing.M) {
	if os.Getenv("PROTORUNNER_MAIN") != "" {
		os.Exit(run())
	}
	os.Exit(m.Run())
}

func program(env []string, args ...string) proc.Cmd {
	return proc.Cmd{Path: os.Args[0], Args: args, Env: append(env, "PROTORUNNER_MAIN=1")}
}

const oneJob = `
on: push
jobs:
  build:
    runs-on: x
    steps:
      - run: "true"
`

func TestAsAProgram(t *testing.T) {
	e := emulator.New(emulator.Options{})
	srv := httptest.NewServer(e.Handler())
	defer srv.Close()
	rest, err := github.NewClient(nil).WithEnterpriseURLs(srv.URL, srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	w, err := workflow.Parse("one.yml", []byte(oneJob))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	jit := func(name string) []string {
		out, _, err := rest.Actions.GenerateRepoJITConfig(ctx, "octo", "demo",
			&github.GenerateJITConfigRequest{Name: name, RunnerGroupID: 1, Labels: []string{"x"}})
		if err != nil {
			t.Fatal(err)
		}
		return []string{jitVariable + "=" + out.GetEncodedJITConfig()}
	}
	run, err := e.Submit(w, "")
	if err != nil {
		t.Fatal(err)
	}
	got, err := proc.Run(ctx, program(jit("vm-1"), "--hold", "10ms", "--conclusion", "failed"))
	if err != nil || !strings.Contains(string(got.Stdout), ": Job build completed with result: Failed\n") {
		t.Errorf("it ended with %v:\n%s", err, got.Stdout)
	}
	if state, err := e.WaitRun(ctx, run); err != nil || state.Conclusion != "failure" {
		t.Errorf("the run is %q, %v", state.Conclusion, err)
	}

	// Told to end while it listens, it leaves and says so by its status.
	log := t.TempDir() + "/log"
	id, err := proc.Detach(program(jit("vm-2")), log)
	if err != nil {
		t.Fatal(err)
	}
	changed, stop := e.Watch()
	defer stop()
	for len(e.State().Runners) == 0 || !e.State().Runners[0].Online {
		select {
		case <-changed:
		case <-ctx.Done():
			t.Fatal("it never came online")
		}
	}
	if err := id.Signal(syscall.SIGTERM, false); err != nil {
		t.Fatal(err)
	}
	for e.State().Runners[0].Online {
		select {
		case <-changed:
		case <-ctx.Done():
			t.Fatal("it never went")
		}
	}
}

func TestWithoutAConfiguration(t *testing.T) {
	var out bytes.Buffer
	cmd := program([]string{jitVariable + "="})
	cmd.Stderr = &out
	_, err := proc.Run(t.Context(), cmd)
	if exit, ok := errors.AsType[*proc.ExitError](err); !ok || exit.Code != 2 || !strings.Contains(out.String(), jitVariable) {
		t.Errorf("it ended with %v: %s", err, out.String())
	}
}
