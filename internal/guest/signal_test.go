package guest_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mirego/tasuki/internal/guest"
	"github.com/mirego/tasuki/internal/image"
)

func TestRead(t *testing.T) {
	const official, act = image.RunnerOfficial, image.RunnerAct
	for _, c := range []struct {
		kind, line string
		want       guest.Signal // Text is not compared; no Kind: no signal
	}{
		{official, "√ Connected to GitHub", guest.Signal{Kind: guest.Connected}},
		{official, "2026-11-23 20:48:30Z: Listening for Jobs\r", guest.Signal{Kind: guest.Listening}},
		{official, "2026-11-23 20:48:31Z: Running job: build", guest.Signal{Kind: guest.JobStarted, Job: "build"}},
		{official, "2026-11-23 20:48:31Z: Running job: test (a: b, 'c') / d", guest.Signal{Kind: guest.JobStarted, Job: "test (a: b, 'c') / d"}},
		{official, "2026-11-23 20:48:39Z: Job build completed with result: Succeeded", guest.Signal{Kind: guest.JobFinished, Job: "build", Result: "Succeeded"}},
		{official, "2026-11-23 20:48:39Z: Job x completed with result: Failed completed with result: Canceled",
			guest.Signal{Kind: guest.JobFinished, Job: "x completed with result: Failed", Result: "Canceled"}},
		{official, "2026-11-23 20:48:39Z: Runner connect error: Registration 6d6d7c4e-aa was not found. Retrying until reconnected.", guest.Signal{Kind: guest.RegistrationGone}},
		{official, "Failed to create a session. The runner registration has been deleted from the server, please re-configure.", guest.Signal{Kind: guest.RegistrationGone}},
		{official, "The runner no longer exists on the server. Please reconfigure the runner.", guest.Signal{Kind: guest.RegistrationGone}},
		{official, "An error occured: Runner version v2.328.0 is deprecated and cannot receive messages.", guest.Signal{Kind: guest.Deprecated}},
		{official, "A session for this runner already exists.", guest.Signal{Kind: guest.SessionConflict}},
		{official, "2026-09-04 03:31:22Z: Runner connect error: Error: Conflict. Retrying until reconnected.", guest.Signal{Kind: guest.SessionConflict}},
		{official, "Current runner version: '2.336.0'", guest.Signal{}},
		{official, "Running Job 'build'", guest.Signal{}},
		{official, "", guest.Signal{}},

		{act, "Listening for Jobs: vm-1 ( http://10.0.2.100/octo/demo )", guest.Signal{Kind: guest.Listening}},
		{act, "vm-1 ( http://10.0.2.100/octo/demo ): Running Job 'build'", guest.Signal{Kind: guest.JobStarted, Job: "build"}},
		{act, "vm-1 ( http://10.0.2.100/octo/demo ): Finished Job 'build'", guest.Signal{Kind: guest.JobFinished, Job: "build"}},
		{act, "vm-1 ( http://h/o/d ): Running Job 'it's ( odd ): job'", guest.Signal{Kind: guest.JobStarted, Job: "it's ( odd ): job"}},
		{act, "vm-1 ( http://h/o/d ): Finished Job 'it's' with Status Failed", guest.Signal{Kind: guest.JobFinished, Job: "it's", Result: "Failed"}},
		{act, "Finished Job 'x", guest.Signal{}},
		{act, "Fatal: It looks like this runner has been removed from GitHub, Failed to recreate Session for vm-1 ( u ): invalid_client", guest.Signal{Kind: guest.RegistrationGone}},
		{act, "Failed to recreate Session for vm-1 ( u ), waiting 30 sec before retry: TaskAgentSessionConflictException", guest.Signal{Kind: guest.SessionConflict}},
		{act, "Listening for Jobs", guest.Signal{}},
		{act, "Warning: Cannot delete settings.json after ephemeral exit", guest.Signal{}},

		{guest.RunnerCommand, "2026-11-23T20:48:30Z Listening for Jobs", guest.Signal{Kind: guest.Listening}},
		{guest.RunnerCommand, "Listening for Jobs: vm-1 ( u )", guest.Signal{Kind: guest.Listening}},
		{guest.RunnerCommand, "Running job: a", guest.Signal{Kind: guest.JobStarted, Job: "a"}},
	} {
		got, ok := guest.Read(c.kind, c.line)
		if ok != (c.want.Kind != "") {
			t.Errorf("%s: %q gives %+v, %v", c.kind, c.line, got, ok)
		}
		if got.Text = ""; got != c.want {
			t.Errorf("%s: %q\ngives %+v\nwant  %+v", c.kind, c.line, got, c.want)
		}
	}
	if got, _ := guest.Read(official, "2026-11-23 20:48:30Z: √ Connected to GitHub\r"); got.Text != "Connected to GitHub" {
		t.Errorf("the text is %q", got.Text)
	}
}

func FuzzRead(f *testing.F) {
	f.Add("2026-11-23 20:48:39Z: Job build completed with result: Succeeded")
	f.Add("vm ( u ): Finished Job 'a' with Status b")
	f.Fuzz(func(t *testing.T, line string) {
		for _, kind := range []string{image.RunnerAct, image.RunnerOfficial, guest.RunnerCommand} {
			if s, ok := guest.Read(kind, line); ok != (s.Kind != "") || len(s.Job)+len(s.Result) > len(line) {
				t.Errorf("%s: %+v, %v", kind, s, ok)
			}
		}
	})
}

func TestLines(t *testing.T) {
	long := strings.Repeat("x", 40<<10)
	text := "one\ntwo\r\n\nvier é\n" + long + "\nlast"
	want := []string{"one", "two", "", "vier é", long[:16<<10], "last"}
	for _, size := range []int{1, 2, 3, 7, 1000, len(text)} {
		var got []string
		l := guest.NewLines(func(line string) { got = append(got, line) })
		for part := range slices.Chunk([]byte(text), size) {
			if n, err := l.Write(part); n != len(part) || err != nil {
				t.Fatalf("Write: %d, %v", n, err)
			}
		}
		if len(got) != 5 {
			t.Errorf("in parts of %d: %d lines before Flush, want 5", size, len(got))
		}
		l.Flush()
		l.Flush()
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("in parts of %d (-want +got):\n%s", size, diff)
		}
	}
}

func ExampleRead() {
	s, ok := guest.Read(image.RunnerOfficial, "2026-11-23 20:48:39Z: Job build completed with result: Succeeded")
	fmt.Println(ok, s.Kind, s.Job, s.Result)
	// Output: true job-finished build Succeeded
}
