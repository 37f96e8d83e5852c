package proc

import (
	"errors"
	"io/fs"
	"os"
	"slices"
	"testing"
)

func TestArgs(t *testing.T) {
	got, err := Args(os.Getpid())
	if err != nil || !slices.Equal(got, os.Args) {
		t.Errorf("Args of this process: %q, %v; want %q", got, err, os.Args)
	}
	if _, err := Args(1 << 30); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Args of no process: %v, want fs.ErrNotExist", err)
	}
}
