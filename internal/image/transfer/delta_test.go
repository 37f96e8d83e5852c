package transfer_test

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/mirego/tasuki/internal/image"
	"github.com/mirego/tasuki/internal/image/store"
	"github.com/mirego/tasuki/internal/image/transfer"
)

// patched copies a disk, hole for hole, and writes over some places of it.
func patched(t testing.TB, disk string, size int64, patches map[int64]string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "patched.img")
	src, err := os.Open(disk)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	dst, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer dst.Close()
	copyData(t, dst, src)
	if err := dst.Truncate(size); err != nil {
		t.Fatal(err)
	}
	for off, s := range patches {
		if _, err := dst.WriteAt([]byte(s), off); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

// deltaFixture is an image that a host has, and the next one, of which three
// chunks differ: one in a byte, one moved, one new at the end.
type deltaFixture struct {
	h            *hub
	first, next  string // disks
	firstDigest  string
	opt          transfer.Options
	changedBlobs int
}

func newDeltaFixture(t testing.TB) *deltaFixture {
	t.Helper()
	f := &deltaFixture{h: newHub(t), first: makeDisk(t, 40*mib, 20*mib), opt: quick(), changedBlobs: 2}
	f.opt.ChunkSize = 2 * mib
	f.firstDigest = mustPush(t, f.h, image.Source{Disk: f.first}, "r:t", f.opt)
	moved := make([]byte, 2*mib)
	src, err := os.Open(f.first)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	if _, err := src.ReadAt(moved, 4*mib); err != nil {
		t.Fatal(err)
	}
	f.next = patched(t, f.first, 44*mib, map[int64]string{
		20*mib + 7: "a change", 30 * mib: string(moved), 40*mib + 9: "the end",
	})
	return f
}

// hosts have the first image and are given the next one.
func (f *deltaFixture) update(t testing.TB, s *store.Store) image.Local {
	t.Helper()
	mustPush(t, f.h, image.Source{Disk: f.next}, "r:t", f.opt)
	img, err := transfer.Pull(t.Context(), f.h.ref("r:t"), s, f.opt)
	if err != nil {
		t.Fatal(err)
	}
	sameFile(t, f.next, img.Disk)
	if got, most := allocated(t, img.Disk), allocated(t, f.next)+mib; got > most {
		t.Errorf("the pulled disk takes %d bytes, more than %d", got, most)
	}
	return img
}

func TestADeltaFetchesOnlyWhatChanged(t *testing.T) {
	f := newDeltaFixture(t)
	s := openStore(t)
	if _, err := transfer.Pull(t.Context(), f.h.ref("r:t"), s, f.opt); err != nil {
		t.Fatal(err)
	}
	var last transfer.Progress
	f.opt.Progress = func(p transfer.Progress) {
		if p.Phase == transfer.PhasePull {
			last = p
		}
	}
	f.h.requests("")
	f.update(t, s)
	if gets := f.h.requests("GET /v2/r/blobs/"); len(gets) != 2+f.changedBlobs {
		t.Errorf("%d blobs fetched, want both configurations and %d layers: %v", len(gets), f.changedBlobs, gets)
	}
	if last.Done != last.Total || last.Reused == 0 || last.Reused >= last.Done {
		t.Errorf("progress ended with %+v", last)
	}
	if _, err := s.Verify(t.Context(), f.firstDigest, nil); err != nil {
		t.Errorf("the image that gave its content: %v", err)
	}
}

// An image of this host whose bits are not what they were gives nothing wrong
// on: what it lacks is fetched.
func TestADamagedDonorHarmsNothing(t *testing.T) {
	f := newDeltaFixture(t)
	for name, harm := range map[string]func(t *testing.T, path string){
		"a changed byte": func(t *testing.T, path string) { overwrite(t, path, 4*mib+100, "junk") },
		"holes filled":   func(t *testing.T, path string) { overwrite(t, path, mib, strings.Repeat("junk", 40000)) },
		"unreadable": func(t *testing.T, path string) {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		},
		"too short": func(t *testing.T, path string) {
			if err := os.Truncate(path, 8*mib); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := openStore(t)
			img, err := transfer.Pull(t.Context(), f.h.ref("r:t").WithDigest(f.firstDigest), s, f.opt)
			if err != nil {
				t.Fatal(err)
			}
			info, err := os.Stat(img.Disk)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(img.Disk, 0o644); err != nil {
				t.Fatal(err)
			}
			harm(t, img.Disk)
			if err := os.Chtimes(img.Disk, info.ModTime(), info.ModTime()); err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Fatal(err)
			}
			f.update(t, s)
		})
	}
}

