package vm

import (
	"fmt"
	"time"
)

// ErrLeaked: the hypervisor refuses a guest although fewer run than it allows:
// it still counts guests that are no more (incident leaked-vm-slot). It is an
// ErrLimit, and only a reboot of the host is known to mend it.
var ErrLeaked = fmt.Errorf("it counts guests that are no more; only a reboot of the host is known to help: %w", ErrLimit)

// SlotCounter is a driver whose hypervisor counts more than the guests of ours
// against Capabilities.MaxGuests.
type SlotCounter interface {
	// Slots answers from memory, at once: what the last List and Start saw. All
	// that it counts belongs into pool.Limits.Taken.
	Slots() Slots
}

// Slots are those of the hypervisor that no guest of ours holds.
type Slots struct {
	// Others is how many guests of others run: of this user, of other programs.
	Others int
	// Leaked is how many slots the hypervisor holds for guests that are no more, as
	// far as it is known: until a guest could be started in one.
	Leaked int
	// Retry is when a leaked slot may be tried again; zero: not while it counts as
	// leaked.
	Retry time.Time
	// Reason says for a person what is wrong and what to do; "" if nothing is.
	Reason string
}

// Taken is how many slots are not there for guests of ours now: a leaked one is
// from the time on when it may be tried again.
func (s Slots) Taken() int {
	if !s.Retry.IsZero() && !time.Now().Before(s.Retry) {
		return s.Others
	}
	return s.Others + s.Leaked
}

// Machine is what only some hypervisors give a guest. A driver ignores what
// it does not know; the configuration refuses it before.
type Machine struct {
	Display string  `json:"display,omitempty"` // "1920x1080"; empty: the image's
	Nested  bool    `json:"nested,omitempty"`  // virtual machines in the guest
	Shares  []Share `json:"shares,omitempty"`
	// DiskSync is how the hypervisor writes the disk of a guest that is thrown
	// away: "none" (the default), "fsync" or "full", and DiskCache "automatic"
	// (the default), "cached" or "uncached".
	DiskSync  string `json:"disk_sync,omitempty"`
	DiskCache string `json:"disk_cache,omitempty"`
	// OpenNetwork: no filter between guests, host and the local network.
	OpenNetwork bool `json:"open_network,omitempty"`
}

// Share is a folder of the host's that a guest sees.
type Share struct {
	Name     string `json:"name"` // of the folder in the guest
	Path     string `json:"path"` // on the host
	Writable bool   `json:"writable,omitempty"`
}
