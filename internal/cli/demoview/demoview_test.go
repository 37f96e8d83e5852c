package demoview

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mirego/tasuki/internal/event"
	"github.com/mirego/tasuki/internal/runner"
)

var at = time.Date(2026, 11, 23, 20, 0, 0, 0, time.UTC)

// clock is a time that only the test moves.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time { c.mu.Lock(); defer c.mu.Unlock(); return c.now }
func (c *clock) to(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = at.Add(d)
}

// screen is a terminal that knows what a View sends.
type screen struct {
	mu   sync.Mutex
	rows []string
	row  int
	raw  strings.Builder
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.raw.Write(p)
	text := string(p)
	for text != "" {
		var up int
		switch {
		case strings.HasPrefix(text, "\x1b[J"):
			s.rows, text = s.rows[:s.row], text[3:]
		case strings.HasPrefix(text, "\x1b["):
			_, _ = fmt.Sscanf(text, "\x1b[%dA", &up)
			s.row -= up
			text = text[strings.IndexByte(text, 'A')+1:]
		case text[0] == '\r':
			text = text[1:]
		default:
			line, rest, _ := strings.Cut(text, "\n")
			s.rows, s.row, text = append(s.rows[:s.row], line), s.row+1, rest
		}
	}
	return len(p), nil
}

func (s *screen) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.rows, "\n")
}

var wholeLife = []runner.State{runner.Preparing, runner.Requesting, runner.Cloning, runner.Connecting, runner.Launching,
	runner.Registering, runner.Idle, runner.Busy, runner.Leaving, runner.Stopping, runner.Deleting, runner.Gone}

func move(v *View, rec *runner.Record, to runner.State, d time.Duration) {
	from := rec.State
	if !rec.Move(to, "", at.Add(d)) {
		panic(fmt.Sprintf("no way from %q to %q", from, to))
	}
	copied := *rec
	v.Emit(event.Event{Kind: event.RunnerMoved, Runner: rec.Name, From: from, To: to, Record: &copied})
}

func newView(t *testing.T, terminal bool) (*View, *screen, *clock) {
	t.Helper()
	s, c := &screen{}, &clock{now: at}
	v := New(Options{Out: s, Terminal: terminal, Width: func() int { return 100 }, Now: c.Now})
	t.Cleanup(v.Close)
	return v, s, c
}

func redraw(v *View) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.draw()
}

func TestATerminalShowsOneLinePerRunnerInPlace(t *testing.T) {
	v, s, c := newView(t, true)
	task := v.Task("image", "pushes to the registry")
	task.Progress(50_000_000, 100_000_000)
	c.to(2 * time.Second)
	redraw(v)
	want := "  ⠦ image      ████████████░░░░░░░░░░░░  50 %  50 MB of 100 MB  2.0 s  pushes to the registry"
	if diff := cmp.Diff(want, s.text()); diff != "" {
		t.Errorf("screen (-want +got):\n%s", diff)
	}
	task.Done("pushed, 100 MB")

	a := runner.Record{Name: "demo-1", Created: at}
	b := runner.Record{Name: "demo-2", Created: at}
	move(v, &a, runner.Preparing, 2*time.Second)
	move(v, &b, runner.Preparing, 2*time.Second)
	move(v, &a, runner.Requesting, 3*time.Second)
	move(v, &a, runner.Cloning, 3*time.Second)
	move(v, &a, runner.Connecting, 4*time.Second)
	v.SetJobs([]Job{{ID: 1, Name: "build", Status: "queued", Queued: at}, {ID: 2, Name: "test", Status: "pending"}})
	c.to(10 * time.Second)
	redraw(v)
	redraw(v)
	want = strings.Join([]string{
		"  ✓ image      pushed, 100 MB  2.0 s",
		"  demo-1            4/10  connecting  6.0 s      the guest boots",
		"  demo-2            1/10  preparing   8.0 s      takes the newest image",
		"  jobs: 0 running, 2 waiting, 0 of 2 done   runners: 2   10.0 s",
	}, "\n")
	if diff := cmp.Diff(want, s.text()); diff != "" {
		t.Errorf("screen (-want +got):\n%s", diff)
	}

	move(v, &b, runner.Leaving, 11*time.Second)
	move(v, &b, runner.Stopping, 11*time.Second)
	move(v, &b, runner.Deleting, 11*time.Second)
	move(v, &b, runner.Gone, 11*time.Second)
	v.SetJobs([]Job{
		{ID: 1, Name: "build", Status: "in_progress", Runner: "demo-1", Queued: at, Started: at.Add(9 * time.Second)},
		{ID: 2, Name: "test", Status: "completed", Conclusion: "skipped"},
	})
	c.to(12 * time.Second)
	redraw(v)
	want = strings.Join([]string{
		"  ✓ image      pushed, 100 MB  2.0 s",
		`  0:10.0  job              "build" started on demo-1, 9.0 s after it was queued`,
		`  0:10.0  job              "test" skipped`,
		"  demo-1            4/10  connecting  8.0 s      the guest boots",
		"  jobs: 1 running, 0 waiting, 1 of 2 done   runners: 1   12.0 s",
	}, "\n")
	if diff := cmp.Diff(want, s.text()); diff != "" {
		t.Errorf("screen (-want +got):\n%s", diff)
	}
	v.Close()
	if strings.Contains(s.text(), "demo-1            4/10") || !strings.Contains(s.text(), `"test" skipped`) {
		t.Errorf("after Close:\n%s", s.text())
	}
}

