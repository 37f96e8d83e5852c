package daemon

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
)

// ErrRunning: another agent holds the home.
var ErrRunning = errors.New("an agent runs already")

// ErrSocketPath: the home's path is too long for a socket in it.
var ErrSocketPath = errors.New("the path is too long for a socket")

// SocketPath returns where the agent of a home listens.
func SocketPath(home string) string { return filepath.Join(home, "tasuki.sock") }

// maxSocketPath is how long a Unix socket's path may be, without the NUL that
// ends it: sun_path in <sys/un.h>.
func maxSocketPath() int {
	if runtime.GOOS == "darwin" {
		return 103
	}
	return 107
}

// Claim is the right to be the agent of a home.
type Claim struct {
	home string
	lock *os.File
}

// Take claims a home, which is made if it is missing. Errors: ErrRunning,
// ErrSocketPath.
func Take(home string) (*Claim, error) {
	if n := len(SocketPath(home)); n > maxSocketPath() {
		return nil, fmt.Errorf("cannot listen on %q: it has %d bytes and %d are allowed: %w", SocketPath(home), n, maxSocketPath(), ErrSocketPath)
	}
	if err := os.MkdirAll(home, 0o700); err != nil {
		return nil, fmt.Errorf("cannot make the agent's home: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(home, "tasuki.lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("cannot claim the home %q: %w", home, err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		defer lock.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("cannot claim the home %q: %w%s", home, ErrRunning, holder(lock))
		}
		return nil, fmt.Errorf("cannot claim the home %q: %w", home, err)
	}
	// The number is for people; the lock alone decides.
	_ = lock.Truncate(0)
	_, _ = lock.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	return &Claim{home: home, lock: lock}, nil
}

func holder(lock *os.File) string {
	b, _ := io.ReadAll(io.LimitReader(lock, 20))
	if pid := strings.TrimSpace(string(b)); pid != "" {
		return ", pid " + pid
	}
	return ""
}

// Listen opens the home's socket, in place of one that a dead agent left.
func (c *Claim) Listen() (net.Listener, error) {
	path := SocketPath(c.home)
	// The claim says that whoever made it is dead.
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("cannot replace the socket of a dead agent: %w", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("cannot open the agent's socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		_ = l.Close()
		return nil, fmt.Errorf("cannot close the agent's socket to others: %w", err)
	}
	return l, nil
}

// Release gives the home back. The lock file stays: to remove it would let two
// agents hold locks on two files of one name.
func (c *Claim) Release() error { return c.lock.Close() }
