package transfer_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mirego/tasuki/internal/image"
	"github.com/mirego/tasuki/internal/image/store"
	"github.com/mirego/tasuki/internal/image/tartfmt"
	"github.com/mirego/tasuki/internal/image/transfer"
)

type fault = func(http.ResponseWriter, *http.Request, http.Handler)

// answer is what the registry would say.
func answer(r *http.Request, next http.Handler) *httptest.ResponseRecorder {
	rec := httptest.NewRecorder()
	next.ServeHTTP(rec, r)
	return rec
}

// give sends an answer with another body; its length header stays.
func give(w http.ResponseWriter, rec *httptest.ResponseRecorder, body []byte) {
	for k, v := range rec.Header() {
		w.Header()[k] = v
	}
	w.WriteHeader(rec.Code)
	_, _ = w.Write(body)
	if n, err := strconv.Atoi(rec.Header().Get("Content-Length")); err == nil && n > len(body) {
		panic(http.ErrAbortHandler) // nothing else cuts a connection
	}
}

// onLayers applies a fault to fetches of blobs: the nth fetch, from 1.
func onLayers(f func(n int, w http.ResponseWriter, r *http.Request, next http.Handler)) fault {
	var n atomic.Int64
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if !isBlobGet(r) {
			next.ServeHTTP(w, r)
			return
		}
		f(int(n.Add(1)), w, r, next)
	}
}

