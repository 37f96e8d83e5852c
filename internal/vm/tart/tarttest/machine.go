package tarttest

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/mirego/tasuki/internal/image"
	"github.com/mirego/tasuki/internal/image/sparse"
)

// Files of a machine's folder, as tart names them, and one of ours.
const (
	configFile  = "config.json"
	diskFile    = "disk.img"
	nvramFile   = "nvram.bin"
	stateFile   = "state.vzvmsave"
	controlFile = "control.sock"
	standInFile = "stand-in.json"
	macFile     = "stand-in-mac"
)

// vmConfig is config.json.
type vmConfig struct {
	Version    int     `json:"version"`
	OS         string  `json:"os"`
	Arch       string  `json:"arch"`
	CPUMin     int     `json:"cpuCountMin"`
	CPU        int     `json:"cpuCount"`
	MemoryMin  int64   `json:"memorySizeMin"`
	Memory     int64   `json:"memorySize"`
	MAC        string  `json:"macAddress"`
	ECID       string  `json:"ecid,omitempty"`
	Display    display `json:"display"`
	DiskFormat string  `json:"diskFormat,omitempty"`
}

type display struct {
	Width  int    `json:"width"`
	Height int    `json:"height"`
	Unit   string `json:"unit,omitempty"`
}

// machine is a folder of vms or of the cache.
type machine struct {
	name string
	dir  string
}

func (m machine) path(file string) string { return filepath.Join(m.dir, file) }

func (t *tart) own(file string) string      { return filepath.Join(t.home, "stand-in", file) }
func (t *tart) machine(name string) machine { return machine{name, filepath.Join(t.home, "vms", name)} }
func (t *tart) temporary() (string, error)  { return os.MkdirTemp(filepath.Join(t.home, "tmp"), "vm-") }
func (m machine) initialized() bool         { return m.has(configFile) && m.has(diskFile) && m.has(nvramFile) }
func (m machine) has(file string) bool      { _, err := os.Stat(m.path(file)); return err == nil }

// config reads config.json. Opening and closing it drops a lock that this
// process has on it, as POSIX has it: run never calls this once it holds one.
func (m machine) config() (vmConfig, error) {
	var c vmConfig
	data, err := os.ReadFile(m.path(configFile))
	if err == nil {
		err = json.Unmarshal(data, &c)
	}
	return c, err
}

// writeConfig is not atomic, as tart's is not.
func (m machine) writeConfig(c vmConfig) error {
	data, err := json.Marshal(c)
	if err != nil {
		return err
	}
	return os.WriteFile(m.path(configFile), data, 0o600)
}

// image returns what the machine's disk was made from, for the back ends: of a
// machine that tart did not clone, what its NVRAM says.
func (m machine) image() (image.Local, error) {
	var img image.Local
	data, err := os.ReadFile(m.path(standInFile))
	if errors.Is(err, fs.ErrNotExist) {
		data, err = os.ReadFile(m.path(nvramFile))
	}
	if err == nil {
		err = json.Unmarshal(data, &img)
	}
	return img, err
}

// holder returns the process that has the machine's lock, 0 if none.
func (m machine) holder() (int, error) {
	f, err := os.OpenFile(m.path(configFile), os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	lock := syscall.Flock_t{Type: syscall.F_WRLCK, Whence: io.SeekStart}
	if err := syscall.FcntlFlock(f.Fd(), syscall.F_GETLK, &lock); err != nil {
		return 0, err
	}
	if lock.Type == syscall.F_UNLCK {
		return 0, nil
	}
	return int(lock.Pid), nil
}

// state is "running", "suspended" or "stopped".
func (m machine) state() (string, error) {
	pid, err := m.holder()
	switch {
	case err != nil:
		return "", err
	case pid != 0:
		return "running", nil
	case m.has(stateFile):
		return "suspended", nil
	}
	return "stopped", nil
}

// machines returns every local machine that is whole, by name.
func (t *tart) machines() ([]machine, error) {
	entries, err := os.ReadDir(filepath.Join(t.home, "vms"))
	if err != nil {
		return nil, err
	}
	var all []machine
	for _, e := range entries {
		if m := t.machine(e.Name()); m.initialized() {
			all = append(all, m)
		}
	}
	return all, nil
}

// lockHome takes the lock that clone and the start of run hold on the home.
func (t *tart) lockHome() (unlock func(), err error) {
	f, err := os.Open(t.home)
	if err != nil {
		return nil, err
	}
	for {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX)
		if !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return func() { _ = f.Close() }, nil
}

// collect removes what lies in tmp and nobody has locked.
func (t *tart) collect() {
	if t.faults.GCNoise {
		fmt.Fprintln(t.stderr, "Failed to perform garbage collection: the file “vm-1” couldn’t be removed.")
	}
	entries, _ := os.ReadDir(filepath.Join(t.home, "tmp"))
	for _, e := range entries {
		path := filepath.Join(t.home, "tmp", e.Name())
		f, err := os.Open(path)
		if err != nil {
			continue
		}
		if syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil {
			_ = os.RemoveAll(path)
		}
		_ = f.Close()
	}
}

// randomMAC is unicast and locally administered.
func randomMAC() string {
	var b [6]byte
	_, _ = rand.Read(b[:])
	b[0] = b[0]&^1 | 2
	return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", b[0], b[1], b[2], b[3], b[4], b[5])
}

// copyMachine copies a machine's files, the disk with its holes: what APFS does
// at once.
func copyMachine(to, from machine) error {
	for _, file := range []string{configFile, nvramFile, stateFile, standInFile, diskFile} {
		err := copyFile(to.path(file), from.path(file))
		if errors.Is(err, fs.ErrNotExist) && (file == stateFile || file == standInFile) {
			continue
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func copyFile(to, from string) (err error) {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	info, err := src.Stat()
	if err != nil {
		return err
	}
	dst, err := os.OpenFile(to, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dst.Close()) }()
	if err := dst.Truncate(info.Size()); err != nil {
		return err
	}
	for off := int64(0); ; {
		start, end, err := sparse.NextData(src, off)
		if errors.Is(err, io.EOF) || err == nil && start >= info.Size() {
			return nil
		}
		if err != nil {
			return err
		}
		if _, err := io.Copy(io.NewOffsetWriter(dst, start), io.NewSectionReader(src, start, end-start)); err != nil {
			return err
		}
		off = end
	}
}

// accessed is when a machine's disk was last used.
func (m machine) accessed() time.Time {
	info, err := os.Stat(m.path(configFile))
	if err != nil {
		return time.Time{}
	}
	return info.ModTime().UTC()
}
