package cli

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mirego/tasuki/internal/base/proc"
	"github.com/mirego/tasuki/internal/cli/demoview"
	"github.com/mirego/tasuki/internal/config/recipefile"
	"github.com/mirego/tasuki/internal/emulator"
	"github.com/mirego/tasuki/internal/emulator/workflow"
)

func workflowFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ci.yml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestDemoTellsTheProblemsOfAllFiles(t *testing.T) {
	bad := "on: push\njobs:\n  a:\n    runs-on: x\n    step: []\n"
	first, second := workflowFile(t, bad), workflowFile(t, bad)
	_, err := demoWorkflows([]string{first, "../../examples/workflows/relay.yml", second})
	problems, ok := errors.AsType[workflow.Problems](err)
	if !ok {
		t.Fatalf("got %v, want problems", err)
	}
	for _, file := range []string{first, second} {
		if !strings.Contains(problems.Error(), file+":") {
			t.Errorf("no problem of %s in\n%v", file, problems)
		}
	}
	if _, err := demoWorkflows([]string{"no-such.yml"}); err == nil || !strings.Contains(err.Error(), "no-such.yml") {
		t.Errorf("got %v", err)
	}
}

func TestDemoRunsItsOwnWorkflowWhenGivenNone(t *testing.T) {
	all, err := demoWorkflows(nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := checkServable(all, demoLabels(nil)); err != nil || len(all) != 1 {
		t.Errorf("%d workflows, %v", len(all), err)
	}
}

func TestIncidentUnservableJob(t *testing.T) {
	tests := []struct{ runsOn, words, hint string }{
		{"[self-hosted, Linux]", "", ""},
		{"[self-hosted, linux, DEMO]", "", ""},
		{"[self-hosted, macOS]", "runs on [self-hosted, macOS]", "tasuki demo --label macOS"},
		{"{group: Macs}", `runner group "Macs"`, "leave the group out"},
	}
	for _, tt := range tests {
		all, err := demoWorkflows([]string{workflowFile(t, "on: push\njobs:\n  a:\n    runs-on: "+tt.runsOn+"\n    steps:\n      - run: true\n")})
		if err != nil {
			t.Fatal(err)
		}
		err = checkServable(all, demoLabels(nil))
		if tt.words == "" {
			if err != nil {
				t.Errorf("%s: %v", tt.runsOn, err)
			}
			continue
		}
		h, ok := errors.AsType[*hinted](err)
		if !ok || !strings.Contains(err.Error(), tt.words) || !strings.Contains(h.hint, tt.hint) {
			t.Errorf("%s: %v, want %q with hint %q", tt.runsOn, err, tt.words, tt.hint)
		}
	}
	all, _ := demoWorkflows([]string{workflowFile(t, "on: push\njobs:\n  a:\n    runs-on: ubuntu-latest\n    steps:\n      - run: true\n")})
	if err := checkServable(all, demoLabels([]string{"ubuntu-latest"})); err != nil {
		t.Errorf("with its label: %v", err)
	}
}

func TestDemoWantsNoMoreRunnersThanJobsAreLeft(t *testing.T) {
	var d jobDemand
	state := emulator.State{Runs: []emulator.RunState{{Jobs: []emulator.JobState{
		{Status: "pending"}, {Status: "queued"}, {Status: "queued"}, {Status: "in_progress"}, {Status: "completed"},
	}}}}
	for _, want := range []int{3, 2, 1, 0} {
		d.set(untaken(state))
		if got := d.Want().Runners(); got != want {
			t.Errorf("wants %d, want %d", got, want)
		}
		for i := range state.Runs[0].Jobs {
			if j := &state.Runs[0].Jobs[i]; j.Status == "pending" || j.Status == "queued" {
				j.Status = "in_progress"
				break
			}
		}
	}
}

func TestDemoKeepsTheWholeLogs(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "jobs")
	jobs := []demoview.Job{
		{Name: "build (../etc, 1)", Steps: []demoview.Step{{Name: "make", Conclusion: "success", Log: "one\ntwo\n"}, {Name: "test", Conclusion: "failure"}}},
		{Name: "skipped"},
	}
	for range 2 { // the second in place of the first
		if err := keepLogs(dir, jobs); err != nil {
			t.Fatal(err)
		}
	}
	files, _ := filepath.Glob(filepath.Join(dir, "*"))
	want := filepath.Join(dir, "01-build-----etc--1-.log")
	if diff := cmp.Diff([]string{want}, files); diff != "" || jobs[0].LogFile != want {
		t.Errorf("files (-want +got):\n%s, noted %q", diff, jobs[0].LogFile)
	}
	if b, _ := os.ReadFile(want); string(b) != "== make: success\none\ntwo\n== test: failure\n\n" {
		t.Errorf("log %q", b)
	}
}

