package history_test

import (
	"bytes"
	gocmp "cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mirego/tasuki/internal/api"
	"github.com/mirego/tasuki/internal/event"
	"github.com/mirego/tasuki/internal/history"
	"github.com/mirego/tasuki/internal/runner"
)

var at = time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)

// log is a log that tests read.
type log struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func open(t testing.TB, path string, opt history.Options) (*history.History, *log) {
	t.Helper()
	var l log
	opt.Age = gocmp.Or(opt.Age, 100*365*24*time.Hour)
	opt.Log = slog.New(slog.NewTextHandler(&l, nil))
	h, err := history.Open(path, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Close() })
	return h, &l
}

// reopen closes a history, which writes what it took, and opens it again.
func reopen(t testing.TB, h *history.History, path string) *history.History {
	t.Helper()
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	again, _ := open(t, path, history.Options{})
	return again
}

// play emits the life of one runner, each state some time after the other,
// and returns the record.
func play(h *history.History, rec runner.Record, from time.Time, each time.Duration, states ...runner.State) runner.Record {
	rec.Created = from
	for _, to := range states {
		e := event.Event{Time: from, Kind: event.RunnerMoved, Host: "h", Pool: rec.Pool, Runner: rec.Name, From: rec.State, To: to}
		if to == runner.Gone && rec.Job.Started.IsZero() && rec.Last(runner.Busy).IsZero() {
			rec.Job = runner.Job{}
		}
		rec.Move(to, "", from)
		r := rec
		r.Steps = append([]runner.Visit(nil), rec.Steps...)
		e.Record = &r
		h.Emit(e)
		from = from.Add(each)
	}
	return rec
}

var whole = []runner.State{
	runner.Preparing, runner.Requesting, runner.Cloning, runner.Connecting, runner.Launching, runner.Registering,
	runner.Idle, runner.Busy, runner.Leaving, runner.Stopping, runner.Deleting, runner.Gone,
}

var job = runner.Job{ID: 7, Name: "build", Repository: "octo/demo", Workflow: "ci", RunID: 8, URL: "https://x", Conclusion: "success",
	Queued: at.Add(-time.Minute), Started: at.Add(7 * time.Second), Completed: at.Add(8 * time.Second)}

func TestARunIsWrittenAndSurvivesARestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "history.db")
	h, _ := open(t, path, history.Options{})
	rec := play(h, runner.Record{Name: "a", Pool: "linux", Scope: "octo/demo", Image: "sha256:1", Job: job}, at, time.Second, whole...)
	h = reopen(t, h, path)
	got, err := h.Runs(t.Context(), api.RunQuery{})
	if err != nil {
		t.Fatal(err)
	}
	want := []api.Run{{
		Runner: "a", Host: "h", Pool: "linux", Scope: "octo/demo", Image: "sha256:1", Slot: 0, Created: at, Ended: at.Add(11 * time.Second),
		State: runner.Gone, Job: job, Idle: at.Add(6 * time.Second), Busy: at.Add(7 * time.Second), Done: at.Add(8 * time.Second), Steps: rec.Steps,
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for _, suffix := range []string{"", "-wal"} {
		info, err := os.Stat(path + suffix)
		if err == nil && info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v: it names repositories", path+suffix, info.Mode().Perm())
		}
	}
}

// clock-zone-guess: what is stored is UTC, whatever the zone of who writes and
// of who reads.
func TestIncidentClockZoneGuess(t *testing.T) {
	zone := time.Local
	time.Local = time.FixedZone("EST", -5*3600)
	t.Cleanup(func() { time.Local = zone })
	path := filepath.Join(t.TempDir(), "history.db")
	h, _ := open(t, path, history.Options{})
	tokyo := time.FixedZone("JST", 9*3600)
	play(h, runner.Record{Name: "a", Pool: "p"}, at.In(tokyo), time.Second, whole...)
	h = reopen(t, h, path)
	got, err := h.Runs(t.Context(), api.RunQuery{Since: at.In(tokyo)})
	if err != nil || len(got) != 1 {
		t.Fatalf("%+v, %v", got, err)
	}
	r := got[0]
	for what, is := range map[string]time.Time{"created": r.Created, "ended": r.Ended, "a step": r.Steps[0].Start} {
		if is.Location() != time.UTC {
			t.Errorf("%s is in zone %v", what, is.Location())
		}
	}
	if !r.Created.Equal(at) || !r.Steps[0].Start.Equal(at) {
		t.Errorf("created %v, first step %v; want %v", r.Created, r.Steps[0].Start, at)
	}
	if err := history.ForgetSums(h); err != nil {
		t.Fatal(err)
	}
	stats, err := h.Stats(t.Context(), api.RunQuery{Since: at.In(tokyo), Until: at.Add(time.Hour).In(time.Local)})
	if err != nil || stats.Runs != 1 || stats.Since.Location() != time.UTC {
		t.Errorf("%+v, %v", stats, err)
	}
}

