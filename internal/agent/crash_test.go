package agent_test

import (
	"fmt"
	"os"
	"path/filepath"
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
	step := 4
	if os.Getenv("TASUKI_TEST_QEMU") != "" {
		step = 1
	}
	if testing.Short() {
		step = 12
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

func crashAt(t *testing.T, point string) {
	t.Run(point, func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, emulator.Options{})
		run := w.submit(2)
		first := w.start(point)
		// Late points are only reached while the agent drains.
		done := false
		w.until("the agent kills itself", func() bool {
			if r, _ := w.em.RunState(run); r.Status == "completed" && !done {
				done = true
				_ = first.Signal(syscall.SIGTERM, false)
			}
			return !first.Alive()
		})
		second := w.start("")
		w.concluded(run, "success")
		w.drain(second)
		w.nothingLeft()
	})
}
