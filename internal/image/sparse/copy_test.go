package sparse

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func TestCopyFileKeepsBytesAndHoles(t *testing.T) {
	dir := t.TempDir()
	src, dst := filepath.Join(dir, "src"), filepath.Join(dir, "dst")
	f, err := os.Create(src)
	if err != nil {
		t.Fatal(err)
	}
	const size = 8 << 20
	if err := errors.Join(f.Truncate(size), WriteAt(f, bytes.Repeat([]byte("data"), 1<<10), 1<<20), WriteAt(f, []byte("end"), size-3), f.Close()); err != nil {
		t.Fatal(err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := CopyFile(ended, dst, src); !errors.Is(err, context.Canceled) {
		t.Errorf("after the end of its context: got %v", err)
	}
	if _, err := os.Stat(dst); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a copy that was called off is there: %v", err)
	}
	if err := CopyFile(t.Context(), dst, src); err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile(src)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(dst); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes, %v; they differ", len(got), err)
	}
	info, err := os.Stat(dst)
	if err != nil || info.Mode().Perm() != 0o600 || Allocated(info) > 1<<20 {
		t.Errorf("mode %v, %d bytes allocated, %v", info.Mode(), Allocated(info), err)
	}
	if err := CopyFile(t.Context(), dst, src); !errors.Is(err, fs.ErrExist) {
		t.Errorf("onto a file that is there: got %v", err)
	}
}
