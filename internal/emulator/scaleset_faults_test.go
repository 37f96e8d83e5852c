package emulator_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/actions/scaleset"

	"github.com/mirego/tasuki/internal/emulator"
	"github.com/mirego/tasuki/internal/emulator/protorunner"
)

// These are faults as a file names them, against GitHub's own client of scale sets.

func TestIncidentCapacityZeroTrapdoorForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := listen(t, emulator.Options{})
		trapdoor := emulator.CapacityTrapdoor()
		trapdoor.For = 5 * time.Minute
		l.SetFaults([]emulator.Fault{trapdoor})
		l.poll(t, 0)
		submit(t, l.Emulator, oneJob)
		if m := l.poll(t, 4); m != nil {
			t.Errorf("what fell through the trapdoor comes: %+v", m)
		}
		time.Sleep(5 * time.Minute)
		l.poll(t, 0)
		submit(t, l.Emulator, oneJob)
		if m := l.poll(t, 4); m == nil || len(m.JobAssignedMessages) != 1 {
			t.Errorf("once the fault is over: %+v", m)
		}
	})
}

func TestAssignmentsLapseEarly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := listen(t, emulator.Options{})
		l.SetFaults([]emulator.Fault{emulator.AssignmentLapses(1, time.Second)})
		l.poll(t, 1)
		submit(t, l.Emulator, oneJob)
		first := l.poll(t, 1).JobAssignedMessages[0]
		begin := time.Now()
		m := l.poll(t, 1)
		if m == nil || len(m.JobCompletedMessages) != 1 || m.JobCompletedMessages[0].JobID != first.JobID || m.JobCompletedMessages[0].Result != "canceled" {
			t.Fatalf("after a second comes %+v", m)
		}
		if took := time.Since(begin); took != time.Second {
			t.Errorf("it lapsed after %v", took)
		}
		if again := m.JobAssignedMessages; len(again) != 1 || again[0].JobID == first.JobID {
			t.Errorf("assigned again as %+v", again)
		}
		// The second assignment is not hit: it waits for its runner.
		if err := l.runner(t, "vm-1", protorunner.Options{Hold: time.Minute})(); err != nil {
			t.Error(err)
		}
	})
}

func TestMessagesComeTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := listen(t, emulator.Options{Faults: []emulator.Fault{emulator.DuplicateMessages("JobCompleted", 1)}})
		submit(t, l.Emulator, oneJob)
		l.poll(t, 1)
		if err := l.runner(t, "vm-1", protorunner.Options{})(); err != nil {
			t.Fatal(err)
		}
		var seen []*scaleset.JobCompleted
		for m := l.poll(t, 1); m != nil; m = l.poll(t, 1) {
			seen = append(seen, m.JobCompletedMessages...)
		}
		if len(seen) != 2 || seen[0].JobID != seen[1].JobID {
			t.Errorf("completed %+v", seen)
		}
	})
}

func TestJobStillRunningAndNotFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := listen(t, emulator.Options{Faults: []emulator.Fault{emulator.JobStillRunning(1)}})
		config, err := l.client.GenerateJitRunnerConfig(t.Context(), &scaleset.RunnerScaleSetJitRunnerSetting{Name: "vm-1"}, l.set.ID)
		if err != nil {
			t.Fatal(err)
		}
		if err := l.client.RemoveRunner(t.Context(), int64(config.Runner.ID)); !errors.Is(err, scaleset.JobStillRunningError) {
			t.Errorf("the first time: %v", err)
		}
		if err := l.client.RemoveRunner(t.Context(), int64(config.Runner.ID)); err != nil {
			t.Errorf("the second time: %v", err)
		}
	})
}

func TestADuplicatedRegistrationMeetsItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := listen(t, emulator.Options{Faults: []emulator.Fault{emulator.DuplicatePost(1)}})
		setting := &scaleset.RunnerScaleSetJitRunnerSetting{Name: "vm-1"}
		if _, err := l.client.GenerateJitRunnerConfig(t.Context(), setting, l.set.ID); !errors.Is(err, scaleset.RunnerExistsError) {
			t.Errorf("%v, want RunnerExistsError", err)
		}
		if got := l.State().Runners; len(got) != 1 {
			t.Errorf("runners %+v", got)
		}
	})
}

func TestTheAdminConnectionIsRefusedAtFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, transport := piped(t, emulator.Options{Faults: []emulator.Fault{emulator.RegistrationRefused(1), emulator.ByteOrderMark()}})
		c := official(t, w, transport, "/octo")
		if _, err := c.GetRunnerScaleSetByID(t.Context(), 1); err == nil || !strings.Contains(err.Error(), "403") {
			t.Errorf("refused: %v", err)
		}
		makeSet(t, c, "pool", "x") // GitHub's client reads JSON behind the mark
	})
}

func TestIncidentTokenExpired(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := bubble(t, emulator.Options{Faults: []emulator.Fault{emulator.TokenExpired(1)}})
		_, resp, err := w.rest.Actions.ListRunners(t.Context(), owner, repo, nil)
		if err == nil || resp.StatusCode != http.StatusUnauthorized || !strings.Contains(err.Error(), "Bad credentials") {
			t.Errorf("%v", err)
		}
		if _, _, err := w.rest.Actions.ListRunners(t.Context(), owner, repo, nil); err != nil {
			t.Errorf("the next: %v", err)
		}
	})
}