func TestElsewhereEachTransitionIsALine(t *testing.T) {
	v, s, c := newView(t, false)
	task := v.Task("image", "builds Debian 12")
	for n := range 100 {
		c.to(time.Duration(n) * 250 * time.Millisecond)
		task.Progress(int64(n)*1e6, 100e6)
	}
	task.Done("built")
	a := runner.Record{Name: "demo-1", Created: at}
	move(v, &a, runner.Preparing, 26*time.Second)
	v.Emit(event.Event{Kind: event.PoolWaits, Reason: "both slots are taken"})
	v.Emit(event.Event{Kind: event.PoolWaits, Reason: "both slots are taken"})
	a.Failed, a.Failure = true, "connecting: still connecting after 5m0s"
	move(v, &a, runner.Leaving, 26*time.Second)
	want := strings.Join([]string{
		"  0:10.0  image            40 % of 100 MB",
		"  0:20.0  image            80 % of 100 MB",
		"  ✓ image      built  25 s",
		"  0:24.8  demo-1            1/10 preparing   takes the newest image",
		"  0:24.8  pool             waits: both slots are taken",
		"  0:24.8  demo-1           gave up: connecting: still connecting after 5m0s",
		"  0:24.8  demo-1            7/10 leaving     leaves GitHub",
	}, "\n")
	if diff := cmp.Diff(want, s.text()); diff != "" {
		t.Errorf("lines (-want +got):\n%s", diff)
	}
	if strings.Contains(s.raw.String(), "\x1b") {
		t.Error("escapes where there is no terminal")
	}
}

