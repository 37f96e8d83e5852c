package sparse

import (
	"bytes"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
)

func newFile(t *testing.T, size int64) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	return f
}

func content(t *testing.T, f *os.File) []byte {
	t.Helper()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(io.NewSectionReader(f, 0, info.Size()))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestWriteAtIsAPlainWriteWithHoles(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	const size = 1 << 20
	want := make([]byte, size)
	for range 40 { // islands of data, some of them single bytes
		at := rnd.IntN(size)
		n := min(rnd.IntN(20_000)+1, size-at)
		for i := range n {
			want[at+i] = byte(rnd.Uint32())
		}
	}
	f := newFile(t, size)
	for at := 0; at < size; { // in pieces that respect no block
		n := min(rnd.IntN(100_000)+1, size-at)
		if err := WriteAt(f, want[at:at+n], int64(at)); err != nil {
			t.Fatal(err)
		}
		at += n
	}
	if !bytes.Equal(content(t, f), want) {
		t.Error("the file does not hold what was written")
	}
}

func TestHolesAreKeptAndFound(t *testing.T) {
	const size = 8 << 20
	f := newFile(t, size)
	p := make([]byte, size)
	copy(p[1<<20:], bytes.Repeat([]byte{1}, 1<<20))
	copy(p[6<<20:], bytes.Repeat([]byte{2}, 1<<20))
	if err := WriteAt(f, p, 0); err != nil {
		t.Fatal(err)
	}
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if got := Allocated(info); got > 3<<20 {
		t.Skipf("this file system keeps no holes: %d bytes allocated for 2 MiB of data", got)
	}
	var data int64
	for off := int64(0); off < size; {
		start, end, err := NextData(f, off)
		if err != nil {
			t.Fatal(err)
		}
		if start < size && !IsZero(p[off:start]) {
			t.Errorf("data before %d counted as a hole", start)
		}
		data += end - start
		off = end
	}
	if data != 2<<20 {
		t.Errorf("%d bytes of data found, want 2 MiB", data)
	}
	if start, end, err := NextData(f, size); start != size || end != size || err != nil {
		t.Errorf("at the end: %d, %d, %v", start, end, err)
	}
}

func TestClear(t *testing.T) {
	f := newFile(t, 0)
	want := bytes.Repeat([]byte{7}, 300_000)
	if _, err := f.WriteAt(want, 0); err != nil {
		t.Fatal(err)
	}
	if err := Clear(f, 1000, 250_000); err != nil {
		t.Fatal(err)
	}
	clear(want[1000:251_000])
	if !bytes.Equal(content(t, f), want) {
		t.Error("Clear did not clear exactly its range")
	}
	if err := Clear(f, 5, 0); err != nil {
		t.Error(err)
	}
}

func TestIsZero(t *testing.T) {
	p := make([]byte, 200_000)
	if !IsZero(p) || !IsZero(nil) {
		t.Error("zeros are not zero")
	}
	for _, i := range []int{0, 65535, 65536, 199_999} {
		p[i] = 1
		if IsZero(p) {
			t.Errorf("a one at %d was missed", i)
		}
		p[i] = 0
	}
}
