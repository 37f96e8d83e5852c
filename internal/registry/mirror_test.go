package registry

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/mirego/tasuki/internal/base/secret"
)

// switchable is a registry with a reader, that can be switched off.
func switchable(t *testing.T) (url string, off func(bool)) {
	t.Helper()
	s := guarded(t, Options{})
	var down bool
	ts := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if down {
			http.Error(w, "down", http.StatusBadGateway)
			return
		}
		s.Handler().ServeHTTP(w, r)
	}))
	t.Cleanup(ts.Close)
	pusher := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.SetBasicAuth("ci", "right password")
		s.Handler().ServeHTTP(w, r)
	}))
	defer pusher.Close()
	b := &bench{s, t, pusher.URL}
	b.push("team/x", "t", "content")
	b.push("team/x", "u", "never pulled")
	return ts.URL, func(d bool) { down = d }
}

// known is a password that stays.
func known(password string) func(context.Context) (secret.String, error) {
	return func(context.Context) (secret.String, error) { return secret.New(password), nil }
}

func mirrorOf(url, password string) []Mirror {
	return []Mirror{{Name: "up", Upstream: url, Username: "mac", Password: known(password)}}
}

func TestAMirrorPassesThroughAndKeeps(t *testing.T) {
	url, off := switchable(t)
	dir := t.TempDir()
	s, err := New(Options{Dir: dir, Mirrors: mirrorOf(url, "right password"), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ts := httptest.NewServer(s.Handler())
	b := &bench{s, t, ts.URL}
	if !b.has("mirror/up/team/x", "t", "content") {
		t.Fatal("the image does not come through")
	}
	if resp, body := do(t, http.MethodGet, ts.URL+"/v2/mirror/up/team/x/tags/list?n=1", "", nil); resp.StatusCode != 200 ||
		!strings.Contains(resp.Header.Get("Link"), "/v2/mirror/up/team/x/tags/list") {
		t.Errorf("tags: %d %s, Link %q", resp.StatusCode, body, resp.Header.Get("Link"))
	}
	for _, tt := range []struct {
		method, path string
		want         int
		words        string
	}{
		{http.MethodPost, "/v2/mirror/up/team/x/blobs/uploads/", 405, "can only be pulled from"},
		{http.MethodPut, "/v2/mirror/up/team/x/manifests/t", 405, "can only be pulled from"},
		{http.MethodGet, "/v2/mirror/other/x/manifests/t", 404, "no mirror called"},
		{http.MethodPost, "/v2/mirror/other/x/blobs/uploads/", 404, "no mirror called"},
		{http.MethodPost, "/v2/own/x/blobs/uploads/", 202, ""},
	} {
		resp, body := do(t, tt.method, ts.URL+tt.path, "", nil)
		if resp.StatusCode != tt.want || !strings.Contains(string(body), tt.words) {
			t.Errorf("%s %s: %d %s, want %d with %q", tt.method, tt.path, resp.StatusCode, body, tt.want, tt.words)
		}
	}
	off(true)
	if !b.has("mirror/up/team/x", "t", "content") {
		t.Error("with the upstream down, what was pulled before does not come")
	}
	ts.Close()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	// A restart while the upstream is down.
	again, ts2, _ := open(t, Options{Dir: dir, Mirrors: mirrorOf(url, "right password")})
	b = &bench{again, t, ts2.URL}
	if !b.has("mirror/up/team/x", "t", "content") {
		t.Error("after a restart with the upstream down, what was pulled before does not come")
	}
	if resp, body := do(t, http.MethodGet, ts2.URL+"/v2/mirror/up/team/x/manifests/u", "", nil); resp.StatusCode != 502 || !strings.Contains(string(body), "answered 502") {
		t.Errorf("what was never pulled: %d %s, want 502: it may well be there", resp.StatusCode, body)
	}
	off(false)
	again.mirrors["up"].up.until = time.Time{}
	if !b.has("mirror/up/team/x", "u", "never pulled") {
		t.Error("the upstream is back, and is not asked")
	}
}

func TestAMirrorForgetsWhatNobodyPulls(t *testing.T) {
	url, off := switchable(t)
	s, ts, _ := open(t, Options{Mirrors: mirrorOf(url, "right password")})
	b := &bench{s, t, ts.URL}
	b.has("mirror/up/team/x", "t", "content")
	b.has("mirror/up/team/x", "u", "never pulled")
	b.age(20 * 24 * time.Hour)
	b.has("mirror/up/team/x", "t", "content") // used now
	b.age(20 * 24 * time.Hour)
	r := b.gc(usual)
	if len(r.Tags) != 1 || r.Tags[0] != "team/x:u" || r.Blobs == 0 {
		t.Errorf("deleted %+v, want team/x:u and its blobs", r)
	}
	off(true)
	if !b.has("mirror/up/team/x", "t", "content") {
		t.Error("what was pulled twenty days ago is gone")
	}
	if b.has("mirror/up/team/x", "u", "never pulled") {
		t.Error("what nobody pulled for forty days is still there")
	}
}

func TestMirrorsThatCannotBe(t *testing.T) {
	for _, m := range []Mirror{{Upstream: "http://x/path"}, {Upstream: ""}, {Upstream: "ghcr.io", Name: "Not/Good"}, {Upstream: "ftp://x"}} {
		if name, base, err := m.resolve(); err == nil {
			t.Errorf("%+v is %q at %q, want an error", m, name, base)
		}
	}
	for upstream, want := range map[string]string{"ghcr.io": "ghcr.io https://ghcr.io", "docker.io": "docker.io https://registry-1.docker.io", "http://127.0.0.1:5001": "127.0.0.1-5001 http://127.0.0.1:5001"} {
		if name, base, err := (Mirror{Upstream: upstream}).resolve(); err != nil || name+" "+base != want {
			t.Errorf("%s: %q at %q, %v; want %s", upstream, name, base, err, want)
		}
	}
	same := []Mirror{{Upstream: "ghcr.io"}, {Upstream: "https://ghcr.io"}}
	if _, err := New(Options{Dir: t.TempDir(), Mirrors: same}); err == nil {
		t.Error("two mirrors of one name were taken")
	}
}
