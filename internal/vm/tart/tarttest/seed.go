package tarttest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/mirego/tasuki/internal/base/backoff"
	"github.com/mirego/tasuki/internal/base/proc"
	"github.com/mirego/tasuki/internal/image"
)

// RoleEnv makes a test's own program play tart: see Command and Play.
const RoleEnv = "TASUKI_TART_STAND_IN"

// Play ends the process as tart if it was started as Command says. A test that
// uses Command calls it first in its TestMain.
func Play() {
	if os.Getenv(RoleEnv) != "" {
		os.Exit(Main(os.Args[1:]))
	}
}

// Command writes a program "tart" into dir that is this very test in the role
// of the stand-in, and returns its path.
func Command(dir string) (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "tart")
	// A fork of another goroutine that still has the file open for writing
	// would make it "text file busy".
	syscall.ForkLock.Lock()
	defer syscall.ForkLock.Unlock()
	// A program built with -race sleeps for a second at its end otherwise.
	return path, os.WriteFile(path, fmt.Appendf(nil, "#!/bin/sh\nGORACE=atexit_sleep_ms=0 %s=1 exec '%s' \"$@\"\n", RoleEnv, self), 0o700)
}

// Cache puts an image into a home's cache, as if it had been pulled by digest:
// of the back end "process", with these labels beside its system.
func Cache(home, repository string, labels map[string]string) (image.Local, error) {
	all := map[string]string{image.LabelOS: image.OSDarwin, image.LabelArch: arch()}
	maps.Copy(all, labels)
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %v", repository, all))
	ref, err := image.Parse(repository + "@sha256:" + hex.EncodeToString(sum[:]))
	if err != nil {
		return image.Local{}, err
	}
	t := &tart{home: home, stdout: io.Discard, stderr: io.Discard}
	m := machine{ref.String(), filepath.Join(t.repository(ref), ref.Digest())}
	if err := os.MkdirAll(m.dir, 0o700); err != nil {
		return image.Local{}, err
	}
	disk := filepath.Join(m.dir, "seed")
	if err := os.WriteFile(disk, []byte("a disk"), 0o600); err != nil {
		return image.Local{}, err
	}
	img := image.Local{Ref: ref, Digest: ref.Digest(), Disk: disk, Labels: all}
	if err := m.fill(img); err != nil {
		return image.Local{}, err
	}
	return img, os.WriteFile(filepath.Join(m.dir, pulledMark), nil, 0o600)
}

// Machine is what a home holds of a local machine, for tests that look behind
// a driver's back.
type Machine struct {
	Dir  string // its folder
	MAC  string
	ECID string
	CPU  int
	// PID is the process that has its lock; 0: it does not run.
	PID int
}

// Look returns a local machine of a home.
func Look(home, name string) (Machine, error) {
	m := (&tart{home: home}).machine(name)
	c, err := m.config()
	if err != nil {
		return Machine{}, err
	}
	pid, err := m.holder()
	return Machine{Dir: m.dir, MAC: c.MAC, ECID: c.ECID, CPU: c.CPU, PID: pid}, err
}

// Add makes a local machine from a cached image, as someone else would who
// uses tart on this host.
func Add(home, name string, img image.Local) error {
	t := &tart{home: home, stdout: io.Discard, stderr: io.Discard}
	for _, dir := range []string{"vms", "tmp", "stand-in"} {
		if err := os.MkdirAll(filepath.Join(home, dir), 0o700); err != nil {
			return err
		}
	}
	return t.clone([]string{img.Ref.String(), name})
}

// End cuts the power of every machine of a home and waits until no process of
// the stand-in works there any more.
func End(ctx context.Context, home string) error {
	for {
		left, err := Processes(home)
		if err != nil || len(left) == 0 {
			return err
		}
		for _, id := range left {
			_ = id.Signal(syscall.SIGCONT, false)
			_ = id.Signal(syscall.SIGINT, false)
		}
		if err := backoff.Sleep(ctx, 50*time.Millisecond); err != nil {
			return err
		}
		if deaf, err := readFaults(home); err != nil || deaf.Deaf {
			for _, id := range left {
				_ = id.Signal(syscall.SIGKILL, false)
			}
		}
	}
}

// Processes returns those of the stand-in that work in a home: run, what
// watches over it, and calls in progress.
func Processes(home string) ([]proc.ID, error) {
	return proc.Marked("TART_HOME=" + home)
}

const callsFile = "calls.jsonl"

// Calls returns the arguments of every call that a home has seen, those of
// --version and --help excepted, in the order in which they began. command
// leaves only those of one command; "" none out.
func Calls(home, command string) ([][]string, error) {
	data, err := os.ReadFile(filepath.Join(home, "stand-in", callsFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var all [][]string
	for line := range strings.Lines(string(data)) {
		var args []string
		if err := json.Unmarshal([]byte(line), &args); err != nil {
			return nil, err
		}
		if command == "" || args[0] == command {
			all = append(all, args)
		}
	}
	return all, nil
}
