package scaleset

import (
	"testing"
	"time"

	"github.com/actions/scaleset"

	"github.com/mirego/tasuki/internal/runner"
)

// These are the rules at the top of book.go, each by itself.

var dawn = time.Date(2026, 11, 24, 6, 0, 0, 0, time.UTC)

func base(id string) scaleset.JobMessageBase { return scaleset.JobMessageBase{JobID: id} }

// assign tells a book of jobs at a time.
func assign(g *generation, at time.Time, ids ...string) {
	m := &message{}
	for _, id := range ids {
		m.assigned = append(m.assigned, scaleset.JobAssigned{JobMessageBase: base(id)})
	}
	g.apply(m, "", at)
}

func start(g *generation, at time.Time, id, by string) []news {
	return g.apply(&message{started: []scaleset.JobStarted{{RunnerName: by, JobMessageBase: base(id)}}}, "", at)
}

func complete(g *generation, at time.Time, id, by string) []news {
	return g.apply(&message{completed: []scaleset.JobCompleted{{RunnerName: by, Result: "succeeded", JobMessageBase: base(id)}}}, "", at)
}

func (g *generation) expect(t *testing.T, at time.Time, waiting int, when string) {
	t.Helper()
	if n := len(g.waiting(at)); n != waiting {
		t.Errorf("%s: %d jobs wait, want %d", when, n, waiting)
	}
}

func TestAJobThatNobodyTookCountsForAWhile(t *testing.T) {
	g := newGeneration()
	assign(g, dawn, "a")
	assign(g, dawn.Add(time.Minute), "a", "b") // told again: its time does not begin anew
	g.expect(t, dawn.Add(lapse-time.Second), 2, "before GitHub takes it back")
	g.expect(t, dawn.Add(lapse), 1, "after that")
	g.expect(t, dawn.Add(lapse+time.Minute), 0, "later")
}

func TestStatisticsThatCountMoreAreBelievedForAWhile(t *testing.T) {
	g := newGeneration()
	assign(g, dawn, "a")
	g.count(figures{TotalAssignedJobs: 3}, dawn)
	g.expect(t, dawn, 3, "two more")
	g.count(figures{TotalAssignedJobs: 4}, dawn.Add(5*time.Minute))
	g.expect(t, dawn.Add(5*time.Minute), 4, "one more again")
	// The job that is known, and the first two, are over their time: each surplus
	// job has one of its own.
	g.expect(t, dawn.Add(lapse), 1, "when the first have passed")
	g.expect(t, dawn.Add(5*time.Minute+lapse), 0, "when all have")
	for i := range 100 {
		at := dawn.Add(time.Hour + time.Duration(i)*time.Hour)
		g.count(figures{TotalAssignedJobs: 4}, at)
		if n := len(g.waiting(at)); n > 1 { // the known job has left the book: that is news, once
			t.Fatalf("after %d h %d jobs are wanted", i, n)
		}
	}
	g.expect(t, dawn.Add(200*time.Hour), 0, "in the end")
}

func TestStatisticsThatCountFewerChangeNothing(t *testing.T) {
	g := newGeneration()
	assign(g, dawn, "a", "b")
	g.count(figures{}, dawn)
	g.expect(t, dawn, 2, "although none is counted")
}

func TestAJobThatOnlyStatisticsKnewConfirmsThem(t *testing.T) {
	g := newGeneration()
	g.count(figures{TotalAssignedJobs: 3}, dawn)
	if n := start(g, dawn.Add(5*time.Minute), "x", "vm-1"); len(n) != 1 {
		t.Errorf("its start is told %d times", len(n))
	}
	g.expect(t, dawn.Add(lapse+time.Minute), 2, "the rest is believed anew")
	g.expect(t, dawn.Add(5*time.Minute+lapse), 0, "and no longer")
}

func TestABusyRunnerHasTakenTheOldestJobUntilAMessageSaysWhich(t *testing.T) {
	g := newGeneration()
	assign(g, dawn, "a")
	assign(g, dawn.Add(time.Second), "b")
	g.Runners["vm-1"] = registered{ID: 1, At: dawn}
	busy := []runner.Remote{{ID: 1, Name: "vm-1", Busy: true}, {ID: 2, Name: "of others", Busy: true}}
	for range 2 {
		g.observe(busy, dawn.Add(time.Minute))
		g.expect(t, dawn.Add(time.Minute), 1, "one runner is busy")
	}
	if g.Jobs["a"].Runner != "vm-1" || g.idle() != 0 {
		t.Errorf("job a is with %q, %d runners are idle", g.Jobs["a"].Runner, g.idle())
	}
	start(g, dawn.Add(2*time.Minute), "b", "vm-1") // it was the other one
	if g.Jobs["a"].Runner != "" || g.Jobs["b"].Runner != "vm-1" {
		t.Errorf("a is with %q, b with %q", g.Jobs["a"].Runner, g.Jobs["b"].Runner)
	}
	g.expect(t, dawn.Add(2*time.Minute), 1, "it is the other one that waits")
}

func TestAJobWhoseRunnerIsGoneIsOver(t *testing.T) {
	g := newGeneration()
	assign(g, dawn, "a")
	g.Runners["vm-1"] = registered{ID: 1, At: dawn}
	start(g, dawn, "a", "vm-1")
	g.observe(nil, dawn.Add(listed)) // a list that may have been made before it was registered
	if len(g.Jobs) != 1 {
		t.Fatal("it is over too early")
	}
	if !g.observe(nil, dawn.Add(listed+time.Second)) || len(g.Jobs) != 0 || len(g.Runners) != 0 {
		t.Errorf("left are %v and %v", g.Jobs, g.Runners)
	}
	// So it hides no job that the statistics count.
	g.count(figures{TotalAssignedJobs: 1}, dawn.Add(time.Hour))
	g.expect(t, dawn.Add(time.Hour), 1, "another job")
}

func TestMessagesThatComeAgainOrOutOfOrder(t *testing.T) {
	g := newGeneration()
	assign(g, dawn, "a")
	if n := start(g, dawn, "a", "vm-1"); len(n) != 1 || n[0].over {
		t.Errorf("its start is told as %+v", n)
	}
	if n := start(g, dawn, "a", "vm-1"); len(n) != 0 {
		t.Errorf("again: %+v", n)
	}
	assign(g, dawn, "a")
	g.expect(t, dawn, 0, "assigned once more, it has its runner still")
	if n := complete(g, dawn, "a", ""); len(n) != 1 || n[0].runner != "vm-1" || n[0].job.Conclusion != "success" {
		t.Errorf("its end, without a name, is told as %+v", n)
	}
	if n := complete(g, dawn, "a", "vm-1"); len(n) != 0 {
		t.Errorf("again: %+v", n)
	}
	assign(g, dawn, "a")
	start(g, dawn, "a", "vm-1")
	g.expect(t, dawn, 0, "what is over stays so")
	if len(g.Jobs) != 0 {
		t.Errorf("left is %v", g.Jobs)
	}
	// Completed before started, which is never told.
	if n := complete(g, dawn, "b", "vm-2"); len(n) != 1 || n[0].runner != "vm-2" {
		t.Errorf("an end without a start is told as %+v", n)
	}
	// A job that no runner had is no news of a runner.
	assign(g, dawn, "c")
	if n := complete(g, dawn, "c", ""); len(n) != 0 {
		t.Errorf("a lapse is told as %+v", n)
	}
	// A message without a job id says nothing.
	assign(g, dawn, "")
	start(g, dawn, "", "vm-3")
	complete(g, dawn, "", "vm-3")
	g.expect(t, dawn, 0, "without ids")
}
