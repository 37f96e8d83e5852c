package emulator_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mirego/tasuki/internal/emulator"
	"github.com/mirego/tasuki/internal/emulator/protorunner"
)

func TestTheOfficialContractsFromJITToTheEnd(t *testing.T) {
	w := start(t, emulator.Options{})
	run := submit(t, w.Emulator, oneJob)
	_, config := jit(t, w.rest, "vm-1", "self-hosted", "Linux")
	var out bytes.Buffer
	if err := protorunner.Run(t.Context(), config, protorunner.Options{Output: &out, Outputs: map[string]string{"k": "v"}}); err != nil {
		t.Fatal(err)
	}
	state := finish(t, w.Emulator, run)
	if state.Conclusion != "success" {
		t.Errorf("the run is %q, want success", state.Conclusion)
	}
	job := state.Jobs[0]
	if job.RunnerName != "vm-1" || job.Outputs["k"] != "v" {
		t.Errorf("the job ran on %q with outputs %v", job.RunnerName, job.Outputs)
	}
	if job.Queued.IsZero() || job.Started.Before(job.Queued) || job.Completed.Before(job.Started) {
		t.Errorf("times out of order: queued %v, started %v, completed %v", job.Queued, job.Started, job.Completed)
	}
	if step := job.Steps[0]; step.Status != "completed" || step.Conclusion != "success" || !strings.Contains(step.Log, "job build on vm-1") {
		t.Errorf("the step is %+v", step)
	}
	if log, _ := w.JobLog(job.GUID); emulator.TrimTimestamps(log) != "job build on vm-1\n" {
		t.Errorf("the job's log is %q", log)
	}
	for _, want := range []string{"√ Connected to GitHub", ": Listening for Jobs", ": Running job: build", ": Job build completed with result: Succeeded"} {
		if !strings.Contains(out.String(), want+"\n") {
			t.Errorf("the output lacks %q:\n%s", want, out.String())
		}
	}
	if runners := w.State().Runners; len(runners) != 0 {
		t.Errorf("an ephemeral runner is registered after its job: %+v", runners)
	}
}

// bubble is an emulator in memory, for tests of time.
func bubble(t *testing.T, opts emulator.Options) *world {
	t.Helper()
	e := emulator.New(opts)
	const base = "http://github.test"
	token := opts.Token.Reveal()
	return &world{e, base, token, client(t, base, e.Client(), token)}
}

// program runs a protorunner beside the test; the function waits for it.
func (w *world) program(ctx context.Context, config string, opts protorunner.Options) (wait func() error) {
	opts.Client = w.Client()
	done := make(chan error, 1)
	go func() { done <- protorunner.Run(ctx, config, opts) }()
	return func() error { return <-done }
}

func TestTheOldestJobThatFitsGoesToWhoeverPolls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := bubble(t, emulator.Options{Groups: []string{"fast"}})
		gpu := submit(t, w.Emulator, strings.Replace(oneJob, "linux", "GPU", 1))
		time.Sleep(time.Second)
		first := submit(t, w.Emulator, oneJob)
		time.Sleep(time.Second)
		second := submit(t, w.Emulator, oneJob)
		for _, want := range []int64{first, second} {
			_, config := jit(t, w.rest, "vm", "SELF-hosted", "Linux", "extra")
			if err := w.program(t.Context(), config, protorunner.Options{})(); err != nil {
				t.Fatal(err)
			}
			if state := finish(t, w.Emulator, want); state.Conclusion != "success" {
				t.Errorf("run %d is %q", want, state.Conclusion)
			}
		}
		state, _ := w.RunState(gpu)
		if got := state.Jobs[0]; got.Status != "queued" || got.Waiting != "for a runner with [self-hosted, GPU]: none is registered" {
			t.Errorf("the job without a runner is %s and waits %q", got.Status, got.Waiting)
		}
		jit(t, w.rest, "plain", "self-hosted")
		state, _ = w.RunState(gpu)
		if got := state.Jobs[0].Waiting; !strings.Contains(got, "plain: it lacks GPU") {
			t.Errorf("the job waits %q", got)
		}
		w.Cancel(gpu)
	})
}

