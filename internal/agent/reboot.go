package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/mirego/tasuki/internal/base/atomicfile"
	"github.com/mirego/tasuki/internal/base/proc"
	"github.com/mirego/tasuki/internal/event"
	"github.com/mirego/tasuki/internal/runner"
	"github.com/mirego/tasuki/internal/vm"
)

// A slot that the hypervisor counts although no guest runs in it comes back
// with a reboot of the host, and nothing else is known to bring it back
// (incident leaked-vm-slot). The agent does that where it was told to, when
// nobody is at work: it drains the host for it.
const (
	// rebootEvery is the shortest time between two reboots: slots that leak again
	// soon are not mended by them.
	rebootEvery = 6 * time.Hour
	// rebootTakes is how long a host may go on that was told to reboot.
	rebootTakes = 10 * time.Minute
	// rebootAgain is when a reboot that failed is tried again.
	rebootAgain = time.Hour
	// rebootCall bounds the command.
	rebootCall = time.Minute
	// rebootDrains bounds how long the host takes no jobs for a reboot that
	// cannot be: a guest that nothing ends would keep it so for ever.
	rebootDrains = 30 * time.Minute
)

// rebootFile holds when the agent rebooted the host last.
const rebootFile = "rebooted.json"

const rebootProblem = "reboot of this host"

// rebooting is what the agent knows of a reboot. Guarded by Agent.mu.
type rebooting struct {
	leaked  int       // slots, over all drivers
	since   time.Time // since when slots leak; zero: none does
	last    time.Time // when the host was told to reboot
	before  time.Time // no try before
	drains  bool      // nothing starts, so that the host can go
	drained time.Time // when that began
	others  int       // guests of other programs and people, over all drivers
	ordered bool      // the command runs, or has ended well
}

// outlook is what there is to decide upon.
type outlook struct {
	now      time.Time
	patience time.Duration // how long slots must have leaked
	working  bool          // a job runs, or a guest is held for a person
	occupied bool          // a guest is there
	stopping bool
}

// plan says whether the host shall drain for a reboot, and whether it can go now.
func (r rebooting) plan(o outlook) (drain, reboot bool) {
	switch {
	case r.since.IsZero() || o.now.Sub(r.since) < o.patience || o.stopping || o.working:
		return false, false
	case r.ordered:
		return o.now.Sub(r.last) < rebootTakes, false
	case o.now.Before(r.before) || !r.last.IsZero() && o.now.Sub(r.last) < rebootEvery:
		return false, false
	}
	return true, r.drains && !o.occupied
}

// considerReboot drains for a reboot, or orders it. The caller holds a.mu.
func (a *Agent) considerReboot(now time.Time) {
	if len(a.opt.Reboot) == 0 {
		return
	}
	o := outlook{now: now, patience: a.opt.LeakLasts, stopping: a.stopping, working: a.rebooting.others > 0}
	see := func(s runner.State) {
		o.working = o.working || s == runner.Busy || s == runner.Held
		o.occupied = o.occupied || s != runner.Lingering && s != runner.Gone
	}
	for _, k := range a.keepers {
		see(k.record().State)
	}
	for _, rec := range a.stranded { // left alone, and at work all the same
		see(rec.State)
	}
	for _, d := range a.drivers { // guests whose records were lost
		o.occupied = o.occupied || slices.ContainsFunc(d.guests, func(g vm.Instance) bool { return a.keepers[g.Name] == nil })
	}
	if a.rebooting.drains && !a.rebooting.ordered && now.Sub(a.rebooting.drained) > rebootDrains {
		a.rebooting.before = now.Add(rebootAgain)
		a.setProblem(rebootProblem, fmt.Sprintf("slots have leaked, and guests did not go within %v; next try at %s",
			rebootDrains, a.rebooting.before.UTC().Format("15:04:05 UTC")))
	}
	drain, reboot := a.rebooting.plan(o)
	if a.rebooting.ordered && !drain {
		a.rebooting.ordered = false
		if !o.working && !o.stopping && !a.rebooting.since.IsZero() {
			a.setProblem(rebootProblem, fmt.Sprintf("it was told to reboot at %s and runs on", a.rebooting.last.UTC().Format("15:04:05 UTC")))
		}
	}
	if drain != a.rebooting.drains {
		// Listeners are not told: what GitHub gives us meanwhile waits for the host,
		// and what is queued while a set takes nothing may never come.
		a.rebooting.drains, a.rebooting.drained = drain, now
		if drain {
			a.emit(event.Event{Kind: event.HostDraining, Reason: "slots leaked, and nobody is at work: the host reboots"})
		} else {
			a.emit(event.Event{Kind: event.HostResumed, Reason: "no reboot now"})
		}
	}
	if reboot {
		a.rebooting.ordered, a.rebooting.last = true, now
		a.work.Go(a.reboot)
	}
}

