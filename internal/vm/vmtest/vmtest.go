// Package vmtest is the contract of vm.Driver as a test suite. Every driver
// runs it, the fake first; a bug found in one driver becomes a case here.
//
// A driver under test comes with the world around it, a Harness: a home that
// outlives drivers, an image, and the faults that no method of the port can
// cause, such as the loss of power. The suite stores nothing.
package vmtest

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/mirego/tasuki/internal/image"
	"github.com/mirego/tasuki/internal/vm"
)

// Harness is a driver under test and the world around it. Each case of the
// suite asks for a new one, on a home of its own. What is nil is not tested.
type Harness struct {
	// Open makes a driver on the harness's home. Each further call is a
	// restart: the driver before it is not used again.
	Open func(t *testing.T) vm.Driver
	// Image is an image whose guests run until they are powered off.
	Image image.Local
	// Prefix begins the name of every guest of ours; "" if the driver knows
	// none. With one, other names are refused by Create.
	Prefix string
	// Installation is the Owner.Installation of our guests.
	Installation string
	// Want is what Capabilities must say. Empty fields, and AccelReason, are
	// not compared; MaxGuests is.
	Want vm.Capabilities
	// Timeout bounds every single call; 0 means 30 s.
	Timeout time.Duration

	// Crash kills the hypervisor's process of a running guest behind the
	// driver's back. It may return before the process is gone.
	Crash func(t *testing.T, name string)
	// PowerLoss ends all that runs at once and leaves on disk what a machine
	// finds after a hard reset: stale sockets and locks, and process numbers
	// that belong to others now. The suite calls Open after it.
	PowerLoss func(t *testing.T)
	// HalfMade leaves what a Create (or Destroy) that was killed half way
	// leaves; List must show it as Broken.
	HalfMade func(t *testing.T, name string)
	// Foreign puts guests of others, as near to ours as the hypervisor allows,
	// where the driver looks, and returns a check that they are untouched.
	Foreign func(t *testing.T) (check func(t *testing.T))
	// Leftovers names all that the driver still holds: processes, files,
	// records. It is empty when every guest is destroyed.
	Leftovers func(t *testing.T) []string
}

// Run runs the suite. open is called once for each case; what it makes it
// takes away again with t.Cleanup, running guests included.
func Run(t *testing.T, open func(t *testing.T) Harness) {
	cases := []struct {
		name string
		run  func(*suite)
	}{
		{"Capabilities", testCapabilities},
		{"ALifeFromCreateToDestroy", testLife},
		{"CreateIsIdempotentByName", testCreateIdempotent},
		{"CreateRefusesWhatCannotBe", testCreateRefuses},
		{"StartIsIdempotent", testStartIdempotent},
		{"StartOfNoGuestIsErrNotFound", testStartNotFound},
		{"DestroyIsIdempotentInEveryState", testDestroyEveryState},
		{"PowerOffKeepsTheGuest", testPowerOff},
		{"AddressesDifferAndStay", testAddress},
		{"ListIsSortedAndWhole", testListSorted},
		{"ADriverOpenedAnewAdoptsItsGuests", testAdoption},
		{"RunDiesWhileWaiting", testCrash},
		{"HostPowerLoss", testPowerLoss},
		{"HalfMadeIsBrokenAndOnlyDestroyHelps", testHalfMade},
		{"WhatIsNotOursIsNeverTouched", testForeign},
		{"VMLimit", testLimit},
		{"OneGuestByManyAtOnce", testOneByMany},
		{"ManyGuestsAtOnce", testMany},
		{"AnEndedContextIsObeyed", testContext},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			h := open(t)
			if h.Timeout == 0 {
				h.Timeout = 30 * time.Second
			}
			if h.Installation == "" {
				h.Installation = "vmtest"
			}
			s := &suite{T: t, h: h, d: h.Open(t)}
			c.run(s)
			if !t.Failed() && !t.Skipped() {
				s.leavesNothing()
			}
		})
	}
}