func TestARunnerThatDiesFailsItsJobWhenTheLockEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := bubble(t, emulator.Options{})
		run := submit(t, w.Emulator, oneJob)
		_, config := jit(t, w.rest, "vm-1", "self-hosted", "linux")
		ctx, kill := context.WithCancel(t.Context())
		wait := w.program(ctx, config, protorunner.Options{Hold: time.Hour, Abrupt: true})
		time.Sleep(time.Second)
		kill()
		wait()
		time.Sleep(5 * time.Minute)
		if got := w.State().Runners[0]; got.Online || !got.Busy {
			t.Errorf("the dead runner is %+v, want it offline but busy", got)
		}
		job := finishAt(t, w, run).Jobs[0]
		if job.Conclusion != "failure" || !strings.Contains(job.Reason, "lost communication") {
			t.Errorf("the job is %q because %q", job.Conclusion, job.Reason)
		}
		if lived := job.Completed.Sub(job.Started); lived != 10*time.Minute {
			t.Errorf("the job lived %v, want 10 min", lived)
		}
		if len(w.State().Runners) != 0 {
			t.Error("the dead runner is still registered")
		}
	})
}

func TestRenewalKeepsALongJobAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := bubble(t, emulator.Options{})
		run := submit(t, w.Emulator, oneJob)
		_, config := jit(t, w.rest, "vm-1", "self-hosted", "linux")
		if err := w.program(t.Context(), config, protorunner.Options{Hold: 3 * time.Hour})(); err != nil {
			t.Fatal(err)
		}
		if state := finish(t, w.Emulator, run); state.Conclusion != "success" {
			t.Errorf("the run is %q", state.Conclusion)
		}
	})
}

func TestCancelAndTimeoutReachTheRunner(t *testing.T) {
	for name, c := range map[string]struct {
		workflow string
		cancel   bool
		after    time.Duration
		reason   string
	}{
		"cancel":  {oneJob, true, 10 * time.Second, "the run was cancelled"},
		"timeout": {strings.Replace(oneJob, "    steps:", "    timeout-minutes: 5\n    steps:", 1), false, 5 * time.Minute, "exceeded the maximum execution time of 5m0s"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := bubble(t, emulator.Options{})
				run := submit(t, w.Emulator, c.workflow)
				_, config := jit(t, w.rest, "vm-1", "self-hosted", "linux")
				wait := w.program(t.Context(), config, protorunner.Options{Hold: time.Hour})
				if c.cancel {
					time.Sleep(10 * time.Second)
					if err := w.Cancel(run); err != nil {
						t.Fatal(err)
					}
				}
				if err := wait(); err != nil {
					t.Fatal(err)
				}
				state := finish(t, w.Emulator, run)
				job := state.Jobs[0]
				if job.Conclusion != "cancelled" || !strings.Contains(job.Reason, c.reason) {
					t.Errorf("the job is %q because %q", job.Conclusion, job.Reason)
				}
				if ran := job.Completed.Sub(job.Started); ran != c.after {
					t.Errorf("it ran %v, want %v", ran, c.after)
				}
			})
		})
	}
}

func TestACancelledJobThatGoesOnIsAbandoned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// Its polls fail, so it never hears of the cancellation.
		w := bubble(t, emulator.Options{Faults: []emulator.Fault{{Route: "GET /broker/message", Skip: 1, Status: 503}}})
		run := submit(t, w.Emulator, oneJob)
		_, config := jit(t, w.rest, "vm-1", "self-hosted", "linux")
		ctx, kill := context.WithCancel(t.Context())
		wait := w.program(ctx, config, protorunner.Options{Hold: time.Hour})
		time.Sleep(time.Minute)
		if err := w.Cancel(run); err != nil {
			t.Fatal(err)
		}
		job := finishAt(t, w, run).Jobs[0]
		if job.Conclusion != "cancelled" || job.Started.IsZero() || job.Completed.Sub(job.Started) < 6*time.Minute {
			t.Errorf("the job is %q after %v", job.Conclusion, job.Completed.Sub(job.Started))
		}
		kill()
		wait()
	})
}

func finishAt(t *testing.T, w *world, run int64) emulator.RunState {
	t.Helper()
	state, err := w.WaitRun(t.Context(), run)
	if err != nil {
		t.Fatal(err)
	}
	return state
}