// reboot tells the host to reboot. That it was told is written down before.
func (a *Agent) reboot() {
	at := time.Now().UTC()
	err := a.writeReboot(at)
	if err == nil {
		a.log.Warn("rebooting the host, since slots have leaked", "command", strings.Join(a.opt.Reboot, " "))
		a.emit(event.Event{Kind: event.HostRebooting, Reason: "slots leaked"})
		ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(a.life), rebootCall, fmt.Errorf("it did not end within %v", rebootCall))
		defer cancel()
		_, err = proc.Run(ctx, proc.Cmd{Path: a.opt.Reboot[0], Args: a.opt.Reboot[1:]})
	}
	if err == nil {
		a.problem(rebootProblem, "")
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.rebooting.ordered, a.rebooting.last, a.rebooting.before = false, time.Time{}, at.Add(rebootAgain)
	a.setProblem(rebootProblem, fmt.Sprintf("cannot reboot this host by %q: %v; next try at %s", strings.Join(a.opt.Reboot, " "), err, a.rebooting.before.Format("15:04:05 UTC")))
}

func (a *Agent) writeReboot(at time.Time) error {
	b, err := json.Marshal(struct {
		At time.Time `json:"at"`
	}{at})
	if err != nil {
		return err
	}
	return atomicfile.Write(filepath.Join(a.opt.Home, rebootFile), append(b, '\n'), 0o600)
}

// readReboot finds out when the host was told to reboot last. One that cannot be
// read counts as now: better no reboot than one after the other. The caller
// holds a.mu.
func (a *Agent) readReboot() {
	b, err := os.ReadFile(filepath.Join(a.opt.Home, rebootFile))
	if errors.Is(err, os.ErrNotExist) {
		return
	}
	var v struct {
		At time.Time `json:"at"`
	}
	if err == nil {
		err = json.Unmarshal(b, &v)
	}
	if a.rebooting.last = v.At; err != nil || v.At.After(time.Now()) {
		a.rebooting.last = time.Now()
	}
}

// seeSlots takes in which slots the hypervisors have lost, and tells the world
// when that changes.
func (a *Agent) seeSlots() {
	a.mu.Lock()
	defer a.mu.Unlock()
	leaked, others, reasons := 0, 0, map[string]string{} // by driver: several may have one name
	for d := range a.drivers {
		if c, ok := d.(vm.SlotCounter); ok {
			s := c.Slots()
			leaked += s.Leaked
			others += s.Others
			reasons[driverName(d)] = strings.TrimPrefix(reasons[driverName(d)]+"; "+s.Reason, "; ")
		}
	}
	for name, reason := range reasons {
		a.setProblem("slots of driver "+name, strings.TrimSuffix(reason, "; "))
	}
	a.rebooting.others = others
	if leaked == a.rebooting.leaked {
		return
	}
	kind := event.SlotsLeaked
	switch {
	case leaked == 0:
		kind, a.rebooting.since = event.SlotsBack, time.Time{}
		a.setProblem(rebootProblem, "")
	case a.rebooting.leaked == 0:
		a.rebooting.since = time.Now()
	}
	a.rebooting.leaked = leaked
	a.emit(event.Event{Kind: kind, Total: int64(leaked), Failed: leaked > 0, Reason: strings.Join(slices.Sorted(maps.Values(reasons)), "; ")})
}