// first applies a fault to the first k fetches only.
func first(k int, f fault) fault {
	return onLayers(func(n int, w http.ResponseWriter, r *http.Request, next http.Handler) {
		if n <= k {
			f(w, r, next)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func status(code int) fault {
	return func(w http.ResponseWriter, _ *http.Request, _ http.Handler) { w.WriteHeader(code) }
}

func flip(w http.ResponseWriter, r *http.Request, next http.Handler) {
	rec := answer(r, next)
	body := rec.Body.Bytes()
	body[len(body)/2] ^= 0x10
	give(w, rec, body)
}

func cutInTheMiddle(w http.ResponseWriter, r *http.Request, next http.Handler) {
	rec := answer(r, next)
	give(w, rec, rec.Body.Bytes()[:rec.Body.Len()/2])
}

func shortButConsistent(w http.ResponseWriter, r *http.Request, next http.Handler) {
	rec := answer(r, next)
	body := rec.Body.Bytes()[:rec.Body.Len()/2]
	rec.Header().Set("Content-Length", strconv.Itoa(len(body)))
	give(w, rec, body)
}

func tooLong(w http.ResponseWriter, r *http.Request, next http.Handler) {
	rec := answer(r, next)
	body := append(rec.Body.Bytes(), "more"...)
	rec.Header().Set("Content-Length", strconv.Itoa(len(body)))
	give(w, rec, body)
}

func noLength(w http.ResponseWriter, r *http.Request, next http.Handler) {
	rec := answer(r, next)
	rec.Header().Del("Content-Length")
	w.WriteHeader(rec.Code)
	_, _ = w.Write(rec.Body.Bytes()[:rec.Body.Len()/2])
}

func hang(w http.ResponseWriter, r *http.Request, next http.Handler) {
	rec := answer(r, next)
	w.Header().Set("Content-Length", strconv.Itoa(rec.Body.Len()))
	w.WriteHeader(rec.Code)
	_, _ = w.Write(rec.Body.Bytes()[:rec.Body.Len()/2])
	_ = http.NewResponseController(w).Flush()
	<-r.Context().Done()
}

// noRanges always begins anew.
func noRanges(f fault) fault {
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		r.Header.Del("Range")
		f(w, r, next)
	}
}

func otherBlob(w http.ResponseWriter, r *http.Request, next http.Handler) {
	rec := answer(r, next)
	give(w, rec, bytes.Repeat([]byte{'x'}, rec.Body.Len()))
}

// faultFixture is a pushed image of some chunks.
type faultFixture struct {
	h      *hub
	disk   string
	digest string
	opt    transfer.Options
}

func newFaultFixture(t *testing.T) *faultFixture {
	t.Helper()
	f := &faultFixture{h: newHub(t), disk: makeDisk(t, 40*mib, 20*mib), opt: quick()}
	f.opt.ChunkSize = 2 * mib
	f.digest = mustPush(t, f.h, image.Source{Disk: f.disk}, "r:t", f.opt)
	return f
}

func (f *faultFixture) pull(ctx context.Context, s *store.Store) (image.Local, error) {
	return transfer.Pull(ctx, f.h.ref("r:t").WithDigest(f.digest), s, f.opt)
}

// Faults that pass are overcome without a word to the user.
func TestPassingFaults(t *testing.T) {
	f := newFaultFixture(t)
	tests := map[string]fault{
		"503":                 first(4, status(503)),
		"429":                 first(4, status(429)),
		"500":                 first(4, status(500)),
		"cut":                 first(6, cutInTheMiddle),
		"cut without ranges":  noRanges(first(6, cutInTheMiddle)),
		"no length, cut":      first(2, noLength),
		"flipped bit":         first(2, flip),
		"short body":          first(2, shortButConsistent),
		"too long":            first(2, tooLong),
		"another blob":        first(2, otherBlob),
		"silent connection":   first(2, hang),
		"connection dropped":  first(4, func(http.ResponseWriter, *http.Request, http.Handler) { panic(http.ErrAbortHandler) }),
		"503 for everything":  onceEach(status(503)),
		"dropped, everything": onceEach(func(http.ResponseWriter, *http.Request, http.Handler) { panic(http.ErrAbortHandler) }),
	}
	for name, fault := range tests {
		t.Run(name, func(t *testing.T) {
			f.h.breakWith(fault)
			defer f.h.breakWith(nil)
			f.opt.Stall = stallFor(name)
			img, err := f.pull(t.Context(), openStore(t))
			if err != nil {
				t.Fatal(err)
			}
			sameFile(t, f.disk, img.Disk)
		})
	}
}

// stallFor is short where a test waits for it. A healthy connection that a busy
// machine keeps silent for so long costs such a test a retry, no more.
func stallFor(name string) time.Duration {
	if name == "silent connection" {
		return 200 * time.Millisecond
	}
	return 0
}

// onceEach applies a fault to the first request for each path; all upload
// sessions count as one.
func onceEach(f fault) fault {
	var seen sync.Map
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		path, _, _ := strings.Cut(r.URL.Path, "/uploads/")
		if _, again := seen.LoadOrStore(r.Method+path, true); again {
			next.ServeHTTP(w, r)
			return
		}
		f(w, r, next)
	}
}

// Faults that stay end in a clear word and no image; when they are gone, the
// next pull goes on from what arrived.
func TestLastingFaults(t *testing.T) {
	const healthy = 4 // fetches that work before the fault sets in
	after := func(f fault) fault {
		return onLayers(func(n int, w http.ResponseWriter, r *http.Request, next http.Handler) {
			if n <= healthy {
				next.ServeHTTP(w, r)
				return
			}
			f(w, r, next)
		})
	}
	tests := []struct {
		name  string
		fault fault
		word  string
	}{
		{"503", after(status(503)), "503 Service Unavailable"},
		{"404", after(status(404)), "404 Not Found"},
		{"403", after(status(403)), "user name and password"},
		{"flipped bit", after(flip), ""}, // a digest or the decoder finds it
		{"another blob", after(otherBlob), "corrupt"},
		{"short body", after(shortButConsistent), "bytes in the registry"},
		{"silent connection", after(hang), "sent nothing for too long"},
		{"dropped", after(func(http.ResponseWriter, *http.Request, http.Handler) { panic(http.ErrAbortHandler) }), "EOF"},
	}
	f := newFaultFixture(t)
	f.opt.Tries, f.opt.Parallel = 3, 1
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := openStore(t)
			f.h.breakWith(tt.fault)
			f.opt.Stall = stallFor(tt.name)
			_, err := f.pull(t.Context(), s)
			if err == nil || !strings.Contains(err.Error(), tt.word) || !strings.Contains(err.Error(), "cannot pull image "+f.h.host) {
				t.Fatalf("error %v, want one with %q", err, tt.word)
			}
			if _, err := s.Get(f.digest); !errors.Is(err, image.ErrNotFound) {
				t.Errorf("the broken image is visible: %v", err)
			}
			done := strings.Split(readFile(t, filepath.Join(partialDir(s, f.digest), "journal")), "\n")
			done = done[1 : len(done)-1] // without its head and the end of its last line
			if len(done) == 0 {
				t.Error("nothing arrived before the fault")
			}
			f.h.breakWith(nil)
			f.h.requests("")
			f.opt.Stall = 0
			img, err := f.pull(t.Context(), s)
			if err != nil {
				t.Fatalf("the next pull: %v", err)
			}
			sameFile(t, f.disk, img.Disk)
			// Both configurations and the chunks that did not arrive.
			all := countLayers(t, img.Dir)
			if got, want := len(f.h.requests("GET /v2/r/blobs/")), 2+all-len(done); got != want {
				t.Errorf("the next pull fetched %d blobs, want %d: %d of %d had arrived", got, want, len(done), all)
			}
		})
	}
}

func partialDir(s *store.Store, digest string) string {
	return filepath.Join(s.Dir(), "partial", "sha256-"+image.DigestHex(digest))
}

