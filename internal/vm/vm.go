// Package vm is the port to a hypervisor: what the agent asks of one, in words
// that hold for all.
//
// A guest is a virtual machine of ours. It has a name that carries our prefix,
// a disk that is a copy-on-write clone of an image, and a hypervisor process
// that does not end when we do. What the hypervisor lists is the truth about
// guests; a driver stores nothing that it could not find again after kill -9
// or a power loss. Package vmtest is the contract as a test suite.
package vm

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"time"

	"github.com/mirego/tasuki/internal/image"
)

// Sentinels that every driver returns, wrapped with its words.
var (
	// ErrNotFound: there is no guest of this name.
	ErrNotFound = errors.New("no such guest")
	// ErrLimit: the hypervisor runs as many guests as it may. Trying again at
	// once is useless.
	ErrLimit = errors.New("the host runs as many guests as it may")
	// ErrSpec: the guest cannot be made as asked; another try would not help.
	ErrSpec = errors.New("unusable guest specification")
	// ErrUnsupported: this driver or machine cannot do that.
	ErrUnsupported = errors.New("not supported")
)

// State is what the hypervisor says of a guest.
type State string

// The states of a guest.
const (
	Stopped State = "stopped" // it has a disk; no hypervisor process holds it
	Running State = "running" // a hypervisor process holds it
	Broken  State = "broken"  // half made or half deleted; only Destroy helps
)

// Driver makes, starts, lists and destroys guests. All methods may be called
// at the same time, for the same guest too. When ctx ends, a method returns
// soon; what is then half done is shown by List and taken away by Destroy.
type Driver interface {
	// Create clones the image's disk and writes down who the guest is for,
	// without starting it. It is idempotent by name: a guest that exists
	// already, whatever its state, is left as it is. Errors: ErrSpec.
	Create(ctx context.Context, spec Spec) error
	// Start returns once the hypervisor holds the guest, detached from us.
	// Starting a running guest does nothing. Errors: ErrNotFound, ErrLimit.
	Start(ctx context.Context, name string) error
	// Destroy powers the guest off and deletes all that is of it. It is
	// idempotent, works in every state and asks nobody's leave: a guest that
	// is not there is no error.
	Destroy(ctx context.Context, name string) error
	// List returns every guest of ours, whatever its state, by name.
	List(ctx context.Context) ([]Instance, error)
	// Capabilities says what this driver can do on this machine.
	Capabilities() Capabilities
}

// PowerOffer is a driver that can cut a guest's power and keep its disk, so
// that its slot is free before the disk is deleted. Idempotent, as Destroy is.
type PowerOffer interface {
	PowerOff(ctx context.Context, name string) error
}

// Addresser is a driver whose guests can be reached over TCP.
type Addresser interface {
	// Address returns "host:port" of the guest's SSH server, as seen from this
	// host. It does not wait: a guest without one yet is an error that may pass.
	// Errors: ErrNotFound.
	Address(ctx context.Context, name string) (string, error)
}

// Capabilities says what a driver can do on this machine.
type Capabilities struct {
	Driver    string // "qemu", "tart", "fake"
	GuestOS   string // "linux" or "darwin"
	GuestArch string // GOARCH form: "amd64", "arm64"
	// MaxGuests is how many guests this machine may run at once over all
	// pools; 0 means that only memory and processors limit it.
	MaxGuests int
	// Accel is how guests are run ("kvm", "hvf", "tcg", ...) and AccelReason why.
	Accel, AccelReason string
}

// Spec is what a guest shall be.
type Spec struct {
	Name      string // see CheckName
	Owner     Owner
	Image     image.Local
	CPUs      int // 0: the driver's default
	MemoryMiB int // 0: the driver's default
	DiskGB    int // grow the disk to so many 10^9 bytes; 0: the image's size
	Network   Network
	// LoginKey is a public key in authorized_keys form that may log in as the
	// image's user, in this guest only.
	LoginKey string
	// Hostname is the guest's own; empty: the guest's name.
	Hostname string
	// Media are files of this host that the guest sees as disks that it can only
	// read, such as a NoCloud seed. They must stay where they are for as long as
	// the guest does. A driver that cannot attach any returns ErrSpec.
	Media   []string
	Machine Machine
}

// Owner says whom a guest is for. The driver keeps it beside the guest.
type Owner struct {
	Installation string `json:"installation"`
	Pool         string `json:"pool"`
	Runner       string `json:"runner"`
}

// NetworkMode says how far a guest's packets go.
type NetworkMode string

// The network modes.
const (
	// Isolated: the named forwards and nothing else.
	Isolated NetworkMode = "isolated"
	// Internet: out, but to nothing on the host and not to other guests.
	Internet NetworkMode = "internet"
)

// Network is what a guest can reach.
type Network struct {
	Mode     NetworkMode `json:"mode"`
	Forwards []Forward   `json:"forwards,omitempty"`
	// Allow and Block are networks in CIDR form that a guest may or may not
	// reach beside what the mode says; where several fit, the longest prefix
	// counts. Only drivers with a filter know them.
	Allow []string `json:"allow,omitempty"`
	Block []string `json:"block,omitempty"`
}

// Forward makes an address of the host's reachable from an isolated guest.
type Forward struct {
	Guest string `json:"guest"` // "10.0.2.100:80": what the guest connects to
	Host  string `json:"host"`  // "127.0.0.1:8080": where it arrives
}

// Instance is one guest as the hypervisor has it.
type Instance struct {
	Name    string
	State   State
	Reason  string // why it is stopped or broken, if known
	Owner   Owner  // zero where it could not be read
	Created time.Time
	Console string // path of the guest's console log; "" if none
	Image   string // digest of the image that it is a clone of
}

var nameForm = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// CheckName returns an ErrSpec unless name can be a guest's name on every
// driver: 1 to 63 lower-case letters, digits and hyphens, as a host name.
func CheckName(name string) error {
	if !nameForm.MatchString(name) {
		return fmt.Errorf("cannot name a guest %q: 1 to 63 lower-case letters, digits and hyphens are allowed: %w", name, ErrSpec)
	}
	return nil
}
