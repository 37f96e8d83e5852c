// Package pool says how many runners a host keeps for each of its pools.
//
// A pool is a kind of runner: an image, labels, a scope at GitHub, and how many
// of them shall wait for jobs. A slot is the host's room for one guest; pools
// share the host's slots. Decide balances demand and supply per pool and never
// job to runner: a runner made because of one job may take another.
package pool

import (
	"slices"
	"strings"
	"time"

	"github.com/mirego/tasuki/internal/runner"
	"github.com/mirego/tasuki/internal/vm"
)

// Spec is what a pool shall be, as the configuration says, with all defaults
// filled in.
type Spec struct {
	Name   string
	Image  string // OCI reference: "registry.example.com/ios:latest"
	Driver string // "qemu", "tart", "fake"
	// Scope is where the runners register: "owner/repository", "organisation"
	// or "enterprises/name".
	Scope  string
	Group  string   // runner group by name; empty: the default one
	Labels []string // the pool's own; the published ones are PublishedLabels
	// Registration is how the runners get their registrations.
	Registration runner.Way
	// Runner is where the runner program comes from.
	Runner runner.Source

	CPUs      int // per guest; 0: the driver's default
	MemoryMiB int
	DiskGB    int
	Network   vm.Network
	Machine   vm.Machine

	Standby int // how many runners wait for a job, beside those that execute one
	// ScaleSet is the scale set whose jobs the pool serves; empty: none.
	ScaleSet string
	Most     int // how many runners at once; 0: as many as the host has slots

	MaxJob           time.Duration // how long a job may take
	HoldAfterFailure time.Duration // keep the guest of a failed job for so long; 0: not at all
	Deadlines        map[runner.State]time.Duration

	Env        map[string]string // for the runner program and so for each job
	Files      []File            // put into the guest before the runner is launched
	BeforeJob  string            // a script for the guest, run before the runner is launched
	AfterJob   string            // a script for the guest, run after the runner has ended
	WorkFolder string
}

// File is a file for the guest.
type File struct {
	Path    string // in the guest; "~/" is the home of the image's user
	Content []byte
	Mode    uint32 // permission bits
}

// Deadline returns the bound on a stay in a state; 0 means none.
func (s Spec) Deadline(state runner.State) time.Duration {
	if state == runner.Busy && s.MaxJob > 0 {
		return s.MaxJob
	}
	if d, ok := s.Deadlines[state]; ok {
		return d
	}
	return state.Deadline()
}

// PublishedLabels returns what workflows can name in runs-on: "self-hosted", the
// guest's system and architecture as GitHub writes them, and the pool's own,
// without repetition (GitHub compares labels without regard to case).
// Source: docs.github.com, "Using self-hosted runners in a workflow".
func (s Spec) PublishedLabels(caps vm.Capabilities) []string {
	system := map[string]string{"linux": "Linux", "darwin": "macOS"}[caps.GuestOS]
	arch := map[string]string{"amd64": "X64", "arm64": "ARM64", "arm": "ARM"}[caps.GuestArch]
	return unique(append([]string{"self-hosted", system, arch}, s.Labels...))
}

func unique(labels []string) []string {
	var out []string
	for _, l := range labels {
		if l != "" && !slices.ContainsFunc(out, func(o string) bool { return strings.EqualFold(o, l) }) {
			out = append(out, l)
		}
	}
	return out
}
