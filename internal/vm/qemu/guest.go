package qemu

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/mirego/tasuki/internal/base/atomicfile"
	"github.com/mirego/tasuki/internal/base/proc"
	"github.com/mirego/tasuki/internal/vm"
)

// Files of a guest's folder.
const (
	recordFile  = "guest.json"
	diskFile    = "disk.qcow2"
	varsFile    = "vars.fd" // firmware variables, where the firmware keeps any
	lockFile    = "run.lock"
	runFile     = "run.json"
	pidFile     = "qemu.pid"
	qmpFile     = "qmp.sock"
	consoleFile = "console.log"
	consoleOld  = "console.log.1"
	logFile     = "qemu.log"
	passtLog    = "passt.log"
)

// recordVersion is the form of guest.json.
const recordVersion = 1

// record is guest.json: all that Start needs, so that a driver that knows
// nothing else can run the guest.
type record struct {
	Version   int        `json:"version"`
	Name      string     `json:"name"`
	Owner     vm.Owner   `json:"owner"`
	Created   time.Time  `json:"created"`
	Image     string     `json:"image"` // digest
	Boot      boot       `json:"boot"`
	User      string     `json:"user"`
	CPUs      int        `json:"cpus"`
	MemoryMiB int        `json:"memory_mib"`
	Network   vm.Network `json:"network"`
	LoginKey  string     `json:"login_key,omitempty"`
	Hostname  string     `json:"hostname"`
	UUID      string     `json:"uuid"` // of the machine; the MAC address comes from it
	Media     []string   `json:"media,omitempty"`
}

// boot says how the guest comes up. An empty Kernel means by firmware.
type boot struct {
	Kernel  string `json:"kernel,omitempty"`
	Initrd  string `json:"initrd,omitempty"`
	Cmdline string `json:"cmdline,omitempty"`
	// Firmware is the path of the code of UEFI; "" means QEMU's own BIOS.
	Firmware string `json:"firmware,omitempty"`
	// NVRAM is the path of the variables that the guest begins with; "" means
	// the template that belongs to the firmware.
	NVRAM string `json:"nvram,omitempty"`
}

// run is run.json: one start of the guest. It is there from before a start
// until we power the guest off, so one without a process is a death.
type run struct {
	SSHPort int     `json:"ssh_port"`
	QEMU    proc.ID `json:"qemu"`
	Passt   proc.ID `json:"passt"`
}

// guest is one folder of ours.
type guest struct {
	name   string
	dir    string
	rec    record
	broken string // why only Destroy helps; "" if it does not
}

func (g *guest) path(file string) string { return filepath.Join(g.dir, file) }

// guest reads a guest's folder. ErrNotFound: there is none, or it is not ours.
func (d *Driver) guest(name string) (*guest, error) {
	if !d.ours(name) {
		return nil, fmt.Errorf("cannot find the guest %q: %w", name, vm.ErrNotFound)
	}
	g := &guest{name: name, dir: filepath.Join(d.opt.Home, name)}
	data, err := os.ReadFile(g.path(recordFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("cannot find the guest %q: %w", name, vm.ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read the guest %q: %w", name, err)
	}
	if err := json.Unmarshal(data, &g.rec); err != nil {
		g.rec = record{}
		g.broken = fmt.Sprintf("its %s cannot be read: %v", recordFile, err)
		return g, nil
	}
	if g.rec.Owner.Installation != d.opt.Installation {
		return nil, fmt.Errorf("cannot use the guest %q: it belongs to the installation %q: %w",
			name, g.rec.Owner.Installation, vm.ErrNotFound)
	}
	if g.rec.Version != recordVersion {
		g.broken = fmt.Sprintf("its %s has the version %d, this program knows %d", recordFile, g.rec.Version, recordVersion)
	} else if _, err := os.Stat(g.path(diskFile)); err != nil {
		if _, gone := os.Lstat(g.dir); errors.Is(gone, fs.ErrNotExist) {
			return nil, fmt.Errorf("cannot find the guest %q: %w", name, vm.ErrNotFound) // deleted this moment
		}
		g.broken = fmt.Sprintf("its disk is gone: %v", err)
	}
	return g, nil
}

// writeJSON replaces a small file of a guest's.
func writeJSON(path string, v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return atomicfile.Write(path, append(data, '\n'), 0o600)
}

// readRun returns the last start that was not ended by us. The zero run and no
// error: there is none.
func (g *guest) readRun() (run, error) {
	var r run
	data, err := os.ReadFile(g.path(runFile))
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(data, &r); err != nil {
		return run{}, fmt.Errorf("cannot read %q: %w", g.path(runFile), err)
	}
	return r, nil
}

// newUUID returns a random identity (RFC 9562, version 4).
func newUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[0:4], b[4:6], b[6:8], b[8:10], b[10:16])
}
