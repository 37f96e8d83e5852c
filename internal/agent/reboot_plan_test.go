package agent

import (
	"testing"
	"time"

	"github.com/mirego/tasuki/internal/runner"
	"github.com/mirego/tasuki/internal/vm"
)

func TestPlanOfAReboot(t *testing.T) {
	const leakLasts = 15 * time.Minute
	now := time.Now()
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	long := ago(leakLasts)
	for _, c := range []struct {
		what          string
		r             rebooting
		o             outlook
		drain, reboot bool
	}{
		{"nothing leaked", rebooting{}, outlook{}, false, false},
		{"a leak that may pass", rebooting{since: ago(leakLasts - 1)}, outlook{}, false, false},
		{"it lasts, and runners wait", rebooting{since: long}, outlook{occupied: true}, true, false},
		{"the same, while they leave", rebooting{since: long, drains: true}, outlook{occupied: true}, true, false},
		{"they have left", rebooting{since: long, drains: true}, outlook{}, true, true},
		{"none was there: drained for one pass first", rebooting{since: long}, outlook{}, true, false},
		{"a job runs", rebooting{since: long}, outlook{working: true, occupied: true}, false, false},
		{"one got a job while it was to leave", rebooting{since: long, drains: true}, outlook{working: true, occupied: true}, false, false},
		{"the agent ends", rebooting{since: long, drains: true}, outlook{stopping: true}, false, false},
		{"it was told to", rebooting{since: long, drains: true, ordered: true, last: ago(rebootTakes - 1)}, outlook{}, true, false},
		{"and did not", rebooting{since: long, drains: true, ordered: true, last: ago(rebootTakes)}, outlook{}, false, false},
		{"it did a while ago, and slots leaked again", rebooting{since: long, last: ago(rebootEvery - 1)}, outlook{}, false, false},
		{"long ago", rebooting{since: long, last: ago(rebootEvery)}, outlook{occupied: true}, true, false},
		{"the command failed", rebooting{since: long, before: now.Add(1)}, outlook{}, false, false},
	} {
		c.o.now, c.o.patience = now, leakLasts
		if drain, reboot := c.r.plan(c.o); drain != c.drain || reboot != c.reboot {
			t.Errorf("%s: drain %v, reboot %v; want %v, %v", c.what, drain, reboot, c.drain, c.reboot)
		}
	}
}

// A guest that no keeper has is a guest: one that a restart left without a pool,
// one whose record was lost, one of somebody else's.
func TestNoRebootUnderGuestsThatNobodyKeeps(t *testing.T) {
	for what, put := range map[string]func(*Agent){
		"stranded, at work":   func(a *Agent) { a.stranded["x"] = runner.Record{Name: "x", State: runner.Busy} },
		"stranded, held":      func(a *Agent) { a.stranded["x"] = runner.Record{Name: "x", State: runner.Held} },
		"stranded, idle":      func(a *Agent) { a.stranded["x"] = runner.Record{Name: "x", State: runner.Idle} },
		"without a record":    func(a *Agent) { a.drivers[nothing{}] = &driverState{guests: []vm.Instance{{Name: "x"}}} },
		"of another program":  func(a *Agent) { a.rebooting.others = 1 },
		"nothing (the check)": func(*Agent) {},
	} {
		a, _ := quiet(t)
		a.opt.Reboot, a.opt.LeakLasts = []string{"false"}, time.Minute
		a.mu.Lock()
		a.rebooting.since = time.Now().Add(-time.Hour)
		put(a)
		a.considerReboot(time.Now())
		a.considerReboot(time.Now())
		if ordered := a.rebooting.ordered; ordered != (what == "nothing (the check)") {
			t.Errorf("%s: rebooted: %v", what, ordered)
		}
		a.mu.Unlock()
		a.work.Wait()
	}
}

// A guest that nothing ends does not keep the host from jobs for ever.
func TestADrainForARebootEnds(t *testing.T) {
	a, _ := quiet(t)
	a.opt.Reboot, a.opt.LeakLasts = []string{"false"}, time.Minute
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	a.rebooting.since = now.Add(-time.Hour)
	a.stranded["x"] = runner.Record{Name: "x", State: runner.Deleting}
	a.considerReboot(now)
	if !a.rebooting.drains {
		t.Fatal("it does not drain")
	}
	a.considerReboot(now.Add(rebootDrains + time.Second))
	if a.rebooting.drains || a.problems[rebootProblem] == "" {
		t.Errorf("drains: %v; problem: %q", a.rebooting.drains, a.problems[rebootProblem])
	}
	a.considerReboot(now.Add(rebootDrains + 2*time.Second))
	if a.rebooting.drains {
		t.Error("it drains again at once")
	}
}
