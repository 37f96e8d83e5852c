package vmtest

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mirego/tasuki/internal/image"
	"github.com/mirego/tasuki/internal/vm"
)

func testCapabilities(s *suite) {
	got := s.d.Capabilities()
	want := s.h.Want
	want.AccelReason = got.AccelReason
	for _, f := range []struct{ got, want *string }{
		{&got.Driver, &want.Driver}, {&got.GuestOS, &want.GuestOS},
		{&got.GuestArch, &want.GuestArch}, {&got.Accel, &want.Accel},
	} {
		if *f.got == "" {
			s.Errorf("Capabilities() = %+v: a field is empty", got)
		}
		if *f.want == "" {
			*f.want = *f.got
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		s.Errorf("Capabilities (-want +got):\n%s", diff)
	}
}

func testLife(s *suite) {
	name := s.name("life")
	before := time.Now().Add(-time.Minute)
	s.create(name)
	in := s.isState(name, vm.Stopped)
	if want := s.spec(name).Owner; in.Owner != want {
		s.Errorf("owner is %+v, want %+v", in.Owner, want)
	}
	if in.Image != s.h.Image.Digest {
		s.Errorf("image is %q, want %q", in.Image, s.h.Image.Digest)
	}
	if in.Created.Before(before) || in.Created.After(time.Now().Add(time.Minute)) {
		s.Errorf("created is %v, want about now", in.Created)
	}
	s.start(name)
	run := s.isState(name, vm.Running)
	if run.Owner != in.Owner || run.Image != in.Image || !run.Created.Equal(in.Created) {
		s.Errorf("Start changed who the guest is:\nbefore %+v\nafter  %+v", in, run)
	}
	if run.Reason != "" {
		s.Errorf("a running guest has the reason %q, want none", run.Reason)
	}
	s.destroy(name)
	s.isGone(name)
	s.create(name) // a name can be used again
	s.isState(name, vm.Stopped)
}

func testCreateIdempotent(s *suite) {
	name := s.name("again")
	s.create(name)
	first := s.isState(name, vm.Stopped)
	other := s.spec(name)
	other.Owner.Runner = "someone-else"
	if err := s.d.Create(s.ctx(), other); err != nil {
		s.Fatalf("second Create: %v", err)
	}
	if again := s.isState(name, vm.Stopped); again.Owner != first.Owner {
		s.Errorf("a second Create changed the owner to %+v", again.Owner)
	}
	s.start(name)
	if err := s.d.Create(s.ctx(), other); err != nil {
		s.Fatalf("Create of a running guest: %v", err)
	}
	if again := s.isState(name, vm.Running); again.Owner != first.Owner {
		s.Errorf("Create changed the owner of a running guest to %+v", again.Owner)
	}
}

func testCreateRefuses(s *suite) {
	bad := map[string]func(*vm.Spec){
		"no name":              func(sp *vm.Spec) { sp.Name = "" },
		"a path as name":       func(sp *vm.Spec) { sp.Name = s.h.Prefix + "../x" },
		"upper case":           func(sp *vm.Spec) { sp.Name = s.h.Prefix + "X" },
		"a long name":          func(sp *vm.Spec) { sp.Name = s.h.Prefix + strings.Repeat("x", 64) },
		"no image":             func(sp *vm.Spec) { sp.Image = image.Local{} },
		"negative processors":  func(sp *vm.Spec) { sp.CPUs = -1 },
		"negative memory":      func(sp *vm.Spec) { sp.MemoryMiB = -1 },
		"negative disk":        func(sp *vm.Spec) { sp.DiskGB = -1 },
		"an unknown network":   func(sp *vm.Spec) { sp.Network.Mode = "open" },
		"another architecture": func(sp *vm.Spec) { sp.Image.Labels = map[string]string{image.LabelArch: "vax"} },
		"two lines of key":     func(sp *vm.Spec) { sp.LoginKey += "\n" + sp.LoginKey },
		"a hostname with a newline": func(sp *vm.Spec) {
			sp.Hostname = "a\nb"
		},
	}
	if s.h.Prefix != "" {
		bad["a name without our prefix"] = func(sp *vm.Spec) { sp.Name = "other-" + sp.Name }
	}
	for what, change := range bad {
		spec := s.spec(s.name("bad"))
		change(&spec)
		if err := s.d.Create(s.ctx(), spec); !errors.Is(err, vm.ErrSpec) {
			s.Errorf("Create with %s: %v, want ErrSpec", what, err)
		}
	}
	if left := s.list(); len(left) > 0 {
		s.Errorf("refused guests are listed: %+v", left)
	}
}

func testStartIdempotent(s *suite) {
	name := s.name("twice")
	s.running(name)
	before := s.address(name)
	s.start(name)
	s.isState(name, vm.Running)
	if after := s.address(name); after != before {
		s.Errorf("a second Start moved the guest from %q to %q", before, after)
	}
}

func testStartNotFound(s *suite) {
	if err := s.d.Start(s.ctx(), s.name("nobody")); !errors.Is(err, vm.ErrNotFound) {
		s.Errorf("Start: %v, want ErrNotFound", err)
	}
	if left := s.list(); len(left) > 0 {
		s.Errorf("it is listed now: %+v", left)
	}
}

func testDestroyEveryState(s *suite) {
	name := s.name("doomed")
	states := map[string]func(){
		"absent":  func() {},
		"stopped": func() { s.create(name) },
		"running": func() { s.running(name) },
	}
	if s.h.Crash != nil {
		states["crashed"] = func() { s.running(name); s.h.Crash(s.T, name) }
	}
	if s.h.HalfMade != nil {
		states["broken"] = func() { s.h.HalfMade(s.T, name) }
	}
	for state, reach := range states {
		reach()
		for n := range 2 {
			if err := s.d.Destroy(s.ctx(), name); err != nil {
				s.Fatalf("Destroy number %d of a guest that was %s: %v", n+1, state, err)
			}
			s.isGone(name)
		}
	}
}

func testPowerOff(s *suite) {
	d, ok := s.d.(vm.PowerOffer)
	if !ok {
		s.Skip("the driver is no vm.PowerOffer")
	}
	name := s.name("off")
	s.running(name)
	for range 2 {
		if err := d.PowerOff(s.ctx(), name); err != nil {
			s.Fatalf("PowerOff: %v", err)
		}
		s.isState(name, vm.Stopped)
	}
	if err := d.PowerOff(s.ctx(), s.name("nobody")); err != nil {
		s.Errorf("PowerOff of no guest: %v, want no error, as of Destroy", err)
	}
	s.start(name)
	s.isState(name, vm.Running)
}

// address returns the guest's address, or "" where the driver knows none.
func (s *suite) address(name string) string {
	s.Helper()
	d, ok := s.d.(vm.Addresser)
	if !ok {
		return ""
	}
	addr, err := d.Address(s.ctx(), name)
	if err != nil {
		s.Fatalf("Address(%q): %v", name, err)
	}
	return addr
}

func testAddress(s *suite) {
	d, ok := s.d.(vm.Addresser)
	if !ok {
		s.Skip("the driver is no vm.Addresser")
	}
	if _, err := d.Address(s.ctx(), s.name("nobody")); !errors.Is(err, vm.ErrNotFound) {
		s.Errorf("Address of no guest: %v, want ErrNotFound", err)
	}
	one, two := s.name("one"), s.name("two")
	s.running(one)
	s.running(two)
	first, second := s.address(one), s.address(two)
	if first == second {
		s.Errorf("two guests have the address %q", first)
	}
	if again := s.address(one); again != first {
		s.Errorf("the address of %q changed from %q to %q", one, first, again)
	}
	s.d = s.h.Open(s.T)
	if again := s.address(two); again != second {
		s.Errorf("a restart changed the address of %q from %q to %q", two, second, again)
	}
}

func testListSorted(s *suite) {
	var want []string
	for _, word := range []string{"m", "a", "z", "b"} {
		s.create(s.name(word))
		want = append(want, s.name(word))
	}
	slices.Sort(want)
	s.start(s.name("m"))
	var got []string
	for _, in := range s.list() {
		got = append(got, in.Name)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		s.Errorf("names in List (-want +got):\n%s", diff)
	}
}

func testContext(s *suite) {
	name := s.name("hurry")
	cause := errors.New("the caller gave up")
	ended, cancel := context.WithCancelCause(s.Context())
	cancel(cause)

	// Each call either did its work or names the cause; nothing it left may
	// stop the next one.
	obeys := func(what string, err error) {
		s.Helper()
		if err != nil && !errors.Is(err, cause) && !errors.Is(err, context.Canceled) {
			s.Errorf("%s under an ended context: %v, want its cause", what, err)
		}
	}
	obeys("Create", s.d.Create(ended, s.spec(name)))
	_, err := s.d.List(ended)
	obeys("List", err)
	s.destroy(name)
	s.create(name)
	obeys("Start", s.d.Start(ended, name))
	s.start(name)
	obeys("Destroy", s.d.Destroy(ended, name))
	s.destroy(name)
	s.isGone(name)
}
