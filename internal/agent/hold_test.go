package agent_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/mirego/tasuki/internal/agent"
	"github.com/mirego/tasuki/internal/emulator"
	"github.com/mirego/tasuki/internal/runner"
	"github.com/mirego/tasuki/internal/vm/fake"
)

// There is nothing to look at in a guest that is dead: its slot is free at once.
func TestAHeldGuestThatDies(t *testing.T) {
	t.Parallel()
	w := newWorld(t, emulator.Options{})
	h := w.run(fake.Faults{}, func(o *agent.Options) { o.Slots = 1 })
	idle := w.runner(h, runner.Idle)
	if err := h.Hold(idle.Name, time.Hour); err != nil {
		t.Fatal(err)
	}
	w.concluded(w.submit(1), "success")
	w.runner(h, runner.Held)
	if err := h.opt.Pools[0].Driver.(*fake.Driver).Crash(t.Context(), idle.Name); err != nil {
		t.Fatal(err)
	}
	if next := w.runner(h, runner.Idle); next.Name == idle.Name {
		t.Errorf("%s waits again", next.Name)
	}
	if !strings.Contains(h.logs.String(), "held no longer: the guest is stopped") {
		t.Error("nothing says why the guest is held no longer")
	}
	w.finish(h)
}

// A hold that comes when the guest is shut down already does not pretend.
func TestAHoldThatComesTooLate(t *testing.T) {
	t.Parallel()
	w := newWorld(t, emulator.Options{})
	release := make(chan struct{})
	h := w.run(fake.Faults{Before: []fake.Fault{func(ctx context.Context, op fake.Op, _ string, _ int) error {
		if op == fake.OpPowerOff {
			select {
			case <-release:
			case <-ctx.Done():
			}
		}
		return nil
	}}}, nil)
	w.concluded(w.submit(1), "success")
	stopping := w.runner(h, runner.Stopping)
	if err := h.Hold(stopping.Name, time.Hour); !errors.Is(err, agent.ErrEnding) {
		t.Errorf("holding a guest that is shut down: %v, want ErrEnding", err)
	}
	if err := h.Hold(stopping.Name, 0); err != nil {
		t.Errorf("letting it go: %v", err)
	}
	close(release)
	w.finish(h)
}

// lasting is GitHub that does not let a runner go, until it is told to.
type lasting struct {
	mute
	refuse chan struct{} // closed: it lets go
}

func (l *lasting) Remove(ctx context.Context, id int64) error {
	select {
	case <-l.refuse:
		return l.GitHub.Remove(ctx, id)
	default:
		return errOutage
	}
}
