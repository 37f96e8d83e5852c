package runnerdist_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mirego/tasuki/internal/base/secret"
	"github.com/mirego/tasuki/internal/runner"
	"github.com/mirego/tasuki/internal/runnerdist"
)

var linux = runnerdist.Platform{OS: "linux", Arch: "amd64"}

// site is a GitHub that offers one release and serves its archive, with faults.
type site struct {
	mu      sync.Mutex
	version string
	archive []byte
	sum     string // instead of the archive's own
	refuse  error  // of the listing
	token   secret.String
	asked   int
	gets    []string // the ranges that were asked for
	// serve stands in for the archive's server.
	serve func(w http.ResponseWriter, r *http.Request, archive []byte)
	url   string
}

func (s *site) set(change func(*site)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(s)
}

func (s *site) Downloads(context.Context) ([]runner.Download, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	if s.refuse != nil {
		return nil, s.refuse
	}
	sum := s.sum
	if sum == "" {
		sum = sumOf(s.archive)
	}
	return []runner.Download{{
		OS: "linux", Arch: "amd64", Version: s.version, SHA256: sum, Token: s.token,
		File: "actions-runner-linux-x64-" + s.version + ".tar.gz", URL: s.url + "/r/" + s.version,
	}}, nil
}

func (s *site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	archive, serve := s.archive, s.serve
	s.gets = append(s.gets, r.Header.Get("Range"))
	s.mu.Unlock()
	if serve != nil {
		serve(w, r, archive)
		return
	}
	http.ServeContent(w, r, "x", time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), bytes.NewReader(archive))
}

// RoundTrip lets a Cache reach the site without a network.
func (s *site) RoundTrip(req *http.Request) (*http.Response, error) {
	rec := httptest.NewRecorder()
	s.ServeHTTP(rec, req)
	res := rec.Result()
	res.Request = req
	return res, nil
}

func sumOf(b []byte) string { return fmt.Sprintf("%x", sha256.Sum256(b)) }

// archiveOf returns half a megabyte that differs by its word.
func archiveOf(word string) []byte { return bytes.Repeat([]byte(word), 512<<10/len(word)) }

func newSite(t *testing.T) *site {
	s := &site{version: "2.336.0", archive: archiveOf("one ")}
	srv := httptest.NewServer(s)
	t.Cleanup(srv.Close)
	s.url = srv.URL
	return s
}

func open(t *testing.T, dir string, s *site, change func(*runnerdist.Options)) (*runnerdist.Cache, *bytes.Buffer) {
	t.Helper()
	var log bytes.Buffer
	opt := runnerdist.Options{
		Dir: dir, Sources: func() []runnerdist.Source { return []runnerdist.Source{s} },
		Platforms: []runnerdist.Platform{linux}, Every: time.Millisecond,
		Log: slog.New(slog.NewTextHandler(&log, nil)), Rand: func() float64 { return 0 },
	}
	if change != nil {
		change(&opt)
	}
	c, err := runnerdist.New(opt)
	if err != nil {
		t.Fatal(err)
	}
	return c, &log
}

// until runs the cache until ok holds.
func until(t *testing.T, c *runnerdist.Cache, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var work sync.WaitGroup
	defer work.Wait()
	defer cancel()
	work.Go(func() { c.Run(ctx) })
	for !ok() {
		select {
		case <-ctx.Done():
			t.Fatalf("%s: %+v", what, c.Status())
		case <-time.After(time.Millisecond):
		}
	}
}

func has(c *runnerdist.Cache, version string) func() bool {
	return func() bool {
		r, ok := c.Latest(linux.OS, linux.Arch)
		return ok && r.Version == version
	}
}

func archives(t *testing.T, dir string) []string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "*.tar.gz"))
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, p := range paths {
		_, version, _ := strings.Cut(filepath.Base(p), "x64-")
		out = append(out, strings.TrimSuffix(version, ".tar.gz"))
	}
	return out
}

