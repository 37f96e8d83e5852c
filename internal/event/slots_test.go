package event_test

import (
	"testing"
	"time"

	"github.com/mirego/tasuki/internal/event"
	"github.com/mirego/tasuki/internal/runner"
)

// tape plays events of runners, a second apart unless it is told otherwise.
type tape struct {
	slots event.Slots
	now   time.Time
}

func (p *tape) after(d time.Duration) *tape { p.now = p.now.Add(d); return p }

func (p *tape) move(name string, states ...runner.State) event.Seat {
	var seat event.Seat
	from := runner.State("")
	for _, to := range states {
		if from != "" {
			p.now = p.now.Add(time.Second)
			seat = p.slots.See(event.Event{Time: p.now, Kind: event.RunnerMoved, Pool: "p", Runner: name, From: from, To: to})
		} else if to == runner.Preparing {
			seat = p.slots.See(event.Event{Time: p.now, Kind: event.RunnerMoved, Pool: "p", Runner: name, To: to})
		}
		from = to
	}
	return seat
}

var (
	toIdle = []runner.State{runner.Preparing, runner.Requesting, runner.Cloning, runner.Connecting, runner.Launching, runner.Registering, runner.Idle}
	toEnd  = []runner.State{runner.Idle, runner.Busy, runner.Leaving, runner.Stopping, runner.Deleting, runner.Gone}
)

func TestTurnaroundIsFromTheJobsEndToTheNextThatListens(t *testing.T) {
	p := &tape{now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	if seat := p.move("a", toIdle...); seat != (event.Seat{Slot: 0}) {
		t.Errorf("the first runner: %+v", seat)
	}
	p.move("a", toEnd...) // leaving, stopping, deleting: 2 s from the job's end to the free slot, 1 s to gone
	if seat := p.move("b", toIdle...); seat.Slot != 0 || seat.Turnaround != 9*time.Second {
		t.Errorf("the second runner: %+v, want 9 s in slot 0", seat)
	}
	p.move("b", toEnd...)
	if seat := p.after(time.Hour).move("c", toIdle...); seat.Turnaround != 0 {
		t.Errorf("an hour in which nobody wanted a runner counts: %+v", seat)
	}
	p.move("c", toEnd...)
	p.slots.See(event.Event{Time: p.now, Kind: event.PoolWaits, Pool: "p"})
	if seat := p.after(time.Hour).move("d", toIdle...); seat.Turnaround < time.Hour {
		t.Errorf("an hour in which a pool waited does not count: %+v", seat)
	}
	p.move("d", runner.Idle, runner.Leaving, runner.Stopping, runner.Deleting)
	if seat := p.move("e", toIdle...); seat.Turnaround != 0 {
		t.Errorf("a runner without a job has a turnaround: %+v", seat)
	}
}

func TestARunnerKeepsItsSlotAndAFailureGoesOn(t *testing.T) {
	p := &tape{now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	p.move("a", toIdle...)
	if seat := p.move("b", toIdle...); seat.Slot != 1 {
		t.Errorf("two at once share a slot: %+v", seat)
	}
	p.move("a", toEnd...)
	p.move("c", runner.Preparing, runner.Requesting, runner.Leaving, runner.Stopping, runner.Deleting) // failed
	if seat := p.move("d", toIdle...); seat.Slot != 0 || seat.Turnaround < 10*time.Second {
		t.Errorf("a runner that failed hides the time that was lost: %+v", seat)
	}
	if p.slots.Of("b") != 1 || p.slots.Of("d") != 0 || p.slots.Of("a") != -1 {
		t.Errorf("b has %d, d %d, a %d", p.slots.Of("b"), p.slots.Of("d"), p.slots.Of("a"))
	}
	p.slots.Adopt("d") // known
	p.slots.Adopt("a") // gone
	p.slots.Adopt("x")
	if p.slots.Of("x") != 2 || p.slots.Count() != 3 {
		t.Errorf("an adopted runner has slot %d of %d", p.slots.Of("x"), p.slots.Count())
	}
}
