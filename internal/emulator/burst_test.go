package emulator_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/actions/scaleset/listener"

	"github.com/mirego/tasuki/internal/emulator"
)

// Three sets share a burst of jobs with everything on that the official listener survives.
func TestABurstOverThreeSetsWithFaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, transport := piped(t, emulator.Options{Faults: []emulator.Fault{
			{Message: "JobStarted", Lose: true, Skip: 5, Times: 5},
			{Message: "JobStarted", Delay: 3 * time.Minute, Skip: 20, Times: 5},
			{Route: "POST completejob", LoseReply: true, Skip: 3, Times: 10},
			{Route: "POST acquirejob", Status: 502, Skip: 3, Times: 3},
			{Route: "renewjob", Delay: 2 * time.Second},
		}})
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		var scalers []*scaler
		var work sync.WaitGroup
		for _, name := range []string{"small", "big", "fast"} {
			c := official(t, w, transport, "/octo")
			set := makeSet(t, c, name, "self-hosted", name)
			s := newScaler(t, c, set.ID, 4, transport)
			s.prefix, s.hold = name, time.Minute
			l, err := listener.New(openSession(t, c, set.ID, name), listener.Config{ScaleSetID: set.ID, MaxRunners: 4})
			if err != nil {
				t.Fatal(err)
			}
			scalers = append(scalers, s)
			work.Go(func() {
				if err := l.Run(ctx, s); !errors.Is(err, context.Canceled) {
					t.Errorf("listener of %s: %v", name, err)
				}
			})
		}
		var runs []int64
		for _, name := range []string{"small", "big", "fast"} {
			runs = append(runs, submit(t, w.Emulator, strings.Replace(sixtyFourJobs, "linux", name, 1)))
		}
		for _, run := range runs {
			if got := finishAt(t, w, run); got.Conclusion != "success" {
				t.Errorf("run %d is %q", run, got.Conclusion)
			}
		}
		for _, s := range scalers {
			for range 64 {
				<-s.heard
			}
		}
		stop()
		work.Wait()
		for _, s := range scalers {
			s.work.Wait()
			if s.made != 64 || len(s.completed) != 64 {
				t.Errorf("%s made %d runners and heard of %d ends, want 64", s.prefix, s.made, len(s.completed))
			}
		}
		ran := map[string]bool{}
		for _, r := range w.State().Runs {
			for _, j := range r.Jobs {
				if ran[j.RunnerName] || j.RunnerName == "" {
					t.Errorf("job %s ran on %q, as another did", j.Name, j.RunnerName)
				}
				ran[j.RunnerName] = true
			}
		}
		if left := w.State().Runners; len(left) != 0 {
			t.Errorf("%d runners are left", len(left))
		}
	})
}