func overwrite(t testing.TB, path string, off int64, s string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt([]byte(s), off)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}

// A delta that is cut goes on, and takes no wrong content for done.
func TestADeltaGoesOn(t *testing.T) {
	f := newDeltaFixture(t)
	s := openStore(t)
	if _, err := transfer.Pull(t.Context(), f.h.ref("r:t"), s, f.opt); err != nil {
		t.Fatal(err)
	}
	digest := mustPush(t, f.h, image.Source{Disk: f.next}, "r:t", f.opt)
	f.h.breakWith(onLayers(func(n int, w http.ResponseWriter, r *http.Request, next http.Handler) {
		if n > 3 {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	}))
	if _, err := transfer.Pull(t.Context(), f.h.ref("r:t"), s, f.opt); err == nil {
		t.Fatal("the cut pull succeeded")
	}
	f.h.breakWith(nil)
	damage(t, s, digest)
	f.update(t, s)
}

// Pushing what was made from an image keeps the layers that did not change, as
// they are in the base's manifest, even where somebody else compressed them.
func TestPushKeepsTheLayersOfItsBase(t *testing.T) {
	h := newHub(t)
	h.pushAsTart(t, "r", "base", tartImage())
	s := openStore(t)
	base, err := transfer.Pull(t.Context(), h.ref("r:base"), s, quick())
	if err != nil {
		t.Fatal(err)
	}
	next := patched(t, base.Disk, 4*mib, map[int64]string{100: "a change", 4*mib - 5: "end"})
	h.requests("")
	if _, err := transfer.Push(t.Context(), image.Source{Disk: next, Base: base}, h.ref("r:next"), quick()); err != nil {
		t.Fatal(err)
	}
	if puts := h.requests("PUT /v2/r/blobs/uploads/"); len(puts) != 2+2+1 { // changed and new layers, configurations, nvram
		t.Errorf("%d blobs uploaded: %v", len(puts), puts)
	}
	img, err := transfer.Pull(t.Context(), h.ref("r:next"), s, quick())
	if err != nil {
		t.Fatal(err)
	}
	sameFile(t, next, img.Disk)
	if img.Labels[image.LabelBase] != base.Digest {
		t.Errorf("labels %v do not name the base", img.Labels)
	}
	kept := 0
	newer := readFile(t, filepath.Join(img.Dir, store.FileManifest))
	for layer := range strings.SplitSeq(readFile(t, filepath.Join(base.Dir, store.FileManifest)), `{"annotations":{"org.cirruslabs.tart.uncompressed-content-digest"`) {
		layer, _, _ = strings.Cut(layer, "}")
		_, rest, _ := strings.Cut(readFile(t, filepath.Join(base.Dir, store.FileManifest)), layer)
		descriptor, _, _ := strings.Cut(rest, "}")
		if strings.HasPrefix(layer, `:"`) && strings.Contains(newer, layer+descriptor) {
			kept++
		}
	}
	if kept != 4 { // 3 MiB in chunks of 700,001: five, of which one changed
		t.Errorf("%d layers of the base are in the new manifest byte for byte, want 4", kept)
	}
}

// What changed in a long layer is cut finer; the others stay long.
func TestLongLayersAreCutWhereTheyChanged(t *testing.T) {
	h := newHub(t)
	opt := quick()
	opt.ChunkSize = 64 * mib
	disk := makeDisk(t, 256*mib, 20*mib)
	mustPush(t, h, image.Source{Disk: disk}, "r:t", opt)
	opt.ChunkSize = 0
	next := patched(t, disk, 256*mib, map[int64]string{70 * mib: "a change"})
	digest := mustPush(t, h, image.Source{Disk: next}, "r:t", opt) // the tag's image is the base
	in, err := transfer.Inspect(t.Context(), h.ref("r:t"), opt)
	if err != nil {
		t.Fatal(err)
	}
	var sizes []int64
	for _, ch := range in.Manifest.Chunks {
		sizes = append(sizes, ch.RawSize/mib)
	}
	if want := []int64{64, 16, 16, 16, 16, 64, 64}; !slices.Equal(sizes, want) {
		t.Errorf("layers of %v MiB, want %v", sizes, want)
	}
	img, err := transfer.Pull(t.Context(), h.ref("r:t"), openStore(t), opt)
	if err != nil || img.Digest != digest {
		t.Fatalf("pull: %s, %v", img.Digest, err)
	}
	sameFile(t, next, img.Disk)
}

// A second push of known content compresses nothing: it is over without the
// encoder, which would give other bytes than tart's.
func TestPushAgainCompressesNothing(t *testing.T) {
	h := newHub(t)
	want := tartImage()
	h.pushAsTart(t, "r", "t", want)
	if _, err := transfer.Push(t.Context(), image.Source{Disk: writeFile(t, "disk", string(want.Disk)), NVRAM: writeFile(t, "nvram", string(want.NVRAM)), ConfigJSON: want.Config}, h.ref("r:t"), quick()); err != nil {
		t.Fatal(err)
	}
	if puts := h.requests("PUT /v2/r/blobs/uploads/"); len(puts) != 1 { // the labels
		t.Errorf("%d blobs uploaded: %v", len(puts), puts)
	}
}

// A registry may sweep a blob up after it said that it has it, and before the
// manifest names it. Then it is sent after all.
func TestPushBeginsAnewWhenBlobsAreSweptUp(t *testing.T) {
	h := newHub(t)
	disk := makeDisk(t, 4*mib, 2*mib)
	mustPush(t, h, image.Source{Disk: disk}, "r:t", quick())
	img, err := transfer.Inspect(t.Context(), h.ref("r:t"), quick())
	if err != nil {
		t.Fatal(err)
	}
	var once sync.Once
	h.breakWith(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/manifests/") {
			once.Do(func() {
				r, err := http.NewRequestWithContext(r.Context(), http.MethodDelete, "/v2/r/blobs/"+img.Manifest.Chunks[0].Digest, nil)
				if err != nil {
					t.Error(err)
					return
				}
				if rec := answer(r, next); rec.Code != http.StatusAccepted {
					t.Errorf("deleting a blob: status %d", rec.Code)
				}
			})
		}
		next.ServeHTTP(w, r)
	})
	if _, err := transfer.Push(t.Context(), image.Source{Disk: disk}, h.ref("r:next"), quick()); err != nil {
		t.Fatal(err)
	}
	pulled, err := transfer.Pull(t.Context(), h.ref("r:next"), openStore(t), quick())
	if err != nil {
		t.Fatal(err)
	}
	sameFile(t, disk, pulled.Disk)
}

