package agent

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mirego/tasuki/internal/runner"
)

// A small fleet lists at its pace; a large one spends no more than its share of
// the one limit that all hosts have in common.
func TestFleetPause(t *testing.T) {
	for hosts := 1; hosts <= 400; hosts++ {
		const each = 2
		runners := hosts * each
		pause := max(30*time.Second, fleetPause(runners, runners, each))
		pages := runners/listPage + 1
		calls := float64(hosts*pages) * float64(time.Hour) / float64(pause)
		// 10 hosts cannot reach the share at 30 s; none may pass it.
		if calls > fleetCalls+1 {
			t.Errorf("%d hosts make %.0f calls an hour", hosts, calls)
		}
		if hosts <= 10 && pause > 30*time.Second {
			t.Errorf("%d hosts list every %v", hosts, pause)
		}
	}
	// Runners of others cost pages, and are no hosts of ours.
	if got := fleetPause(1000, 2, 2); got > 35*time.Second {
		t.Errorf("one host among a thousand foreign runners lists every %v", got)
	}
}

func TestManyHostsListSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _ := quiet(t)
		g := &gone{}
		for i := range 400 {
			g.list = append(g.list, runner.Remote{ID: int64(i + 1), Name: fmt.Sprintf("tasuki-test-other%d-ios-aaaaaa", i)})
		}
		g.list[0].Name = "tasuki-test-abc123-ios-cccccc"
		a.keepers[g.list[0].Name] = a.newKeeper(Pool{GitHub: g}, g.list[0].Name)
		state := &scopeState{}
		if got := a.resyncPause(state); got != a.opt.Resync {
			t.Errorf("before the first list it waits %v", got)
		}
		a.observeScope(t.Context(), g, state)
		if got := a.resyncPause(state); got < slowestResync/2 || got > slowestResync {
			t.Errorf("one of 400 hosts lists after %v", got)
		}
		g.list[1].Name = orphan // ours, and nobody keeps it
		a.observeScope(t.Context(), g, state)
		if got := a.resyncPause(state); got > orphanGrace {
			t.Errorf("with an orphan it waits %v", got)
		}
	})
}
