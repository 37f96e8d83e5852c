package emulator_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-github/v82/github"

	"github.com/mirego/tasuki/internal/base/proc"
	"github.com/mirego/tasuki/internal/base/secret"
	"github.com/mirego/tasuki/internal/emulator"
)

// These tests are driven by a runner program that we did not write.

var buildActRunner = sync.OnceValues(func() (string, error) {
	module, err := filepath.Abs("../../tools/demorunner")
	if err != nil {
		return "", err
	}
	sum, err := os.ReadFile(filepath.Join(module, "go.sum"))
	if err != nil {
		return "", err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	path := filepath.Join(cache, "tasuki", fmt.Sprintf("demorunner-%s-%s-%.6x", runtime.GOOS, runtime.GOARCH, sha256.Sum256(sum)))
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	fresh := fmt.Sprintf("%s.%d", path, os.Getpid())
	_, err = proc.Run(ctx, proc.Cmd{
		Path: "go", Dir: module, Env: []string{"CGO_ENABLED=0", "GOTOOLCHAIN=local", "GOFLAGS=-mod=readonly"},
		Args: []string{"build", "-trimpath", "-ldflags", "-s -w", "-o", fresh, "github.com/ChristopherHX/github-act-runner"},
	})
	if err != nil {
		return "", err
	}
	return path, os.Rename(fresh, path)
})

// actRunner returns a function that starts the program; the function that it returns waits for its end.
func actRunner(t *testing.T) func(ctx context.Context, env []string, args ...string) (wait func() (string, error)) {
	t.Helper()
	if testing.Short() {
		t.Skip("github-act-runner takes a minute to build: left out with -short")
	}
	path, err := buildActRunner()
	if err != nil && os.Getenv("TASUKI_TEST_QEMU") != "" {
		t.Fatalf("make test must drive github-act-runner, which cannot be built: %v", err)
	}
	if err != nil {
		t.Skipf("github-act-runner cannot be built here: %v", err)
	}
	dir, home := t.TempDir(), t.TempDir()
	return func(ctx context.Context, env []string, args ...string) func() (string, error) {
		var out bytes.Buffer
		ended := make(chan error, 1)
		go func() {
			_, err := proc.Run(ctx, proc.Cmd{
				Path: path, Args: args, Dir: dir, Bare: true, Stdout: &out, Stderr: &out,
				Env: append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + home}, env...),
			})
			ended <- err
		}()
		return func() (string, error) {
			err := <-ended
			return out.String(), err
		}
	}
}

// serve starts one ephemeral runner for one job.
func serve(t *testing.T, w *world, name string) (wait func() (string, error)) {
	t.Helper()
	_, config := jit(t, w.rest, name, "self-hosted")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	ended := actRunner(t)(ctx, []string{"ACTIONS_RUNNER_INPUT_JITCONFIG=" + config}, "run", "--terminal=false")
	return func() (string, error) {
		defer cancel()
		out, err := ended()
		t.Logf("%s:\n%s", name, out)
		return out, err
	}
}