func TestFilters(t *testing.T) {
	path := filepath.Join(t.TempDir(), "history.db")
	h, _ := open(t, path, history.Options{})
	failure := job
	failure.Conclusion, failure.Repository = "failure", "octo/other"
	play(h, runner.Record{Name: "well", Pool: "linux", Job: job}, at, time.Second, whole...)
	play(h, runner.Record{Name: "jobfailed", Pool: "linux", Job: failure}, at.Add(time.Hour), time.Second, whole...)
	play(h, runner.Record{Name: "runnerfailed", Pool: "mac", Failed: true, Failure: "connecting: still connecting after 5m0s"}, at.Add(2*time.Hour), time.Second,
		runner.Preparing, runner.Requesting, runner.Leaving, runner.Stopping, runner.Deleting, runner.Gone)
	play(h, runner.Record{Name: "present", Pool: "mac"}, at.Add(3*time.Hour), time.Second, whole[:7]...)
	h = reopen(t, h, path)
	for name, tc := range map[string]struct {
		query api.RunQuery
		want  string
	}{
		"all":        {api.RunQuery{}, "present runnerfailed jobfailed well"},
		"pool":       {api.RunQuery{Pool: "linux"}, "jobfailed well"},
		"failed":     {api.RunQuery{Failed: true}, "runnerfailed jobfailed"},
		"jobs":       {api.RunQuery{Jobs: true}, "jobfailed well"},
		"conclusion": {api.RunQuery{Conclusion: "success"}, "well"},
		"repository": {api.RunQuery{Repository: "octo/other"}, "jobfailed"},
		"since":      {api.RunQuery{Since: at.Add(90 * time.Minute)}, "present runnerfailed"},
		"until":      {api.RunQuery{Until: at.Add(90 * time.Minute)}, "jobfailed well"},
		"limit":      {api.RunQuery{Limit: 1}, "present"},
		"none":       {api.RunQuery{Pool: "'; DROP TABLE runs; --"}, ""},
	} {
		runs, err := h.Runs(t.Context(), tc.query)
		var names []string
		for _, r := range runs {
			names = append(names, r.Runner)
		}
		if got := strings.Join(names, " "); err != nil || got != tc.want {
			t.Errorf("%s: %q, %v; want %q", name, got, err, tc.want)
		}
	}
}

func TestWhatACrashLostIsMendedOrEnded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "history.db")
	h, _ := open(t, path, history.Options{})
	adopted := play(h, runner.Record{Name: "adopted", Pool: "p", Job: job}, at, time.Second, whole[:8]...)
	play(h, runner.Record{Name: "lost", Pool: "p"}, at, time.Second, whole[:7]...)
	h = reopen(t, h, path)
	if err := h.Settle(t.Context(), []string{"adopted"}); err != nil {
		t.Fatal(err)
	}
	// The next agent meets the runner when it moves on; its slot stays.
	play(h, adopted, at.Add(time.Minute), time.Second, whole[8:]...)
	h = reopen(t, h, path)
	runs, err := h.Runs(t.Context(), api.RunQuery{})
	if err != nil || len(runs) != 2 {
		t.Fatalf("%+v, %v", runs, err)
	}
	for _, r := range runs {
		wantState, wantSlot := runner.Gone, 0
		if r.Runner == "lost" {
			wantState, wantSlot = runner.Idle, 1
		}
		if r.Ended.IsZero() || r.State != wantState || r.Slot != wantSlot {
			t.Errorf("%s: ended %v in %s, slot %d; want %s, slot %d", r.Runner, r.Ended, r.State, r.Slot, wantState, wantSlot)
		}
	}
}

