package webtest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mirego/tasuki/internal/agent"
	"github.com/mirego/tasuki/internal/api"
	"github.com/mirego/tasuki/internal/console"
	"github.com/mirego/tasuki/internal/event"
	"github.com/mirego/tasuki/internal/history"
	"github.com/mirego/tasuki/internal/image"
	"github.com/mirego/tasuki/internal/runner"
	"github.com/mirego/tasuki/internal/wait"
)

// made is an agent whose data are made up.
type made struct {
	dir string

	mu     sync.Mutex
	status api.Status
}

func (m *made) Drain(string) error             { return agent.ErrNoPool }
func (m *made) Resume(string) error            { return agent.ErrNoPool }
func (m *made) LogPath(name string) string     { return filepath.Join(m.dir, name+".log") }
func (m *made) ConsolePath(name string) string { return filepath.Join(m.dir, name+".console") }
func (m *made) Status() api.Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.status
	s.Now = time.Now().UTC()
	return s
}

// empty is a host on its first day.
func empty(t *testing.T) console.Options {
	m := &made{dir: t.TempDir(), status: api.Status{Host: "empty", Version: "test", Started: time.Now().UTC()}}
	past, err := history.Open(filepath.Join(m.dir, "history.db"), history.Options{Log: quiet})
	must(t, err)
	t.Cleanup(func() { must(t, past.Close()) })
	return console.Options{Installation: "empty0", Host: m, Status: m.Status, Feed: new(console.Feed), Runs: past, Log: quiet}
}

// broken is a history that cannot be read.
type broken struct{}

var errBroken = errors.New("database disk image is malformed")

func (broken) Runs(context.Context, api.RunQuery) ([]api.Run, error) { return nil, errBroken }
func (broken) Stats(context.Context, api.RunQuery) (api.RunStats, error) {
	return api.RunStats{}, errBroken
}
func (broken) Series(context.Context, api.RunQuery, time.Duration) ([]api.RunStats, error) {
	return nil, errBroken
}

// failing is a host where much is wrong.
func failing(t *testing.T) console.Options {
	long := strings.Repeat("a very long word of a registry's answer-without-a-space-", 6)
	now := time.Now().UTC()
	m := &made{dir: t.TempDir(), status: api.Status{
		Host: "rack-13", Version: "test", Started: now.Add(-time.Hour), Slots: 2, Taken: 1, Draining: true,
		Problems: []string{"github octo: GitHub refuses us: 401 Bad credentials", "registry.example.com: " + long, "history: " + errBroken.Error()},
		Pools: []api.Pool{{Name: "ios", Scope: "octo", Labels: []string{"self-hosted", "macOS", "ARM64"}, Image: "registry.example.com/ios:latest", Standby: 2, Jobs: 14,
			OldestJob: now.Add(-50 * time.Minute), Rejected: "sha256:" + strings.Repeat("ab", 32), Digest: "sha256:" + strings.Repeat("cd", 32), Deprecated: 3}},
		Runners: []api.Runner{{Name: "tasuki-rack-13-abcdef-ios-aaaaaa", Pool: "ios", State: runner.Held, Since: now.Add(-10 * time.Minute), Created: now.Add(-20 * time.Minute),
			Failed: true, Failure: "connecting: cannot open a channel: " + long, Hold: now.Add(time.Hour),
			Steps: []runner.Visit{{State: runner.Preparing, Start: now.Add(-20 * time.Minute), End: now.Add(-19 * time.Minute)}, {State: runner.Held, Start: now.Add(-10 * time.Minute)}}}},
	}}
	return console.Options{Installation: "broken", Host: m, Status: m.Status, Feed: new(console.Feed), Runs: broken{}, Log: quiet,
		Images: func(context.Context) ([]image.Stored, error) { return nil, errBroken },
		Findings: func(context.Context) []console.Finding {
			return []console.Finding{{Check: "disk-space", Level: "problem", Seen: "3 GB are free, and 20 GB shall stay so", Why: "guests fail when the disk is full", Mend: "make room: tasuki image prune --dry-run shows what no pool needs"}}
		}}
}

// The names of a fleet that looks like one.
var (
	repositories = []string{"acme/ios-app", "acme/android-app", "acme/design-system", "acme/backend"}
	jobNames     = []string{"build", "unit-tests", "ui-tests (iPhone 17)", "ui-tests (iPad)", "lint", "archive", "e2e"}
	madePools    = []api.Pool{
		{Name: "ios", Scope: "acme", Labels: []string{"self-hosted", "macOS", "ARM64", "ios"}, Image: "registry.acme.dev/runners/macos:26", Standby: 2},
		{Name: "linux", Scope: "acme", Labels: []string{"self-hosted", "Linux", "ARM64"}, Image: "registry.acme.dev/runners/debian:stable", Standby: 2},
	}
)

const madeSlots = 6

