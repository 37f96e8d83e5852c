package cli

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/mirego/tasuki/internal/api"
	"github.com/mirego/tasuki/internal/event"
	"github.com/mirego/tasuki/internal/runner"
	"github.com/mirego/tasuki/internal/wait"
)

var update = flag.Bool("update", false, "write the generated documents and golden files")

func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v; run the test with -update", err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s differs (-want +got); run the test with -update if that is right:\n%s", file, diff)
	}
}

// aStatus is a host on which everything happens at once.
func aStatus() api.Status {
	now := time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	return api.Status{
		Host: "rack-1", Installation: "x7k2p9", PID: 1, Started: ago(50 * time.Hour), Now: now, Slots: 4, Taken: 4,
		Problems: []string{"image of pool large: cannot resolve image r.example.com/debian:stable:\nconnection refused"},
		Pools: []api.Pool{
			{Name: "small", Image: "r.example.com/debian:stable", Digest: "sha256:3f2a9c1b7d0e4455667788990011223344556677889900112233445566778899",
				ImageBuilt: ago(51 * time.Hour), ImageArrived: ago(50 * time.Hour), Trying: "sha256:77aa9c1b7d0e4455667788990011223344556677889900112233445566778899",
				Standby: 2, Idle: 1, Starting: 1, Busy: 1, Waits: wait.Reason{Code: wait.NoSlot, Text: "no free slot: the host has 4, taken by 1 busy in pool small, 1 held in pool large, 2 starting in pool small"}},
			{Name: "large", Image: "r.example.com/debian:next", Pulling: &api.Pull{Since: ago(time.Minute), Done: 430e6, Total: 1e9, Reused: 200e6}, Standby: 1, Waits: wait.Reason{Code: wait.NoImage, Text: "image not on this host: connection refused"}},
			{Name: "old", Image: "r.example.com/debian:old", Digest: "sha256:3f2a9c1b7d0e4455667788990011223344556677889900112233445566778899", ImageArrived: ago(9 * time.Hour),
				Rejected: "sha256:bad09c1b7d0e4455667788990011223344556677889900112233445566778899",
				Pinned:   "sha256:3f2a9c1b7d0e4455667788990011223344556677889900112233445566778899",
				Pulling:  &api.Pull{Since: ago(3 * time.Second)}, Draining: true},
		},
		Releases: []api.RunnerRelease{
			{OS: "darwin", Arch: "arm64", Problem: "cannot keep runner release 2.336.0 for darwin-arm64: github.com does not have it (404)"},
			{OS: "linux", Arch: "amd64", Version: "2.336.0", Published: ago(9 * 24 * time.Hour), Checked: ago(40 * time.Minute)},
		},
		Runners: []api.Runner{
			{Name: "tasuki-rack-1-x7k2p9-small-aaaaaa", Pool: "small", State: runner.Idle, Since: ago(3 * time.Minute), Reason: "GitHub lists it as online"},
			{Name: "tasuki-rack-1-x7k2p9-small-bbbbbb", Pool: "small", State: runner.Busy, Since: ago(62 * time.Minute), Job: runner.Job{Repository: "acme/app", Workflow: "CI", Name: "build (linux, \x1b[31mred)"}},
			{Name: "tasuki-rack-1-x7k2p9-small-cccccc", Pool: "small", State: runner.Connecting, Since: ago(12 * time.Second), Reason: "the guest boots"},
			{Name: "tasuki-rack-1-x7k2p9-large-dddddd", Pool: "large", State: runner.Held, Since: ago(5 * time.Minute), Hold: now.Add(25 * time.Minute), Reason: "its job failed", Job: runner.Job{Name: "test", Conclusion: "failure"}},
			{Name: "tasuki-rack-1-x7k2p9-small-eeeeee", Pool: "small", State: runner.Lingering, Since: ago(26 * time.Hour), Failed: true, Failure: "never registered: no sign of it at GitHub within 3m", Reason: "GitHub does not answer"},
		},
	}
}

func TestStatusGolden(t *testing.T) {
	empty := api.Status{Host: "new", Slots: 1, Now: time.Unix(10, 0), Started: time.Unix(7, 0), Draining: true, Pools: []api.Pool{{Name: "p", Standby: 1}}}
	stopping := empty
	stopping.Stopping = true
	for name, tc := range map[string]struct {
		status api.Status
		style  statusStyle
	}{
		"pipe":     {aStatus(), statusStyle{}},
		"wide":     {aStatus(), statusStyle{width: 160}},
		"narrow":   {aStatus(), statusStyle{width: 80}},
		"colour":   {aStatus(), statusStyle{width: 120, colour: true}},
		"empty":    {empty, statusStyle{width: 80}},
		"stopping": {stopping, statusStyle{width: 80}},
	} {
		t.Run(name, func(t *testing.T) {
			got := renderStatus(tc.status, tc.style)
			golden(t, filepath.Join("testdata", "status", name+".txt"), got)
			if !tc.style.colour && strings.Contains(got, "\x1b") {
				t.Error("escape sequences without colours: a job's name drives the terminal")
			}
		})
	}
}

func TestStatusNeverWrapsWhereItCanHelpIt(t *testing.T) {
	// The columns but the last are as wide as their names are.
	for _, width := range []int{100, 120, 200} {
		for line := range strings.Lines(renderStatus(aStatus(), statusStyle{width: width})) {
			if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > width {
				t.Errorf("width %d: a line has %d columns: %q", width, n, line)
			}
		}
	}
}

func TestEventLines(t *testing.T) {
	at := time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)
	events := []event.Event{
		{Kind: event.HostStarted, Host: "rack-1"},
		{Kind: event.ImagePulling, Pool: "small", Image: "r.example.com/debian:stable", Done: 250e6, Total: 1000e6},
		{Kind: event.RunnerMoved, Runner: "r1", Pool: "small", To: runner.Preparing, Reason: "standby"},
		{Kind: event.RunnerMoved, Runner: "r1", Pool: "small", From: runner.Connecting, To: runner.Leaving, Took: 300, Failed: true, Reason: "the guest does not\nanswer"},
		{Kind: event.RunnerMoved, Runner: "r1", Pool: "small", From: runner.Stopping, To: runner.Deleting, Took: 0.123},
		{Kind: event.RunnerJob, Runner: "r2", Job: runner.Job{Repository: "acme/app", Name: "build"}},
		{Kind: event.PoolWaits, Pool: "small", Reason: "no free slot"},
	}
	var b strings.Builder
	for _, e := range events {
		e.Time = at
		b.WriteString(eventLine(e, time.UTC) + "\n")
	}
	golden(t, filepath.Join("testdata", "events.txt"), b.String())
}