func TestNeedsOutputsAndSkippedJobs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := bubble(t, emulator.Options{})
		run := submit(t, w.Emulator, chain)
		_, config := jit(t, w.rest, "vm-1", "self-hosted")
		if err := w.program(t.Context(), config, protorunner.Options{Conclusion: "failed"})(); err != nil {
			t.Fatal(err)
		}
		state := finishAt(t, w, run)
		if diff := cmp.Diff(map[string]string{"one": "failure", "two": "skipped"}, conclusions(state)); diff != "" {
			t.Error(diff)
		}
		if state.Conclusion != "failure" {
			t.Errorf("the run is %q", state.Conclusion)
		}
	})
}

func TestAFailureCancelsTheRestOfItsMatrix(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := bubble(t, emulator.Options{})
		run := submit(t, w.Emulator, `
on: push
jobs:
  test:
    runs-on: self-hosted
    strategy:
      max-parallel: 2
      matrix: {n: [1, 2, 3]}
    steps:
      - run: echo ${{ matrix.n }}
  after:
    needs: test
    if: always()
    runs-on: self-hosted
    steps:
      - run: echo
`)
		_, config := jit(t, w.rest, "fails", "self-hosted")
		fails := w.program(t.Context(), config, protorunner.Options{Hold: time.Minute, Conclusion: "failed"})
		time.Sleep(time.Second)
		_, config = jit(t, w.rest, "long", "self-hosted")
		long := w.program(t.Context(), config, protorunner.Options{Hold: time.Hour})
		time.Sleep(time.Second)
		state, _ := w.RunState(run)
		var waiting []string
		for _, j := range state.Jobs {
			waiting = append(waiting, j.Status+" "+j.Waiting)
		}
		if diff := cmp.Diff([]string{
			"in_progress ", "in_progress ", "pending for other jobs of its matrix (max-parallel)", "pending for the jobs it needs: test",
		}, waiting); diff != "" {
			t.Error(diff)
		}
		for _, wait := range []func() error{fails, long} {
			if err := wait(); err != nil {
				t.Error(err)
			}
		}
		_, config = jit(t, w.rest, "last", "self-hosted")
		if err := w.program(t.Context(), config, protorunner.Options{})(); err != nil {
			t.Error(err)
		}
		state = finishAt(t, w, run)
		if diff := cmp.Diff(map[string]string{
			"test (1)": "failure", "test (2)": "cancelled", "test (3)": "cancelled", "after": "success",
		}, conclusions(state)); diff != "" || state.Conclusion != "failure" {
			t.Errorf("the run is %q: %s", state.Conclusion, diff)
		}
	})
}

func TestAnOfferThatNobodyPicksUpIsQueuedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := bubble(t, emulator.Options{Faults: []emulator.Fault{{Route: "POST acquirejob", Times: 1, Status: 404, Body: "{}"}}})
		run := submit(t, w.Emulator, oneJob)
		_, config := jit(t, w.rest, "vm-1", "self-hosted", "linux")
		if err := w.program(t.Context(), config, protorunner.Options{})(); err != nil {
			t.Fatal(err)
		}
		job := finishAt(t, w, run).Jobs[0]
		if job.Conclusion != "success" || job.Requeued != 1 {
			t.Errorf("the job is %q after %d requeues", job.Conclusion, job.Requeued)
		}
	})
}

func TestLostRepliesAreMadeGood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := bubble(t, emulator.Options{Faults: []emulator.Fault{
			emulator.LostCompletion(2),
			{Route: "POST acquirejob", Times: 1, LoseReply: true},
			emulator.ServerError("/oauth/token", 2),
			emulator.RateLimited("POST /broker/session", 1, time.Second),
			emulator.Slow("renewjob", 3*time.Second),
		}})
		run := submit(t, w.Emulator, oneJob)
		_, config := jit(t, w.rest, "vm-1", "self-hosted", "linux")
		var out bytes.Buffer
		if err := w.program(t.Context(), config, protorunner.Options{Hold: time.Minute, Output: &out})(); err != nil {
			t.Fatal(err)
		}
		if got := finishAt(t, w, run).Conclusion; got != "success" {
			t.Errorf("the run is %q", got)
		}
		if !strings.Contains(out.String(), "completed with result: Succeeded") {
			t.Errorf("the repeated completion was refused:\n%s", out.String())
		}
	})
}