// full is a host with a thousand runs behind it, the last of which go on.
func full(t *testing.T) console.Options {
	m := &made{dir: t.TempDir()}
	past, err := history.Open(filepath.Join(m.dir, "history.db"), history.Options{Log: quiet})
	must(t, err)
	t.Cleanup(func() { must(t, past.Close()) })
	feed := new(console.Feed)
	now := time.Now().UTC()
	runners := makeRuns(1000, now, thinned{past}, feed)
	for limit := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		runs, err := past.Runs(t.Context(), api.RunQuery{Limit: 2000})
		must(t, err)
		if len(runs) >= 1000 {
			break
		}
		if time.Now().After(limit) {
			t.Fatalf("%d runs were written, and %d events lost", len(runs), past.Lost())
		}
	}
	for _, r := range runners {
		text := fmt.Sprintf("\n√ Connected to GitHub\n\nCurrent runner version: '2.336.0'\n%[1]s: Listening for Jobs\n%[1]s: Running job: %[2]s\n", r.Since.Format("2006-01-02 15:04:05Z"), r.Job.Name)
		must(t, os.WriteFile(m.LogPath(r.Name), []byte(text), 0o600))
	}
	pools := slices.Clone(madePools)
	for i := range pools {
		pools[i].Digest = "sha256:" + strings.Repeat(fmt.Sprintf("%02x", 0xa1+i*17), 32)
		pools[i].Previous = "sha256:" + strings.Repeat(fmt.Sprintf("%02x", 0x3c+i*17), 32)
		for _, r := range runners {
			if r.Pool == pools[i].Name {
				switch {
				case r.State == runner.Busy:
					pools[i].Busy++
				case r.State == runner.Idle:
					pools[i].Idle++
				default:
					pools[i].Starting++
				}
			}
		}
	}
	pools[0].Jobs, pools[0].OldestJob = 3, now.Add(-4*time.Minute)
	pools[0].Waits = wait.Reason{Code: wait.NoSlot, Text: "no free slot: the host has 6, taken by 3 busy in pool ios, 3 busy in pool linux"}
	m.status = api.Status{Host: "mac-mini-3", Version: "v1.0.0", Started: now.Add(-76 * time.Hour), Slots: madeSlots, Taken: len(runners), Pools: pools, Runners: runners}
	feed.Emit(event.Event{Time: now, Kind: event.ImagePulling, Pool: "linux", Image: pools[1].Image, Done: 3_400_000_000, Total: 9_100_000_000})
	return console.Options{Installation: "full00", Host: m, Status: m.Status, Feed: feed, Runs: past, Log: quiet,
		Findings: func(context.Context) []console.Finding {
			return []console.Finding{{Check: "disk-space", Level: "ok", Seen: "412 GB are free"}}
		},
		Images: func(context.Context) ([]image.Stored, error) { return storedOf(pools, now), nil },
		Diff: func(context.Context, string, string) (console.Difference, error) {
			return console.Difference{Fetch: 1_240_000_000, Raw: 3_100_000_000, Have: 41_000_000_000,
				Labels: []console.Relabel{{Name: image.LabelRunnerVersion, Was: "2.335.1", Is: "2.336.0"}}}, nil
		},
	}
}

func storedOf(pools []api.Pool, now time.Time) []image.Stored {
	var out []image.Stored
	for i, p := range pools {
		for j, digest := range []string{p.Digest, p.Previous} {
			ref, _ := image.Parse(p.Image)
			out = append(out, image.Stored{
				Local: image.Local{Ref: ref, Digest: digest, DiskSize: 50_000_000_000, Labels: map[string]string{
					image.LabelOS: []string{"darwin", "linux"}[i], image.LabelArch: "arm64", image.LabelRunnerVersion: []string{"2.336.0", "2.335.1"}[j]}},
				Size: 44_100_000_000 - int64(i)*35_000_000_000, LastUsed: now.Add(-time.Duration(j*40) * time.Hour), InUse: j == 0,
			})
		}
	}
	return out
}

// makeRuns plays a host of six slots up to now into sinks, and returns the
// runners that are there at the end. It is the same every time.
func makeRuns(n int, now time.Time, sinks ...event.Sink) []api.Runner {
	rnd := rand.New(rand.NewPCG(3, 7))
	var events []event.Event
	var live []api.Runner
	each := n/madeSlots + 1
	for slot := range madeSlots {
		at := now.Add(-time.Duration(rnd.IntN(120)) * time.Second) // backwards from a job that goes on
		pool := madePools[min(1, slot/3)].Name
		for i := range each {
			rec := makeRun(rnd, fmt.Sprintf("tasuki-mac-mini-3-k3w9xa-%s-%s", pool, word(rnd)), pool, at, i == 0)
			if i == 0 {
				live = append(live, api.Runner{Name: rec.Name, Pool: rec.Pool, State: rec.State, Since: rec.Since, Created: rec.Created, Job: rec.Job, Steps: rec.Steps})
			}
			events = append(events, eventsOf(rec)...)
			pause := time.Duration(rnd.IntN(4)) * time.Second
			if rnd.IntN(9) == 0 {
				pause = time.Duration(rnd.IntN(900)) * time.Second
			}
			at = rec.Created.Add(-pause)
		}
	}
	slices.SortStableFunc(events, func(a, b event.Event) int { return a.Time.Compare(b.Time) })
	for _, e := range events {
		for _, s := range sinks {
			s.Emit(e)
		}
	}
	slices.SortFunc(live, func(a, b api.Runner) int { return cmp.Compare(a.Name, b.Name) })
	return live
}

