package agent

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mirego/tasuki/internal/guest"
)

func TestOldLogsGo(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	now := time.Now()
	for name, age := range map[string]time.Duration{
		"t-live.log": 100 * time.Hour, "t-live.log.1": 100 * time.Hour, "t-ancient.log": 50 * time.Hour,
		"t-new.log": time.Hour, "t-newer.log": 90 * time.Minute, "t-newer.console": time.Minute, "t-third.log": 2 * time.Hour,
	} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, now.Add(-age), now.Add(-age)); err != nil {
			t.Fatal(err)
		}
	}
	if err := sweepLogs(dir, map[string]bool{"t-live": true}, 2, now.Add(-24*time.Hour)); err != nil {
		t.Fatal(err)
	}
	var left []string
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		left = append(left, e.Name())
	}
	slices.Sort(left)
	if diff := cmp.Diff([]string{"t-live.log", "t-live.log.1", "t-new.log", "t-newer.console", "t-newer.log"}, left); diff != "" {
		t.Errorf("logs left (-want +got):\n%s", diff)
	}
}

func TestALogIsKeptUpToALength(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "log")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var read []string
	log := &keptLog{file: f, room: 8, lines: guest.NewLines(func(line string) { read = append(read, line) })}
	for _, piece := range []string{"one\ntw", "o\nthree", "\nfour\n"} {
		if n, err := log.Write([]byte(piece)); n != len(piece) || err != nil {
			t.Fatalf("Write(%q) = %d, %v", piece, n, err)
		}
	}
	if b, _ := os.ReadFile(path); string(b) != "one\ntwo\n" {
		t.Errorf("kept %q, want the first 8 bytes", b)
	}
	if diff := cmp.Diff([]string{"one", "two", "three", "four"}, read); diff != "" {
		t.Errorf("lines read (-want +got):\n%s", diff)
	}
}

func TestTheLastLineOfALog(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(path, []byte(strings.Repeat("x", 1<<20)+"\nthe end\n\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := lastLine(path); got != "the end" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
}
