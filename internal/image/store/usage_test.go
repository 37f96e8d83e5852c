package store

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mirego/tasuki/internal/image"
	"github.com/mirego/tasuki/internal/image/sparse"
	"github.com/mirego/tasuki/internal/image/tartfmt"
	"github.com/mirego/tasuki/internal/image/tartfmt/tartfmttest"
)

const testChunk = 64 << 10

// add makes an image whose disk consists of chunks of one letter each; a space
// is a hole.
func add(t *testing.T, s *Store, letters string) image.Local {
	t.Helper()
	disk := []byte{}
	for _, c := range []byte(letters) {
		if c == ' ' {
			c = 0
		}
		disk = append(disk, []byte(strings.Repeat(string(rune(c)), testChunk))...)
	}
	src := tartfmttest.Image{
		Disk: disk, ChunkSize: testChunk, Config: []byte(`{"version":1}`), NVRAM: []byte("variables of " + letters),
		OCIConfig: tartfmt.EncodeOCIConfig(map[string]string{image.LabelKernelDigest: tartfmttest.Digest([]byte("kernel"))}),
	}
	manifest, _ := tartfmttest.Write(src)
	p, err := s.Begin(t.Context(), tartfmttest.Digest(manifest), nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{FileManifest: manifest, FileConfig: src.Config, FileNVRAM: src.NVRAM, FileOCIConfig: src.OCIConfig, FileKernel: []byte("kernel")} {
		if err := os.WriteFile(filepath.Join(p.Dir(), name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.Create(filepath.Join(p.Dir(), FileDisk))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Truncate(int64(len(disk))), sparse.WriteAt(f, disk, 0), f.Close()); err != nil {
		t.Fatal(err)
	}
	img, err := p.Commit(image.Local{})
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// used sets when an image was used last.
func used(t *testing.T, img image.Local, hour int) {
	t.Helper()
	at := time.Date(2026, 1, 1, hour, 0, 0, 0, time.UTC)
	if err := os.Chtimes(img.Dir, at, at); err != nil {
		t.Fatal(err)
	}
}

func TestUsage(t *testing.T) {
	s := open(t)
	a, b := add(t, s, "ab cc"), add(t, s, "xb  c")
	for _, tag := range []string{"localhost/r:v2", "localhost/r:v1"} {
		if err := s.Remember(mustRef(t, tag), a.Digest); err != nil {
			t.Fatal(err)
		}
	}
	used(t, a, 1)
	used(t, b, 1)
	release, err := s.Hold(b.Digest)
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	usage, err := s.Usage()
	if err != nil {
		t.Fatal(err)
	}
	for _, img := range usage {
		if img.Shared != 2*testChunk {
			t.Errorf("%s shares %d bytes, want %d", img.Digest, img.Shared, 2*testChunk)
		}
		if img.Size < 3*testChunk || img.Size > 6*testChunk {
			t.Errorf("%s takes %d bytes", img.Digest, img.Size)
		}
		held := img.Digest == b.Digest
		if img.InUse != held || (time.Since(img.LastUsed) < time.Hour) != held {
			t.Errorf("%s: in use %v, last used %v; held: %v", img.Digest, img.InUse, img.LastUsed, held)
		}
		if got, want := fmt.Sprint(img.Tags), "[localhost/r:v1 localhost/r:v2]"; !held && got != want {
			t.Errorf("tags %s, want %s", got, want)
		}
	}
}

func TestFind(t *testing.T) {
	s := open(t)
	a := add(t, s, "a")
	if err := s.Remember(mustRef(t, "localhost/r:v1"), a.Digest); err != nil {
		t.Fatal(err)
	}
	hex := image.DigestHex(a.Digest)
	for _, name := range []string{a.Digest, hex, hex[:12], "sha256:" + hex[:6], "localhost/r:v1", "localhost/r@" + a.Digest} {
		if img, err := s.Find(name); err != nil || img.Digest != a.Digest {
			t.Errorf("Find(%q) = %s, %v", name, img.Digest, err)
		}
	}
	for _, name := range []string{"", hex[:3], "../../etc", strings.Repeat("0", 12), "localhost/r:v9", "*" + hex[:6]} {
		if img, err := s.Find(name); !errors.Is(err, ErrNotFound) {
			t.Errorf("Find(%q) = %s, %v", name, img.Digest, err)
		}
	}
}

func TestPrune(t *testing.T) {
	s := open(t)
	named, previous, cloned, held := add(t, s, "n"), add(t, s, "p"), add(t, s, "c"), add(t, s, "h")
	old, recent := add(t, s, "o"), add(t, s, "r")
	for i, img := range []image.Local{named, previous, cloned, old, recent} {
		used(t, img, i)
	}
	release, err := s.Hold(held.Digest)
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	fill(t, s, dig("e"), FileDisk).Close()
	abandon(t, s, dig("d"))
	busy := fill(t, s, dig("f"), FileDisk)
	defer busy.Close()
	keep := image.Retention{Needed: map[string]string{named.Digest: "a", previous.Digest: "b", cloned.Digest: "c"}}
	got, err := s.Prune(t.Context(), keep, false)
	if err != nil || len(got.Images)+len(got.Partials) != 0 {
		t.Errorf("with space enough it removed %+v, %v", got, err)
	}
	keep.Floor = math.MaxInt64
	for _, dry := range []bool{true, false} {
		got, err := s.Prune(t.Context(), keep, dry)
		if err != nil {
			t.Fatal(err)
		}
		if len(got.Images) != 2 || got.Images[0].Digest != old.Digest || got.Images[1].Digest != recent.Digest || !slices.Equal(got.Partials, []string{dig("d"), dig("e")}) {
			t.Errorf("dry %v: removed %+v", dry, got)
		}
		if list, err := s.List(); err != nil || (len(list) == 6) != dry {
			t.Errorf("dry %v: %d images are left, %v", dry, len(list), err)
		}
	}
}

// abandon leaves what a transfer of long ago left behind.
func abandon(t *testing.T, s *Store, digest string) {
	t.Helper()
	p := fill(t, s, digest, FileDisk)
	defer p.Close()
	old := time.Now().Add(-2 * abandonedAfter)
	for _, path := range []string{filepath.Join(p.Dir(), FileDisk), p.Dir()} {
		if err := os.Chtimes(path, old, old); err != nil {
			t.Fatal(err)
		}
	}
}

// What a pull left a moment ago is more than an image that nobody needs: it is
// tried again. What is left of long ago is less.
func TestPruneOrder(t *testing.T) {
	s := open(t)
	add(t, s, "o")
	fill(t, s, dig("e"), FileDisk).Close()
	abandon(t, s, dig("d"))
	fill(t, s, dig("c"), FileDisk).Close()
	keep := image.Retention{Needed: map[string]string{dig("c"): "it is wanted"}}
	free, err := s.Free()
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		floor    int64
		images   int
		partials []string
	}{
		{1, 0, []string{dig("d")}},
		{testChunk / 2, 1, []string{dig("d")}},
		{math.MaxInt64 / 2, 1, []string{dig("d"), dig("e")}},
	} {
		keep.Floor = free + tt.floor + 1<<30 // others write to the disk meanwhile
		p := pruning{s, keep, true, &image.Pruned{Free: free + 1<<30}}
		if err := errors.Join(p.partials(abandonedAfter), p.wouldGo(), p.partials(0)); err != nil {
			t.Fatal(err)
		}
		if len(p.done.Images) != tt.images || !slices.Equal(p.done.Partials, tt.partials) {
			t.Errorf("floor %d: %d images and %v would go, want %d and %v", tt.floor, len(p.done.Images), p.done.Partials, tt.images, tt.partials)
		}
	}
}

// Incident disk-full, the part of the pruner: nobody pruned, or the pruner
// deleted the image under a running clone.
func TestDiskFull(t *testing.T) {
	s := open(t)
	img := add(t, s, "a")
	other, err := Open(s.Dir()) // the agent's process; the prune is another one
	if err != nil {
		t.Fatal(err)
	}
	release, err := other.Hold(img.Digest)
	if err != nil {
		t.Fatal(err)
	}
	everything := image.Retention{Floor: math.MaxInt64}
	if got, err := s.Prune(t.Context(), everything, false); err != nil || len(got.Images) != 0 {
		t.Errorf("under a clone it removed %v, %v", got.Images, err)
	}
	release()
	everything.Need(img.Digest, "a guest is a clone of it") // the agent is down, the guest is not
	if got, err := s.Prune(t.Context(), everything, false); err != nil || len(got.Images) != 0 {
		t.Errorf("under a guest it removed %v, %v", got.Images, err)
	}
	everything.Needed = nil
	if got, err := s.Prune(t.Context(), everything, false); err != nil || len(got.Images) != 1 {
		t.Errorf("it removed %v, %v, want the image", got.Images, err)
	}
}

func TestVerify(t *testing.T) {
	s := open(t)
	img := add(t, s, "ab c")
	var last, total int64
	got, err := s.Verify(t.Context(), img.Digest, func(d, n int64) { last, total = d, n })
	if err != nil || got.Bytes != 4*testChunk || last != total || total != 4*testChunk {
		t.Errorf("Verify = %+v, %v; progress %d of %d", got, err, last, total)
	}
	if _, err := s.Verify(t.Context(), dig("0"), nil); !errors.Is(err, ErrNotFound) {
		t.Errorf("a missing image: %v", err)
	}
}

// Incident edited-cache, where the times do not give it away.
func TestEditedCacheWithItsTimesKept(t *testing.T) {
	for name, want := range map[string]string{
		FileDisk: "disk.img from byte 131072", FileNVRAM: "nvram.bin has", FileConfig: "config.json has",
		FileKernel: "kernel has", FileOCIConfig: "oci-config.json has", FileManifest: "manifest",
	} {
		s := open(t)
		img := add(t, s, "ab c")
		edit(t, filepath.Join(img.Dir, name), map[bool]int64{true: 2*testChunk + 100}[name == FileDisk])
		if _, err := s.Get(img.Digest); err != nil {
			t.Errorf("%s: the edit shows without reading: %v", name, err)
		}
		if _, err := s.Verify(t.Context(), img.Digest, nil); !errors.Is(err, image.ErrDamaged) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: Verify = %v, want ErrDamaged with %q", name, err, want)
		}
	}
	s := open(t)
	img := add(t, s, "ab c")
	if err := os.Remove(img.Kernel); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Verify(t.Context(), img.Digest, nil); !errors.Is(err, image.ErrDamaged) {
		t.Errorf("a missing kernel: %v", err)
	}
}

// edit changes one byte of a file and keeps its times.
func edit(t *testing.T, path string, off int64) {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt([]byte{' '}, off)
	if err := errors.Join(err, f.Close(), os.Chtimes(path, info.ModTime(), info.ModTime())); err != nil {
		t.Fatal(err)
	}
}

// A clock that was set back leaves images and partials of the future: they go
// when their room is needed, as all others do.
func TestClockSetBack(t *testing.T) {
	s := open(t)
	img, other := add(t, s, "a"), add(t, s, "b")
	p := fill(t, s, dig("e"), FileDisk)
	p.Close()
	future := time.Now().Add(24 * 365 * time.Hour)
	for _, path := range []string{img.Dir, filepath.Join(p.Dir(), FileDisk), p.Dir()} {
		if err := os.Chtimes(path, future, future); err != nil {
			t.Fatal(err)
		}
	}
	got, err := s.Prune(t.Context(), image.Retention{Floor: math.MaxInt64}, false)
	if err != nil || len(got.Images) != 2 || got.Images[0].Digest != other.Digest || len(got.Partials) != 1 {
		t.Errorf("removed %+v, %v; want both images, the one of the future last, and the partial", got, err)
	}
}
