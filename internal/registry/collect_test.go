package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestExpired(t *testing.T) {
	at := func(days int) time.Time { return time.Date(2026, 11, days, 0, 0, 0, 0, time.UTC) }
	hex := strings.Repeat("a", 64)
	tags := []tagged{
		{"v1", "d1", at(1)}, {"v2", "d2", at(2)}, {"v3", "d3", at(3)}, {"v4", "d4", at(4)}, {"latest", "d4", at(4)},
		{"stable", "d1", at(1)}, {"sha256-" + hex + ".boot", "b1", at(1)},
	}
	tests := []struct {
		name string
		p    Policy
		want []string
	}{
		{"all stay", Policy{}, nil},
		{"two images, of three tags", Policy{KeepLast: 2}, []string{"v2", "stable", "v1"}},
		{"a pattern keeps its image, which keeps its other tags", Policy{KeepLast: 1, KeepTags: []string{"sta*"}}, []string{"v3", "v2"}},
		{"more than there are", Policy{KeepLast: 9}, nil},
	}
	for _, tt := range tests {
		var got []string
		for _, tag := range tt.p.expired(tags) {
			got = append(got, tag.name)
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: expired %v, want %v", tt.name, got, tt.want)
		}
	}
}

// bench is a server whose files can be made older.
type bench struct {
	*Server
	t   *testing.T
	url string
}

func newBench(t *testing.T, opt Options) *bench {
	t.Helper()
	s, ts, _ := open(t, opt)
	return &bench{s, t, ts.URL}
}

// push stores an image of its own layer under a tag, and returns its digest.
func (b *bench) push(repo, tag, content string, extra ...string) string {
	b.t.Helper()
	layer := []byte(content)
	for _, blob := range [][]byte{layer, []byte("{}")} {
		if code := pushBlob(b.t, b.url, repo, blob, digestOf(blob)); code != http.StatusCreated {
			b.t.Fatalf("pushing a blob: status %d", code)
		}
	}
	m := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","size":2,"digest":%q},"layers":[{"mediaType":"application/octet-stream","size":%d,"digest":%q}]%s}`,
		manifestType, digestOf([]byte("{}")), len(layer), digestOf(layer), strings.Join(extra, ""))
	if tag == "" {
		tag = digestOf(m)
	}
	if resp, body := do(b.t, http.MethodPut, b.url+"/v2/"+repo+"/manifests/"+tag, manifestType, m); resp.StatusCode != http.StatusCreated {
		b.t.Fatalf("pushing a manifest: status %d: %s", resp.StatusCode, body)
	}
	return digestOf(m)
}

// age makes everything that is there older.
func (b *bench) age(by time.Duration) {
	b.t.Helper()
	err := filepath.WalkDir(filepath.Join(b.dir), func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		return os.Chtimes(path, info.ModTime().Add(-by), info.ModTime().Add(-by))
	})
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) gc(p Policy) Report {
	b.t.Helper()
	r, err := b.Collect(b.t.Context(), p, false)
	if err != nil {
		b.t.Fatal(err)
	}
	return r
}

// has says whether a manifest can be pulled, and its layer with it.
func (b *bench) has(repo, ref, content string) bool {
	b.t.Helper()
	m, _ := do(b.t, http.MethodGet, b.url+"/v2/"+repo+"/manifests/"+ref, "", nil)
	l, body := do(b.t, http.MethodGet, b.url+"/v2/"+repo+"/blobs/"+digestOf([]byte(content)), "", nil)
	whole := l.StatusCode == http.StatusOK && string(body) == content
	if m.StatusCode == http.StatusOK && !whole {
		b.t.Errorf("%s:%s is there without its layer: %d %q", repo, ref, l.StatusCode, body)
	}
	return m.StatusCode == http.StatusOK && whole
}

const week = 7 * 24 * time.Hour

var usual = Policy{Untagged: week, Grace: 24 * time.Hour}