func TestFilesBelow(t *testing.T) {
	dir := t.TempDir()
	if found, err := filesBelow(filepath.Join(dir, "nowhere"), "*"); found != nil || err != nil {
		t.Errorf("nowhere: %v, %v", found, err)
	}
	disk := filepath.Join(dir, "guest", "disk.qcow2")
	if err := os.MkdirAll(filepath.Dir(disk), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(disk, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	found, err := filesBelow(dir, "disk.qcow2")
	if diff := cmp.Diff([]string{disk}, found); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}

func TestDemoSummary(t *testing.T) {
	got := summary([]demoview.Job{{Conclusion: "success"}, {Conclusion: "skipped"}, {Conclusion: "success"}}, "/x")
	if !strings.HasPrefix(got, "Jobs: 2 success, 1 skipped.") {
		t.Errorf("got %q", got)
	}
}

func TestViewJobsSaysWhatAJobWaitsFor(t *testing.T) {
	at := time.Date(2026, 11, 23, 20, 0, 0, 0, time.UTC)
	state := emulator.State{Runs: []emulator.RunState{{Name: "ci", Jobs: []emulator.JobState{
		{ID: 1, Name: "a", Status: "queued", Waiting: "for a runner", Queued: at},
		{ID: 2, Name: "b", Status: "completed", Conclusion: "failure", RunnerName: "r", Steps: []emulator.StepState{
			{Name: "x", Conclusion: "failure", Started: at, Completed: at.Add(time.Second), Log: "l"}, {Name: "y", Started: at},
		}},
	}}}}
	want := []demoview.Job{
		{ID: 1, Name: "a", Run: "ci", Status: "queued", Reason: "queued for a runner", Queued: at},
		{ID: 2, Name: "b", Run: "ci", Status: "completed", Conclusion: "failure", Runner: "r",
			Steps: []demoview.Step{{Name: "x", Conclusion: "failure", Took: time.Second, Log: "l"}, {Name: "y"}}},
	}
	if diff := cmp.Diff(want, viewJobs(state)); diff != "" {
		t.Errorf("jobs (-want +got):\n%s", diff)
	}
}

// QEMU's command line names its guest but not the folder that it lies in.
func TestDemoFindsItsProcesses(t *testing.T) {
	d := &demo{installation: "abc234", home: t.TempDir(), address: "127.0.0.1:1"}
	if found, err := d.processes(t.Context()); err != nil || len(found) != 0 {
		t.Fatalf("before: %v, %v", found, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := proc.Run(ctx, proc.Cmd{Path: "sh", Args: []string{"-c", "sleep 600; true", d.names() + "demo-x"}})
		ended <- err
	}()
	for {
		found, err := d.processes(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(found) == 1 && strings.HasPrefix(found[0], "sh (") {
			break
		}
		select {
		case err := <-ended:
			t.Fatalf("the process ended: %v", err)
		case <-time.After(5 * time.Millisecond):
		}
	}
	cancel()
	<-ended
}

func TestADemoShowsNoSignedLinks(t *testing.T) {
	const log = "from http://10.0.2.100/launch/1/checkout.tar.gz?sig=eyJh.b-c_d and on\nhttp://h/x?a=1&sig=e&b=2\n"
	const want = "from http://10.0.2.100/launch/1/checkout.tar.gz?sig=*** and on\nhttp://h/x?a=1&sig=***&b=2\n"
	job := emulator.JobState{Name: "build", Steps: []emulator.StepState{{Name: "Run actions/checkout@v4", Log: log}}}
	jobs := viewJobs(emulator.State{Runs: []emulator.RunState{{Jobs: []emulator.JobState{job}}}})
	if diff := cmp.Diff(want, jobs[0].Steps[0].Log); diff != "" {
		t.Errorf("log (-want +got):\n%s", diff)
	}
}

func TestTheDemosRecipes(t *testing.T) {
	for from, wants := range map[string]bool{imagePackages: true, imageCloud: true, "../../recipes/linux-runner.yaml": false} {
		f, err := demoRecipe(from)
		if err != nil {
			t.Fatal(err)
		}
		for _, arch := range []string{"amd64", "arm64"} {
			vars := map[string]string{}
			if wants {
				vars = map[string]string{varRunner: "/a", varSum: strings.Repeat("0", 64), varVersion: "1", varOfficial: "yes"}
			}
			r, err := f.Resolve(t.Context(), recipefile.Target{Arch: arch, Driver: "qemu"}, vars)
			if err != nil {
				t.Fatal(err)
			}
			if last := r.Steps[len(r.Steps)-1]; last.Runner == nil || last.Runner.Kind != "official" || wants && len(r.Steps) != 1 {
				t.Errorf("%s for %s: %+v", from, arch, r.Steps)
			}
		}
	}
	if from, err := demoRecipe(imageAuto); err != nil || runtime.GOOS == "linux" && from.Name != "demo-packages" {
		t.Errorf("by itself: %v, %v", from, err)
	}
	for _, from := range []string{"debootstrap", "no-such.yaml"} {
		if _, err := demoRecipe(from); err == nil || !strings.Contains(err.Error(), from) {
			t.Errorf("%s: got %v", from, err)
		}
	}
}

// An archive is the same each time: its checksum is part of the recipe's key.
func TestARunnersArchiveIsTheSameEachTime(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "program")
	if err := os.WriteFile(program, []byte("a program"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, of := range []string{program, dir} {
		var sums []string
		for range 2 {
			out := filepath.Join(t.TempDir(), "a.tar.gz")
			file, err := archiveOf(of, out)
			if err != nil {
				t.Fatal(err)
			}
			sum, err := sumOf(file)
			if err != nil {
				t.Fatal(err)
			}
			sums = append(sums, sum)
		}
		if sums[0] != sums[1] {
			t.Errorf("%s: %v", of, sums)
		}
	}
}
