package registry

import (
	"bytes"
	"cmp"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"

	"golang.org/x/crypto/bcrypt"

	"github.com/mirego/tasuki/internal/base/atomicfile"
	"github.com/mirego/tasuki/internal/base/secret"
)

// Role is what a user may do.
type Role string

// The roles. A writer may also read and delete.
const (
	Reader Role = "reader"
	Writer Role = "writer"
)

// User is one line of the file of users.
type User struct {
	Name string `json:"name"`
	Role Role   `json:"role"`
	hash string
}

// Limits of names and passwords.
const (
	minPassword = 8
	maxPassword = 72 // bcrypt looks at no more
	hashCost    = 10
)

var userForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$`)

// ErrNoUser says that there is no user of that name.
var ErrNoUser = errors.New("no such user")

// ReadUsers reads a file of users: lines of the form NAME:HASH:ROLE, as
// htpasswd -B writes them but for the role, which is reader where it is
// missing. Empty lines and those that begin with # are skipped. A file that is
// not there is an error that wraps fs.ErrNotExist.
func ReadUsers(path string) ([]User, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("cannot read the registry's users: %w", err)
	}
	var users []User
	n := 0
	for line := range strings.Lines(string(b)) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, rest, _ := strings.Cut(line, ":")
		hash, role, _ := strings.Cut(rest, ":")
		u := User{Name: name, Role: cmp.Or(Role(role), Reader), hash: hash}
		if _, err := bcrypt.Cost([]byte(hash)); err != nil || name == "" || (u.Role != Reader && u.Role != Writer) {
			return nil, fmt.Errorf("cannot read the registry's users: line %d of %q is not NAME:BCRYPT-HASH:reader or writer", n, path)
		}
		users = append(users, u)
	}
	return users, nil
}

// AddUser adds a user, or gives the one of this name another password and role.
func AddUser(path, name string, password secret.String, role Role) error {
	fail := func(format string, args ...any) error {
		return fmt.Errorf("cannot add user %q: %w", name, fmt.Errorf(format, args...))
	}
	pw := []byte(password.Reveal())
	switch {
	case !userForm.MatchString(name):
		return fail("a name has up to 64 letters, digits and . _ @ -")
	case role != Reader && role != Writer:
		return fail("role %q is neither %s nor %s", role, Reader, Writer)
	case len(pw) < minPassword:
		return fail("the password has %d characters, and %d are the least", len(pw), minPassword)
	case len(pw) > maxPassword:
		return fail("the password has %d bytes, and bcrypt looks at %d only", len(pw), maxPassword)
	}
	hash, err := bcrypt.GenerateFromPassword(pw, hashCost)
	if err != nil {
		return fail("%w", err)
	}
	users, err := ReadUsers(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	users = slices.DeleteFunc(users, func(u User) bool { return u.Name == name })
	if err := writeUsers(path, append(users, User{Name: name, Role: role, hash: string(hash)})); err != nil {
		return fail("%w", err)
	}
	return nil
}

// RemoveUser removes a user; the error wraps ErrNoUser if there is none.
func RemoveUser(path, name string) error {
	users, err := ReadUsers(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	left := slices.DeleteFunc(slices.Clone(users), func(u User) bool { return u.Name == name })
	if len(left) == len(users) {
		return fmt.Errorf("cannot remove user %q: %w", name, ErrNoUser)
	}
	return writeUsers(path, left)
}

func writeUsers(path string, users []User) error {
	slices.SortFunc(users, func(a, b User) int { return cmp.Compare(a.Name, b.Name) })
	var b bytes.Buffer
	for _, u := range users {
		fmt.Fprintf(&b, "%s:%s:%s\n", u.Name, u.hash, u.Role)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return atomicfile.Write(path, b.Bytes(), 0o600)
}

// directory knows the users of a file, which it reads again when it changes.
type directory struct {
	path string
	// work bounds how many passwords are compared at once: bcrypt is slow on
	// purpose, and pulls need the processor too.
	work chan struct{}
	key  [32]byte // of the cache, different in every process

	mu     sync.Mutex
	read   os.FileInfo // of the file as it was read last; nil: it was not
	err    error
	users  map[string]User
	known  map[[32]byte]bool // user, password and hash that were compared well, hashed under key
	nobody string            // a hash that no password has
}

func newDirectory(path string) (*directory, error) {
	d := &directory{path: path, work: make(chan struct{}, 2)}
	_, _ = rand.Read(d.key[:]) // never fails
	hash, err := bcrypt.GenerateFromPassword([]byte(rand.Text()), hashCost)
	if err != nil {
		return nil, err
	}
	d.nobody = string(hash)
	return d, nil
}

// exists says whether there is a file of users at all.
func (d *directory) exists() bool {
	_, err := os.Stat(d.path)
	return !errors.Is(err, fs.ErrNotExist)
}

// refresh reads the file if it changed. While it cannot be read nobody is known.
func (d *directory) refresh() {
	info, err := os.Stat(d.path)
	if err == nil && sameFile(info, d.read) {
		return
	}
	d.users, d.known, d.err, d.read = nil, map[[32]byte]bool{}, err, nil
	if err != nil {
		return
	}
	d.read = info
	users, err := ReadUsers(d.path)
	d.err = err
	d.users = map[string]User{}
	for _, u := range users {
		d.users[u.Name] = u
	}
}

// sameFile says whether a file was neither replaced nor written to since. Two
// writes within a tick of the file system's clock differ by the file itself.
func sameFile(now, then os.FileInfo) bool {
	return then != nil && os.SameFile(now, then) && now.ModTime().Equal(then.ModTime()) && now.Size() == then.Size()
}

// lookup returns the user of that name, and a hash to compare with in any case.
func (d *directory) lookup(name string) (u User, ok bool, hash string, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.refresh()
	u, ok = d.users[name]
	return u, ok, cmp.Or(u.hash, d.nobody), d.err
}

// remembered returns the user if this password was found right before.
func (d *directory) remembered(name, password string) (User, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.refresh()
	u, ok := d.users[name]
	return u, ok && d.known[d.token(u, password)]
}

// check compares a password. An unknown name takes as long as a wrong password.
func (d *directory) check(name, password string) (User, bool, error) {
	u, ok, hash, err := d.lookup(name)
	d.work <- struct{}{}
	same := bcrypt.CompareHashAndPassword([]byte(hash), []byte(password)) == nil
	<-d.work
	if !ok || !same {
		return User{}, false, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.known[d.token(u, password)] = true
	return u, true, nil
}

func (d *directory) token(u User, password string) (t [32]byte) {
	mac := hmac.New(sha256.New, d.key[:])
	fmt.Fprintf(mac, "%q %q %q", u.Name, u.hash, password)
	mac.Sum(t[:0])
	return t
}