func TestADeletedRegistrationEndsItsProgram(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := bubble(t, emulator.Options{})
		id, config := jit(t, w.rest, "vm-1", "self-hosted", "linux")
		wait := w.program(t.Context(), config, protorunner.Options{})
		synctest.Wait()
		if s := w.State().Runners[0]; !s.Online || s.Busy {
			t.Errorf("a listening runner is %+v", s)
		}
		if _, err := w.rest.Actions.RemoveRunner(t.Context(), owner, repo, id); err != nil {
			t.Fatal(err)
		}
		if err := wait(); !errors.Is(err, protorunner.ErrGone) {
			t.Errorf("the program ended with %v, want ErrGone", err)
		}
		if err := protorunner.Run(t.Context(), config, protorunner.Options{Client: w.Client()}); !errors.Is(err, protorunner.ErrGone) {
			t.Errorf("starting it again: %v, want ErrGone", err)
		}
	})
}

func TestAnIdleRunnerThatVanishesGoesOffline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := bubble(t, emulator.Options{})
		_, config := jit(t, w.rest, "vm-1", "self-hosted", "linux")
		ctx, kill := context.WithCancel(t.Context())
		wait := w.program(ctx, config, protorunner.Options{Abrupt: true})
		time.Sleep(time.Hour)
		if !w.State().Runners[0].Online {
			t.Error("it is offline while it polls")
		}
		kill()
		wait()
		until(t, w.Emulator, "it is offline", func(s emulator.State) bool { return !s.Runners[0].Online })
	})
}

func TestARunnerOfAnotherGroupIsNotOffered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := bubble(t, emulator.Options{Groups: []string{"fast"}})
		run := submit(t, w.Emulator, strings.Replace(oneJob, "[self-hosted, linux]", "{group: fast, labels: self-hosted}", 1))
		_, config := jit(t, w.rest, "vm-1", "self-hosted")
		ctx, kill := context.WithCancel(t.Context())
		wait := w.program(ctx, config, protorunner.Options{})
		time.Sleep(time.Hour)
		state, _ := w.RunState(run)
		if got := state.Jobs[0]; got.Status != "queued" || !strings.Contains(got.Waiting, `it is in group "Default"`) {
			t.Errorf("the job is %s and waits %q", got.Status, got.Waiting)
		}
		kill()
		wait()
		w.Cancel(run)
	})
}

// The incident never-registers: the credential was handed over and nobody appears.
func TestNeverRegisters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := bubble(t, emulator.Options{Faults: []emulator.Fault{emulator.NeverRegister(0)}})
		submit(t, w.Emulator, oneJob)
		_, config := jit(t, w.rest, "vm-1", "self-hosted", "linux")
		ctx, kill := context.WithCancel(t.Context())
		wait := w.program(ctx, config, protorunner.Options{})
		time.Sleep(time.Hour)
		state := w.State()
		if got := state.Runners[0]; got.Online {
			t.Errorf("the runner is %+v", got)
		}
		if got := state.Runs[0].Jobs[0].Waiting; got != "for a runner with [self-hosted, linux]: not listening yet: vm-1" {
			t.Errorf("the job waits %q", got)
		}
		w.SetFaults(nil)
		if err := wait(); err != nil {
			t.Errorf("once it may register: %v", err)
		}
		kill()
	})
}

// The incident idle-registration-collected: GitHub forgets a runner, whose program gives up for good.
func TestIdleRegistrationCollected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := bubble(t, emulator.Options{Faults: []emulator.Fault{emulator.RegistrationExpired(1)}})
		_, config := jit(t, w.rest, "vm-1", "self-hosted")
		if err := w.program(t.Context(), config, protorunner.Options{})(); !errors.Is(err, protorunner.ErrGone) {
			t.Errorf("the program ended with %v, want ErrGone", err)
		}
	})
}

func TestACancelledJobWhoseRunnerDiedIsCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := bubble(t, emulator.Options{LockDuration: 2 * time.Minute})
		run := submit(t, w.Emulator, oneJob)
		_, config := jit(t, w.rest, "vm-1", "self-hosted", "linux")
		ctx, kill := context.WithCancel(t.Context())
		wait := w.program(ctx, config, protorunner.Options{Hold: time.Hour, Abrupt: true})
		time.Sleep(time.Second)
		kill()
		wait()
		if err := w.Cancel(run); err != nil {
			t.Fatal(err)
		}
		if job := finishAt(t, w, run).Jobs[0]; job.Conclusion != "cancelled" || !strings.Contains(job.Reason, "the run was cancelled; the self-hosted runner lost") {
			t.Errorf("the job is %q because %q", job.Conclusion, job.Reason)
		}
	})
}