func TestCollectDeletesWhatNoTagLeadsTo(t *testing.T) {
	b := newBench(t, Options{})
	b.push("team/x", "v1", "one")
	old := b.push("team/x", "latest", "two")
	b.push("team/x", "latest", "three")
	b.push("other", "t", "one") // the same layer in another repository
	b.age(2 * week)

	dry, err := b.Collect(t.Context(), usual, true)
	if err != nil || dry.Blobs != 2 || len(dry.Manifests) != 1 {
		t.Errorf("dry run: %+v, %v; want the manifest that lost its tag, and its layer", dry, err)
	}
	if !b.has("team/x", old, "two") {
		t.Error("a dry run deleted something")
	}
	r := b.gc(usual)
	if r.Blobs != dry.Blobs || r.Bytes != dry.Bytes || !slices.Equal(r.Manifests, []string{"team/x@" + old}) {
		t.Errorf("got %+v, want what the dry run said: %+v", r, dry)
	}
	if b.has("team/x", old, "two") {
		t.Error("garbage is still there")
	}
	for ref, content := range map[string]string{"v1": "one", "latest": "three"} {
		if !b.has("team/x", ref, content) {
			t.Errorf("%s is gone", ref)
		}
	}
	if !b.has("other", "t", "one") {
		t.Error("the other repository lost its image")
	}
	if again := b.gc(usual); again.Blobs+len(again.Manifests)+len(again.Tags) != 0 {
		t.Errorf("a second collection found more: %+v", again)
	}
}

// Hosts are pinned to digests: what lost its tag stays for a while.
func TestWhatLostItsTagStaysForAWhile(t *testing.T) {
	b := newBench(t, Options{})
	old := b.push("x", "latest", "one")
	b.age(4 * week)
	b.push("x", "latest", "two") // only now the first loses its tag
	b.age(2 * 24 * time.Hour)
	b.gc(usual)
	if !b.has("x", old, "one") {
		t.Error("an image that lost its tag two days ago is gone")
	}
	b.age(week)
	b.gc(usual)
	if b.has("x", old, "one") {
		t.Error("an image that lost its tag nine days ago is still there")
	}
}

func TestKeepLast(t *testing.T) {
	b := newBench(t, Options{})
	var digests []string
	for i := range 4 {
		digests = append(digests, b.push("x", fmt.Sprint("v", i), fmt.Sprint("content ", i)))
		b.age(week)
	}
	b.push("x", "sha256-"+strings.TrimPrefix(digests[0], "sha256:")+".boot", "boot of v0")
	b.push("x", "sha256-"+strings.TrimPrefix(digests[3], "sha256:")+".boot", "boot of v3")
	b.age(week)
	p := usual
	p.KeepLast, p.KeepTags = 2, []string{"v1"}
	r := b.gc(p)
	want := []string{"x:sha256-" + strings.TrimPrefix(digests[0], "sha256:") + ".boot", "x:v0"}
	slices.Sort(r.Tags)
	if diff := cmp.Diff(want, r.Tags); diff != "" {
		t.Errorf("tags deleted (-want +got):\n%s", diff)
	}
	for i, want := range []bool{false, true, true, true} {
		if b.has("x", fmt.Sprint("v", i), fmt.Sprint("content ", i)) != want {
			t.Errorf("v%d is there: %v, want %v", i, !want, want)
		}
	}
	if !b.has("x", "sha256-"+strings.TrimPrefix(digests[3], "sha256:")+".boot", "boot of v3") {
		t.Error("an image lost its boot artifact")
	}
	resp, body := do(t, http.MethodGet, b.url+"/v2/x/tags/list", "", nil)
	if resp.StatusCode != 200 || strings.Contains(string(body), `"v0"`) || !strings.Contains(string(body), `"v1"`) {
		t.Errorf("tags: %s", body)
	}
}

func TestWhatBelongsToAnImageStays(t *testing.T) {
	b := newBench(t, Options{})
	child := b.push("x", "", "child")
	image := b.push("x", "image", "image")
	signature := b.push("x", "", "signature", fmt.Sprintf(`,"subject":{"mediaType":%q,"size":1,"digest":%q}`, manifestType, image))
	index := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":%q,"size":1,"digest":%q}]}`, manifestType, child)
	if resp, body := do(t, http.MethodPut, b.url+"/v2/x/manifests/multi", "application/vnd.oci.image.index.v1+json", index); resp.StatusCode != http.StatusCreated {
		t.Fatalf("%d %s", resp.StatusCode, body)
	}
	loose := b.push("x", "", "loose", fmt.Sprintf(`,"subject":{"mediaType":%q,"size":1,"digest":%q}`, manifestType, digestOf([]byte("not here"))))
	b.age(2 * week)
	r := b.gc(usual)
	if !slices.Equal(r.Manifests, []string{"x@" + loose}) {
		t.Errorf("deleted %v, want the signature of nothing alone", r.Manifests)
	}
	for digest, content := range map[string]string{child: "child", image: "image", signature: "signature"} {
		if !b.has("x", digest, content) {
			t.Errorf("%s is gone", content)
		}
	}
}

