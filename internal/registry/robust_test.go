package registry

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// eventually waits for something that another goroutine is about to do.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for limit := time.Now().Add(time.Minute); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("it never came to this: %s", what)
		}
	}
}

// A collection lets a push that is under way finish, keeps out the next, and
// takes nothing of either.
func TestACollectionWaitsForAPushUnderWay(t *testing.T) {
	b := newBench(t, Options{})
	blob := bytes.Repeat([]byte("0123456789abcdef"), 1<<14)
	resp, _ := do(t, http.MethodPost, b.url+"/v2/x/blobs/uploads/", "", nil)
	half, more := io.Pipe()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, resp.Header.Get("Location")+"&digest="+digestOf(blob), half)
	if err != nil {
		t.Fatal(err)
	}
	var work sync.WaitGroup
	status := 0
	work.Go(func() {
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Error(err)
			return
		}
		status = resp.StatusCode
		_ = resp.Body.Close()
	})
	if _, err := more.Write(blob[:len(blob)/2]); err != nil {
		t.Fatal(err)
	}
	inside := func(writers int, shut bool) func() bool {
		return func() bool {
			b.depot.gate.mu.Lock()
			defer b.depot.gate.mu.Unlock()
			return b.depot.gate.writers == writers && (b.depot.gate.shut != nil) == shut
		}
	}
	eventually(t, "the push is let in", inside(1, false))
	work.Go(func() { b.gc(Policy{Grace: time.Hour}) })
	eventually(t, "the collection keeps others out", inside(1, true))
	late := make(chan int, 1)
	work.Go(func() { late <- pushBlob(t, b.url, "x", []byte("late"), digestOf([]byte("late"))) })
	if _, err := more.Write(blob[len(blob)/2:]); err != nil {
		t.Fatal(err)
	}
	_ = more.Close()
	work.Wait()
	if status != http.StatusCreated || <-late != http.StatusCreated {
		t.Errorf("the push under way: %d; want 201 for it and the one after", status)
	}
	if resp, got := do(t, http.MethodGet, b.url+"/v2/x/blobs/"+digestOf(blob), "", nil); resp.StatusCode != http.StatusOK || !bytes.Equal(got, blob) {
		t.Errorf("what was pushed meanwhile: %d, %d bytes", resp.StatusCode, len(got))
	}
}

// Fifty hosts pull one blob at once: each gets it whole, from a registry of
// ours and through a mirror, which fetches it once.
func TestFiftyPullsOfOneBlob(t *testing.T) {
	u := newTheirs(t)
	up := httptest.NewServer(u)
	defer up.Close()
	front, ts, _ := open(t, Options{Mirrors: []Mirror{{Name: "up", Upstream: up.URL}}})
	blob := bytes.Repeat([]byte("0123456789abcdef"), 1<<15)
	pushBlob(t, ts.URL, "own", blob, digestOf(blob))
	theirOwn := httptest.NewServer(u.inner.Handler())
	defer theirOwn.Close()
	pushBlob(t, theirOwn.URL, "team/x", blob, digestOf(blob))
	for _, repository := range []string{"own", "mirror/up/team/x"} {
		var work sync.WaitGroup
		for range 50 {
			work.Go(func() {
				resp, got := do(t, http.MethodGet, ts.URL+"/v2/"+repository+"/blobs/"+digestOf(blob), "", nil)
				if resp.StatusCode != http.StatusOK || !bytes.Equal(got, blob) {
					t.Errorf("%s: %d, %d bytes of %d", repository, resp.StatusCode, len(got), len(blob))
				}
			})
		}
		work.Wait()
	}
	if n := u.blobs.Load(); n != 1 {
		t.Errorf("the mirror fetched the blob %d times, want once", n)
	}
	if m := front.mirrors["up"]; len(m.passing) != 0 {
		t.Errorf("%d blobs are on their way for ever", len(m.passing))
	}
}

// What a registry does by itself: it renews its certificate, and collects.
func TestKeepingHouse(t *testing.T) {
	s, ts, _ := open(t, Options{CollectEvery: 24 * time.Hour}) // the library leaves a goroutine behind, which no bubble may
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		_, cert, err := OpenAuthority(filepath.Join(dir, "tls"), []string{"localhost"})
		if err != nil {
			t.Fatal(err)
		}
		s.opt.Certificate = cert
		ctx, cancel := context.WithCancel(t.Context())
		var work sync.WaitGroup
		work.Go(func() { s.keepHouse(ctx) })
		first := cert.expiry()
		time.Sleep(certificateLife - renewBefore - 2*houseTick)
		if cert.expiry() != first {
			t.Error("the certificate was renewed too early")
		}
		time.Sleep(4 * houseTick)
		if left := cert.expiry().Sub(first); left < certificateLife-renewBefore-4*houseTick {
			t.Errorf("30 days before its end the certificate was given %s more", left)
		}
		cancel()
		work.Wait()
	})
	_, body := do(t, http.MethodGet, ts.URL+"/metrics", "", nil)
	m := regexp.MustCompile(`tasuki_registry_gc_runs_total\{result="ok"\} (\d+)`).FindSubmatch(body)
	if m == nil {
		t.Fatal("it never collected")
	}
	if n, _ := strconv.Atoi(string(m[1])); n < 360 || n > 375 {
		t.Errorf("in 367 days it collected %d times", n)
	}
}

// An image that lost its tag keeps what it boots with for as long as it stays,
// whatever keep-last says.
func TestAPinnedImageKeepsItsBootArtifact(t *testing.T) {
	b := newBench(t, Options{})
	old := b.push("x", "stable", "one")
	boot := "sha256-" + strings.TrimPrefix(old, "sha256:") + ".boot"
	b.push("x", boot, "boot of one")
	b.age(4 * week)
	b.push("x", "stable", "two")
	b.age(2 * 24 * time.Hour)
	p := usual
	p.KeepLast = 1
	b.gc(p)
	if !b.has("x", old, "one") || !b.has("x", boot, "boot of one") {
		t.Error("a host that is pinned to the image of two days ago cannot boot it any more")
	}
	b.age(week)
	b.gc(p)
	if b.has("x", old, "one") || b.has("x", boot, "boot of one") {
		t.Error("what nobody is pinned to any more stays")
	}
}

// The file of users, and that of a certificate, may be replaced by one of the
// same size within one tick of the file system's clock.
func TestAFileThatIsReplacedIsReadAgain(t *testing.T) {
	s := guarded(t, Options{})
	users, err := ReadUsers(s.opt.Users)
	if err != nil {
		t.Fatal(err)
	}
	at := time.Now()
	for i := range 4 {
		role, want := Reader, http.StatusForbidden
		if i%2 == 0 {
			role, want = Writer, http.StatusAccepted
		}
		users[0].Role = role
		if err := writeUsers(s.opt.Users, users); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(s.opt.Users, at, at); err != nil {
			t.Fatal(err)
		}
		if w := try(s, "POST", "/v2/x/blobs/uploads/", users[0].Name, "right password"); w.Code != want {
			t.Fatalf("as a %s: %d, want %d", role, w.Code, want)
		}
	}
}
