package store

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mirego/tasuki/internal/image"
)

func dig(c string) string { return "sha256:" + strings.Repeat(c, 64) }

func mustRef(t *testing.T, s string) image.Ref {
	t.Helper()
	r, err := image.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func open(t *testing.T) *Store {
	t.Helper()
	s, err := Open(filepath.Join(t.TempDir(), "images"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// fill begins the partial of a digest and puts these files into it.
func fill(t *testing.T, s *Store, digest string, files ...string) *Partial {
	t.Helper()
	p, err := s.Begin(t.Context(), digest, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		if err := os.WriteFile(filepath.Join(p.Dir(), name), []byte(name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

func TestAnImageAppearsWhole(t *testing.T) {
	s := open(t)
	ref := mustRef(t, "localhost/r:v1")
	labels := map[string]string{image.LabelUser: "runner"}
	p := fill(t, s, dig("a"), FileDisk, FileKernel, FileManifest)
	if _, err := s.Get(dig("a")); !errors.Is(err, ErrNotFound) {
		t.Errorf("a partial image is visible: %v", err)
	}
	if list, err := s.List(); len(list) != 0 || err != nil {
		t.Errorf("a partial image is listed: %v, %v", list, err)
	}
	img, err := p.Commit(image.Local{Ref: ref, Labels: labels})
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(s.Dir(), "sha256-"+strings.Repeat("a", 64))
	want := image.Local{
		Ref: ref, Digest: dig("a"), Dir: dir, Disk: filepath.Join(dir, FileDisk),
		Kernel: filepath.Join(dir, FileKernel), DiskSize: int64(len(FileDisk)), Labels: labels, Arrived: img.Arrived,
	}
	if age := time.Since(img.Arrived); age < -time.Minute || age > time.Hour {
		t.Errorf("it came %v ago", age)
	}
	if diff := cmp.Diff(want, img, cmp.Comparer(func(a, b image.Ref) bool { return a == b })); diff != "" {
		t.Errorf("committed image (-want +got):\n%s", diff)
	}
	again, err := Open(s.Dir())
	if err != nil {
		t.Fatal(err)
	}
	list, err := again.List()
	if err != nil || len(list) != 1 || list[0].Digest != dig("a") {
		t.Errorf("list after a restart: %v, %v", list, err)
	}
	if info, err := os.Stat(img.Disk); err != nil || info.Mode().Perm() != 0o444 {
		t.Errorf("the disk can be written: %v, %v", info.Mode(), err)
	}
}

func TestImportOfWhatIsThereKeepsIt(t *testing.T) {
	s := open(t)
	first, err := fill(t, s, dig("a"), FileDisk).Commit(image.Local{})
	if err != nil {
		t.Fatal(err)
	}
	second, err := fill(t, s, dig("a"), FileDisk, FileInitrd).Commit(image.Local{})
	if err != nil || second.Initrd != first.Initrd {
		t.Errorf("the second import gave %+v, %v", second, err)
	}
	if left, _ := os.ReadDir(filepath.Join(s.Dir(), dirPartial)); len(left) != 0 {
		t.Errorf("left in partial: %v", left)
	}
}

func TestImportNeedsADiskAndPlainFiles(t *testing.T) {
	s := open(t)
	if _, err := fill(t, s, dig("a"), FileKernel).Commit(image.Local{}); err == nil {
		t.Error("an image without a disk was imported")
	}
	p := fill(t, s, dig("b"), FileDisk)
	if err := os.Symlink("/etc/passwd", filepath.Join(p.Dir(), FileNVRAM)); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Commit(image.Local{}); err == nil {
		t.Error("a symbolic link was imported")
	}
}

// Incident edited-cache: a disk was changed inside the cache, so its digest no
// longer said what it was.
func TestEditedCache(t *testing.T) {
	s := open(t)
	img, err := fill(t, s, dig("a"), FileDisk).Commit(image.Local{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fill(t, s, dig("b"), FileDisk).Commit(image.Local{}); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(img.Disk, time.Time{}, time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get(dig("a")); err == nil || !strings.Contains(err.Error(), "was changed on this host") {
		t.Errorf("Get = %v, want a word about the change", err)
	}
	list, err := s.List()
	if len(list) != 1 || list[0].Digest != dig("b") || err == nil {
		t.Errorf("List = %v, %v; want the good image and an error about the other", list, err)
	}
	if err := s.Remove(dig("a")); err != nil {
		t.Errorf("a changed image cannot be removed: %v", err)
	}
}

func TestRemoveIsRefusedWhileHeld(t *testing.T) {
	s := open(t)
	if _, err := fill(t, s, dig("a"), FileDisk).Commit(image.Local{}); err != nil {
		t.Fatal(err)
	}
	other, err := Open(s.Dir()) // as another process would
	if err != nil {
		t.Fatal(err)
	}
	release1, err := s.Hold(dig("a"))
	if err != nil {
		t.Fatal(err)
	}
	release2, err := other.Hold(dig("a"))
	if err != nil {
		t.Fatal(err)
	}
	release1()
	release1()
	if err := s.Remove(dig("a")); !errors.Is(err, ErrInUse) {
		t.Errorf("Remove while held = %v, want ErrInUse", err)
	}
	if _, err := s.Get(dig("a")); err != nil {
		t.Errorf("the held image: %v", err)
	}
	release2()
	if err := s.Remove(dig("a")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get(dig("a")); !errors.Is(err, ErrNotFound) {
		t.Errorf("Get after Remove = %v", err)
	}
	if _, err := s.Hold(dig("a")); !errors.Is(err, ErrNotFound) {
		t.Errorf("Hold after Remove = %v", err)
	}
	if err := s.Remove(dig("a")); !errors.Is(err, ErrNotFound) {
		t.Errorf("second Remove = %v", err)
	}
	if left, _ := os.ReadDir(filepath.Join(s.Dir(), dirTrash)); len(left) != 0 {
		t.Errorf("left in the trash: %v", left)
	}
}

func TestAPartialIsForOneAtATime(t *testing.T) {
	s := open(t)
	first := fill(t, s, dig("a"), FileDisk)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if p, err := s.Begin(ctx, dig("a"), nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("a second Begin = %v, %v", p, err)
	}
	waits := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		p, err := s.Begin(t.Context(), dig("a"), func() { close(waits) })
		if err != nil {
			t.Error(err)
			return
		}
		if _, err := s.Get(dig("a")); err != nil {
			t.Errorf("the other transfer finished, but Get = %v", err)
		}
		if err := p.Discard(); err != nil {
			t.Error(err)
		}
	})
	<-waits
	if _, err := first.Commit(image.Local{}); err != nil {
		t.Error(err)
	}
	wg.Wait()
	if left, _ := os.ReadDir(filepath.Join(s.Dir(), dirPartial)); len(left) != 0 {
		t.Errorf("left in partial: %v", left)
	}
}

// A commit that was cut off left files that nobody may write; whoever goes on
// with them can.
func TestGoingOnAfterACutCommit(t *testing.T) {
	s := open(t)
	p := fill(t, s, dig("a"), FileDisk, FileJournal, FileManifest)
	if err := os.Mkdir(filepath.Join(p.Dir(), "x"), 0o755); err != nil { // stops it half-way
		t.Fatal(err)
	}
	if _, err := p.Commit(image.Local{}); err == nil {
		t.Fatal("a folder was imported")
	}
	for _, name := range []string{FileDisk, FileJournal} {
		if info, err := os.Stat(filepath.Join(p.Dir(), name)); err != nil || info.Mode().Perm() != 0o444 {
			t.Fatalf("the commit was not under way: %s %v, %v", name, info.Mode(), err)
		}
	}
	if err := os.Remove(filepath.Join(p.Dir(), "x")); err != nil {
		t.Fatal(err)
	}
	p, err := s.Begin(t.Context(), dig("a"), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{FileDisk, FileJournal, FileManifest} {
		if info, err := os.Stat(filepath.Join(p.Dir(), name)); err != nil || info.Mode().Perm() != 0o644 {
			t.Errorf("%s: %v, %v; the next transfer cannot write it", name, info.Mode(), err)
		}
	}
	img, err := p.Commit(image.Local{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(img.Dir, FileJournal)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the journal is in the image: %v", err)
	}
}

func TestOpenKeepsWhatCanGoOn(t *testing.T) {
	s := open(t)
	fill(t, s, dig("a"), FileDisk).Close() // cut a moment ago
	fill(t, s, dig("b"), FileDisk).Close() // abandoned
	busy := fill(t, s, dig("c"), FileDisk) // old, but somebody has it
	defer busy.Close()
	old := time.Now().Add(-partialAge - time.Hour)
	for _, d := range []string{"b", "c"} {
		dir := filepath.Join(s.Dir(), dirPartial, dirPrefix+strings.Repeat(d, 64))
		for _, path := range []string{filepath.Join(dir, FileDisk), dir} {
			if err := os.Chtimes(path, old, old); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := os.WriteFile(filepath.Join(s.Dir(), dirTrash, "x"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(s.Dir()); err != nil {
		t.Fatal(err)
	}
	for d, want := range map[string]bool{"a": true, "b": false, "c": true} {
		_, err := os.Stat(filepath.Join(s.Dir(), dirPartial, dirPrefix+strings.Repeat(d, 64)))
		if got := err == nil; got != want {
			t.Errorf("partial %s is there: %v, want %v", d, got, want)
		}
	}
	if left, _ := os.ReadDir(filepath.Join(s.Dir(), dirTrash)); len(left) != 0 {
		t.Errorf("left in the trash: %v", left)
	}
}

func TestResolveSurvivesTheRegistry(t *testing.T) {
	s := open(t)
	ref := mustRef(t, "localhost/r:v1")
	if _, err := s.Resolve(ref); !errors.Is(err, ErrNotFound) {
		t.Errorf("never asked: %v", err)
	}
	for _, d := range []string{dig("a"), dig("b"), dig("b")} {
		if err := s.Remember(ref, d); err != nil {
			t.Fatal(err)
		}
		if got, err := s.Resolve(ref); got != d || err != nil {
			t.Errorf("Resolve = %s, %v, want %s", got, err, d)
		}
	}
	if got, err := s.Resolve(ref.WithDigest(dig("c"))); got != dig("c") || err != nil {
		t.Errorf("a digest resolves to %s, %v", got, err)
	}
	if err := s.Remember(ref, "sha256:../x"); err == nil {
		t.Error("nonsense was remembered")
	}
}

func TestDigestsAreNoPaths(t *testing.T) {
	s := open(t)
	if _, err := s.Get("sha256:../../etc"); err == nil || errors.Is(err, ErrNotFound) {
		t.Errorf("Get = %v", err)
	}
	if _, err := s.Begin(t.Context(), "../x", nil); err == nil {
		t.Error("Begin took a path for a digest")
	}
}