// countLayers counts the different blobs of data in an image's manifest.
func countLayers(t *testing.T, dir string) int {
	t.Helper()
	mf, err := tartfmt.Parse([]byte(readFile(t, filepath.Join(dir, store.FileManifest))))
	if err != nil {
		t.Fatal(err)
	}
	var zeros tartfmt.Zeros
	seen := map[string]bool{}
	for _, ch := range mf.Chunks {
		if !zeros.Chunk(ch) {
			seen[ch.Digest] = true
		}
	}
	return len(seen)
}

// The agent dies at each tenth of a transfer: the process is gone, the journal's
// last line is torn, chunks that it does not name hold anything, and one that it
// names was damaged.
func TestDeathAtEveryTenth(t *testing.T) {
	f := newFaultFixture(t)
	f.opt.Parallel = 2
	s := openStore(t)
	whole, err := f.pull(t.Context(), openStore(t))
	if err != nil {
		t.Fatal(err)
	}
	total := countLayers(t, whole.Dir)
	for tenth := 1; tenth <= 9; tenth++ {
		ctx, cancel := context.WithCancel(t.Context())
		f.h.breakWith(onLayers(func(n int, w http.ResponseWriter, r *http.Request, next http.Handler) {
			if n > tenth*total/10 {
				cancel()
				panic(http.ErrAbortHandler)
			}
			next.ServeHTTP(w, r)
		}))
		_, err := f.pull(ctx, s)
		cancel()
		if !errors.Is(err, context.Canceled) {
			t.Fatalf("tenth %d: pull = %v, want it cancelled", tenth, err)
		}
		if list, err := s.List(); len(list) != 0 || err != nil {
			t.Fatalf("tenth %d: the store shows %v, %v", tenth, list, err)
		}
		f.h.breakWith(nil)
		damage(t, s, f.digest)
		f.h.requests("")
		img, err := f.pull(t.Context(), s)
		if err != nil {
			t.Fatalf("tenth %d: %v", tenth, err)
		}
		sameFile(t, f.disk, img.Disk)
		if got, most := allocated(t, img.Disk), allocated(t, whole.Disk)+mib; got > most {
			t.Errorf("tenth %d: the disk takes %d bytes, more than %d", tenth, got, most)
		}
		if got := len(f.h.requests("GET /v2/r/blobs/")); tenth > 5 && got >= total {
			t.Errorf("tenth %d: %d of %d blobs were fetched again", tenth, got, total)
		}
		if err := s.Remove(f.digest); err != nil {
			t.Fatal(err)
		}
	}
}

