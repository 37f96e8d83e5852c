// Package api is the JSON of our own HTTP API, as served on the host's Unix
// socket and read by the command line.
//
// All times are UTC, all durations seconds. A field is added, never renamed.
package api

import (
	"time"

	"github.com/mirego/tasuki/internal/runner"
	"github.com/mirego/tasuki/internal/wait"
)

// Status is the answer of GET /v1/status.
type Status struct {
	Host         string    `json:"host"`
	Installation string    `json:"installation"`
	Version      string    `json:"version"`
	PID          int       `json:"pid"`
	Started      time.Time `json:"started"`
	Now          time.Time `json:"now"`
	// Draining says that no new runner is started on this host; Stopping that
	// the agent ends when its busy runners have.
	Draining bool `json:"draining"`
	Stopping bool `json:"stopping"`
	Slots    int  `json:"slots"`
	Taken    int  `json:"taken"` // slots that hold a guest
	// Leaked are slots that the hypervisor counts although no guest runs in them.
	Leaked   int      `json:"leaked,omitempty"`
	Problems []string `json:"problems,omitempty"`
	Pools    []Pool   `json:"pools"`
	Runners  []Runner `json:"runners"`
	// Releases are the releases of the runner program that are kept on this
	// host, for guests whose image carries an older one.
	Releases []RunnerRelease `json:"runner_releases,omitempty"`
}

// RunnerRelease is what a host keeps of the runner program for one platform.
type RunnerRelease struct {
	OS      string `json:"os"`                // "linux", "darwin"
	Arch    string `json:"arch"`              // "amd64", "arm64"
	Version string `json:"version,omitempty"` // empty: none is on this host yet
	// Published is when GitHub published it, as far as that is known.
	Published time.Time `json:"published,omitzero"`
	// Checked is when GitHub last said that it is the newest; zero: not since
	// the agent started.
	Checked time.Time `json:"checked,omitzero"`
	Problem string    `json:"problem,omitempty"` // why the last look at GitHub failed
}

// Pool is one pool of a host.
type Pool struct {
	Name   string   `json:"name"`
	Scope  string   `json:"scope"`
	Labels []string `json:"labels"`
	Image  string   `json:"image"`            // as configured
	Digest string   `json:"digest,omitempty"` // what it means now; empty: not on this host yet
	// Previous is the image that worked before, Trying a newer one that no runner
	// has proven yet, Rejected the one whose first runners failed, Pinned the one
	// that a person wants: digests, or empty.
	Previous string `json:"previous,omitempty"`
	Trying   string `json:"trying,omitempty"`
	Rejected string `json:"rejected,omitempty"`
	Pinned   string `json:"pinned,omitempty"`
	// ImageBuilt and ImageArrived are when the image of Digest was built and came
	// to this host, as far as that is known.
	ImageBuilt   time.Time `json:"image_built,omitzero"`
	ImageArrived time.Time `json:"image_arrived,omitzero"`
	Pulling      *Pull     `json:"pulling,omitempty"` // nil: no image is on its way
	Standby      int       `json:"standby"`           // how many shall wait or be on their way
	Demand       string    `json:"demand,omitempty"`  // where that number comes from: "standby: 2"
	Listens      bool      `json:"listens,omitempty"` // it follows a scale set: it wants none until GitHub asks for some
	Idle         int       `json:"idle"`
	Starting     int       `json:"starting"`
	// Jobs are those that GitHub gave to the pool and no runner has taken yet;
	// the oldest waits since OldestJob.
	Jobs      int       `json:"jobs,omitempty"`
	OldestJob time.Time `json:"oldest_job,omitzero"`
	Busy      int       `json:"busy"`
	Draining  bool      `json:"draining"`
	// Deprecated counts the runners that GitHub gave no jobs because of the
	// version of their program, since the agent started.
	Deprecated int `json:"deprecated,omitempty"`
	// Waits says why the pool has fewer runners than it wants; zero: it has all.
	Waits wait.Reason `json:"waits,omitzero"`
	// Deaf says why the pool hears of no jobs; zero: it hears, or follows none.
	Deaf wait.Reason `json:"deaf,omitzero"`
}

// Pull is an image on its way to a host.
type Pull struct {
	Image string    `json:"image"` // the reference
	Since time.Time `json:"since"`
	// Done and Total count bytes; Reused is how much of Done did not travel,
	// since this host had it. Total is 0 at first.
	Done   int64 `json:"done"`
	Total  int64 `json:"total"`
	Reused int64 `json:"reused,omitempty"`
}

// Runner is one runner of a host.
type Runner struct {
	Name    string         `json:"name"`
	Pool    string         `json:"pool"`
	State   runner.State   `json:"state"`
	Since   time.Time      `json:"since"`
	Reason  string         `json:"reason,omitempty"`
	Created time.Time      `json:"created"`
	Job     runner.Job     `json:"job,omitzero"`
	Hold    time.Time      `json:"hold_until,omitzero"`
	Failed  bool           `json:"failed,omitempty"`
	Failure string         `json:"failure,omitempty"`
	Steps   []runner.Visit `json:"steps,omitempty"`
	// Way is how its guest was reached, and why it is believed to be ours.
	Way string `json:"way,omitempty"`
}

// Login is the answer of GET /v1/runners/NAME/login: how to log in to a guest.
type Login struct {
	Address string `json:"address"` // host:port; empty: it has none, take Tunnel
	User    string `json:"user"`
	KeyFile string `json:"key_file"` // private key, mode 0600, on this host
	HostKey string `json:"host_key"` // authorized_keys form; empty: not known
	// Tunnel is a program of the agent's host that connects its standard input and
	// output to a port of the guest, which is added as its last argument. Empty:
	// there is no such way.
	Tunnel []string `json:"tunnel,omitempty"`
}

// HostsSuffix is that of the file beside Login.KeyFile in which ssh keeps the key
// that a guest showed first, where HostKey is empty.
const HostsSuffix = ".hosts"

// Hold is the body of POST /v1/runners/NAME/hold.
type Hold struct {
	Seconds float64 `json:"seconds"` // from now; 0 lets the runner go
}

// Pin is the body of POST /v1/pools/NAME/image/pin.
type Pin struct {
	Digest string `json:"digest"` // empty ends it
}

// Error is the body of every answer with a status of 400 or more.
type Error struct {
	Error string `json:"error"`
	Hint  string `json:"hint,omitempty"` // what to do about it
}