// Blobs of a push that has not come to its manifest yet are named by nothing.
func TestAPushUnderWayLosesNothing(t *testing.T) {
	b := newBench(t, Options{})
	blob := []byte("a layer")
	pushBlob(t, b.url, "x", blob, digestOf(blob))
	old := []byte("a layer of long ago")
	pushBlob(t, b.url, "x", old, digestOf(old))
	if err := filepath.WalkDir(b.dir, func(path string, e os.DirEntry, _ error) error {
		if strings.Contains(path, strings.TrimPrefix(digestOf(old), "sha256:")) && !e.IsDir() {
			return os.Chtimes(path, time.Now().Add(-2*week), time.Now().Add(-2*week))
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	// The push asks for it, is told that it is there, and so does not send it.
	if resp, _ := do(t, http.MethodHead, b.url+"/v2/x/blobs/"+digestOf(old), "", nil); resp.StatusCode != 200 {
		t.Fatalf("status %d", resp.StatusCode)
	}
	if r := b.gc(usual); r.Blobs != 0 {
		t.Errorf("%d blobs of the push were deleted", r.Blobs)
	}
	b.age(2 * 24 * time.Hour)
	if r := b.gc(usual); r.Blobs != 2 {
		t.Errorf("%d blobs were deleted once nobody cared, want 2", r.Blobs)
	}
	if code := pushBlob(t, b.url, "x", blob, digestOf(blob)); code != http.StatusCreated {
		t.Errorf("pushing it again: status %d", code)
	}
}

// A blob that came just now stays even if no repository claims it: the claim
// is written after the blob.
func TestAYoungBlobStays(t *testing.T) {
	b := newBench(t, Options{})
	blob := []byte("a layer")
	pushBlob(t, b.url, "x", blob, digestOf(blob))
	if err := os.RemoveAll(b.depot.root("repositories", "x", "_layers")); err != nil {
		t.Fatal(err)
	}
	if r := b.gc(usual); r.Blobs != 0 {
		t.Errorf("%d blobs were deleted", r.Blobs)
	}
}

// What cannot be read may name anything: nothing is deleted.
func TestABrokenManifestStopsTheCollection(t *testing.T) {
	b := newBench(t, Options{})
	digest := b.push("x", "t", "one")
	b.push("x", "u", "two")
	loose := []byte("loose")
	pushBlob(t, b.url, "x", loose, digestOf(loose))
	data := filepath.Join(b.depot.blobPath(digest), "data")
	if err := os.WriteFile(data, []byte("{ broken"), 0o600); err != nil {
		t.Fatal(err)
	}
	b.age(2 * week)
	_, err := b.Collect(t.Context(), usual, false)
	if err == nil || !strings.Contains(err.Error(), digest) || !strings.Contains(err.Error(), `"x"`) {
		t.Errorf("error %v, want one that names the manifest and its repository", err)
	}
	if _, err := os.Stat(filepath.Join(b.depot.blobPath(digestOf(loose)), "data")); err != nil {
		t.Errorf("something was deleted all the same: %v", err)
	}
}

func TestPushesWaitForASweepAndPullsDoNot(t *testing.T) {
	s, _, _ := open(t, Options{})
	synctest.Test(t, func(t *testing.T) {
		reopen, err := s.depot.gate.close(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		w := try(s, "POST", "/v2/x/blobs/uploads/", "", "")
		if w.Code != 503 || w.Header().Get("Retry-After") == "" || time.Since(start) != patience {
			t.Errorf("a push while a sweep lasts: %d, Retry-After %q after %s", w.Code, w.Header().Get("Retry-After"), time.Since(start))
		}
		start = time.Now()
		if w := try(s, "GET", "/v2/_catalog", "", ""); w.Code != 200 || time.Since(start) != 0 {
			t.Errorf("a pull: %d after %s, want 200 at once", w.Code, time.Since(start))
		}
		done := make(chan *httptest.ResponseRecorder)
		go func() { done <- try(s, "POST", "/v2/x/blobs/uploads/", "", "") }()
		time.Sleep(time.Second)
		reopen()
		if w := <-done; w.Code != 202 {
			t.Errorf("a push that waited: %d, want 202", w.Code)
		}
	})
}

func TestACollectionGivesUpOnAPushThatDoesNotEnd(t *testing.T) {
	s, _, _ := open(t, Options{})
	synctest.Test(t, func(t *testing.T) {
		leave, _ := s.depot.gate.enter(t.Context())
		if _, err := s.Collect(t.Context(), usual, false); !errors.Is(err, ErrBusy) {
			t.Errorf("got %v, want ErrBusy", err)
		}
		if w := try(s, "POST", "/v2/x/blobs/uploads/", "", ""); w.Code != 202 {
			t.Errorf("a push afterwards: %d, want 202", w.Code)
		}
		leave()
		if _, err := s.Collect(t.Context(), usual, false); err != nil {
			t.Errorf("once it ended: %v", err)
		}
	})
}

// While a sweep deletes a blob, nobody is told that it is there.
func TestDoomedBlobsAreNotThere(t *testing.T) {
	b := newBench(t, Options{})
	blob := []byte("x")
	pushBlob(t, b.url, "x", blob, digestOf(blob))
	doomed := map[string]bool{digestOf(blob): true}
	b.depot.doomed.Store(&doomed)
	if resp, _ := do(t, http.MethodHead, b.url+"/v2/x/blobs/"+digestOf(blob), "", nil); resp.StatusCode != 404 {
		t.Errorf("status %d, want 404", resp.StatusCode)
	}
}

// A sweep that is cut at any item leaves a registry that serves whole images,
// and garbage that the next one finds.
func TestASweepMayEndAnywhere(t *testing.T) {
	seed := newBench(t, Options{})
	seed.push("x", "keep", "kept")
	for i := range 3 {
		seed.push("x", fmt.Sprint("v", i), fmt.Sprint("content ", i))
	}
	seed.age(4 * week)
	seed.push("x", "keep2", "kept too")
	seed.age(2 * 24 * time.Hour)
	for cut := range 12 {
		b := newBench(t, Options{Dir: copyTree(t, seed.dir)})
		p := usual
		p.KeepLast, p.KeepTags = 1, []string{"keep*"}
		mk := marker{d: b.depot, policy: p, now: time.Now()}
		plan, err := mk.mark()
		if err != nil {
			t.Fatal(err)
		}
		ctx := &countdown{Context: t.Context(), left: cut}
		if err := b.depot.sweep(ctx, plan); err == nil {
			t.Logf("cut %d: the sweep came to its end", cut)
		}
		for i := range 3 {
			b.has("x", fmt.Sprint("v", i), fmt.Sprint("content ", i)) // whole, or not there
		}
		b.gc(p)
		for ref, content := range map[string]string{"keep": "kept", "keep2": "kept too"} {
			if !b.has("x", ref, content) {
				t.Errorf("cut %d: %s is gone", cut, ref)
			}
		}
		if r := b.gc(p); r.Blobs+len(r.Manifests)+len(r.Tags) != 0 {
			t.Errorf("cut %d: a second collection found more: %+v", cut, r)
		}
		if entries, _ := os.ReadDir(b.depot.root("blobs", "sha256")); len(entries) == 0 {
			t.Errorf("cut %d: no blob is left", cut)
		}
	}
}

// copyTree copies a folder with the times of its files.
func copyTree(t *testing.T, from string) string {
	t.Helper()
	to := t.TempDir()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	err := filepath.WalkDir(from, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		name, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		return os.Chtimes(filepath.Join(to, name), info.ModTime(), info.ModTime())
	})
	if err != nil {
		t.Fatal(err)
	}
	return to
}

// countdown is a context that ends after it was asked so many times.
type countdown struct {
	context.Context
	left int
}

func (c *countdown) Err() error {
	if c.left--; c.left < 0 {
		return context.Canceled
	}
	return nil
}

func TestAbandonedUploadsAreDeleted(t *testing.T) {
	b := newBench(t, Options{})
	resp, _ := do(t, http.MethodPost, b.url+"/v2/x/blobs/uploads/", "", nil)
	if resp.StatusCode != 202 {
		t.Fatal(resp.StatusCode)
	}
	do(t, http.MethodPatch, resp.Header.Get("Location"), "application/octet-stream", bytes.Repeat([]byte("x"), 1000))
	if r := b.gc(usual); r.Uploads != 0 {
		t.Errorf("an upload of now was deleted: %+v", r)
	}
	b.age(4 * 24 * time.Hour)
	if r := b.gc(usual); r.Uploads != 1 {
		t.Errorf("deleted %d uploads, want 1", r.Uploads)
	}
}
