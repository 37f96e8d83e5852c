package journal_test

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mirego/tasuki/internal/journal"
	"github.com/mirego/tasuki/internal/runner"
)

func open(t *testing.T, dir string) (*journal.Journal, *bytes.Buffer) {
	t.Helper()
	j, err := journal.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	j.Log = slog.New(slog.NewTextHandler(&log, nil))
	return j, &log
}

func record(name string) runner.Record {
	at := time.Date(2026, 11, 23, 20, 0, 0, 5, time.UTC)
	r := runner.Record{Name: name, Pool: "demo", Created: at, RemoteID: 7, Asked: true, Image: "sha256:00"}
	r.Move(runner.Preparing, "the pool wants one", at)
	r.Move(runner.Requesting, "", at.Add(time.Second))
	return r
}

func put(t *testing.T, j *journal.Journal, r runner.Record) {
	t.Helper()
	if err := j.Put(r); err != nil {
		t.Fatal(err)
	}
}

func all(t *testing.T, j *journal.Journal) []runner.Record {
	t.Helper()
	got, err := j.All()
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestARecordOutlivesTheProcess(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "journal")
	j, _ := open(t, dir)
	b, a := record("tasuki-b"), record("tasuki-a")
	put(t, j, b)
	put(t, j, a)
	b.Move(runner.Cloning, "", b.Since.Add(time.Second))
	b.Job = runner.Job{ID: 3, Name: "build", Queued: b.Created}
	put(t, j, b)

	again, _ := open(t, dir)
	if diff := cmp.Diff([]runner.Record{a, b}, all(t, again)); diff != "" {
		t.Errorf("records after a restart (-want +got):\n%s", diff)
	}
	for range 2 {
		if err := again.Delete("tasuki-a"); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff([]runner.Record{b}, all(t, again)); diff != "" {
		t.Errorf("records after Delete (-want +got):\n%s", diff)
	}
	info, err := os.Stat(filepath.Join(dir, "tasuki-b.json"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v; want 0600", info.Mode(), err)
	}
}

// What kill -9 or a power loss can leave, and what people put there.
func TestCrashShapesAreSetAsideAndNeverFatal(t *testing.T) {
	whole := string(mustRead(t))
	tests := []struct {
		name, file, content, why string
	}{
		{"torn", "tasuki-x.json", whole[:len(whole)/2], "torn"},
		{"empty", "tasuki-x.json", "", "empty"},
		{"zeros of a lost block", "tasuki-x.json", strings.Repeat("\x00", 512), "empty"},
		{"another's record", "tasuki-x.json", whole, `record of runner \"tasuki-a\"`},
		{"a state of a newer version", "tasuki-a.json", strings.Replace(whole, `"state": "requesting"`, `"state": "thawing"`, 1), "thawing"},
		{"not JSON", "tasuki-x.json", "hello", "torn or no JSON"},
		{"an editor's copy", "tasuki-a.json~", whole, "not a file named"},
		{"too long", "tasuki-x.json", strings.Repeat(" ", 2<<20), "no record is so long"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			j, log := open(t, dir)
			put(t, j, record("tasuki-good"))
			write(t, filepath.Join(dir, tt.file), tt.content)
			write(t, filepath.Join(dir, tt.file+".bad"), "an earlier one")

			if diff := cmp.Diff([]runner.Record{record("tasuki-good")}, all(t, j)); diff != "" {
				t.Errorf("records (-want +got):\n%s", diff)
			}
			if !strings.Contains(log.String(), tt.why) {
				t.Errorf("log %q does not say %q", log, tt.why)
			}
			kept, err := os.ReadFile(filepath.Join(dir, tt.file+".2.bad"))
			if err != nil || string(kept) != tt.content {
				t.Errorf("the file was not kept: %.40q, %v", kept, err)
			}
			log.Reset()
			if all(t, j); log.Len() != 0 {
				t.Errorf("reported twice: %s", log)
			}
		})
	}
}

func TestOpenSweepsWhatACrashLeftOfAWrite(t *testing.T) {
	dir := t.TempDir()
	j, _ := open(t, dir)
	put(t, j, record("tasuki-a"))
	write(t, filepath.Join(dir, ".tasuki-a.json.123.tmp"), "{")
	j, log := open(t, dir)
	if got := all(t, j); len(got) != 1 || log.Len() != 0 {
		t.Errorf("got %v, log %q", got, log)
	}
	names := listing(t, dir)
	if diff := cmp.Diff([]string{"tasuki-a.json"}, names); diff != "" {
		t.Errorf("folder (-want +got):\n%s", diff)
	}
}

func TestFieldsOfANewerVersionAreIgnored(t *testing.T) {
	dir := t.TempDir()
	j, _ := open(t, dir)
	write(t, filepath.Join(dir, "tasuki-a.json"), strings.Replace(string(mustRead(t)), "{", `{"new": 1,`, 1))
	if got := all(t, j); len(got) != 1 {
		t.Errorf("got %v, want the record", got)
	}
}

func TestANameCannotLeaveTheFolder(t *testing.T) {
	j, _ := open(t, t.TempDir())
	for _, name := range []string{"", "..", "../x", "a/b", "X", ".x"} {
		if err := j.Put(runner.Record{Name: name}); err == nil {
			t.Errorf("Put took the name %q", name)
		}
		if err := j.Delete(name); err == nil {
			t.Errorf("Delete took the name %q", name)
		}
	}
}

// A folder that cannot be read must not look like a host without runners:
// every guest would be an orphan.
func TestAnUnreadableFolderIsAnError(t *testing.T) {
	dir := t.TempDir()
	j, _ := open(t, dir)
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if got, err := j.All(); err == nil {
		t.Errorf("got %v, want an error", got)
	}
	if err := j.Put(record("tasuki-a")); err == nil {
		t.Error("Put into nothing succeeded")
	}
}

func mustRead(t *testing.T) []byte {
	t.Helper()
	dir := t.TempDir()
	j, _ := open(t, dir)
	put(t, j, record("tasuki-a"))
	b, err := os.ReadFile(filepath.Join(dir, "tasuki-a.json"))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func listing(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	slices.Sort(names)
	return names
}