func TestDiffSaysWhatAPullFetches(t *testing.T) {
	f := newDeltaFixture(t)
	s := openStore(t)
	first, err := transfer.Pull(t.Context(), f.h.ref("r:t"), s, f.opt)
	if err != nil {
		t.Fatal(err)
	}
	mustPush(t, f.h, image.Source{Disk: f.next, Labels: map[string]string{"team": "x"}}, "r:next", f.opt)
	from, err := transfer.InspectLocal(first)
	if err != nil {
		t.Fatal(err)
	}
	to, err := transfer.Inspect(t.Context(), f.h.ref("r:next"), f.opt)
	if err != nil {
		t.Fatal(err)
	}
	d := transfer.Diff(from, to)
	if d.Fetch != f.changedBlobs || d.FetchRaw != 4*mib || d.HaveRaw == 0 || !slices.Contains(d.Labels, "team") {
		t.Errorf("difference %+v", d)
	}
	f.h.requests("")
	if _, err := transfer.Pull(t.Context(), f.h.ref("r:next"), s, f.opt); err != nil {
		t.Fatal(err)
	}
	if gets := f.h.requests("GET /v2/r/blobs/"); len(gets) != 2+d.Fetch {
		t.Errorf("a pull fetched %d blobs, the difference is %+v", len(gets), d)
	}
	if d := transfer.Diff(to, to); d.Fetch != 0 || d.FetchBytes != 0 || len(d.Labels) != 0 {
		t.Errorf("an image differs from itself: %+v", d)
	}
	if in := to; in.DiskSize != 44*mib || in.Zeros != 2*mib || in.Download == 0 || in.Layers != 22 || in.LargestLayer != 2*mib || !in.UploadTime.Equal(f.opt.Now()) || len(in.VMConfig) == 0 {
		in.Raw, in.VMConfig, in.Manifest = nil, nil, nil
		t.Errorf("inspection %+v", in)
	}
}

