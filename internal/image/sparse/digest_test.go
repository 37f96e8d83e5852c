package sparse

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"testing"
)

func digestOf(b []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(b)) }

func TestCopyKeepsHolesAndHashes(t *testing.T) {
	src := newFile(t, 3<<20)
	content := make([]byte, 3<<20)
	copy(content[700_000:], bytes.Repeat([]byte("data "), 40_000))
	copy(content[2<<20:], "more")
	if err := WriteAt(src, content, 0); err != nil {
		t.Fatal(err)
	}
	const off, n = 4096 + 17, 2<<20 + 999
	dst := newFile(t, 4<<20)
	want := content[off : off+n]
	got, err := Copy(dst, 8192, src, off, n)
	if err != nil || got != digestOf(want) {
		t.Errorf("Copy = %s, %v, want %s", got, err, digestOf(want))
	}
	there := make([]byte, n)
	if _, err := dst.ReadAt(there, 8192); err != nil || !bytes.Equal(there, want) {
		t.Errorf("the copy differs, %v", err)
	}
	info, err := dst.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if got := Allocated(info); got > 400_000 {
		t.Errorf("the copy takes %d bytes", got)
	}
	if got, err := Digest(dst, 8192, n); err != nil || got != digestOf(want) {
		t.Errorf("Digest = %s, %v", got, err)
	}
	got, data, err := Scan(src, 0, 3<<20)
	if err != nil || got != digestOf(content) || data != DataSize(content) || data < 200_000 || data > 220_000 {
		t.Errorf("Scan = %s, %d, %v; %d bytes of data", got, data, err, DataSize(content))
	}
}

func TestCopyTellsWhichSideFailed(t *testing.T) {
	f := newFile(t, 4096)
	_, err := Copy(f, 0, bytes.NewReader([]byte("short")), 0, 4096)
	if e, ok := errors.AsType[*ReadError](err); !ok || !errors.Is(e, io.ErrUnexpectedEOF) {
		t.Errorf("a short source: %v", err)
	}
	boom := errors.New("boom")
	_, err = Copy(badWriter{boom}, 0, bytes.NewReader(bytes.Repeat([]byte{1}, 4096)), 0, 4096)
	if _, ok := errors.AsType[*ReadError](err); ok || !errors.Is(err, boom) {
		t.Errorf("a failing target: %v", err)
	}
}

type badWriter struct{ err error }

func (w badWriter) WriteAt([]byte, int64) (int, error) { return 0, w.err }

// Where the file system cannot clone, it says so and leaves nothing behind;
// where it can, the copy is one.
func TestCloneFile(t *testing.T) {
	src := newFile(t, 1<<20)
	if err := WriteAt(src, []byte("content"), 5000); err != nil {
		t.Fatal(err)
	}
	dst := t.TempDir() + "/clone"
	err := CloneFile(dst, src.Name())
	sum, readErr := fileDigest(dst)
	if err != nil {
		if readErr == nil {
			t.Error("a failed clone left a file")
		}
		return
	}
	if want, _ := fileDigest(src.Name()); readErr != nil || sum != want {
		t.Errorf("the clone differs: %v", readErr)
	}
	if err := CloneFile(dst, src.Name()); err == nil {
		t.Error("a clone replaced a file that was there")
	}
}

func fileDigest(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	return Digest(f, 0, info.Size())
}