func TestItKeepsTheNewestAndTheOneBefore(t *testing.T) {
	s, dir := newSite(t), t.TempDir()
	c, _ := open(t, dir, s, nil)
	if _, ok := c.Latest(linux.OS, linux.Arch); ok {
		t.Error("an empty cache has a release")
	}
	until(t, c, "the first", has(c, "2.336.0"))
	r, _ := c.Latest(linux.OS, linux.Arch)
	content, err := os.ReadFile(r.Path)
	if err != nil || sumOf(content) != r.SHA256 || !bytes.Equal(content, s.archive) {
		t.Errorf("the archive at %s is not the one that was offered: %v", r.Path, err)
	}
	if want := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC); !r.Published.Equal(want) {
		t.Errorf("published %v, want %v", r.Published, want)
	}
	for _, v := range []string{"2.337.0", "2.338.0"} {
		s.set(func(s *site) { s.version, s.archive = v, archiveOf(v) })
		until(t, c, v, has(c, v))
	}
	if diff := cmp.Diff(2, len(archives(t, dir))); diff != "" {
		t.Errorf("kept %v", archives(t, dir))
	}
	// GitHub takes the newest back: the one before is still here.
	gets := len(s.gets)
	s.set(func(s *site) { s.version, s.archive = "2.337.0", archiveOf("2.337.0") })
	until(t, c, "the one before", has(c, "2.337.0"))
	if s.set(func(*site) {}); len(s.gets) != gets {
		t.Error("a release that is on the host was brought again")
	}
	// A new process finds it without asking anybody.
	again, _ := open(t, dir, s, nil)
	if !has(again, "2.337.0")() {
		t.Errorf("after a restart there is %+v", again.Status())
	}
}

func TestACutDownloadGoesOn(t *testing.T) {
	s, dir := newSite(t), t.TempDir()
	half := len(s.archive) / 2
	s.serve = func(w http.ResponseWriter, r *http.Request, archive []byte) {
		w.Header().Set("Content-Length", fmt.Sprint(len(archive)))
		_, _ = w.Write(archive[:half]) // and the connection ends
	}
	c, log := open(t, dir, s, func(o *runnerdist.Options) { o.Every = time.Hour })
	until(t, c, "the first half", func() bool { return c.Status()[0].Problem != "" })
	if problem := c.Status()[0].Problem; !strings.Contains(problem, fmt.Sprintf("the download ended after %d bytes", half)) {
		t.Errorf("it says %q", problem)
	}
	s.set(func(s *site) { s.serve, s.gets = nil, nil })
	again, _ := open(t, dir, s, nil) // the agent was killed meanwhile
	until(t, again, "the second half", has(again, "2.336.0"))
	if want := []string{fmt.Sprintf("bytes=%d-", half)}; cmp.Diff(want, s.gets) != "" {
		t.Errorf("asked for %v, want %v; log:\n%s", s.gets, want, log)
	}
}

func TestFaultsAreSaidAndTriedAgain(t *testing.T) {
	for name, fault := range map[string]struct {
		make func(*site)
		want string
	}{
		"wrong checksum": {func(s *site) { s.sum = strings.Repeat("0", 64) }, "wrong checksum"},
		"no checksum":    {func(s *site) { s.sum = "-" }, `its checksum "-" is none`},
		"not found": {func(s *site) {
			s.serve = func(w http.ResponseWriter, _ *http.Request, _ []byte) { w.WriteHeader(http.StatusNotFound) }
		}, "does not have it (404)"},
		"refused": {func(s *site) {
			s.serve = func(w http.ResponseWriter, _ *http.Request, _ []byte) { w.WriteHeader(http.StatusForbidden) }
		}, "refuses it (403)"},
		"a server's trouble": {func(s *site) {
			s.serve = func(w http.ResponseWriter, _ *http.Request, _ []byte) { w.WriteHeader(http.StatusBadGateway) }
		}, "answered 502"},
		"truncated": {func(s *site) {
			s.serve = func(w http.ResponseWriter, _ *http.Request, archive []byte) {
				w.Header().Set("Content-Length", fmt.Sprint(len(archive)))
				_, _ = w.Write(archive[:10])
			}
		}, "the download ended after"},
		"a page instead": {func(s *site) {
			s.serve = func(w http.ResponseWriter, _ *http.Request, _ []byte) { _, _ = io.WriteString(w, "<html>") }
		}, "wrong checksum"},
		"it hangs": {func(s *site) {
			s.serve = func(w http.ResponseWriter, r *http.Request, archive []byte) {
				w.Header().Set("Content-Length", fmt.Sprint(len(archive)))
				_, _ = w.Write(archive[:10])
				_ = http.NewResponseController(w).Flush()
				<-r.Context().Done()
			}
		}, "nothing came for 50ms"},
		"GitHub is down": {func(s *site) { s.refuse = errors.New("GitHub is on fire") }, "GitHub is on fire"},
		"plain http":     {func(s *site) { s.url = "http://192.0.2.1" }, "is not https"},
		"a redirect to plain http": {func(s *site) {
			s.serve = func(w http.ResponseWriter, r *http.Request, _ []byte) {
				http.Redirect(w, r, "http://192.0.2.1/x", http.StatusFound)
			}
		}, "is not https"},
	} {
		t.Run(name, func(t *testing.T) {
			s, dir := newSite(t), t.TempDir()
			url := s.url
			fault.make(s)
			c, _ := open(t, dir, s, func(o *runnerdist.Options) { o.Stall = 50 * time.Millisecond })
			until(t, c, "the fault", func() bool { return strings.Contains(c.Status()[0].Problem, fault.want) })
			if _, ok := c.Latest(linux.OS, linux.Arch); ok || len(archives(t, dir)) > 0 {
				t.Error("a faulty download was placed")
			}
			s.set(func(s *site) { s.sum, s.serve, s.refuse, s.url = "", nil, nil, url })
			until(t, c, "the next try", func() bool { return has(c, "2.336.0")() && c.Status()[0].Problem == "" })
		})
	}
}