// suite is one case in progress.
type suite struct {
	*testing.T
	h Harness
	d vm.Driver
}

// name makes a name of ours.
func (s *suite) name(word string) string {
	return s.h.Prefix + word
}

// spec is a small guest with all that a spec may hold on every driver.
func (s *suite) spec(name string) vm.Spec {
	return vm.Spec{
		Name:      name,
		Owner:     vm.Owner{Installation: s.h.Installation, Pool: "pool-" + name, Runner: "runner-" + name},
		Image:     s.h.Image,
		CPUs:      1,
		MemoryMiB: 128,
		Network:   vm.Network{Mode: vm.Isolated},
		LoginKey:  "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBthXeIsQnbrwZOI3yW4rBsxvbKHQ8vXjdlzQyXgVm1Y",
	}
}

// ctx bounds one call.
func (s *suite) ctx() context.Context {
	ctx, cancel := context.WithTimeoutCause(s.Context(), s.h.Timeout,
		fmt.Errorf("the call took longer than %v", s.h.Timeout))
	s.Cleanup(cancel)
	return ctx
}

func (s *suite) create(name string) {
	s.Helper()
	if err := s.d.Create(s.ctx(), s.spec(name)); err != nil {
		s.Fatalf("Create(%q): %v", name, err)
	}
}

func (s *suite) start(name string) {
	s.Helper()
	if err := s.d.Start(s.ctx(), name); err != nil {
		s.Fatalf("Start(%q): %v", name, err)
	}
}

// running creates and starts a guest.
func (s *suite) running(name string) {
	s.Helper()
	s.create(name)
	s.start(name)
	s.isState(name, vm.Running)
}

func (s *suite) destroy(name string) {
	s.Helper()
	if err := s.d.Destroy(s.ctx(), name); err != nil {
		s.Fatalf("Destroy(%q): %v", name, err)
	}
}

func (s *suite) list() []vm.Instance {
	s.Helper()
	all, err := s.d.List(s.ctx())
	if err != nil {
		s.Fatalf("List: %v", err)
	}
	return all
}

func (s *suite) find(name string) (vm.Instance, bool) {
	s.Helper()
	all := s.list()
	i := slices.IndexFunc(all, func(in vm.Instance) bool { return in.Name == name })
	if i < 0 {
		return vm.Instance{}, false
	}
	return all[i], true
}

func (s *suite) isState(name string, want vm.State) vm.Instance {
	s.Helper()
	in, ok := s.find(name)
	if !ok {
		s.Fatalf("List does not show %q; want it %s", name, want)
	}
	if in.State != want {
		s.Fatalf("List shows %q as %s (%s), want %s", name, in.State, in.Reason, want)
	}
	return in
}

func (s *suite) isGone(name string) {
	s.Helper()
	if in, ok := s.find(name); ok {
		s.Fatalf("List still shows %q, as %s (%s)", name, in.State, in.Reason)
	}
}

// eventually waits, within the bound of one call, until List shows the state.
func (s *suite) eventually(name string, want vm.State) vm.Instance {
	s.Helper()
	deadline := time.Now().Add(s.h.Timeout)
	for {
		in, ok := s.find(name)
		if ok && in.State == want {
			return in
		}
		if time.Now().After(deadline) {
			s.Fatalf("List shows %q as %q (%s) after %v, want %s", name, in.State, in.Reason, s.h.Timeout, want)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// leavesNothing destroys every guest and looks for traces.
func (s *suite) leavesNothing() {
	s.Helper()
	for _, in := range s.list() {
		s.destroy(in.Name)
	}
	if left := s.list(); len(left) > 0 {
		s.Errorf("List shows %v after all were destroyed", left)
	}
	if s.h.Leftovers == nil {
		return
	}
	if left := s.h.Leftovers(s.T); len(left) > 0 {
		s.Errorf("left behind: %q", left)
	}
}
