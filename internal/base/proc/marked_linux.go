package proc

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
)

// Marked returns every process of this user (of any user, as root) that was
// started with this "KEY=value" in its environment, which children inherit.
// A process that ends meanwhile may be missing.
func Marked(entry string) ([]ID, error) {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil, fmt.Errorf("cannot look for marked processes: %w", err)
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("cannot look for marked processes: %w", err)
	}
	want := []byte(entry)
	var found []ID
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		env, err := os.ReadFile("/proc/" + name + "/environ")
		if err != nil || !holdsEntry(env, want) {
			continue // another user's, a kernel thread, or gone
		}
		if id, err := Identify(pid); err == nil {
			found = append(found, id)
		}
	}
	return found, nil
}

// holdsEntry says whether entry is one of the NUL-separated words of env.
func holdsEntry(env, entry []byte) bool {
	for {
		i := bytes.Index(env, entry)
		if i < 0 {
			return false
		}
		end := i + len(entry)
		if (i == 0 || env[i-1] == 0) && (end == len(env) || env[end] == 0) {
			return true
		}
		env = env[end:]
	}
}
