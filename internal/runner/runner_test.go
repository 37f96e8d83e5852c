package runner_test

import (
	"testing"
	"time"

	"github.com/mirego/tasuki/internal/runner"
)

func TestEveryStateIsReachedAndLeadsToTheEnd(t *testing.T) {
	reached := map[runner.State]bool{}
	var walk func(s runner.State)
	walk = func(s runner.State) {
		if reached[s] {
			return
		}
		reached[s] = true
		for _, row := range runner.Table() {
			if row.State == s {
				for _, next := range row.Next {
					walk(next)
				}
			}
		}
	}
	walk(runner.Preparing)
	for _, row := range runner.Table() {
		if !reached[row.State] {
			t.Errorf("no way leads to %s", row.State)
		}
		if row.State != runner.Gone && len(row.Next) == 0 {
			t.Errorf("no way leads out of %s", row.State)
		}
		if row.Step < 1 || row.Step > len(runner.StepNames) {
			t.Errorf("%s belongs to step %d", row.State, row.Step)
		}
		for _, next := range row.Next {
			if !next.Known() {
				t.Errorf("%s leads to the unknown %q", row.State, next)
			}
		}
	}
}

func TestMoveKeepsTheTableAndTheTimes(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	var r runner.Record
	if r.Move(runner.Busy, "", at) {
		t.Error("a runner was born busy")
	}
	for i, s := range []runner.State{runner.Preparing, runner.Requesting, runner.Cloning} {
		if !r.Move(s, "because", at.Add(time.Duration(i)*time.Second)) {
			t.Fatalf("cannot become %s", s)
		}
	}
	if r.Move(runner.Gone, "", at) || r.State != runner.Cloning {
		t.Errorf("cloning became %s", r.State)
	}
	now := at.Add(10 * time.Second)
	for step, want := range map[int]time.Duration{1: time.Second, 2: time.Second, 3: 8 * time.Second, 6: 0} {
		if got := r.Took(step, now); got != want {
			t.Errorf("step %d took %v, want %v", step, got, want)
		}
	}
}
