package dockerlogin_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mirego/tasuki/internal/dockerlogin"
)

// helper puts a credential helper on PATH that knows one registry.
func helper(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	script := `#!/bin/sh
read name
case $name in
12.ecr.eu-1.amazonaws.com) echo '{"Username":"AWS","Secret":"by-pattern"}' ;;
helped.example.com) echo '{"ServerURL":"x","Username":"h","Secret":"from-helper"}' ;;
token.example.com) echo '{"Username":"<token>","Secret":"t"}' ;;
broken.example.com) echo 'keychain is locked' >&2; exit 1 ;;
*) echo "credentials not found in native keychain"; exit 1 ;;
esac
`
	if err := os.WriteFile(filepath.Join(dir, "docker-credential-test"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}

func TestLogin(t *testing.T) {
	helper(t)
	dir := t.TempDir()
	t.Setenv("DOCKER_CONFIG", dir)
	config := `{"auths": {
  "r.example.com:5000": {"auth": "Y2k6cDpx"},
  "https://old.example.com/v1/": {"username": "o", "password": "plain"},
  "https://index.docker.io/v1/": {"auth": "aHViOnB3"},
  "id.example.com": {"identitytoken": "x"},
  "bad.example.com": {"auth": "%%"},
  "helped.example.com": {}
 }, "credHelpers": {"broken.example.com": "test", "path.example.com": "../x", "gone.example.com": "no-such-helper",
  "[0-9]+\\.ecr\\..*\\.amazonaws\\.com": "test", "*bad": "test", "a.b.example.com": "test"}, "credsStore": "test"}`
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct{ host, user, password, err string }{
		{"r.example.com:5000", "ci", "p:q", ""},
		{"old.example.com", "o", "plain", ""},
		{"docker.io", "hub", "pw", ""},
		{"helped.example.com", "h", "from-helper", ""},
		{"unknown.example.com", "", "", ""},
		{"id.example.com", "", "", "identity token"},
		{"token.example.com", "", "", "identity token"},
		{"bad.example.com", "", "", "not base64"},
		{"broken.example.com", "", "", "keychain is locked"},
		{"path.example.com", "", "", "is a path"},
		{"gone.example.com", "", "", "not installed"},
		{"12.ecr.eu-1.amazonaws.com", "AWS", "by-pattern", ""},
		{"evil.12.ecr.eu-1.amazonaws.com", "", "", ""},
		{"a-b.example.com", "", "", ""},
	}
	for _, tt := range tests {
		l, err := dockerlogin.File{}.Login(t.Context(), tt.host)
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%s: error %v, want one with %q", tt.host, err, tt.err)
			}
			continue
		}
		if err != nil || l.Username != tt.user || l.Password.Reveal() != tt.password {
			t.Errorf("%s: got %q, %q, %v; want %q, %q", tt.host, l.Username, l.Password.Reveal(), err, tt.user, tt.password)
		}
	}
}

func TestNoFileIsNoLogin(t *testing.T) {
	l, err := dockerlogin.File{Path: filepath.Join(t.TempDir(), "none.json")}.Login(t.Context(), "r.example.com")
	if err != nil || !l.IsZero() {
		t.Errorf("got %v, %v", l, err)
	}
}
