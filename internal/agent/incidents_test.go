package agent_test

// Faults that were met in the field, each a test named after its line in the
// list of incidents.

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mirego/tasuki/internal/agent"
	"github.com/mirego/tasuki/internal/emulator"
	"github.com/mirego/tasuki/internal/runner"
	"github.com/mirego/tasuki/internal/vm/fake"
	"github.com/mirego/tasuki/internal/wait"
)

func deadlines(of *agent.Options, d map[runner.State]time.Duration) {
	of.Pools[0].Spec.Deadlines = d
}

// The guest got its credential and its runner never appears.
func TestNeverRegisters(t *testing.T) {
	t.Parallel()
	w := newWorld(t, emulator.Options{Faults: []emulator.Fault{emulator.NeverRegister(4)}})
	good, err := os.ReadFile(filepath.Join(w.program, "run"))
	if err != nil {
		t.Fatal(err)
	}
	first := "#!/bin/sh\nif mkdir '" + filepath.Join(w.home, "first") + "'; then sleep 600; fi\n"
	if err := os.WriteFile(filepath.Join(w.program, "run"), []byte(first+string(good)), 0o700); err != nil {
		t.Fatal(err)
	}
	run := w.submit(1)
	h := w.run(fake.Faults{}, func(o *agent.Options) {
		deadlines(o, map[runner.State]time.Duration{runner.Registering: 5 * time.Second})
	})
	w.concluded(run, "success")
	w.finish(h)
	if !strings.Contains(h.logs.String(), "still registering after 5s") {
		t.Error("nothing says that a runner did not register")
	}
}

// theFirst picks the guest that is asked about first.
func theFirst() fake.Some {
	var first atomic.Pointer[string]
	return func(name string) bool {
		first.CompareAndSwap(nil, &name)
		return *first.Load() == name
	}
}

// The hypervisor's process dies while we wait for the guest.
func TestRunDiesWhileWaiting(t *testing.T) {
	t.Parallel()
	w := newWorld(t, emulator.Options{})
	run := w.submit(1)
	h := w.run(fake.Faults{DiesBooting: theFirst()}, nil)
	w.concluded(run, "success")
	w.finish(h)
	if !strings.Contains(h.logs.String(), "the guest is stopped") {
		t.Errorf("nothing says that the guest died")
	}
}

// A guest that never has an address is replaced when its time is over.
func TestNoIP(t *testing.T) {
	t.Parallel()
	w := newWorld(t, emulator.Options{})
	run := w.submit(1)
	h := w.run(fake.Faults{NeverBoots: theFirst()}, func(o *agent.Options) {
		deadlines(o, map[runner.State]time.Duration{runner.Connecting: time.Second})
	})
	w.concluded(run, "success")
	w.finish(h)
}

