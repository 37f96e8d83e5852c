package event

import (
	"slices"
	"time"

	"github.com/mirego/tasuki/internal/runner"
)

// vacancy is how long a slot may be empty before its next runner counts as one
// that nobody wanted until then, unless its pool said that it waits.
const vacancy = 5 * time.Second

// recent is how many runners that gave their slots back are remembered.
const recent = 256

// Slots numbers the slots of a host for its readers, from 0: a runner has the
// lowest one that was free when it began. It measures turnarounds: from the end
// of a job to the moment when the slot's next runner listens. A slot that stood
// empty because nobody wanted a runner, or whose guest was kept for a person,
// has none. The zero value is ready; its owner guards it.
type Slots struct {
	slots   []slot
	gone    []string             // gave their slots back, the latest last
	waiting map[string]time.Time // when a pool last wanted a runner and had to wait
	open    map[string]bool      // and whether it still does
}

type slot struct {
	runner string    // empty: free
	done   time.Time // when the last job here ended; zero: no turnaround goes on
	freed  time.Time
}

// Seat is what an event means to a slot.
type Seat struct {
	Slot int // -1: the event is not about a runner that holds one
	// Turnaround is set with the event that ends one; 0: this one does not.
	Turnaround time.Duration
}

// See takes an event in, in the order of their times.
func (s *Slots) See(e Event) Seat {
	switch e.Kind {
	case PoolWaits, PoolReady:
		s.wait(e)
		return Seat{Slot: -1}
	case RunnerMoved:
		return s.move(e)
	}
	return Seat{Slot: s.Of(e.Runner)}
}

// Of returns a runner's slot; -1: it holds none.
func (s *Slots) Of(name string) int {
	if name == "" {
		return -1
	}
	return slices.IndexFunc(s.slots, func(x slot) bool { return x.runner == name })
}

// Adopt gives a slot to a runner that began before the first event; one that
// is known, or gave its slot back, stays as it is.
func (s *Slots) Adopt(name string) {
	if s.Of(name) < 0 && !slices.Contains(s.gone, name) {
		s.take(name)
	}
}

// Count returns how many slots there were so far.
func (s *Slots) Count() int { return len(s.slots) }

func (s *Slots) wait(e Event) {
	if s.waiting == nil {
		s.waiting, s.open = map[string]time.Time{}, map[string]bool{}
	}
	s.waiting[e.Pool], s.open[e.Pool] = e.Time, e.Kind == PoolWaits
}

func (s *Slots) move(e Event) Seat {
	i := s.Of(e.Runner)
	if !e.To.TakesSlot() {
		if i >= 0 {
			s.slots[i].runner, s.slots[i].freed = "", e.Time
			s.gone = append(s.gone, e.Runner)
			s.gone = s.gone[max(0, len(s.gone)-recent):]
		}
		return Seat{Slot: i}
	}
	if i < 0 {
		if slices.Contains(s.gone, e.Runner) {
			return Seat{Slot: -1}
		}
		i = s.take(e.Runner)
		if x := &s.slots[i]; !x.done.IsZero() && !s.wanted(e, x.freed) {
			x.done = time.Time{}
		}
	}
	x, seat := &s.slots[i], Seat{Slot: i}
	switch {
	case e.From == runner.Busy:
		x.done = e.Time
	case e.To == runner.Idle, e.To == runner.Busy:
		if !x.done.IsZero() {
			seat.Turnaround = max(e.Time.Sub(x.done), time.Nanosecond)
		}
		x.done = time.Time{}
	case e.To == runner.Held, e.From == runner.Idle:
		x.done = time.Time{}
	}
	return seat
}

// wanted says whether a runner that begins was wanted since its slot is free.
func (s *Slots) wanted(e Event, freed time.Time) bool {
	return e.Time.Sub(freed) <= vacancy || s.open[e.Pool] || s.waiting[e.Pool].After(freed)
}

func (s *Slots) take(name string) int {
	i := slices.IndexFunc(s.slots, func(x slot) bool { return x.runner == "" })
	if i < 0 {
		s.slots = append(s.slots, slot{})
		i = len(s.slots) - 1
	}
	s.slots[i].runner = name
	return i
}
