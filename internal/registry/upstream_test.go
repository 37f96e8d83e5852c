package registry

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mirego/tasuki/internal/base/secret"
)

// theirs is another registry: with an image at team/x:t, behind a door that
// may do anything first. A door that answers returns false.
type theirs struct {
	inner *Server
	mu    sync.Mutex
	door  func(http.ResponseWriter, *http.Request) bool
	blobs atomic.Int64 // GETs of blobs that were served
}

func newTheirs(t *testing.T) *theirs {
	t.Helper()
	s, ts, _ := open(t, Options{})
	(&bench{s, t, ts.URL}).push("team/x", "t", "content")
	(&bench{s, t, ts.URL}).push("team/x", "u", "never pulled")
	return &theirs{inner: s}
}

func (u *theirs) setDoor(door func(http.ResponseWriter, *http.Request) bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.door = door
}

func (u *theirs) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	u.mu.Lock()
	door := u.door
	u.mu.Unlock()
	if door != nil && !door(w, r) {
		return
	}
	if r.Method == http.MethodGet && parseRoute(r.URL.Path).kind == kindBlob {
		u.blobs.Add(1)
	}
	u.inner.Handler().ServeHTTP(w, r)
}

// mirrored opens a registry that mirrors url as "up".
func mirrored(t *testing.T, m Mirror) *bench {
	t.Helper()
	m.Name = "up"
	s, ts, _ := open(t, Options{Mirrors: []Mirror{m}})
	return &bench{s, t, ts.URL}
}

func TestAMirrorOfAnUpstreamWithAnAuthorityOfItsOwn(t *testing.T) {
	up := httptest.NewUnstartedServer(newTheirs(t))
	up.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
	up.StartTLS()
	defer up.Close()
	roots := x509.NewCertPool()
	roots.AddCert(up.Certificate())
	if b := mirrored(t, Mirror{Upstream: up.URL, Roots: roots}); !b.has("mirror/up/team/x", "t", "content") {
		t.Error("with its authority named, the image does not come through")
	}
	b := mirrored(t, Mirror{Upstream: up.URL})
	resp, body := do(t, http.MethodGet, b.url+"/v2/mirror/up/team/x/manifests/t", "", nil)
	if resp.StatusCode != 503 || !strings.Contains(string(body), "name its authority") {
		t.Errorf("without: %d %s, want 503 and what to do", resp.StatusCode, body)
	}
}

// tokens is who gives out tokens for a registry, as ghcr.io does: anonymously
// or to a user, for one repository, and for a while.
type tokens struct {
	password atomic.Pointer[string]
	given    atomic.Int64
	valid    atomic.Int64 // the number of the token that is
}

func (k *tokens) door(w http.ResponseWriter, r *http.Request) bool {
	const scope = "repository:team/x:pull"
	if r.URL.Path == "/token" {
		user, password, ok := r.BasicAuth()
		if !ok || user != "robot" || password != *k.password.Load() || r.URL.Query().Get("service") != "theirs" || r.URL.Query().Get("scope") != scope {
			http.Error(w, `{"errors":[{"code":"DENIED"}]}`, http.StatusUnauthorized)
			return false
		}
		n := k.given.Add(1)
		k.valid.Store(n)
		_ = json.NewEncoder(w).Encode(map[string]any{"token": strconv.FormatInt(n, 10), "expires_in": 300})
		return false
	}
	if r.Header.Get("Authorization") == "Bearer "+strconv.FormatInt(k.valid.Load(), 10) {
		return true
	}
	w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/token",service="theirs",scope=%q`, r.Host, scope))
	http.Error(w, `{"errors":[{"code":"UNAUTHORIZED"}]}`, http.StatusUnauthorized)
	return false
}

func TestAMirrorLogsInByToken(t *testing.T) {
	var k tokens
	first, second := "the first password", "the second password"
	k.password.Store(&first)
	k.valid.Store(-1)
	u := newTheirs(t)
	u.setDoor(k.door)
	up := httptest.NewServer(u)
	defer up.Close()
	b := mirrored(t, Mirror{Upstream: up.URL, Username: "robot", Password: func(context.Context) (secret.String, error) {
		return secret.New(*k.password.Load()), nil
	}})
	if !b.has("mirror/up/team/x", "t", "content") || k.given.Load() != 1 {
		t.Errorf("the image comes through with %d tokens, want 1", k.given.Load())
	}
	k.valid.Store(-1) // it expired
	k.password.Store(&second)
	if !b.has("mirror/up/team/x", "u", "never pulled") {
		t.Error("with its token expired and its password changed, the mirror does not log in again")
	}

	wrong := mirrored(t, Mirror{Upstream: up.URL, Username: "robot", Password: known("another password")})
	resp, body := do(t, http.MethodGet, wrong.url+"/v2/mirror/up/team/x/manifests/t", "", nil)
	if resp.StatusCode != 403 || !strings.Contains(string(body), `refuses this to its user \"robot\"`) {
		t.Errorf("with a wrong password: %d %s, want 403 and whom it refuses", resp.StatusCode, body)
	}
	if !b.has("mirror/up/team/x", "t", "content") {
		t.Error("what was kept is gone")
	}
}