func word(rnd *rand.Rand) string {
	const letters = "abcdefghijklmnopqrstuvwxyz234567"
	var b strings.Builder
	for range 6 {
		b.WriteByte(letters[rnd.IntN(len(letters))])
	}
	return b.String()
}

// makeRun is a run that ends at a time, or goes on.
func makeRun(rnd *rand.Rand, name, pool string, end time.Time, live bool) runner.Record {
	sec := func(lo, hi int) time.Duration {
		return time.Duration(lo*1000+rnd.IntN((hi-lo)*1000)) * time.Millisecond
	}
	stays := []struct {
		state runner.State
		took  time.Duration
	}{
		{runner.Preparing, sec(0, 1)}, {runner.Requesting, sec(0, 1)}, {runner.Cloning, sec(0, 2)}, {runner.Connecting, sec(6, 15)},
		{runner.Launching, sec(0, 2)}, {runner.Registering, sec(1, 5)}, {runner.Idle, sec(1, 40)}, {runner.Busy, sec(40, 380)},
		{runner.Leaving, sec(0, 2)}, {runner.Stopping, sec(0, 1)}, {runner.Deleting, sec(0, 1)},
	}
	failed := !live && rnd.IntN(60) == 0
	rec := runner.Record{Name: name, Pool: pool, Scope: "acme", Driver: "tart", State: runner.Gone, Image: "sha256:" + strings.Repeat("a1", 32)}
	switch {
	case failed:
		stays = append(slices.Clone(stays[:4]), stays[8:]...)
		rec.Failed, rec.Failure = true, "connecting: cannot open a channel: no answer within 5m0s"
	case live:
		stays = stays[:8]
		if rnd.IntN(5) == 0 {
			stays = stays[:7]
		}
		rec.State = stays[len(stays)-1].state
	}
	total := time.Duration(0)
	for _, s := range stays {
		total += s.took
	}
	at := end.Add(-total)
	rec.Created = at
	for i, s := range stays {
		v := runner.Visit{State: s.state, Start: at, End: at.Add(s.took)}
		at = v.End
		if live && i == len(stays)-1 {
			v.End, rec.Since = time.Time{}, v.Start
		}
		rec.Steps = append(rec.Steps, v)
		if s.state == runner.Busy {
			rec.Job = runner.Job{ID: int64(1 + rnd.IntN(1e6)), Name: jobNames[rnd.IntN(len(jobNames))], Repository: repositories[rnd.IntN(len(repositories))], Workflow: "CI",
				URL: "https://github.com/acme/ios-app/actions/runs/1/job/2", Queued: v.Start.Add(-sec(1, 30)), Started: v.Start}
			if !v.End.IsZero() {
				rec.Job.Completed, rec.Job.Conclusion = v.End, []string{"success", "success", "success", "success", "success", "success", "success", "failure", "cancelled"}[rnd.IntN(9)]
			}
		}
	}
	if !live {
		rec.Since = at
		rec.Steps = append(rec.Steps, runner.Visit{State: runner.Gone, Start: at})
	}
	return rec
}

// eventsOf are the moves of a run.
func eventsOf(rec runner.Record) []event.Event {
	var out []event.Event
	from := runner.State("")
	for i, v := range rec.Steps {
		e := event.Event{Time: v.Start, Kind: event.RunnerMoved, Host: "mac-mini-3", Pool: rec.Pool, Runner: rec.Name, From: from, To: v.State, Failed: rec.Failed && v.State == runner.Gone}
		from = v.State
		part := rec
		part.State, part.Since, part.Steps = v.State, v.Start, rec.Steps[:i+1]
		if v.State != runner.Gone {
			part.Failed, part.Failure = false, ""
		}
		e.Record = &part
		out = append(out, e)
	}
	return out
}

// thinned hands a history what it needs to know slots and turnarounds: its
// queue holds some thousand events.
type thinned struct{ event.Sink }

func (s thinned) Emit(e event.Event) {
	if slices.Contains([]runner.State{runner.Preparing, runner.Idle, runner.Leaving, runner.Gone}, e.To) || e.Record.State == runner.Busy && e.Record.Job.Conclusion == "" {
		s.Sink.Emit(e)
	}
}
