package agent_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/mirego/tasuki/internal/emulator"
)

func TestALoopWithoutTrouble(t *testing.T) {
	t.Parallel()
	w := newWorld(t, emulator.Options{})
	run := w.submit(3)
	host := w.start("")
	w.concluded(run, "success")
	w.drain(host)
	w.nothingLeft()
}

// TestRestartKillsJobs kills the agent at each journal write and each
// transition, and lets the next agent go on (restart-kills-jobs): no job may
// suffer, nothing may be left.
func TestRestartKillsJobs(t *testing.T) {
	t.Parallel()
	writes, events := countPoints(t)
	step := 24
	if os.Getenv("TASUKI_TEST_QEMU") != "" {
		step = 1
	}
	if testing.Short() {
		step = 48
	}
	for n := 1; n <= writes; n += step {
		for _, where := range []string{"before-write", "after-write"} {
			crashAt(t, fmt.Sprintf("%s %d", where, n))
		}
	}
	for n := 1; n <= events; n += step {
		crashAt(t, fmt.Sprintf("event %d", n))
	}
}

// countPoints lets a host execute two jobs and says how many journal writes
// and transitions that took.
func countPoints(t *testing.T) (writes, events int) {
	t.Helper()
	w := newWorld(t, emulator.Options{})
	run := w.submit(2)
	host := w.start("")
	w.concluded(run, "success")
	w.drain(host)
	b, err := os.ReadFile(filepath.Join(w.home, "counts"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Sscan(string(b), &writes, &events); err != nil || writes < 20 || events < 20 {
		t.Fatalf("counted %d writes and %d transitions: %v", writes, events, err)
	}
	return writes, events
}

// crashAt kills one agent after the other at these points, and lets a last one
// bring everything to its end.
func crashAt(t *testing.T, points ...string) {
	t.Run(strings.Join(points, ", "), func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, emulator.Options{})
		run := w.submit(2)
		for _, point := range points {
			w.crash(run, point)
		}
		last := w.start("")
		w.concluded(run, "success")
		w.drain(last)
		w.nothingLeft()
	})
}

// crash runs an agent until it kills itself at a point. Late points are only
// reached while it drains, or not at all.
func (w *world) crash(run int64, point string) {
	w.t.Helper()
	host := w.start(point)
	done := false
	w.until("the agent kills itself", func() bool {
		if r, _ := w.em.RunState(run); r.Status == "completed" && !done {
			done = true
			_ = host.Signal(syscall.SIGTERM, false)
		}
		return !host.Alive()
	})
}

// TestSoakTwoCrashes kills the agent that goes on after a crash as well.
func TestSoakTwoCrashes(t *testing.T) {
	if os.Getenv("TASUKI_SOAK") == "" {
		t.Skip("takes long: make soak")
	}
	writes, _ := countPoints(t)
	for first := 1; first <= writes; first += 2 {
		for second := 1; second <= writes; second += 5 {
			crashAt(t, fmt.Sprintf("after-write %d", first), fmt.Sprintf("before-write %d", second))
		}
	}
}
