package vmtest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"

	"github.com/mirego/tasuki/internal/vm"
)

func testAdoption(s *suite) {
	stopped, running := s.name("stopped"), s.name("running")
	s.create(stopped)
	s.running(running)
	before := s.list()

	s.d = s.h.Open(s.T)
	after := s.list()
	if len(after) != len(before) {
		s.Fatalf("a restart changed the list from %+v to %+v", before, after)
	}
	for i := range before {
		b, a := before[i], after[i]
		if a.Name != b.Name || a.State != b.State || a.Owner != b.Owner || a.Image != b.Image || !a.Created.Equal(b.Created) {
			s.Errorf("a restart changed %+v to %+v", b, a)
		}
	}
	s.start(running) // still idempotent
	s.start(stopped)
	s.isState(stopped, vm.Running)
	s.destroy(running)
	s.isGone(running)
	s.isState(stopped, vm.Running)
}

func testCrash(s *suite) {
	if s.h.Crash == nil {
		s.Skip("the harness cannot kill a hypervisor process")
	}
	name, other := s.name("crash"), s.name("other")
	s.running(name)
	s.running(other)
	s.h.Crash(s.T, name)
	if in := s.eventually(name, vm.Stopped); in.Reason == "" {
		s.Error("a guest whose hypervisor died has no reason")
	}
	s.isState(other, vm.Running)
	s.start(name)
	if in := s.isState(name, vm.Running); in.Reason != "" {
		s.Errorf("it runs again and keeps the reason %q", in.Reason)
	}
}

func testPowerLoss(s *suite) {
	if s.h.PowerLoss == nil {
		s.Skip("the harness cannot lose power")
	}
	ran, slept := s.name("ran"), s.name("slept")
	s.running(ran)
	s.create(slept)
	s.h.PowerLoss(s.T)

	s.d = s.h.Open(s.T)
	if in := s.isState(ran, vm.Stopped); in.Reason == "" {
		s.Error("a guest that ran before the power loss has no reason")
	} else if in.Owner != s.spec(ran).Owner {
		s.Errorf("its owner is %+v now", in.Owner)
	}
	s.isState(slept, vm.Stopped)
	s.destroy(slept)
	s.start(ran)
	s.isState(ran, vm.Running)
	s.running(s.name("fresh"))
}

func testHalfMade(s *suite) {
	if s.h.HalfMade == nil {
		s.Skip("the driver leaves nothing half made")
	}
	name := s.name("half")
	s.h.HalfMade(s.T, name)
	if in := s.isState(name, vm.Broken); in.Reason == "" {
		s.Error("a broken guest has no reason")
	}
	if err := s.d.Create(s.ctx(), s.spec(name)); err != nil {
		s.Errorf("Create of a broken guest: %v, want it left as it is", err)
	}
	s.isState(name, vm.Broken)
	if err := s.d.Start(s.ctx(), name); err == nil {
		s.Error("Start of a broken guest succeeded")
	}
	s.isState(name, vm.Broken)
	s.destroy(name)
	s.running(name)
}

func testForeign(s *suite) {
	if s.h.Foreign == nil {
		s.Skip("the harness has no guests of others")
	}
	check := s.h.Foreign(s.T)
	if got := s.list(); len(got) > 0 {
		s.Errorf("List shows what is not ours: %+v", got)
	}
	s.running(s.name("ours"))
	if got := s.list(); len(got) != 1 {
		s.Errorf("List shows %+v, want our guest alone", got)
	}
	s.destroy(s.name("ours"))
	check(s.T)
	s.d = s.h.Open(s.T)
	s.list()
	check(s.T)
}

func testLimit(s *suite) {
	most := s.d.Capabilities().MaxGuests
	if most == 0 {
		s.Skip("the driver has no limit")
	}
	for n := range most {
		s.running(s.name(fmt.Sprintf("g%d", n)))
	}
	late := s.name("late")
	s.create(late) // a disk needs no slot
	if err := s.d.Start(s.ctx(), late); !errors.Is(err, vm.ErrLimit) {
		s.Fatalf("Start of guest number %d of %d: %v, want ErrLimit", most+1, most, err)
	}
	s.isState(late, vm.Stopped)
	s.start(s.name("g0")) // it has its slot already
	s.destroy(s.name("g0"))
	s.start(late)
	s.isState(late, vm.Running)
}

// parallel runs every function at once and waits for all.
func parallel(fns ...func()) {
	var wg sync.WaitGroup
	for _, fn := range fns {
		wg.Go(fn)
	}
	wg.Wait()
}

func testOneByMany(s *suite) {
	name := s.name("contested")
	spec := s.spec(name)
	ctx := s.ctx()
	var creates, starts []func()
	for range 4 {
		creates = append(creates, func() {
			if err := s.d.Create(ctx, spec); err != nil {
				s.Errorf("Create: %v", err)
			}
		})
		starts = append(starts, func() {
			if err := s.d.Start(ctx, name); err != nil {
				s.Errorf("Start: %v", err)
			}
		})
	}
	parallel(creates...)
	s.isState(name, vm.Stopped)
	parallel(starts...)
	s.isState(name, vm.Running)

	// A tug of war: whoever wins, the guest is whole or gone, and one Destroy
	// that nobody disturbs ends it.
	var tug []func()
	for range 4 {
		tug = append(tug,
			func() { _ = s.d.Create(ctx, spec) },
			func() {
				if err := s.d.Destroy(ctx, name); err != nil {
					s.Errorf("Destroy: %v", err)
				}
			},
			func() { _ = s.d.Start(ctx, name) },
			func() {
				if _, err := s.d.List(ctx); err != nil {
					s.Errorf("List: %v", err)
				}
			})
	}
	rand.Shuffle(len(tug), func(i, j int) { tug[i], tug[j] = tug[j], tug[i] })
	parallel(tug...)
	s.destroy(name)
	s.isGone(name)
}

func testMany(s *suite) {
	n := 3
	if most := s.d.Capabilities().MaxGuests; most > 0 {
		n = min(n, most)
	}
	var lives []func()
	ctx := s.ctx()
	for i := range n {
		name := s.name(fmt.Sprintf("many%d", i))
		spec := s.spec(name)
		lives = append(lives, func() {
			for _, step := range []struct {
				verb string
				do   func() error
			}{
				{"Create", func() error { return s.d.Create(ctx, spec) }},
				{"Start", func() error { return s.d.Start(ctx, name) }},
				{"Destroy", func() error { return s.d.Destroy(ctx, name) }},
				{"Create", func() error { return s.d.Create(ctx, spec) }},
				{"Start", func() error { return s.d.Start(ctx, name) }},
			} {
				if err := step.do(); err != nil {
					s.Errorf("%s(%q): %v", step.verb, name, err)
				}
			}
		})
	}
	parallel(lives...)
	for i := range n {
		s.isState(s.name(fmt.Sprintf("many%d", i)), vm.Running)
	}
}