// One guest that hangs in every call must not hold up the other slot.
func TestSlowVMBlocksAll(t *testing.T) {
	t.Parallel()
	w := newWorld(t, emulator.Options{})
	run := w.submit(3)
	release := make(chan struct{})
	var slow atomic.Pointer[string]
	h := w.run(fake.Faults{Before: []fake.Fault{func(ctx context.Context, op fake.Op, name string, _ int) error {
		if op == fake.OpStart {
			slow.CompareAndSwap(nil, &name)
		}
		if p := slow.Load(); p == nil || name != *p || (op != fake.OpStart && op != fake.OpDestroy && op != fake.OpPowerOff) {
			return nil
		}
		select {
		case <-release:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}}}, func(o *agent.Options) { o.Pools[0].Spec.Standby = 2 })
	w.concluded(run, "success")
	close(release)
	w.finish(h)
}

// Failures are retried with growing delays, and say so.
func TestTightRetry(t *testing.T) {
	t.Parallel()
	w := newWorld(t, emulator.Options{})
	starts := make(chan time.Time, 100)
	h := w.run(fake.Faults{Before: []fake.Fault{func(_ context.Context, op fake.Op, _ string, _ int) error {
		if op != fake.OpStart {
			return nil
		}
		starts <- time.Now()
		return errors.New("no memory left")
	}}}, nil)
	<-starts
	<-starts
	w.until("the pool says what it waits for", func() bool {
		waits := h.Status().Pools[0].Waits
		return waits.Code == wait.Failing && strings.Contains(waits.Text, "failed in a row") && strings.Contains(waits.Text, "no memory left")
	})
	if len(starts) > 3 {
		t.Errorf("%d more tries at once", len(starts))
	}
	w.finish(h)
}

// clerk is GitHub that notes whom it gave a credential, and may answer badly.
type clerk struct {
	agent.GitHub
	given sync.Map
	late  atomic.Bool // the next request is done after its reply was lost
}

func (c *clerk) Credential(ctx context.Context, r runner.Registration) (runner.Credential, error) {
	if c.late.CompareAndSwap(true, false) {
		time.AfterFunc(2*time.Second, func() { _, _ = c.GitHub.Credential(context.Background(), r) })
		return runner.Credential{}, errors.New("the connection was reset")
	}
	cred, err := c.GitHub.Credential(ctx, r)
	if err == nil {
		c.given.Store(r.Name, true)
	}
	return cred, err
}

// An error page, or no answer, is no credential: no guest is made.
func TestTokenCallFails(t *testing.T) {
	t.Parallel()
	w := newWorld(t, emulator.Options{Faults: []emulator.Fault{emulator.ServerError("generate-jitconfig", 2)}})
	gh := &clerk{}
	var without atomic.Value
	run := w.submit(1)
	h := w.run(fake.Faults{Before: []fake.Fault{func(_ context.Context, op fake.Op, name string, _ int) error {
		if _, ok := gh.given.Load(name); op == fake.OpCreate && !ok {
			without.Store(name)
		}
		return nil
	}}}, func(o *agent.Options) { gh.GitHub, o.Pools[0].GitHub = o.Pools[0].GitHub, gh })
	w.concluded(run, "success")
	w.finish(h)
	if name := without.Load(); name != nil {
		t.Errorf("guest %s was made without a credential", name)
	}
}

// GitHub registered the runner and its answer was lost.
func TestJITLostReply(t *testing.T) {
	t.Parallel()
	w := newWorld(t, emulator.Options{Faults: []emulator.Fault{emulator.JITLostReply(1)}})
	run := w.submit(1)
	h := w.run(fake.Faults{}, nil)
	w.concluded(run, "success")
	w.finish(h)
}

// The same, and it does so after it was asked whether it did.
func TestJITLostReplyLate(t *testing.T) {
	t.Parallel()
	w := newWorld(t, emulator.Options{})
	gh := &clerk{}
	gh.late.Store(true)
	h := w.run(fake.Faults{}, func(o *agent.Options) { gh.GitHub, o.Pools[0].GitHub = o.Pools[0].GitHub, gh })
	w.concluded(w.submit(1), "success")
	w.finish(h)
}

// GitHub asks to be left alone.
func TestRateLimitBurn(t *testing.T) {
	t.Parallel()
	w := newWorld(t, emulator.Options{Faults: []emulator.Fault{emulator.RateLimited("generate-jitconfig", 1, 8*time.Second)}})
	run := w.submit(1)
	h := w.run(fake.Faults{}, nil)
	w.until("the pool waits as long as GitHub says", func() bool {
		waits := h.Status().Pools[0].Waits
		return waits.Code == wait.Limited && strings.Contains(waits.Text, "GitHub is left alone until")
	})
	w.concluded(run, "success")
	w.finish(h)
	if n := strings.Count(h.logs.String(), "runner failed"); n != 1 {
		t.Errorf("%d runners asked in vain, want a pause after the first", n)
	}
}

// forgetful makes a program whose first runner is replaced by a long sleep
// when it ends, as a runner does that asks again and again for a registration
// that is gone; the second launch in the same guest is a good one.
func forgetful(t *testing.T, first string) string {
	t.Helper()
	dir := programDir(t, "300ms")
	good, err := os.ReadFile(filepath.Join(dir, "run"))
	if err != nil {
		t.Fatal(err)
	}
	script := "#!/bin/sh\nif [ ! -e again ]; then touch again; " + first + "; sleep 600; fi\n" + string(good)
	if err := os.WriteFile(filepath.Join(dir, "run"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

// GitHub forgets an idle runner: it registers anew in its still unused guest.
func TestIdleRegistrationCollected(t *testing.T) {
	t.Parallel()
	programDir(t, "") // builds the small runner
	for what, first := range map[string]string{
		"GitHub no longer lists it": "'" + built.path + "'",
		"its program says so":       "echo 'Registration 1c2d was not found.'",
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, emulator.Options{})
			w.program = forgetful(t, first)
			h := w.run(fake.Faults{}, nil)
			var name string
			if what == "GitHub no longer lists it" {
				name = w.runner(h, runner.Idle).Name
				if err := h.opt.Pools[0].GitHub.Remove(t.Context(), w.em.State().Runners[0].ID); err != nil {
					t.Fatal(err)
				}
			}
			w.until("it registers anew", func() bool {
				return strings.Contains(h.logs.String(), "to=requesting reason=\"GitHub ")
			})
			if name == "" {
				name = w.runner(h, runner.Idle).Name
			}
			run := w.submit(1)
			w.concluded(run, "success")
			if r, _ := w.em.RunState(run); r.Jobs[0].RunnerName != name {
				t.Errorf("runner %s executed the job, want %s in its old guest", r.Jobs[0].RunnerName, name)
			}
			w.finish(h)
		})
	}
}

// A runner took a job, and nothing says so yet, when we want it to go: GitHub is
// asked first, and it stays.
func TestUnboundRunner(t *testing.T) {
	t.Parallel()
	w := newWorld(t, emulator.Options{})
	w.program = programDir(t, "8s")
	silence(t, w)
	h := w.run(fake.Faults{}, func(o *agent.Options) { o.Pools[0].GitHub = &mute{GitHub: o.Pools[0].GitHub} })
	w.runner(h, runner.Idle)
	run := w.submit(1)
	w.until("the job starts", func() bool {
		r, _ := w.em.RunState(run)
		return r.Jobs[0].Status == "in_progress"
	})
	w.finish(h)
	w.concluded(run, "success")
	if !strings.Contains(h.logs.String(), "from=leaving to=busy") {
		t.Error("nobody asked GitHub before the runner stayed")
	}
}

// After a hard reset every guest is dead, and process numbers are others'.
func TestHostPowerLoss(t *testing.T) {
	t.Parallel()
	w := newWorld(t, emulator.Options{LockDuration: 10 * time.Second})
	w.program = programDir(t, "10m")
	lost := w.submit(1)
	first := w.start("")
	w.until("the job starts", func() bool {
		r, _ := w.em.RunState(lost)
		return r.Jobs[0].Status == "in_progress"
	})
	if err := first.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	driver, err := fake.New(fake.Options{Dir: filepath.Join(w.home, "guests"), Installation: installation, Prefix: "tasuki"})
	if err != nil {
		t.Fatal(err)
	}
	if err := driver.PowerLoss(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.program = programDir(t, "300ms")
	second := w.start("")
	w.concluded(lost, "failure") // its guest is dead: it fails plainly
	next := w.submit(2)
	w.concluded(next, "success")
	w.drain(second)
	w.nothingLeft()
}

// A guest dies with its job: the job fails, and only that one.
func TestAGuestDiesWithItsJob(t *testing.T) {
	t.Parallel()
	w := newWorld(t, emulator.Options{LockDuration: 10 * time.Second})
	w.program = programDir(t, "10m")
	h := w.run(fake.Faults{}, nil)
	run := w.submit(1)
	busy := w.runner(h, runner.Busy)
	if err := h.opt.Pools[0].Driver.(*fake.Driver).Crash(t.Context(), busy.Name); err != nil {
		t.Fatal(err)
	}
	w.concluded(run, "failure")
	w.finish(h)
}

// A job that takes longer than the pool allows ends with its guest.
func TestAJobBeyondItsTime(t *testing.T) {
	t.Parallel()
	w := newWorld(t, emulator.Options{LockDuration: 12 * time.Second})
	w.program = programDir(t, "10m")
	h := w.run(fake.Faults{}, func(o *agent.Options) { o.Pools[0].Spec.MaxJob = 2 * time.Second })
	run := w.submit(1)
	w.concluded(run, "failure")
	w.finish(h)
	if !strings.Contains(h.logs.String(), "max_job_time") {
		t.Error("nothing says why the guest was ended")
	}
	if strings.Contains(h.logs.String(), "from=leaving to=busy") {
		t.Error("the job got more time since GitHub said that it goes on")
	}
}

// Guests and registrations that carry another installation's name stay.
func TestSameNameHosts(t *testing.T) {
	t.Parallel()
	w := newWorld(t, emulator.Options{})
	gh, err := hostOptions(t.TempDir(), w.url, w.program, fake.Faults{})
	if err != nil {
		t.Fatal(err)
	}
	const theirs = "tasuki-test-zzz999-fake-aaaaaa"
	if _, err := gh.Pools[0].GitHub.Credential(t.Context(), runner.Registration{Name: theirs, Labels: []string{"x"}}); err != nil {
		t.Fatal(err)
	}
	stranger := filepath.Join(w.home, "guests", "somebody-else")
	if err := os.MkdirAll(stranger, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(stranger, "notes.txt"), []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	run := w.submit(1)
	h := w.run(fake.Faults{}, nil)
	w.concluded(run, "success")
	h.Shutdown()
	<-h.done
	if _, err := os.Stat(filepath.Join(stranger, "notes.txt")); err != nil {
		t.Errorf("a stranger's folder was touched: %v", err)
	}
	if left := w.em.State().Runners; len(left) != 1 || left[0].Name != theirs {
		t.Errorf("registrations: %+v, want the other host's alone", left)
	}
}

// A runner program that registers and ends at once, again and again.
func TestTightRetryAfterRegistering(t *testing.T) {
	t.Parallel()
	w := newWorld(t, emulator.Options{})
	script := "#!/bin/sh\n'" + built.path + "' & sleep 3; kill $!; wait; echo no licence left; exit 9\n"
	if err := os.WriteFile(filepath.Join(w.program, "run"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	h := w.run(fake.Faults{}, nil)
	w.until("the pool waits and says why", func() bool {
		waits := h.Status().Pools[0].Waits.Text
		return strings.HasPrefix(waits, "2 failed in a row") && strings.Contains(waits, "no licence left")
	})
	w.finish(h)
}