func TestAChangedArchiveIsNotGivenOut(t *testing.T) {
	s, dir := newSite(t), t.TempDir()
	c, _ := open(t, dir, s, nil)
	until(t, c, "the first", has(c, "2.336.0"))
	r, _ := c.Latest(linux.OS, linux.Arch)
	content, err := os.ReadFile(r.Path)
	if err != nil {
		t.Fatal(err)
	}
	content[7]++
	if err := os.WriteFile(r.Path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	s.set(func(s *site) { s.gets = nil })
	again, log := open(t, dir, s, nil)
	until(t, again, "another download", func() bool { s.mu.Lock(); defer s.mu.Unlock(); return len(s.gets) > 0 })
	until(t, again, "the right archive", has(again, "2.336.0"))
	if content, err := os.ReadFile(r.Path); err != nil || sumOf(content) != r.SHA256 || !strings.Contains(log.String(), "changed on the disk") {
		t.Errorf("the archive is wrong, or nothing was said: %v\n%s", err, log)
	}
	// One that is cut off is not even given out before that.
	if err := os.Truncate(r.Path, 10); err != nil {
		t.Fatal(err)
	}
	if cut, _ := open(t, dir, s, nil); has(cut, "2.336.0")() {
		t.Error("a torn archive is given out")
	}
}

func TestTheDownloadTokenIsASecret(t *testing.T) {
	const token = "temporary-download-token-1"
	s, dir := newSite(t), t.TempDir()
	s.token = secret.New(token)
	var seen, elsewhere string
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.set(func(*site) { elsewhere = r.Header.Get("Authorization") })
		w.WriteHeader(http.StatusNotFound)
	}))
	t.Cleanup(other.Close)
	away := strings.Replace(other.URL, "127.0.0.1", "localhost", 1)
	s.serve = func(w http.ResponseWriter, r *http.Request, _ []byte) {
		s.set(func(*site) { seen = r.Header.Get("Authorization") })
		http.Redirect(w, r, away+"/signed?sig="+token, http.StatusFound)
	}
	c, log := open(t, dir, s, nil)
	until(t, c, "the refusal", func() bool { return c.Status()[0].Problem != "" })
	s.mu.Lock()
	defer s.mu.Unlock()
	if seen != "Bearer "+token || elsewhere != "" {
		t.Errorf("the token went to its own address as %q and to another as %q", seen, elsewhere)
	}
	if said := c.Status()[0].Problem + log.String(); strings.Contains(said, token) {
		t.Errorf("the token was said: %s", said)
	}
}

// A GitHub that fails is left alone for longer and longer, and asked each hour
// when it is well.
func TestItKeepsItsPace(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		s := &site{version: "2.336.0", archive: []byte("x"), url: "https://example.com", refuse: errors.New("down")}
		c, _ := open(t, dir, s, func(o *runnerdist.Options) {
			o.Every, o.HTTP, o.Rand = time.Hour, s, func() float64 { return 0.5 }
		})
		ctx, cancel := context.WithCancel(t.Context())
		var work sync.WaitGroup
		defer work.Wait()
		defer cancel()
		work.Go(func() { c.Run(ctx) })
		time.Sleep(time.Hour)
		synctest.Wait()
		failed := s.asked
		if failed < 5 || failed > 15 {
			t.Errorf("a GitHub that is down was asked %d times in an hour", failed)
		}
		s.set(func(s *site) { s.refuse, s.asked = nil, 0 })
		time.Sleep(10 * time.Hour)
		synctest.Wait()
		if s.asked < 9 || s.asked > 12 || !has(c, "2.336.0")() {
			t.Errorf("in ten hours a GitHub that is well was asked %d times, and there is %+v", s.asked, c.Status())
		}
	})
}

func TestAPlatformIsBroughtOnceSomebodyAsks(t *testing.T) {
	s, dir := newSite(t), t.TempDir()
	c, _ := open(t, dir, s, func(o *runnerdist.Options) { o.Platforms, o.Every = nil, time.Hour })
	until(t, c, "the release", has(c, "2.336.0"))
}
