// Package guest is the port to the inside of a guest, and what works over any
// channel into one: launching the runner program, following it, reading its
// lines.
//
// A Channel runs POSIX shell scripts in a guest. The runner program is
// launched detached under a small supervisor script that writes the program's
// log and its exit status to files in the guest. Following it means reading
// these files from an offset, so that a dropped connection, or a new agent,
// loses no line.
package guest

import (
	"context"
	"errors"
	"io"
	"strings"

	"github.com/mirego/tasuki/internal/base/secret"
)

// Sentinels of channels.
var (
	// ErrUnreachable: the guest does not answer (yet). It may pass.
	ErrUnreachable = errors.New("the guest does not answer")
	// ErrRefused: the guest answers and does not let us in, or is not the one
	// that we expect. Trying again is useless.
	ErrRefused = errors.New("the guest refuses us")
)

// Target says which guest to reach and how to be let in.
type Target struct {
	Guest    string        // its name, for messages and channels by name
	Address  string        // as vm.Addresser gives it
	User     string        // who to be in the guest
	Key      secret.String // private key, PEM
	Password secret.String // only where the image takes no key
	HostKey  string        // authorized_keys form; empty: trust the first one seen
	// Seen says that HostKey is what the guest showed before, not the image's.
	Seen bool
	// Resolve gives Address where that is empty, for a Resolver; it may be nil.
	Resolve func(ctx context.Context) (string, error)
}

// Resolver is a Dialer that asks Target.Resolve for the address by itself, if
// it needs one at all.
type Resolver interface {
	Dialer
	Resolves()
}

// Way is how a guest was reached, for a person.
type Way struct {
	Channel string // "ssh", "guest agent"
	// Trust says why we believe that it is our guest: "the image's host key",
	// "the host key that it showed first", "the hypervisor".
	Trust string
	Login string // "key", "password"; "" where nobody logs in
	GUI   string // "in the GUI session", or why not; "" where there is none
	// User is who scripts run as in the guest, HostKey the key that its SSH server
	// shows, in authorized_keys form; "" where that is not known. String leaves
	// both out.
	User, HostKey string
}

// String is the way in one line.
func (w Way) String() string {
	parts := []string{w.Channel}
	if w.Login != "" {
		parts[0] += " by " + w.Login
	}
	if w.Trust != "" {
		parts = append(parts, "trusted by "+w.Trust)
	}
	if w.GUI != "" {
		parts = append(parts, w.GUI)
	}
	return strings.Join(parts, ", ")
}

// Tunneler is a Dialer that knows a way to the ports of a guest that needs no
// address of it.
type Tunneler interface {
	Dialer
	// Tunnel returns a program of this host, with its arguments, that connects its
	// standard input and output to a TCP port of the guest's loopback: the port is
	// added as the last argument. nil: there is no such way.
	Tunnel(guest string) []string
}

// Wayfarer is a Channel that says how it reaches its guest.
type Wayfarer interface {
	Way() Way
}

// Dialer opens channels. It tries once and soon gives up; callers repeat it
// until their deadline. Errors: ErrUnreachable, ErrRefused.
type Dialer interface {
	Dial(ctx context.Context, target Target) (Channel, error)
}

// Channel is an open way into one guest. Its methods may be called at the same
// time. An error that is not about the script wraps ErrUnreachable: the
// channel is of no more use, and the script may or may not have run.
type Channel interface {
	// Run executes a script with sh in the user's home and returns its exit
	// status, -1 if a signal ended it. The script is visible in the guest's
	// process list: secrets go through Stdin. When ctx ends, Run returns its
	// cause at once; the script may go on. Nothing is written to the command's
	// writers after Run has returned; a Stdin that blocks is left to its Read.
	Run(ctx context.Context, cmd Command) (status int, err error)
	Close() error
}

// Command is one script to run.
type Command struct {
	Script string
	Stdin  io.Reader // nil: empty
	Stdout io.Writer // nil: discarded
	Stderr io.Writer // nil: discarded
}
