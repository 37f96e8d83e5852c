package registry

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/bcrypt"

	"github.com/mirego/tasuki/internal/base/secret"
)

func TestUsersAreKeptInAPrivateFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "users")
	if _, err := ReadUsers(path); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("a missing file: %v, want fs.ErrNotExist", err)
	}
	for _, u := range []struct {
		name string
		role Role
	}{{"zoe", Reader}, {"ci", Writer}, {"zoe", Writer}} {
		if err := AddUser(path, u.name, secret.New("a long password"), u.role); err != nil {
			t.Fatal(err)
		}
	}
	users, err := ReadUsers(path)
	if err != nil || len(users) != 2 || users[0].Name != "ci" || users[1].Role != Writer {
		t.Errorf("got %v, %v; want ci and zoe, both writers", users, err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v; want 0600", info.Mode().Perm(), err)
	}
	if b, _ := os.ReadFile(path); strings.Contains(string(b), "long password") {
		t.Error("the password itself stands in the file")
	}
	if err := RemoveUser(path, "nobody"); !errors.Is(err, ErrNoUser) {
		t.Errorf("removing nobody: %v", err)
	}
	if err := RemoveUser(path, "zoe"); err != nil {
		t.Error(err)
	}
}

func TestUsersThatCannotBe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "users")
	for _, tt := range []struct{ name, password, want string }{
		{"a:b", "long enough", "letters"},
		{"", "long enough", "letters"},
		{"a", "short", "8 are the least"},
		{"a", strings.Repeat("x", 73), "bcrypt"},
	} {
		err := AddUser(path, tt.name, secret.New(tt.password), Reader)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("user %q: %v, want an error with %q", tt.name, err, tt.want)
		}
		if err != nil && strings.Contains(err.Error(), tt.password) {
			t.Errorf("the error tells the password: %v", err)
		}
	}
}

// A file that htpasswd -B wrote has no roles: its users may read.
func TestHtpasswdLinesAreReaders(t *testing.T) {
	hash, err := bcrypt.GenerateFromPassword([]byte("password"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "users")
	write := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("# ours\n\nold:" + string(hash) + "\n")
	users, err := ReadUsers(path)
	if err != nil || len(users) != 1 || users[0].Role != Reader {
		t.Errorf("got %v, %v; want one reader", users, err)
	}
	for _, bad := range []string{"x:{SHA}5siv5c0SHx681xU6GiSx9ZQryqs=\n", "x:" + string(hash) + ":admin\n", "nonsense\n"} {
		write(bad)
		if users, err := ReadUsers(path); err == nil || !strings.Contains(err.Error(), "line 1") {
			t.Errorf("%q: got %v, %v; want an error that names line 1", bad, users, err)
		}
	}
}