func TestReport(t *testing.T) {
	v, s, _ := newView(t, false)
	v.Close()
	first := runner.Record{Name: "demo-1", Created: at}
	for i, state := range wholeLife {
		first.Move(state, "", at.Add(time.Duration(i)*time.Second))
	}
	second := runner.Record{Name: "demo-2", Created: at.Add(10500 * time.Millisecond), Failed: true, Failure: "connecting: it never booted"}
	second.Move(runner.Preparing, "", second.Created)
	second.Move(runner.Leaving, "", second.Created.Add(time.Second))
	var long strings.Builder
	for n := range 100 {
		fmt.Fprintf(&long, "2026-11-23T20:00:00.1234567Z line %d\n", n)
	}
	v.Report(Report{
		Jobs: []Job{
			{ID: 1, Name: "build", Run: "relay", Status: "completed", Conclusion: "failure", Runner: "demo-1", LogFile: "/tmp/build.log",
				Queued: at, Started: at.Add(7 * time.Second), Completed: at.Add(8 * time.Second),
				Steps: []Step{
					{Name: "Run make", Conclusion: "success", Took: time.Second, Log: long.String()},
					{Name: "Run test", Conclusion: "failure", Took: time.Second, Log: "2026-11-23T20:00:00.1Z \x1b[31mred\x1b[0m\x1b]0;title\x07 \x1b[2Jwiped\ttab\a\n2026-11-23T20:00:00.1Z ##[error]it is 41\n"},
				}},
			{ID: 2, Name: "deploy", Run: "relay", Status: "completed", Conclusion: "skipped", Reason: "the job that it needs failed"},
		},
		Runners: []runner.Record{first, second},
		Left:    []Left{{What: "disk"}, {What: "guest", Found: []string{"demo-2"}}, {What: "registration", Err: errors.New("no answer")}},
	})
	got := s.text()
	for _, want := range []string{
		"Jobs of relay\n\n  ✗ build                     failure, queued → started 7.0 s, ran 1.0 s, on demo-1\n      ✓ Run make ",
		"          │ line 3\n          │ … 84 lines left out; the whole log: /tmp/build.log\n          │ line 88\n",
		"          │ red wiped    tab\n          │ it is 41\n",
		"  – deploy                    skipped, the job that it needs failed\n",
		"         image credential guest channel runner   job leave shutdown delete again   all  did\n",
		"  demo-1   1.0        1.0   1.0     1.0    2.0   2.0   1.0      1.0    1.0   0.5  11.0  \"build\"\n",
		"failed: connecting: it never booted\n",
		"Left behind\n  ✓ no disk\n  ✗ guest: demo-2\n  ✗ registration: nobody could look: no answer",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("the report lacks\n%s\nit is\n%s", want, got)
		}
	}
	if strings.ContainsAny(got, "\x1b\a") {
		t.Error("a log's control characters reach the terminal")
	}
}

// A table that wraps cannot be read: where it does not fit, its heads are
// shortened and what has no fixed length goes below.
func TestTheReportOnANarrowTerminal(t *testing.T) {
	for columns, want := range map[int][]string{
		80: {
			"  ✓ build the left one of 2 \n    success, queued → started 7.0 s, ran 1.0 s, on demo-yv4w2u\n",
			"              image crede guest chann runne   job leave shutd delet again   all\n",
			"  demo-yv4w2u   1.0   1.0   1.0   1.0   2.0   2.0   1.0   1.0   1.0     –  11.0\n               \"build the left one of 2\"\n",
		},
		120: {
			"  ✓ build the left one of 2   success, queued → started 7.0 s, ran 1.0 s, on demo-yv4w2u\n",
			"              image credential guest channel runner   job leave shutdown delete again   all  did\n",
			"  demo-yv4w2u   1.0        1.0   1.0     1.0    2.0   2.0   1.0      1.0    1.0     –  11.0  \"build the left one of 2\"\n",
		},
	} {
		s, c := &screen{}, &clock{now: at}
		v := New(Options{Out: s, Width: func() int { return columns }, Now: c.Now})
		rec := runner.Record{Name: "demo-yv4w2u", Created: at}
		for i, state := range wholeLife {
			rec.Move(state, "", at.Add(time.Duration(i)*time.Second))
		}
		v.Report(Report{
			Jobs: []Job{{ID: 1, Name: "build the left one of 2", Run: "relay", Status: "completed", Conclusion: "success",
				Runner: rec.Name, Queued: at, Started: at.Add(7 * time.Second), Completed: at.Add(8 * time.Second)}},
			Runners: []runner.Record{rec},
		})
		for _, line := range want {
			if !strings.Contains(s.text(), line) {
				t.Errorf("at %d columns the report lacks\n%s\nit is\n%s", columns, line, s.text())
			}
		}
		for line := range strings.Lines(s.text()) {
			if got := len([]rune(strings.TrimRight(line, "\n"))); got > columns {
				t.Errorf("%d columns on a terminal of %d: %s", got, columns, line)
			}
		}
		v.Close()
	}
}

func TestWordsForAmounts(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "0.0 s", 440 * time.Millisecond: "0.4 s", 38400 * time.Millisecond: "38 s", 125 * time.Second: "2 min 05 s",
	} {
		if got := seconds(d); got != want {
			t.Errorf("%v: %q, want %q", d, got, want)
		}
	}
	for n, want := range map[int64]string{12: "12 B", 1_250_000: "1.2 MB", 412_000_000: "412 MB", 20_000_000_000: "20.0 GB"} {
		if got := bytes(n); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
	if got := cut("abcdef", 4); got != "abc…" {
		t.Errorf("cut: %q", got)
	}
}
