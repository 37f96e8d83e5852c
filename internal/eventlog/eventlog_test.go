package eventlog_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mirego/tasuki/internal/event"
	"github.com/mirego/tasuki/internal/eventlog"
	"github.com/mirego/tasuki/internal/runner"
)

var at = time.Date(2026, 11, 23, 20, 0, 0, 0, time.UTC)

func moved(n int) event.Event {
	return event.Event{Time: at.Add(time.Duration(n) * time.Second), Kind: event.RunnerMoved,
		Runner: fmt.Sprintf("tasuki-%d", n), From: runner.Idle, To: runner.Busy, Took: 1.5}
}

func open(t *testing.T, dir string, opt eventlog.Options) *eventlog.Log {
	t.Helper()
	l, err := eventlog.Open(dir, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func shut(t *testing.T, l *eventlog.Log) {
	t.Helper()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, dir string, since time.Time) (got []event.Event, bad []error) {
	t.Helper()
	for e, err := range eventlog.Read(dir, since) {
		if err != nil {
			bad = append(bad, err)
			continue
		}
		got = append(got, e)
	}
	return got, bad
}

func TestEventsAreReadBackInOrderAndSince(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "events")
	if got, bad := read(t, dir, time.Time{}); got != nil || bad != nil {
		t.Errorf("before the first: %v, %v", got, bad)
	}
	l := open(t, dir, eventlog.Options{})
	for n := range 3 {
		l.Emit(moved(n))
	}
	shut(t, l)
	l = open(t, dir, eventlog.Options{}) // a restart appends
	l.Emit(moved(3))
	shut(t, l)

	got, bad := read(t, dir, at.Add(time.Second))
	if diff := cmp.Diff([]event.Event{moved(1), moved(2), moved(3)}, got); diff != "" || bad != nil {
		t.Errorf("events (-want +got):\n%s, errors %v", diff, bad)
	}
	info, err := os.Stat(filepath.Join(dir, "events.jsonl"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v; want 0600", info.Mode(), err)
	}
	l.Emit(moved(4)) // after Close: counted, no panic
	if l.Lost() != 1 {
		t.Errorf("lost %d, want 1", l.Lost())
	}
}

func TestIncidentLogNeverRotated(t *testing.T) {
	dir := t.TempDir()
	const most = 1000
	l := open(t, dir, eventlog.Options{MaxBytes: most, MaxFiles: 3})
	for n := range 200 {
		l.Emit(moved(n))
	}
	shut(t, l)
	var names []string
	files, _ := os.ReadDir(dir)
	for _, f := range files {
		names = append(names, f.Name())
		if info, err := f.Info(); err != nil || info.Size() > most || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", f.Name(), info, err)
		}
	}
	if diff := cmp.Diff([]string{"events.jsonl", "events.jsonl.1", "events.jsonl.2"}, names); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	got, bad := read(t, dir, time.Time{})
	if len(bad) != 0 || len(got) == 0 {
		t.Fatalf("%d events, errors %v", len(got), bad)
	}
	for i, e := range got { // the newest, without a gap
		if diff := cmp.Diff(moved(200-len(got)+i), e); diff != "" {
			t.Fatalf("event %d (-want +got):\n%s", i, diff)
		}
	}
	if l.Lost() != 0 {
		t.Errorf("lost %d", l.Lost())
	}

	l = open(t, dir, eventlog.Options{MaxBytes: most, MaxFiles: 1}) // fewer are wanted now
	for n := range 20 {
		l.Emit(moved(n))
	}
	shut(t, l)
	if files, _ := filepath.Glob(filepath.Join(dir, "*")); len(files) != 1 {
		t.Errorf("files %v, want one", files)
	}
}

func TestIncidentClockZoneGuess(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, eventlog.Options{})
	e := moved(0)
	e.Time = at.In(time.FixedZone("Montreal", -5*3600))
	l.Emit(e)
	shut(t, l)
	text, _ := os.ReadFile(filepath.Join(dir, "events.jsonl"))
	if !bytes.Contains(text, []byte(`"time":"2026-11-23T20:00:00Z"`)) {
		t.Errorf("not in UTC: %s", text)
	}
	got, _ := read(t, dir, at)
	if diff := cmp.Diff([]event.Event{moved(0)}, got); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

func TestATornLineSpoilsNoOther(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, eventlog.Options{})
	l.Emit(moved(0))
	shut(t, l)
	path := filepath.Join(dir, "events.jsonl")
	text, _ := os.ReadFile(path)
	torn := append(text, text[:len(text)/2]...)
	torn = append(torn, []byte("\n"+strings.Repeat("x", 3<<20)+"\n{")...)
	if err := os.WriteFile(path, torn, 0o600); err != nil {
		t.Fatal(err)
	}
	l = open(t, dir, eventlog.Options{})
	l.Emit(moved(1))
	shut(t, l)
	got, bad := read(t, dir, time.Time{})
	if diff := cmp.Diff([]event.Event{moved(0), moved(1)}, got); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	if len(bad) != 3 || !strings.Contains(bad[0].Error(), "events.jsonl:2:") {
		t.Errorf("errors %v, want three, the first at line 2", bad)
	}
	for range eventlog.Read(dir, time.Time{}) {
		break // a reader may have enough
	}
}

// A disk that takes nothing costs events, is said once, and heals.
func TestAFailingDiskIsReportedOnceAndCounted(t *testing.T) {
	dir := t.TempDir()
	var log bytes.Buffer
	l := open(t, dir, eventlog.Options{MaxBytes: 400, MaxFiles: 2, Log: slog.New(slog.NewTextHandler(&log, nil))})
	l.Emit(moved(0))
	// What stands in the way of the rotation.
	if err := os.MkdirAll(filepath.Join(dir, "events.jsonl.1", "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	for n := range 50 {
		l.Emit(moved(n))
	}
	shut(t, l)
	if l.Lost() == 0 || strings.Count(log.String(), "event log is not written") != 1 {
		t.Errorf("lost %d, log %s", l.Lost(), &log)
	}

	if err := os.RemoveAll(filepath.Join(dir, "events.jsonl.1")); err != nil {
		t.Fatal(err)
	}
	l = open(t, dir, eventlog.Options{MaxBytes: 400, MaxFiles: 2})
	l.Emit(moved(99))
	shut(t, l)
	got, _ := read(t, dir, time.Time{})
	if len(got) == 0 || got[len(got)-1].Runner != "tasuki-99" {
		t.Errorf("got %v after the disk healed", got)
	}
}

func TestReadWhileWriting(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, eventlog.Options{MaxBytes: 2000, MaxFiles: 50})
	for n := range 300 {
		l.Emit(moved(n))
		if n%20 != 0 {
			continue
		}
		got, _ := read(t, dir, time.Time{})
		for i := 1; i < len(got); i++ {
			if !got[i].Time.Equal(got[i-1].Time.Add(time.Second)) {
				t.Fatalf("after %s comes %s", got[i-1].Runner, got[i].Runner)
			}
		}
	}
}
