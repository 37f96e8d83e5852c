package agent_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mirego/tasuki/internal/agent"
	"github.com/mirego/tasuki/internal/emulator"
	"github.com/mirego/tasuki/internal/pool"
	"github.com/mirego/tasuki/internal/runner"
	"github.com/mirego/tasuki/internal/vm/fake"
)

func TestDrainAndResumeAPool(t *testing.T) {
	t.Parallel()
	w := newWorld(t, emulator.Options{})
	h := w.run(fake.Faults{}, nil)
	w.runner(h, runner.Idle)
	if err := h.Drain("nope"); !errors.Is(err, agent.ErrNoPool) || !strings.Contains(err.Error(), "fake") {
		t.Errorf("draining an unknown pool: %v, want ErrNoPool that names the pools", err)
	}
	if err := h.Drain("fake"); err != nil {
		t.Fatal(err)
	}
	w.until("the pool is empty", func() bool { return len(h.Status().Runners) == 0 })
	run := w.submit(1)
	if err := h.Resume("fake"); err != nil {
		t.Fatal(err)
	}
	w.concluded(run, "success")
	w.finish(h)
}

// With one slot the second job waits, and the pool says for what.
func TestAJobWaitsForASlot(t *testing.T) {
	t.Parallel()
	w := newWorld(t, emulator.Options{})
	w.program = programDir(t, "2s")
	h := w.run(fake.Faults{}, func(o *agent.Options) { o.Slots = 1 })
	run := w.submit(2)
	w.until("the pool says what it waits for", func() bool {
		return h.Status().Pools[0].Waits.Text == "no free slot: the host has 1, taken by 1 busy in pool fake"
	})
	w.concluded(run, "success")
	w.finish(h)
}

func TestTwoPoolsWorkAtTheSameTime(t *testing.T) {
	t.Parallel()
	w := newWorld(t, emulator.Options{})
	w.program = programDir(t, "8s")
	h := w.run(fake.Faults{}, func(o *agent.Options) {
		second := o.Pools[0]
		second.Spec.Name, second.Spec.Labels = "other", []string{"mirego", "other"}
		o.Pools = append(o.Pools, second)
	})
	run := w.submit(2)
	w.until("both pools are busy", func() bool {
		pools := h.Status().Pools
		return pools[0].Busy == 1 && pools[1].Busy == 1
	})
	w.concluded(run, "success")
	w.finish(h)
}

func TestHoldKeepsTheGuestAndReleaseLetsItGo(t *testing.T) {
	t.Parallel()
	w := newWorld(t, emulator.Options{})
	h := w.run(fake.Faults{}, nil)
	idle := w.runner(h, runner.Idle)
	if err := h.Hold(idle.Name, time.Hour); err != nil {
		t.Fatal(err)
	}
	if err := h.Hold("nobody", time.Hour); !errors.Is(err, agent.ErrNoRunner) {
		t.Errorf("holding nobody: %v, want ErrNoRunner", err)
	}
	w.concluded(w.submit(1), "success")
	held := w.runner(h, runner.Held)
	if held.Name != idle.Name {
		t.Errorf("%s is held, want %s", held.Name, idle.Name)
	}
	if login, err := h.Login(held.Name); err != nil || login.Address == "" {
		t.Errorf("login to a held guest: %+v, %v", login, err)
	}
	if err := h.Hold(held.Name, 0); err != nil {
		t.Fatal(err)
	}
	w.until("it is let go", func() bool {
		for _, r := range h.Status().Runners {
			if r.Name == held.Name {
				return false
			}
		}
		return true
	})
	w.finish(h)
}

func TestAFailedJobIsHeldWhereThePoolWantsIt(t *testing.T) {
	t.Parallel()
	w := newWorld(t, emulator.Options{})
	w.program = programDir(t, "100ms -conclusion failed")
	h := w.run(fake.Faults{}, func(o *agent.Options) { o.Pools[0].Spec.HoldAfterFailure = time.Hour })
	w.concluded(w.submit(1), "failure")
	held := w.runner(h, runner.Held)
	if held.Job.Conclusion != "failure" || held.Job.Repository != "octo/demo" || held.Job.Name != "j0" {
		t.Errorf("the held runner's job is %+v", held.Job)
	}
	if err := h.Hold(held.Name, 0); err != nil {
		t.Fatal(err)
	}
	w.finish(h)
}