func TestAMirrorPassesOnWhenToComeAgain(t *testing.T) {
	u := newTheirs(t)
	up := httptest.NewServer(u)
	defer up.Close()
	b := mirrored(t, Mirror{Upstream: up.URL})
	if !b.has("mirror/up/team/x", "t", "content") {
		t.Fatal("the image does not come through")
	}
	var asked atomic.Int64
	u.setDoor(func(w http.ResponseWriter, _ *http.Request) bool {
		asked.Add(1)
		w.Header().Set("Retry-After", "120")
		http.Error(w, `{"errors":[{"code":"TOOMANYREQUESTS"}]}`, http.StatusTooManyRequests)
		return false
	})
	if !b.has("mirror/up/team/x", "t", "content") {
		t.Error("what is kept is not served while the upstream wants to be left alone")
	}
	for range 3 {
		resp, body := do(t, http.MethodGet, b.url+"/v2/mirror/up/team/x/manifests/u", "", nil)
		after, _ := strconv.Atoi(resp.Header.Get("Retry-After"))
		if resp.StatusCode != 429 || after < 1 || after > 120 || !strings.Contains(string(body), "left alone") {
			t.Errorf("%d %s, Retry-After %q; want 429 with at most 120", resp.StatusCode, body, resp.Header.Get("Retry-After"))
		}
	}
	if n := asked.Load(); n != 1 {
		t.Errorf("the upstream was asked %d times, want once", n)
	}
	u.setDoor(nil)
	b.mirrors["up"].up.until = time.Time{}
	if !b.has("mirror/up/team/x", "u", "never pulled") {
		t.Error("the upstream is back, and is not asked")
	}
}

func TestAMirrorOfNobody(t *testing.T) {
	up := httptest.NewServer(newTheirs(t))
	up.Close()
	b := mirrored(t, Mirror{Upstream: up.URL})
	for _, tag := range []string{"t", "u"} { // the second while it is left alone
		resp, body := do(t, http.MethodGet, b.url+"/v2/mirror/up/team/x/manifests/"+tag, "", nil)
		if resp.StatusCode != 503 || !strings.Contains(string(body), "does not answer") || strings.Contains(string(body), "/manifests/") {
			t.Errorf("%d %s; want 503 and why, and not what another asked for", resp.StatusCode, body)
		}
		if after := resp.Header.Get("Retry-After"); after != "" {
			t.Errorf("Retry-After is %s: clients would wait for what is down", after)
		}
	}
}

func TestRetryAfterOfUpstreams(t *testing.T) {
	now := time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC)
	for value, want := range map[string]time.Duration{
		"": 0, "7": 7 * time.Second, "-1": 0, "soon": 0, "99999999999": 0, "86400": longestPause,
		now.Add(time.Minute).Format(http.TimeFormat): time.Minute, now.Add(-time.Minute).Format(http.TimeFormat): 0,
	} {
		if got := retryAfter(http.Header{"Retry-After": {value}}, now); got != want && !(value == "99999999999" && got == longestPause) {
			t.Errorf("%q: %s, want %s", value, got, want)
		}
	}
}

// An upstream over TLS leads nobody to plain HTTP.
func TestAMirrorStaysWithTLS(t *testing.T) {
	plain := httptest.NewServer(newTheirs(t))
	defer plain.Close()
	up := httptest.NewTLSServer(http.RedirectHandler(plain.URL+"/v2/team/x/manifests/t", http.StatusTemporaryRedirect))
	defer up.Close()
	roots := x509.NewCertPool()
	roots.AddCert(up.Certificate())
	b := mirrored(t, Mirror{Upstream: up.URL, Roots: roots})
	if resp, body := do(t, http.MethodGet, b.url+"/v2/mirror/up/team/x/manifests/t", "", nil); resp.StatusCode != 503 || !strings.Contains(string(body), "over TLS") {
		t.Errorf("%d %s, want 503", resp.StatusCode, body)
	}
}
