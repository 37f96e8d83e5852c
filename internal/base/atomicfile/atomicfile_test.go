package atomicfile_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/mirego/tasuki/internal/base/atomicfile"
)

func TestWriteReplacesAndSetsTheMode(t *testing.T) {
	path := filepath.Join(t.TempDir(), "record.json")
	for _, content := range []string{"a long first content", "short"} {
		if err := atomicfile.Write(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		if err != nil || string(got) != content {
			t.Fatalf("read %q, %v; want %q", got, err, content)
		}
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, want 0600", info.Mode().Perm())
	}
}

func TestAFailedWriteLeavesTheOldContentAndNoDebris(t *testing.T) {
	dir := t.TempDir()
	target := filepath.Join(dir, "busy")
	if err := os.MkdirAll(filepath.Join(target, "child"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := atomicfile.Write(target, []byte("x"), 0o600); err == nil {
		t.Fatal("writing over a folder succeeded")
	}
	left, _ := os.ReadDir(dir)
	if len(left) != 1 {
		t.Errorf("%d entries left, want the folder alone: %v", len(left), left)
	}
}

func TestSweepTakesWhatACrashLeft(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{".r.json.123.tmp", "r.json"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := atomicfile.Sweep(dir); err != nil {
		t.Fatal(err)
	}
	left, _ := os.ReadDir(dir)
	if len(left) != 1 || left[0].Name() != "r.json" {
		t.Errorf("left %v, want r.json alone", left)
	}
	if err := atomicfile.Remove(filepath.Join(dir, "never-there")); err != nil {
		t.Errorf("removing a missing file: %v", err)
	}
}