func TestFilesEnvironmentAndHooksReachTheGuest(t *testing.T) {
	t.Parallel()
	w := newWorld(t, emulator.Options{})
	out := filepath.Join(t.TempDir(), "after")
	h := w.run(fake.Faults{}, func(o *agent.Options) {
		s := &o.Pools[0].Spec
		s.Env = map[string]string{"HTTPS_PROXY": "http://it's a \"proxy\" $HOME"}
		s.Files = []pool.File{{Path: "~/ca/root.pem", Content: []byte("a CA"), Mode: 0o640}}
		s.BeforeJob = `cat ca/root.pem > before`
		s.AfterJob = `cp before '` + out + `'`
	})
	w.concluded(w.submit(1), "success")
	w.until("the hook after the job has run", func() bool {
		b, _ := os.ReadFile(out)
		return string(b) == "a CA"
	})
	w.finish(h)
}

// A hook that fails before the job keeps the runner from taking one.
func TestAHookThatFails(t *testing.T) {
	t.Parallel()
	w := newWorld(t, emulator.Options{})
	h := w.run(fake.Faults{}, func(o *agent.Options) { o.Pools[0].Spec.BeforeJob = "echo no licence server >&2; exit 7" })
	w.until("the pool says why", func() bool {
		return strings.Contains(h.Status().Pools[0].Waits.Text, "hook before_job ended with status 7: no licence server")
	})
	w.finish(h)
}

// A changed pool is taken over without touching the job that runs.
func TestReconfigureLeavesJobsAlone(t *testing.T) {
	t.Parallel()
	w := newWorld(t, emulator.Options{})
	w.program = programDir(t, "3s")
	h := w.run(fake.Faults{}, nil)
	run := w.submit(1)
	busy := w.runner(h, runner.Busy)
	changed := append([]agent.Pool(nil), h.opt.Pools...)
	changed[0].Spec.Labels = []string{"mirego", "new"}
	if err := h.Reconfigure(changed, 2, 0); err != nil {
		t.Fatal(err)
	}
	w.until("a runner with the new label waits", func() bool {
		for _, r := range w.em.State().Runners {
			if r.Online && !r.Busy && strings.Contains(strings.Join(r.Labels, " "), "new") {
				return true
			}
		}
		return false
	})
	w.concluded(run, "success")
	if r, _ := w.em.RunState(run); r.Jobs[0].RunnerName != busy.Name {
		t.Errorf("runner %s executed the job, want %s", r.Jobs[0].RunnerName, busy.Name)
	}
	w.finish(h)
}

// Ending at once leaves guests for the next agent.
func TestASecondSignalLeavesGuestsToTheNextAgent(t *testing.T) {
	t.Parallel()
	w := newWorld(t, emulator.Options{})
	w.program = programDir(t, "3s")
	first := w.run(fake.Faults{}, nil)
	run := w.submit(1)
	busy := w.runner(first, runner.Busy)
	first.end()
	if err := <-first.done; err != nil {
		t.Fatal(err)
	}
	second := w.run(fake.Faults{}, nil)
	if got := w.runner(second, runner.Busy); got.Name != busy.Name {
		t.Errorf("the next agent has %s busy, want %s", got.Name, busy.Name)
	}
	w.concluded(run, "success")
	w.finish(second)
}

func TestTeardownLeavesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, emulator.Options{LockDuration: 2 * time.Second})
	w.program = programDir(t, "10m")
	h := w.run(fake.Faults{}, nil)
	run := w.submit(1)
	w.runner(h, runner.Busy)
	w.runner(h, runner.Idle)
	h.end()
	<-h.done
	// On a slow machine the job's lock may have run out: then the run is over.
	if err := w.em.Cancel(run); err != nil {
		t.Log(err)
	}
	if err := h.Teardown(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.nothingLeft()
}
