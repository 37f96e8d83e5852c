package registry

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/mirego/tasuki/internal/base/secret"
)

// guarded is a server with a writer (ci) and a reader (mac), both with the
// password "right password".
func guarded(t *testing.T, opt Options) *Server {
	t.Helper()
	opt.Dir, opt.Log = t.TempDir(), slog.New(slog.DiscardHandler)
	opt.Users = filepath.Join(opt.Dir, "users")
	hash, err := bcrypt.GenerateFromPassword([]byte("right password"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	if err := writeUsers(opt.Users, []User{{"ci", Writer, string(hash)}, {"mac", Reader, string(hash)}}); err != nil {
		t.Fatal(err)
	}
	s, err := New(opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// try asks the handler itself, without a network.
func try(s *Server, method, path, user, password string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, http.NoBody)
	if user != "" {
		r.SetBasicAuth(user, password)
	}
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, r)
	return w
}

func TestWhoMayDoWhat(t *testing.T) {
	digest := digestOf([]byte("x"))
	upload, mount := "/v2/team/x/blobs/uploads/", "/v2/team/x/blobs/uploads/?mount="+digest+"&from=team/y"
	tests := []struct {
		anonymousPull      bool
		user, method, path string
		want               int
		code               string
	}{
		{false, "", "GET", "/v2/", 401, "UNAUTHORIZED"},
		{false, "", "GET", "/v2/team/x/manifests/t", 401, "UNAUTHORIZED"},
		{false, "", "POST", upload, 401, "UNAUTHORIZED"},
		{false, "mac", "GET", "/v2/", 200, ""},
		{false, "mac", "GET", "/v2/_catalog", 200, ""},
		{false, "mac", "GET", "/v2/team/x/manifests/t", 404, "MANIFEST_UNKNOWN"},
		{false, "mac", "POST", upload, 403, "DENIED"},
		{false, "mac", "POST", mount, 403, "DENIED"},
		{false, "mac", "PATCH", upload + "0", 403, "DENIED"},
		{false, "mac", "PUT", upload + "0?digest=" + digest, 403, "DENIED"},
		{false, "mac", "DELETE", upload + "0", 403, "DENIED"},
		{false, "mac", "PUT", "/v2/team/x/manifests/t", 403, "DENIED"},
		{false, "mac", "DELETE", "/v2/team/x/manifests/" + digest, 403, "DENIED"},
		{false, "mac", "DELETE", "/v2/team/x/blobs/" + digest, 403, "DENIED"},
		{false, "ci", "POST", upload, 202, ""},
		{false, "ci", "POST", mount, 202, ""},
		{false, "ci", "DELETE", "/v2/team/x/manifests/" + digest, 404, ""},
		{true, "", "GET", "/v2/", 200, ""},
		{true, "", "GET", "/v2/team/x/manifests/t", 404, "MANIFEST_UNKNOWN"},
		{true, "", "POST", upload, 401, "UNAUTHORIZED"},
		{true, "ci", "POST", upload, 202, ""},
		{false, "", "GET", "/healthz", 200, ""},
	}
	servers := map[bool]*Server{false: guarded(t, Options{}), true: guarded(t, Options{AnonymousPull: true})}
	for _, tt := range tests {
		w := try(servers[tt.anonymousPull], tt.method, tt.path, tt.user, "right password")
		body, _ := io.ReadAll(w.Body)
		if w.Code != tt.want || !strings.Contains(string(body), tt.code) {
			t.Errorf("anonymous pull %v: %q %s %s: %d %s, want %d with %q", tt.anonymousPull, tt.user, tt.method, tt.path, w.Code, body, tt.want, tt.code)
		}
		if challenged := w.Header().Get("WWW-Authenticate") != ""; challenged != (tt.want == 401) {
			t.Errorf("%q %s %s: WWW-Authenticate is there: %v", tt.user, tt.method, tt.path, challenged)
		}
		if strings.Count(string(body), `"errors"`) > 1 {
			t.Errorf("%q %s %s: two answers in one: %s", tt.user, tt.method, tt.path, body)
		}
	}
}

func TestAPasswordThatChangesCountsAtOnce(t *testing.T) {
	s := guarded(t, Options{})
	if w := try(s, "GET", "/v2/", "ci", "right password"); w.Code != 200 {
		t.Fatalf("status %d", w.Code)
	}
	if err := AddUser(s.opt.Users, "ci", secret.New("another password"), Writer); err != nil {
		t.Fatal(err)
	}
	if w := try(s, "GET", "/v2/", "ci", "right password"); w.Code != 401 {
		t.Errorf("the old password: status %d, want 401", w.Code)
	}
	if w := try(s, "GET", "/v2/", "ci", "another password"); w.Code != 200 {
		t.Errorf("the new password: status %d, want 200", w.Code)
	}
	if err := RemoveUser(s.opt.Users, "ci"); err != nil {
		t.Fatal(err)
	}
	if w := try(s, "GET", "/v2/", "ci", "another password"); w.Code != 401 {
		t.Errorf("a removed user: status %d, want 401", w.Code)
	}
}

// A file of users that cannot be read lets nobody in, not everybody.
func TestABrokenFileOfUsersLetsNobodyIn(t *testing.T) {
	s := guarded(t, Options{Open: true})
	if err := os.WriteFile(s.opt.Users, []byte("nonsense\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if w := try(s, "GET", "/v2/", "ci", "right password"); w.Code != 503 {
		t.Errorf("status %d, want 503", w.Code)
	}
	if w := try(s, "POST", "/v2/x/blobs/uploads/", "", ""); w.Code != 401 {
		t.Errorf("nobody: status %d, want 401", w.Code)
	}
}

func TestOpenEndsWithTheFirstUser(t *testing.T) {
	dir := t.TempDir()
	s, err := New(Options{Dir: dir, Users: filepath.Join(dir, "users"), Open: true, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if w := try(s, "POST", "/v2/x/blobs/uploads/", "", ""); w.Code != 202 {
		t.Errorf("without users: status %d, want 202", w.Code)
	}
	if err := AddUser(s.opt.Users, "ci", secret.New("right password"), Writer); err != nil {
		t.Fatal(err)
	}
	if w := try(s, "POST", "/v2/x/blobs/uploads/", "", ""); w.Code != 401 {
		t.Errorf("with a user: status %d, want 401", w.Code)
	}
}

// Who guesses passwords has to wait, ever longer; who knew one before does not.
func TestGuessingIsSlowedDown(t *testing.T) {
	s := guarded(t, Options{}) // the library leaves a goroutine behind, which no bubble may
	synctest.Test(t, func(t *testing.T) {
		if w := try(s, "GET", "/v2/", "ci", "right password"); w.Code != 200 {
			t.Fatalf("status %d", w.Code)
		}
		for range freeGuesses {
			if w := try(s, "GET", "/v2/", "ci", "wrong password"); w.Code != 401 {
				t.Fatalf("status %d, want 401", w.Code)
			}
		}
		w := try(s, "GET", "/v2/", "ci", "wrong password")
		if w.Code != 429 || w.Header().Get("Retry-After") == "" {
			t.Errorf("guess %d: status %d, Retry-After %q; want 429 with it", freeGuesses+1, w.Code, w.Header().Get("Retry-After"))
		}
		if w := try(s, "GET", "/v2/", "ci", "right password"); w.Code != 200 {
			t.Errorf("who knew the password before is kept out: %d", w.Code)
		}
		var waits []time.Duration
		for range 4 {
			wait := s.access.pace.wait("192.0.2.1 ci")
			waits = append(waits, wait)
			time.Sleep(wait)
			if w := try(s, "GET", "/v2/", "ci", "wrong password"); w.Code != 401 {
				t.Fatalf("after the wait: status %d, want 401", w.Code)
			}
		}
		for i := range waits[1:] {
			if waits[i+1] <= waits[i] {
				t.Errorf("the waits %v do not grow", waits)
				break
			}
		}
		time.Sleep(guessMemory + mostPause)
		if w := try(s, "GET", "/v2/", "mac", "right password"); w.Code != 200 {
			t.Errorf("status %d", w.Code)
		}
	})
}
