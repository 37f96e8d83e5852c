package cli

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/mirego/tasuki/internal/api"
	"github.com/mirego/tasuki/internal/runner"
)

func TestRunsGolden(t *testing.T) {
	zone := time.Local
	time.Local = time.UTC
	t.Cleanup(func() { time.Local = zone })
	now := time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	runs := []api.Run{
		{Runner: "tasuki-rack-1-x7k2p9-small-aaaaaa", Pool: "small", Created: ago(time.Minute), State: runner.Idle},
		{Runner: "tasuki-rack-1-x7k2p9-small-bbbbbb", Pool: "small", Created: ago(10 * time.Minute), State: runner.Busy, Busy: ago(9 * time.Minute),
			Job: runner.Job{Repository: "acme/app", Workflow: "CI", Name: "build", Queued: ago(11 * time.Minute), Started: ago(9 * time.Minute)}},
		{Runner: "tasuki-rack-1-x7k2p9-small-cccccc", Pool: "small", Created: ago(time.Hour), Ended: ago(30 * time.Minute), State: runner.Gone,
			Busy: ago(50 * time.Minute), Done: ago(31 * time.Minute), Job: runner.Job{Name: "test \x1b[31mred", Conclusion: "failure"}},
		{Runner: "tasuki-rack-1-x7k2p9-large-dddddd", Pool: "large", Created: ago(3 * time.Hour), Ended: ago(2 * time.Hour), State: runner.Gone,
			Failed: true, Failure: "connecting: still connecting after 5m0s"},
		{Runner: "tasuki-rack-1-x7k2p9-large-eeeeee", Pool: "large", Created: ago(30 * time.Hour), Ended: ago(29 * time.Hour), State: runner.Gone},
	}
	golden(t, filepath.Join("testdata", "runs", "table.txt"), runTable(runs, now, statusStyle{}))
	golden(t, filepath.Join("testdata", "runs", "narrow.txt"), runTable(runs, now, statusStyle{width: 80}))
	stats := api.RunStats{
		Since: ago(24 * time.Hour), Until: now, Runs: 1203, Jobs: 1190, Failed: 9, Busy: 2 * 24 * 3600 * 0.62,
		Queue:       api.Spread{Count: 1100, P50: 2.4, P90: 30, P95: 61, P99: 3700, Max: 14400},
		Turnaround:  api.Spread{Count: 1000, P50: 1.2, P90: 1.9, P95: 2.2, P99: 9, Max: 31},
		Conclusions: map[string]int{"success": 1100, "failure": 80, "cancelled": 10},
		Failures:    []api.Failure{{Reason: "connecting: still connecting after NmNs", Count: 8}, {Reason: "registering: refused", Count: 1}},
	}
	golden(t, filepath.Join("testdata", "runs", "stats.txt"), statsText(stats, 2, statusStyle{}))
	golden(t, filepath.Join("testdata", "runs", "none.txt"), statsText(api.RunStats{}, 2, statusStyle{}))
}
