package registry

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// ErrRunning says that a registry serves the directory already.
var ErrRunning = errors.New("a registry runs on it already")

// Lock takes the directory for this process until the lock is closed; it ends
// with the process too. The error wraps ErrRunning if another one has it.
func Lock(dir string) (io.Closer, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("cannot take registry %q: %w", dir, err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("cannot take registry: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("cannot take registry %q: %w", dir, ErrRunning)
		}
		return nil, fmt.Errorf("cannot take registry %q: %w", dir, err)
	}
	return f, nil
}
