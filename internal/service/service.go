// Package service makes the agent a service of its machine: a LaunchAgent in
// the user's session on macOS, a systemd unit (of a user, or of the system) on
// Linux.
//
// It plans: a Plan is the file that the service manager reads and the commands
// that install, ask, restart and uninstall the service. Whoever calls types
// them; nothing here changes a machine.
//
// What a service of ours must have, on either system: it comes back after a
// crash and a restart of the machine, and its guests live on when it ends. A
// restart therefore kills the agent (SIGKILL), which costs nothing: the next
// agent adopts the guests, busy ones included. Uninstalling drains first.
package service

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"
)

// Options say what runs and as whose.
type Options struct {
	Program string   // absolute path of tasuki
	Args    []string // of it: "host", "run", "--config", FILE
	// Reload are the arguments of the command that takes a changed configuration
	// over; systemd calls it.
	Reload  []string
	System  bool   // a unit of the system, which needs root; Linux alone
	User    string // who runs it
	UID     int
	Groups  []string // that a unit of the system has beside its user's
	HomeDir string   // that user's home
	Home    string   // the agent's
	// Drain is how long the agent may wait for busy runners when it is asked to
	// stop (host.drain_timeout). The service manager waits a little longer.
	Drain time.Duration
}

// Plan is a service, ready to be typed.
type Plan struct {
	Manager string // "launchd", "systemd" or "systemd --user"
	Path    string // of File
	File    []byte
	Mode    uint32 // of File
	Root    bool   // writing File and the commands need root
	Home    string // of the agent
	Log     string // the command that shows its log, or the log's file
	// Notes are for the person who installs: what the service cannot see to.
	Notes []string

	Install, Uninstall, Restart, Status [][]string
}

// errRelative: a service has no folder that a relative path could start from.
var errRelative = errors.New("it is not an absolute path")

// New plans the service of a system, "darwin" or "linux".
func New(system string, o Options) (Plan, error) {
	for _, path := range []string{o.Program, o.HomeDir, o.Home} {
		if !filepath.IsAbs(path) {
			return Plan{}, fmt.Errorf("cannot plan a service with %q: %w", path, errRelative)
		}
	}
	for _, word := range append([]string{o.Program, o.Home}, o.Args...) {
		if strings.ContainsAny(word, "\n\r\x00") {
			return Plan{}, fmt.Errorf("cannot plan a service with %q: it has more than one line", word)
		}
	}
	switch {
	case system == "darwin" && o.System:
		return Plan{}, errors.New("cannot plan a service of the system on macOS: guests start only in the session of a user who is logged in at the screen")
	case system == "darwin" && o.UID == 0:
		return Plan{}, errors.New("cannot plan a service of root on macOS: tart starts no macOS guests as root")
	case system == "darwin":
		p, err := launchAgent(o)
		p.Home = o.Home
		return p, err
	case system == "linux":
		p := systemdUnit(o)
		p.Home = o.Home
		return p, nil
	}
	return Plan{}, fmt.Errorf("cannot plan a service on %q: only macOS and Linux are known", system)
}

// patience is how long a service manager waits for an agent that drains.
func (o Options) patience() time.Duration { return o.Drain + 5*time.Minute }