func TestTagMovesNothing(t *testing.T) {
	h := newHub(t)
	src := image.Source{Disk: makeDisk(t, 4*mib, mib), Kernel: writeFile(t, "k", "kernel"), Labels: map[string]string{image.LabelBoot: image.BootKernel}}
	digest := mustPush(t, h, src, "r:a", quick())
	for _, to := range []string{"r:b", "other/repo:c"} {
		got, err := transfer.Tag(t.Context(), h.ref("r:a"), h.ref(to), quick())
		if err != nil || got != digest {
			t.Fatalf("Tag to %s = %s, %v", to, got, err)
		}
		blobs := slices.DeleteFunc(h.requests(""), func(s string) bool {
			return !strings.HasPrefix(s, "PUT") && !strings.HasPrefix(s, "GET") || !strings.Contains(s, "/blobs/")
		})
		if len(blobs) > 1 { // the labels are read, to find the kernel
			t.Errorf("%s: blobs moved: %v", to, blobs)
		}
		img, err := transfer.Pull(t.Context(), h.ref(to), openStore(t), quick())
		if err != nil || img.Digest != digest || readFile(t, img.Kernel) != "kernel" {
			t.Errorf("pull of %s: %s, %v", to, img.Digest, err)
		}
		h.requests("")
	}
	if _, err := transfer.Tag(t.Context(), h.ref("r:a"), closedPort(t), quick()); err == nil || !strings.Contains(err.Error(), "two registries") {
		t.Errorf("Tag over registries: %v", err)
	}
	if _, err := transfer.Tag(t.Context(), h.ref("r:none"), h.ref("r:x"), quick()); !errors.Is(err, image.ErrNotInRegistry) {
		t.Errorf("Tag of nothing: %v", err)
	}
}

// What tart pushed is mirrored as it is: the same bytes, the same digest.
func TestCopyKeepsTheDigest(t *testing.T) {
	from, to := newHub(t), newHub(t)
	want := tartImage()
	manifest := from.pushAsTart(t, "macos", "t", want)
	a, b := transfer.Place{Ref: from.ref("macos:t"), Options: quick()}, transfer.Place{Ref: to.ref("copied/macos:t"), Options: quick()}
	from.breakWith(first(3, cutInTheMiddle))
	done, err := transfer.Copy(t.Context(), a, b)
	if err != nil {
		t.Fatal(err)
	}
	_, got := to.send(t, http.MethodGet, "/v2/copied/macos/manifests/t", "", nil)
	if string(got) != string(manifest) || done.Sent == 0 || done.Present != 0 {
		t.Errorf("copied %+v; the manifest has %d bytes, want %d", done, len(got), len(manifest))
	}
	img, err := transfer.Pull(t.Context(), to.ref("copied/macos:t"), openStore(t), quick())
	if err != nil || readFile(t, img.Disk) != string(want.Disk) {
		t.Errorf("pull from the mirror: %v", err)
	}
	if done, err = transfer.Copy(t.Context(), a, b); err != nil || done.Sent != 0 || done.Bytes != 0 {
		t.Errorf("copied again: %+v, %v", done, err)
	}
	from.breakWith(onLayers(func(_ int, w http.ResponseWriter, r *http.Request, next http.Handler) { flip(w, r, next) }))
	b.Ref, b.Options.Tries = to.ref("broken:t"), 2
	if _, err := transfer.Copy(t.Context(), a, b); err == nil {
		t.Error("damaged blobs were copied")
	}
	if resp, _ := to.send(t, http.MethodGet, "/v2/broken/manifests/t", "", nil); resp.StatusCode != http.StatusNotFound {
		t.Errorf("a broken copy has its tag: %d", resp.StatusCode)
	}
}

// Room is asked before anything is fetched, and what it frees counts.
func TestRoomIsMadeBeforeAPull(t *testing.T) {
	f := newFaultFixture(t)
	s := openStore(t)
	free, err := s.Free()
	if err != nil {
		t.Fatal(err)
	}
	asked := int64(0)
	f.opt.Reserve = free + 1<<40
	f.opt.Room = func(_ context.Context, need int64) error {
		asked = need
		return nil
	}
	f.h.requests("")
	if _, err := f.pull(t.Context(), s); !errors.Is(err, image.ErrNoSpace) || asked <= f.opt.Reserve {
		t.Errorf("pull = %v; room was asked for %d bytes", err, asked)
	}
	if gets := f.h.requests("GET /v2/r/blobs/"); len(gets) > 1 {
		t.Errorf("it fetched %v", gets)
	}
	boom := errors.New("boom")
	f.opt.Room = func(context.Context, int64) error { return boom }
	if _, err := f.pull(t.Context(), s); !errors.Is(err, boom) {
		t.Errorf("pull = %v", err)
	}
}
