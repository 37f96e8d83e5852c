package agent

import (
	"time"

	"github.com/mirego/tasuki/internal/base/backoff"
)

const (
	// fleetCalls is how many calls of an hour all hosts together may spend on
	// listing runners: a quarter of the 5,000 that GitHub gives an App's smallest
	// installation, or a person. Source: docs.github.com, "Rate limits for the REST API".
	fleetCalls = 1250
	// listPage is how many runners come with one call.
	listPage = 100
	// hostRunners is how many runners a host is taken to have that has fewer now:
	// what Apple's licence lets a Mac run. One that waits for jobs may have none.
	hostRunners = 2
	// slowestResync bounds the pause: what nobody backs must go some day.
	slowestResync = time.Hour
)

// resyncPause returns how long to wait before GitHub's runners are listed again.
// A list tells only what the guests did not, so it can be late; but one rate
// limit serves every host of an installation, each host lists them all, and the
// more hosts, the more pages. While something of ours waits for its grace to
// pass, the list is not later than that.
func (a *Agent) resyncPause(s *scopeState) time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	pause := fleetPause(s.runners, s.fleet, s.kept) * time.Duration(max(len(a.scopes), 1))
	if pause > a.opt.Resync {
		// Hosts that came back together shall not ask together: the delay is
		// between half and all of what it is given.
		most := min(pause*4/3, slowestResync)
		pause = max(a.opt.Resync, backoff.Policy{First: most, Most: most}.Delay(1, nil))
	}
	if len(s.orphans) > 0 {
		pause = min(pause, orphanGrace)
	}
	return max(pause, a.opt.Resync)
}

// fleetPause returns the pause at which every host may list the scope's runners:
// how many there are, how many of them belong to hosts like this one, and how
// many to this one.
func fleetPause(runners, fleet, kept int) time.Duration {
	hosts := max(1, fleet/max(kept, hostRunners))
	pages := runners/listPage + 1
	return time.Hour * time.Duration(hosts*pages) / fleetCalls
}