// mustServe lets one ephemeral runner do one job.
func mustServe(t *testing.T, w *world, name string) {
	t.Helper()
	if _, err := serve(t, w, name)(); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

func stepLog(t *testing.T, r emulator.RunState, job string, contains string) {
	t.Helper()
	for _, j := range r.Jobs {
		if j.Name != job {
			continue
		}
		for _, s := range j.Steps {
			if strings.Contains(s.Log, contains) {
				return
			}
		}
		t.Errorf("no step of %s logged %q: %+v", job, contains, j.Steps)
	}
}

func TestActRunnerStepsOutputsAndNeeds(t *testing.T) {
	w := start(t, emulator.Options{PollHold: 5 * time.Second})
	run := submit(t, w.Emulator, chain)
	mustServe(t, w, "vm-1")
	mustServe(t, w, "vm-2")
	state := finish(t, w.Emulator, run)
	if diff := cmp.Diff(map[string]string{"one": "success", "two": "success"}, conclusions(state)); diff != "" {
		t.Error(diff)
	}
	if got := state.Jobs[0].Outputs["greeting"]; got != "hi there" {
		t.Errorf("the output is %q", got)
	}
	stepLog(t, state, "one", "first")
	stepLog(t, state, "two", "got hi there")
	if state.Jobs[0].RunnerName != "vm-1" || state.Jobs[1].RunnerName != "vm-2" {
		t.Errorf("the jobs ran on %s and %s", state.Jobs[0].RunnerName, state.Jobs[1].RunnerName)
	}
	for _, s := range state.Jobs[0].Steps {
		if s.Status != "completed" || s.Conclusion != "success" || s.Started.IsZero() || s.Completed.IsZero() {
			t.Errorf("the step %s is %+v", s.Name, s)
		}
	}
	if log, _ := w.JobLog(state.Jobs[1].GUID); !strings.Contains(log, "got hi there") {
		t.Errorf("the job's log is %q", log)
	}
	if len(w.State().Runners) != 0 {
		t.Error("runners are registered after their jobs")
	}
}

func TestActRunnerFailingStep(t *testing.T) {
	w := start(t, emulator.Options{PollHold: 5 * time.Second})
	run := submit(t, w.Emulator, `
name: failing
on: push
jobs:
  build:
    runs-on: self-hosted
    steps:
      - run: echo fine
      - run: echo broken; exit 3
      - run: echo never
`)
	mustServe(t, w, "vm-1")
	state := finish(t, w.Emulator, run)
	if state.Conclusion != "failure" || state.Jobs[0].Conclusion != "failure" {
		t.Errorf("the run is %q", state.Conclusion)
	}
	stepLog(t, state, "build", "broken")
	want := map[string]string{"Run echo fine": "success", "Run echo broken; exit 3": "failure", "Run echo never": "skipped"}
	for _, s := range state.Jobs[0].Steps {
		if c, ok := want[s.Name]; ok && c != s.Conclusion {
			t.Errorf("%s is %q, want %q", s.Name, s.Conclusion, c)
		}
		delete(want, s.Name)
	}
	if len(want) > 0 {
		t.Errorf("missing steps: %v", want)
	}
}

const sleeping = `
name: sleeping
on: push
jobs:
  build:
    runs-on: self-hosted
    steps:
      - run: |
          echo begun
          for i in 1 2 3 4 5 6 7 8 9 10; do sleep 1; done
`

// begun waits until the first step has said so.
func begun(t *testing.T, w *world) {
	t.Helper()
	until(t, w.Emulator, "the job has begun", func(s emulator.State) bool {
		for _, step := range s.Runs[0].Jobs[0].Steps {
			if strings.Contains(step.Log, "begun") {
				return true
			}
		}
		return false
	})
}

func TestActRunnerCancel(t *testing.T) {
	w := start(t, emulator.Options{PollHold: 5 * time.Second})
	run := submit(t, w.Emulator, sleeping)
	wait := serve(t, w, "vm-1")
	begun(t, w)
	if err := w.Cancel(run); err != nil {
		t.Fatal(err)
	}
	out, err := wait()
	if err != nil || !strings.Contains(out, "JobCancellation request received") {
		t.Errorf("the runner ended with %v and did not hear of the cancellation", err)
	}
	if state := finish(t, w.Emulator, run); state.Conclusion != "cancelled" {
		t.Errorf("the run is %q", state.Conclusion)
	}
}

func TestActRunnerKilledInItsJob(t *testing.T) {
	w := start(t, emulator.Options{PollHold: 5 * time.Second, LockDuration: 6 * time.Second})
	run := submit(t, w.Emulator, sleeping)
	_, config := jit(t, w.rest, "vm-1", "self-hosted")
	ctx, kill := context.WithTimeout(t.Context(), patience)
	defer kill()
	wait := actRunner(t)(ctx, []string{"ACTIONS_RUNNER_INPUT_JITCONFIG=" + config}, "run", "--terminal=false")
	begun(t, w)
	kill()
	wait()
	state := finish(t, w.Emulator, run)
	if job := state.Jobs[0]; job.Conclusion != "failure" || !strings.Contains(job.Reason, "lost communication") {
		t.Errorf("the job is %q because %q", job.Conclusion, job.Reason)
	}
	stepLog(t, state, "build", "begun")
}

func TestActRunnerMatrixOnTwoRunners(t *testing.T) {
	w := start(t, emulator.Options{PollHold: 5 * time.Second})
	run := submit(t, w.Emulator, `
name: matrix
on: push
jobs:
  test:
    runs-on: self-hosted
    strategy:
      matrix:
        flavour: [sweet, sour]
    steps:
      - run: echo it is ${{ matrix.flavour }}
`)
	first, second := serve(t, w, "vm-1"), serve(t, w, "vm-2")
	first()
	second()
	state := finish(t, w.Emulator, run)
	if diff := cmp.Diff(map[string]string{"test (sweet)": "success", "test (sour)": "success"}, conclusions(state)); diff != "" {
		t.Error(diff)
	}
	stepLog(t, state, "test (sweet)", "it is sweet")
	stepLog(t, state, "test (sour)", "it is sour")
}

func TestActRunnerLocalActionAfterCheckout(t *testing.T) {
	w := start(t, emulator.Options{PollHold: 5 * time.Second, Token: secret.New("s3cret")})
	tree := t.TempDir()
	for name, text := range map[string]string{
		"greet/action.yml": `
name: greet
inputs:
  who: {required: true}
runs:
  using: composite
  steps:
    - run: echo "good day, ${{ inputs.who }}"
      shell: bash
`,
		"file.txt": "from the tree\n",
		"flow.yml": `
name: local
on: push
jobs:
  build:
    runs-on: self-hosted
    steps:
      - uses: actions/checkout@v4
      - run: cat file.txt
      - uses: ./greet
        with: {who: octocat}
`,
	} {
		path := filepath.Join(tree, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	run := submitFile(t, w, filepath.Join(tree, "flow.yml"))
	mustServe(t, w, "vm-1")
	state := finish(t, w.Emulator, run)
	if state.Conclusion != "success" {
		t.Errorf("the run is %q: %+v", state.Conclusion, state.Jobs)
	}
	stepLog(t, state, "build", "from the tree")
	stepLog(t, state, "build", "good day, octocat")
}

func TestActRunnerConfiguredByToken(t *testing.T) {
	for name, flow := range map[string]emulator.Flow{"V1": emulator.FlowV1, "V2": emulator.FlowV2} {
		t.Run(name, func(t *testing.T) {
			w := start(t, emulator.Options{PollHold: 5 * time.Second, Flow: flow})
			run := submit(t, w.Emulator, strings.Replace(oneJob, "[self-hosted, linux]", "[self-hosted, special]", 1))
			token, _, err := w.rest.Actions.CreateRegistrationToken(t.Context(), owner, repo)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			program := actRunner(t)
			out, err := program(ctx, nil, "configure", "--url", w.base+"/octo/demo", "--token", token.GetToken(),
				"--name", "vm-1", "--labels", "special", "--unattended", "--ephemeral")()
			if err != nil {
				t.Fatalf("configure: %v\n%s", err, out)
			}
			got, _, err := w.rest.Actions.ListRunners(t.Context(), owner, repo, &github.ListRunnersOptions{Name: github.Ptr("vm-1")})
			if err != nil || got.TotalCount != 1 {
				t.Fatalf("registered: %v, %v", got, err)
			}
			if out, err := program(ctx, nil, "run", "--terminal=false")(); err != nil {
				t.Fatalf("run: %v\n%s", err, out)
			}
			if state := finish(t, w.Emulator, run); state.Conclusion != "success" {
				t.Errorf("the run is %q", state.Conclusion)
			}
		})
	}
}

func TestActRunnerConfiguredAndRemovedByToken(t *testing.T) {
	for name, flow := range map[string]emulator.Flow{"V1": emulator.FlowV1, "V2": emulator.FlowV2} {
		t.Run(name, func(t *testing.T) {
			w := start(t, emulator.Options{Flow: flow})
			token, _, err := w.rest.Actions.CreateRegistrationToken(t.Context(), owner, repo)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			program := actRunner(t)
			url := w.base + "/octo/demo"
			if out, err := program(ctx, nil, "configure", "--url", url, "--token", token.GetToken(), "--name", "vm-1", "--unattended")(); err != nil {
				t.Fatalf("configure: %v\n%s", err, out)
			}
			remove, _, err := w.rest.Actions.CreateRemoveToken(t.Context(), owner, repo)
			if err != nil {
				t.Fatal(err)
			}
			if out, err := program(ctx, nil, "remove", "--url", url, "--token", remove.GetToken(), "--unattended")(); err != nil {
				t.Fatalf("remove: %v\n%s", err, out)
			}
			if n := len(w.State().Runners); n != 0 {
				t.Errorf("%d runners are registered after their removal", n)
			}
		})
	}
}
