package agent

import (
	"testing"
	"time"
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
