package tarttest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// FaultsEnv names a file with Faults; without it, stand-in/faults.json of the
// home is read at each call, so that a test may change them while guests run.
const FaultsEnv = "TART_STAND_IN_FAULTS"

// BackendEnv chooses the back end where no fault file does: "process", the
// default, or "qemu".
const BackendEnv = "TART_STAND_IN_BACKEND"

// ForwardEnv holds what a guest of the back end "qemu" can reach, as
// GUEST=HOST pairs with a space between: "10.0.2.100:80=127.0.0.1:8080". tart
// has nothing like it; it stands for the network that a Mac is in.
const ForwardEnv = "TART_STAND_IN_FORWARD"

// Faults are the troubles of one home. The zero value makes none.
type Faults struct {
	Backend string `json:"backend,omitempty"`
	// Limit is how many macOS machines may run; 0 means 2, as Apple has it.
	Limit int `json:"limit,omitempty"`
	// Leaked slots are held by no machine, until the host reboots; Elsewhere
	// are machines of other programs, which no list of tart's shows.
	Leaked    int `json:"leaked,omitempty"`
	Elsewhere int `json:"elsewhere,omitempty"`
	// LimitFor: so many starts meet the limit although slots are free, as right
	// after a stop.
	LimitFor int `json:"limit_for,omitempty"`
	// Crash, if not empty, is the error that machines stop with once they have
	// booted; run then ends with status 0.
	Crash string `json:"crash,omitempty"`
	// Boot is how long a machine takes until it has an address and an agent.
	Boot Duration `json:"boot,omitempty"`
	// Keychain: starts fail as where the login keychain is locked.
	Keychain bool `json:"keychain,omitempty"`
	// Softnet is missing: a start with it fails.
	NoSoftnet bool `json:"no_softnet,omitempty"`
	// Deaf machines do not end on SIGINT: stop needs its SIGKILL.
	Deaf bool `json:"deaf,omitempty"`
	// NoAgent: the guest agent never answers.
	NoAgent bool `json:"no_agent,omitempty"`
	// NoIP: no machine ever has a lease. TornLeases: so many readings of the
	// leases fail. Leases are added to those of the machines, by MAC address.
	NoIP       bool              `json:"no_ip,omitempty"`
	TornLeases int               `json:"torn_leases,omitempty"`
	Leases     map[string]string `json:"leases,omitempty"`
	// IPPoll is the pace of ip; 0 means tart's own second.
	IPPoll Duration `json:"ip_poll,omitempty"`
	// GCNoise: each command that collects garbage complains on stderr.
	GCNoise bool `json:"gc_noise,omitempty"`
	// Hang: so many calls of a command never end.
	Hang map[string]int `json:"hang,omitempty"`
	// HeldAfterKill: so many deletes find the machine running after it ended.
	HeldAfterKill int `json:"held_after_kill,omitempty"`
	// TornList: so many lists meet a machine that is just deleted; TornJSON: so
	// many print half of their answer, with status 0.
	TornList int `json:"torn_list,omitempty"`
	TornJSON int `json:"torn_json,omitempty"`
	// CloneTakes is how long a clone takes, as on a disk that cannot copy on write.
	CloneTakes Duration `json:"clone_takes,omitempty"`
	// RunSays, if not empty, is what run says, and ends at once with RunStatus.
	RunSays   string `json:"run_says,omitempty"`
	RunStatus int    `json:"run_status,omitempty"`
	// Version is what --version prints; empty: the constant of that name.
	Version string `json:"version,omitempty"`
	// PullFails: so many pulls meet a registry that does not answer.
	PullFails int `json:"pull_fails,omitempty"`
}

// Duration is a time.Duration that is written as "200ms".
type Duration time.Duration

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	*d = Duration(v)
	return err
}

// SetFaults makes the faults of a home, in place of those before.
func SetFaults(home string, f Faults) error {
	data, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return err
	}
	path := faultsFile(home)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(path+".new", data, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

func faultsFile(home string) string { return filepath.Join(home, "stand-in", "faults.json") }

func readFaults(home string) (Faults, error) {
	f := Faults{Backend: os.Getenv(BackendEnv)}
	path := os.Getenv(FaultsEnv)
	if path == "" {
		path = faultsFile(home)
	}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return f, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &f)
	}
	if err != nil {
		return f, fmt.Errorf("the stand-in cannot read its faults: %w", err)
	}
	return f, nil
}
