package logtail_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/mirego/tasuki/internal/base/logtail"
)

func TestRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(path, []byte("0123456789"), 0o600); err != nil {
		t.Fatal(err)
	}
	for most, want := range map[int64]string{4: "6789", 10: "0123456789", 99: "0123456789"} {
		if got, err := logtail.Read(path, most); err != nil || string(got) != want {
			t.Errorf("Read(%d) = %q, %v; want %q", most, got, err, want)
		}
	}
	if _, err := logtail.Read(path+"x", 1); err == nil {
		t.Error("a file that is not there was read")
	}
}

func TestPrintable(t *testing.T) {
	for line, want := range map[string]string{
		"a\tb": "a b", "\x1b[31mred\x07": "[31mred", "\x9b2J\xff": "2J", "naïve – ok": "naïve – ok",
	} {
		if got := logtail.Printable(line); got != want {
			t.Errorf("Printable(%q) = %q, want %q", line, got, want)
		}
	}
}