func TestADamagedFileIsMovedAside(t *testing.T) {
	for name, damage := range map[string]func(t *testing.T, path string){
		"no database": func(t *testing.T, path string) { write(t, path, []byte(strings.Repeat("garbage ", 1000))) },
		"torn":        func(t *testing.T, path string) { b := read(t, path); write(t, path, b[:len(b)/2]) },
		"of a later version": func(t *testing.T, path string) {
			b := read(t, path)
			b[63] = 99 // user_version: https://www.sqlite.org/fileformat.html, 1.3
			write(t, path, b)
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "history.db")
			h, _ := open(t, path, history.Options{})
			for i := range 300 {
				play(h, runner.Record{Name: fmt.Sprintf("old%d", i), Pool: "p", Job: job}, at.Add(time.Duration(i)*time.Minute), time.Second, whole...)
			}
			if err := h.Close(); err != nil {
				t.Fatal(err)
			}
			damage(t, path)
			h, said := open(t, path, history.Options{})
			play(h, runner.Record{Name: "new", Pool: "p"}, at, time.Second, whole...)
			// Damage inside is met by whoever reads or writes there.
			for range 3 {
				_, _ = h.Stats(t.Context(), api.RunQuery{})
			}
			if err := h.Close(); err != nil {
				t.Fatal(err)
			}
			h, _ = open(t, path, history.Options{})
			runs, err := h.Runs(t.Context(), api.RunQuery{Limit: 1000})
			if err != nil {
				t.Fatalf("%v; log:\n%s", err, said)
			}
			if len(runs) == 0 || !strings.Contains(said.String(), "moved aside") {
				t.Errorf("%d runs; log:\n%s", len(runs), said)
			}
			aside, err := filepath.Glob(path + ".damaged-*")
			if err != nil || len(aside) == 0 {
				t.Errorf("the old file is gone: %v", err)
			}
		})
	}
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func write(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// A disk that takes nothing must not hold up the agent, and what is lost is
// counted.
func TestEmitNeverWaits(t *testing.T) {
	path := filepath.Join(t.TempDir(), "history.db")
	h, said := open(t, path, history.Options{})
	other, _ := open(t, path, history.Options{}) // holds the file
	release := make(chan struct{})
	held := make(chan struct{})
	var work sync.WaitGroup
	work.Go(func() { history.Hold(other, held, release) })
	<-held
	const many = 20000
	for i := range many {
		rec := runner.Record{Name: fmt.Sprintf("r%d", i), Pool: "p"}
		rec.Move(runner.Preparing, "", at)
		h.Emit(event.Event{Time: at, Kind: event.RunnerMoved, Runner: rec.Name, To: runner.Preparing, Record: &rec})
	}
	close(release)
	work.Wait()
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	h, _ = open(t, path, history.Options{})
	runs, err := h.Runs(t.Context(), api.RunQuery{Limit: many})
	if err != nil || len(runs) == 0 || len(runs) == many {
		t.Errorf("%d of %d were written: %v; log:\n%s", len(runs), many, err, said)
	}
	h2, _ := open(t, filepath.Join(t.TempDir(), "h.db"), history.Options{})
	if err := h2.Close(); err != nil {
		t.Fatal(err)
	}
	rec := runner.Record{Name: "late"}
	h2.Emit(event.Event{Kind: event.RunnerMoved, Runner: "late", Record: &rec})
	if h2.Lost() != 1 {
		t.Errorf("an event after the end counts as %d lost", h2.Lost())
	}
}

func TestAFolderThatIsNotThereIsAnError(t *testing.T) {
	if _, err := history.Open(filepath.Join(t.TempDir(), "no", "h.db"), history.Options{}); err == nil || !strings.Contains(err.Error(), fs.ErrNotExist.Error()) && !strings.Contains(err.Error(), "no such file") {
		t.Errorf("got %v", err)
	}
}

func fill(t testing.TB, h *history.History, runs int, each time.Duration, until time.Time) {
	t.Helper()
	var rows []runner.Record
	for i := range runs {
		from := until.Add(-time.Duration(runs-i) * each)
		rec := runner.Record{Name: fmt.Sprintf("r%06d", i), Pool: fmt.Sprintf("pool%d", i%3), Scope: "octo/demo", Created: from, Job: runner.Job{
			ID: int64(i), Name: "build", Repository: "octo/demo", Workflow: "ci", Conclusion: "success",
			Queued: from, Started: from.Add(time.Duration(1+i%100) * time.Second),
		}}
		if i%50 == 0 {
			rec.Failed, rec.Failure = true, fmt.Sprintf("connecting: still connecting after %dm0s", i%7)
		}
		for n, s := range whole {
			rec.Move(s, "", from.Add(time.Duration(n)*time.Second))
		}
		rows = append(rows, rec)
	}
	if err := errors.Join(history.WriteAll(h, rows), history.ForgetSums(h)); err != nil {
		t.Fatal(err)
	}
}

// Figures are the same whether they come from the sums of hours or from runs.
func TestStatsFromSumsAreThoseOfRuns(t *testing.T) {
	now := time.Now().UTC().Truncate(time.Hour).Add(30 * time.Minute)
	path := filepath.Join(t.TempDir(), "history.db")
	h, _ := open(t, path, history.Options{})
	fill(t, h, 2000, time.Minute, now)
	for _, q := range []api.RunQuery{
		{Since: now.Add(-48 * time.Hour)},
		{Since: now.Add(-20*time.Hour - 17*time.Minute), Until: now.Add(-3*time.Hour - 5*time.Minute)},
		{Since: now.Add(-20 * time.Hour), Pool: "pool1"},
		{Since: now.Add(-40 * time.Minute)},
		{},
	} {
		fromRuns, err := h.Stats(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		if err := history.KeepHouse(h, now); err != nil {
			t.Fatal(err)
		}
		fromSums, err := h.Stats(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		fromSums.Until, fromRuns.Until = time.Time{}, time.Time{}
		if diff := cmp.Diff(fromRuns, fromSums); diff != "" || fromRuns.Runs == 0 {
			t.Errorf("%+v, %d runs (-runs +sums):\n%s", q, fromRuns.Runs, diff)
		}
		if err := history.ForgetSums(h); err != nil {
			t.Fatal(err)
		}
	}
}

func TestStatsAreRight(t *testing.T) {
	now := time.Now().UTC()
	path := filepath.Join(t.TempDir(), "history.db")
	h, _ := open(t, path, history.Options{})
	fill(t, h, 1000, time.Minute, now)
	s, err := h.Stats(t.Context(), api.RunQuery{})
	if err != nil {
		t.Fatal(err)
	}
	if s.Runs != 1000 || s.Jobs != 1000 || s.Failed != 20 || s.Busy != 1000 || s.Conclusions["success"] != 1000 {
		t.Errorf("%+v", s)
	}
	for what, pair := range map[string][2]float64{
		"p50": {s.Queue.P50, 50}, "p90": {s.Queue.P90, 90}, "p99": {s.Queue.P99, 99}, "max": {s.Queue.Max, 100}, "job": {s.Job.P50, 1},
	} {
		if got, want := pair[0], pair[1]; got < want*0.97 || got > want*1.03 {
			t.Errorf("%s is %v, want %v", what, got, want)
		}
	}
	// Failures of one kind are one, whatever their numbers.
	if want := []api.Failure{{Reason: "connecting: still connecting after NmNs", Count: 20}}; cmp.Diff(want, s.Failures) != "" {
		t.Errorf("failures %+v", s.Failures)
	}
}

func TestOldRunsGo(t *testing.T) {
	now := time.Now().UTC()
	path := filepath.Join(t.TempDir(), "history.db")
	h, _ := open(t, path, history.Options{Age: 10 * time.Hour})
	fill(t, h, 1200, time.Minute, now) // 20 hours
	if err := history.KeepHouse(h, now); err != nil {
		t.Fatal(err)
	}
	s, err := h.Stats(t.Context(), api.RunQuery{})
	if err != nil || s.Runs < 600 || s.Runs > 660 {
		t.Errorf("%d runs of 10 h are left: %v", s.Runs, err)
	}
}

func TestTheFileKeepsItsSizeAndTheSumsStay(t *testing.T) {
	now := time.Now().UTC()
	path := filepath.Join(t.TempDir(), "history.db")
	const most = 1 << 20
	h, _ := open(t, path, history.Options{Size: most})
	fill(t, h, 5000, time.Minute, now)
	before, err := h.Stats(t.Context(), api.RunQuery{})
	if err != nil {
		t.Fatal(err)
	}
	if err := history.KeepHouse(h, now); err != nil {
		t.Fatal(err)
	}
	after, err := h.Stats(t.Context(), api.RunQuery{})
	if err != nil || after.Runs != before.Runs || after.Queue != before.Queue {
		t.Errorf("%d runs are told of, %d before; %v", after.Runs, before.Runs, err)
	}
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Size() > most+64<<10 {
		t.Errorf("the file has %d bytes, and may have %d: %v", info.Size(), most, err)
	}
}

// A month at 500 runs an hour; the figure stands in docs/performance.md.
func BenchmarkStatsOfAMonth(b *testing.B) {
	now := time.Now().UTC()
	h, _ := open(b, filepath.Join(b.TempDir(), "history.db"), history.Options{})
	fill(b, h, 360_000, 7200*time.Millisecond, now)
	if err := history.KeepHouse(h, now); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		s, err := h.Stats(context.Background(), api.RunQuery{Since: now.Add(-30 * 24 * time.Hour)})
		if err != nil || s.Runs < 300_000 {
			b.Fatal(s.Runs, err)
		}
	}
}

func BenchmarkTheLatestFailures(b *testing.B) {
	now := time.Now().UTC()
	h, _ := open(b, filepath.Join(b.TempDir(), "history.db"), history.Options{})
	fill(b, h, 360_000, 7200*time.Millisecond, now)
	for b.Loop() {
		runs, err := h.Runs(context.Background(), api.RunQuery{Failed: true, Pool: "pool1", Since: now.Add(-30 * 24 * time.Hour)})
		if err != nil || len(runs) != 100 {
			b.Fatal(len(runs), err)
		}
	}
}

// A month in steps, as the console's plots ask for it.
func BenchmarkSeriesOfAMonth(b *testing.B) {
	now := time.Now().UTC()
	h, _ := open(b, filepath.Join(b.TempDir(), "history.db"), history.Options{})
	fill(b, h, 360_000, 7200*time.Millisecond, now)
	if err := history.KeepHouse(h, now); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		q := api.RunQuery{Since: now.Add(-30 * 24 * time.Hour).Truncate(12 * time.Hour), Until: now}
		if steps, err := h.Series(context.Background(), q, 12*time.Hour); err != nil || len(steps) < 60 {
			b.Fatal(len(steps), err)
		}
	}
}

// Steps add up to what Stats says of the whole time.
func TestStepsAreTheWhole(t *testing.T) {
	now := time.Now().UTC()
	h, _ := open(t, filepath.Join(t.TempDir(), "history.db"), history.Options{})
	fill(t, h, 500, 10*time.Minute, now)
	if err := history.KeepHouse(h, now); err != nil {
		t.Fatal(err)
	}
	for _, step := range []time.Duration{30 * time.Minute, time.Hour, 3 * time.Hour, 24 * time.Hour} {
		q := api.RunQuery{Since: now.Add(-72 * time.Hour).Truncate(step), Until: now}
		whole, err := h.Stats(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		steps, err := h.Series(t.Context(), q, step)
		if err != nil {
			t.Fatal(err)
		}
		runs, jobs := 0, 0
		for _, s := range steps {
			runs, jobs = runs+s.Runs, jobs+s.Jobs
		}
		if runs != whole.Runs || jobs != whole.Jobs || runs < 100 {
			t.Errorf("steps of %v have %d runs and %d jobs, and the whole %d and %d", step, runs, jobs, whole.Runs, whole.Jobs)
		}
	}
}
