package cli

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/mirego/tasuki/internal/emulator/workflow"
	"github.com/mirego/tasuki/internal/guest/local"
	"github.com/mirego/tasuki/internal/guest/ssh"
	"github.com/mirego/tasuki/internal/journal"
	"github.com/mirego/tasuki/internal/vm/fake"
)

// fakeDemo is a demo whose guests are processes of this machine and whose
// runner program executes nothing: all the rest is as it is.
func fakeDemo(t *testing.T, text, flags string) (*demo, *bytes.Buffer) {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("the demo runs on Linux only")
	}
	w, err := workflow.Parse("ci.yml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	program := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(self, filepath.Join(program, "protorunner")); err != nil {
		t.Fatal(err)
	}
	script := "#!/bin/sh\nexec " + filepath.Join(program, "protorunner") + " " + flags + "\n"
	if err := os.WriteFile(filepath.Join(program, "run"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	out := new(bytes.Buffer)
	d := &demo{
		app: &app{stdout: out, stderr: out, logLevel: "debug"}, home: filepath.Join(t.TempDir(), "home"),
		flags: demoFlags{slots: 2, timeout: time.Minute}, labels: demoLabels(nil), workflows: []*workflow.Workflow{w},
	}
	d.open = func() (*demoHost, error) {
		h := &demoHost{dialer: local.Dialer{}, newKey: ssh.NewKey}
		var err, journalErr error
		h.driver, err = fake.New(fake.Options{Dir: d.path("fake"), Installation: d.installation, Prefix: "tasuki-"})
		h.journal, journalErr = journal.Open(d.path("journal"))
		return h, errors.Join(err, journalErr)
	}
	d.bring = func(ctx, _ context.Context) error {
		var err error
		d.image, err = new(folderImages).Image(ctx, program, nil)
		return err
	}
	return d, out
}

func checkDemo(t *testing.T, out string, want ...string) {
	t.Helper()
	for _, w := range append(want, "no virtual machine\n", "no process\n", "no registration at GitHub\n", "no record in the journal\n") {
		if !strings.Contains(out, w) {
			t.Errorf("the demo did not say %q", w)
		}
	}
	if t.Failed() {
		t.Log(out)
	}
}

const twoJobs = "on: push\njobs:\n  one:\n    runs-on: [self-hosted, demo]\n    steps:\n      - name: Say it\n        run: echo\n" +
	"  two:\n    needs: one\n    runs-on: [self-hosted]\n    steps:\n      - run: echo\n"

func TestDemoFromLockToReport(t *testing.T) {
	d, out := fakeDemo(t, twoJobs, "")
	if err := d.run(t.Context()); err != nil {
		t.Error(err)
	}
	checkDemo(t, out.String(), `"one" started on demo-`, `"two" success`, "queued → started", "Say it", "Jobs: 2 success.")
	logs, _ := filepath.Glob(d.path("jobs", "*.log"))
	if len(logs) != 2 {
		t.Errorf("logs kept: %v", logs)
	}
}

func TestDemoThroughAScaleSet(t *testing.T) {
	d, out := fakeDemo(t, twoJobs, "")
	d.flags.scaleSet = true
	for range 2 { // the second meets what the first knew
		if err := d.run(t.Context()); err != nil {
			t.Error(err)
		}
		checkDemo(t, out.String(), `"one" started on demo-`, `"two" success`, "queued → started", "Jobs: 2 success.")
		for _, job := range d.github.State().Runs[0].Jobs {
			if job.ScaleSet != "tasuki-demo" {
				t.Errorf("job %s was served by scale set %q", job.Name, job.ScaleSet)
			}
		}
		out.Reset()
		next, again := fakeDemo(t, twoJobs, "")
		next.home, next.flags.scaleSet, out = d.home, true, again
		d = next
	}
}

func TestDemoOfAJobThatFails(t *testing.T) {
	d, out := fakeDemo(t, twoJobs, "-conclusion failed")
	if err := d.run(t.Context()); !errors.Is(err, errNo) {
		t.Errorf("got %v, want errNo", err)
	}
	checkDemo(t, out.String(), `"one" failure`, `"two" skipped`, "Jobs: 1 failure, 1 skipped.")
}

// An interruption takes a busy guest away at once, although GitHub would keep
// its runner until it was silent for ten minutes.
func TestDemoInterruptedWhileAJobRuns(t *testing.T) {
	d, out := fakeDemo(t, twoJobs, "-hold 10m")
	ctx, cancel := context.WithCancelCause(t.Context())
	go func() {
		for d.demandLeft() != 1 { // one has been taken
			time.Sleep(5 * time.Millisecond)
		}
		cancel(errInterrupted)
	}()
	if err := d.run(ctx); err != exitStatus(exitInterrupted) {
		t.Errorf("got %v, want exit status %d", err, exitInterrupted)
	}
	checkDemo(t, out.String(), "Stopping:")
}

func TestDemoGivesUpWhenRunnersKeepFailing(t *testing.T) {
	d, out := fakeDemo(t, twoJobs, "-no-such-flag")
	err := d.run(t.Context())
	h, ok := errors.AsType[*hinted](err)
	if !ok || !strings.Contains(err.Error(), "runners failed before they had a job") || !strings.Contains(h.hint, "demo.log") {
		t.Errorf("got %v", err)
	}
	checkDemo(t, out.String(), "gave up:")
}

func TestDemoThatTakesTooLong(t *testing.T) {
	d, out := fakeDemo(t, twoJobs, "-hold 10m")
	d.flags.timeout = 3 * time.Second
	err := d.run(t.Context())
	h, ok := errors.AsType[*hinted](err)
	if !ok || !errors.Is(err, errDemoTimeout) || !strings.Contains(h.hint, "--timeout") {
		t.Errorf("got %v", err)
	}
	checkDemo(t, out.String())
}

func (d *demo) demandLeft() int {
	d.demand.mu.Lock()
	defer d.demand.mu.Unlock()
	return d.demand.left
}