// damage does to a partial what a crash may leave behind, and worse.
func damage(t *testing.T, s *store.Store, digest string) {
	t.Helper()
	dir := partialDir(s, digest)
	lines := strings.Split(strings.TrimSpace(readFile(t, filepath.Join(dir, "journal"))), "\n")[1:]
	disk, err := os.OpenFile(filepath.Join(dir, store.FileDisk), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer disk.Close()
	junk := bytes.Repeat([]byte("junk"), 1024)
	for i := range int64(20) { // chunks of 2 MiB, those of zeros included
		if !slices.Contains(lines, fmt.Sprint(i)) {
			for _, at := range []int64{512 << 10, 1536 << 10} { // among data, and where zeros are to be
				if _, err := disk.WriteAt(junk, i*2*mib+at); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	if len(lines) > 0 {
		i, err := strconv.ParseInt(lines[0], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := disk.WriteAt(junk, i*2*mib); err != nil {
			t.Fatal(err)
		}
	}
	j, err := os.OpenFile(filepath.Join(dir, "journal"), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	if _, err := j.WriteString("x\n-4\n99999\n1"); err != nil {
		t.Fatal(err)
	}
}

func TestRetryAfterIsHonoured(t *testing.T) {
	f := newFaultFixture(t)
	var log bytes.Buffer
	f.opt.Log = slog.New(slog.NewTextHandler(&log, nil))
	f.opt.Parallel = 1
	f.h.breakWith(first(1, func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
		w.Header().Set("Retry-After", "1")
		w.WriteHeader(http.StatusTooManyRequests)
	}))
	if _, err := f.pull(t.Context(), openStore(t)); err != nil {
		t.Fatal(err)
	}
	// Not before the second is over, and not with everybody else.
	_, after, _ := strings.Cut(log.String(), "wait=")
	word, _, _ := strings.Cut(after, " ")
	if wait, err := time.ParseDuration(word); err != nil || wait <= time.Second || wait > 2*time.Second || !strings.Contains(log.String(), "429") {
		t.Errorf("the log does not tell of a wait of one to two seconds: %s", &log)
	}
}

// A digest means the manifest's bytes, whatever the registry sends.
func TestManifestIsVerified(t *testing.T) {
	f := newFaultFixture(t)
	f.h.breakWith(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/manifests/") {
			rec := answer(r, next)
			give(w, rec, bytes.Replace(rec.Body.Bytes(), []byte("disk.v2"), []byte("disk.v3"), 1))
			return
		}
		next.ServeHTTP(w, r)
	})
	_, err := f.pull(t.Context(), openStore(t))
	if err == nil || !strings.Contains(err.Error(), "arrived with the digest") {
		t.Errorf("pull = %v", err)
	}
}

// A chunk whose blob is sound but decodes to another length than announced.
func TestWrongLengthInTheManifest(t *testing.T) {
	h := newHub(t)
	img := tartImage()
	manifest := h.pushAsTart(t, "r", "good", img)
	for old, new := range map[string]string{`"700001"`: `"700002"`, `uncompressed-size":"`: `uncompressed-size":"1`} {
		bad := bytes.Replace(manifest, []byte(old), []byte(new), 1)
		if resp, body := h.send(t, http.MethodPut, "/v2/r/manifests/bad", "application/vnd.oci.image.manifest.v1+json", bad); resp.StatusCode != http.StatusCreated {
			t.Fatalf("status %d: %s", resp.StatusCode, body)
		}
		_, err := transfer.Pull(t.Context(), h.ref("r:bad"), openStore(t), quick())
		if !errors.Is(err, tartfmt.ErrCorrupt) {
			t.Errorf("%s: pull = %v, want ErrCorrupt", new, err)
		}
	}
}

// Incident disk-full, the part that can be known before.
func TestAPullThatCannotFitIsRefusedFirst(t *testing.T) {
	h := newHub(t)
	manifest := h.pushAsTart(t, "r", "good", tartImage())
	huge := bytes.ReplaceAll(manifest, []byte(`disk.v2","size":`), []byte(`disk.v2","size":9999999`))
	huge = bytes.ReplaceAll(huge, []byte(`uncompressed-size":"`), []byte(`uncompressed-size":"9999999`))
	if resp, body := h.send(t, http.MethodPut, "/v2/r/manifests/huge", "application/vnd.oci.image.manifest.v1+json", huge); resp.StatusCode != http.StatusCreated {
		t.Fatalf("status %d: %s", resp.StatusCode, body)
	}
	s := openStore(t)
	_, err := transfer.Pull(t.Context(), h.ref("r:huge"), s, quick())
	if left, _ := os.ReadDir(filepath.Join(s.Dir(), "partial")); len(left) > 0 {
		t.Errorf("it left %v behind", left)
	}
	if !errors.Is(err, image.ErrNoSpace) || !strings.Contains(err.Error(), "MB free") {
		t.Errorf("pull = %v", err)
	}
	if gets := h.requests("GET /v2/r/blobs/"); len(gets) > 1 {
		t.Errorf("it fetched %v", gets)
	}
}

func TestAnIndexIsNoImage(t *testing.T) {
	h := newHub(t)
	index := []byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`)
	if resp, body := h.send(t, http.MethodPut, "/v2/r/manifests/t", "application/vnd.oci.image.index.v1+json", index); resp.StatusCode != http.StatusCreated {
		t.Fatalf("status %d: %s", resp.StatusCode, body)
	}
	if _, err := transfer.Pull(t.Context(), h.ref("r:t"), openStore(t), quick()); !errors.Is(err, tartfmt.ErrFormat) {
		t.Errorf("pull = %v, want ErrFormat", err)
	}
}

// Push against a registry with bad moments.
func TestPushThroughFaults(t *testing.T) {
	f := newFaultFixture(t)
	for name, fault := range map[string]fault{
		"503":     onceEach(status(503)),
		"dropped": onceEach(func(http.ResponseWriter, *http.Request, http.Handler) { panic(http.ErrAbortHandler) }),
	} {
		f.h.breakWith(fault)
		repo := "again-" + name
		digest, err := transfer.Push(t.Context(), image.Source{Disk: f.disk}, f.h.ref(repo+":t"), f.opt)
		f.h.breakWith(nil)
		if err != nil || digest != f.digest {
			t.Errorf("%s: push = %s, %v, want %s", name, digest, err, f.digest)
			continue
		}
		img, err := transfer.Pull(t.Context(), f.h.ref(repo+":t"), openStore(t), f.opt)
		if err != nil {
			t.Fatal(err)
		}
		sameFile(t, f.disk, img.Disk)
	}
	f.h.breakWith(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if r.Method == http.MethodPut {
			w.WriteHeader(http.StatusInsufficientStorage)
			return
		}
		next.ServeHTTP(w, r)
	})
	if _, err := transfer.Push(t.Context(), image.Source{Disk: f.disk}, f.h.ref("full:t"), f.opt); err == nil || !strings.Contains(err.Error(), "507") {
		t.Errorf("a full registry: %v", err)
	}
}
