package pool_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mirego/tasuki/internal/pool"
	"github.com/mirego/tasuki/internal/runner"
	"github.com/mirego/tasuki/internal/wait"
)

var at = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func seen(name, of string, state runner.State) pool.Seen {
	return pool.Seen{Name: name, Pool: of, State: state, Since: at}
}

func TestDecide(t *testing.T) {
	start := func(p string) pool.Action { return pool.Action{Verb: pool.Start, Pool: p} }
	tests := map[string]struct {
		wants  []pool.Want
		seen   []pool.Seen
		limits pool.Limits
		want   []pool.Action
	}{
		"an empty host fills its pools in turn": {
			wants:  []pool.Want{{Pool: "ios", Demand: pool.Demand{Warm: 2}}, {Pool: "linux", Demand: pool.Demand{Warm: 1}}},
			limits: pool.Limits{Slots: 3},
			want:   []pool.Action{start("ios"), start("linux"), start("ios")},
		},
		"a busy runner does not count as standby": {
			wants:  []pool.Want{{Pool: "ios", Demand: pool.Demand{Warm: 1}}},
			seen:   []pool.Seen{seen("a", "ios", runner.Busy)},
			limits: pool.Limits{Slots: 2},
			want:   []pool.Action{start("ios")},
		},
		"no slot is left, and it says by what": {
			wants:  []pool.Want{{Pool: "ios", Demand: pool.Demand{Warm: 1}}},
			seen:   []pool.Seen{seen("a", "ios", runner.Busy), seen("b", "linux", runner.Stopping)},
			limits: pool.Limits{Slots: 2},
			want:   []pool.Action{{Verb: pool.Wait, Pool: "ios", Waits: wait.Reason{Code: wait.NoSlot, Text: "no free slot: the host has 2, taken by 1 busy in pool ios, 1 stopping in pool linux"}}},
		},
		"a guest whose disk is being deleted has freed its slot": {
			wants:  []pool.Want{{Pool: "ios", Demand: pool.Demand{Warm: 1}}},
			seen:   []pool.Seen{seen("a", "ios", runner.Deleting), seen("b", "ios", runner.Lingering)},
			limits: pool.Limits{Slots: 1},
			want:   []pool.Action{start("ios")},
		},
		"a blocked pool waits and leaves its slot to others": {
			wants:  []pool.Want{{Pool: "ios", Demand: pool.Demand{Warm: 1}, Blocked: wait.Reason{Code: wait.Other, Text: "image is being pulled"}}, {Pool: "linux", Demand: pool.Demand{Warm: 1}}},
			limits: pool.Limits{Slots: 1},
			want:   []pool.Action{start("linux"), {Verb: pool.Wait, Pool: "ios", Waits: wait.Reason{Code: wait.Other, Text: "image is being pulled"}}},
		},
		"the pool's own bound": {
			wants:  []pool.Want{{Pool: "ios", Demand: pool.Demand{Warm: 2}, Most: 2}},
			seen:   []pool.Seen{seen("a", "ios", runner.Busy)},
			limits: pool.Limits{Slots: 9},
			want:   []pool.Action{start("ios"), {Verb: pool.Wait, Pool: "ios", Waits: wait.Reason{Code: wait.Most, Text: "the pool has as many runners as it may (max: 2)"}}},
		},
		"guests of others take slots": {
			wants:  []pool.Want{{Pool: "ios", Demand: pool.Demand{Warm: 2}}},
			limits: pool.Limits{Slots: 2, Taken: 1},
			want:   []pool.Action{start("ios"), {Verb: pool.Wait, Pool: "ios", Waits: wait.Reason{Code: wait.NoSlot, Text: "no free slot: the host has 2, taken by 1 that no pool keeps"}}},
		},
		"draining lets the waiting go and starts nothing": {
			wants:  []pool.Want{{Pool: "ios", Demand: pool.Demand{Warm: 2}, Drain: true}},
			seen:   []pool.Seen{seen("a", "ios", runner.Idle), seen("b", "ios", runner.Busy), seen("c", "ios", runner.Connecting)},
			limits: pool.Limits{Slots: 4},
			want: []pool.Action{
				{Verb: pool.Stop, Pool: "ios", Runner: "a", Reason: "draining"},
				{Verb: pool.Stop, Pool: "ios", Runner: "c", Reason: "draining"},
			},
		},
		"a pool that is no more": {
			seen:   []pool.Seen{seen("a", "old", runner.Idle), seen("b", "old", runner.Busy)},
			limits: pool.Limits{Slots: 2},
			want:   []pool.Action{{Verb: pool.Stop, Pool: "old", Runner: "a", Reason: "its pool is no longer configured"}},
		},
		"the surplus on its way goes before the one that waits": {
			wants:  []pool.Want{{Pool: "ios", Demand: pool.Demand{Warm: 1}}},
			seen:   []pool.Seen{seen("a", "ios", runner.Connecting), seen("b", "ios", runner.Idle)},
			limits: pool.Limits{Slots: 2},
			want:   []pool.Action{{Verb: pool.Stop, Pool: "ios", Runner: "a", Reason: "more runners wait than the pool wants (jobs: 0, warm: 1)"}},
		},
		"outdated runners give way one after the other": {
			wants: []pool.Want{{Pool: "ios", Demand: pool.Demand{Warm: 2}}},
			seen: []pool.Seen{
				{Name: "a", Pool: "ios", State: runner.Idle, Since: at, Outdated: "newer image"},
				{Name: "b", Pool: "ios", State: runner.Idle, Since: at, Outdated: "newer image"},
			},
			limits: pool.Limits{Slots: 2},
			want:   []pool.Action{{Verb: pool.Stop, Pool: "ios", Runner: "a", Reason: "newer image"}},
		},
		"the next outdated one stays while a new one is on its way": {
			wants: []pool.Want{{Pool: "ios", Demand: pool.Demand{Warm: 2}}},
			seen: []pool.Seen{
				{Name: "b", Pool: "ios", State: runner.Idle, Since: at, Outdated: "newer image"},
				seen("c", "ios", runner.Connecting),
			},
			limits: pool.Limits{Slots: 2},
		},
		"bad-image-roll: the last good one stays while new ones fail": {
			wants:  []pool.Want{{Pool: "ios", Demand: pool.Demand{Warm: 2}, Blocked: wait.Reason{Code: wait.Other, Text: "2 failed in a row"}}},
			seen:   []pool.Seen{{Name: "b", Pool: "ios", State: runner.Idle, Since: at, Outdated: "newer image"}},
			limits: pool.Limits{Slots: 2},
			want:   []pool.Action{{Verb: pool.Wait, Pool: "ios", Waits: wait.Reason{Code: wait.Other, Text: "2 failed in a row"}}},
		},
		"bad-image-roll: and while another one is tried": {
			wants:  []pool.Want{{Pool: "ios", Demand: pool.Demand{Warm: 2}}},
			seen:   []pool.Seen{{Name: "b", Pool: "ios", State: runner.Idle, Since: at, Outdated: "newer image"}},
			limits: pool.Limits{Slots: 2},
			want:   []pool.Action{{Verb: pool.Start, Pool: "ios"}},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got := pool.Decide(at.Add(time.Hour), tt.wants, tt.seen, tt.limits)
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("Decide (-want +got):\n%s", diff)
			}
		})
	}
}

// TestDecideKeepsItsPromises draws hosts at random and follows decisions until
// nothing changes.
func TestDecideKeepsItsPromises(t *testing.T) {
	states := runner.Table()
	for seed := range uint64(2000) {
		rnd := rand.New(rand.NewPCG(seed, 7))
		drivers := []string{"qemu", "tart"}
		limits := pool.Limits{Slots: rnd.IntN(6), Taken: rnd.IntN(2), Drivers: map[string]int{"tart": rnd.IntN(3)}}
		var wants []pool.Want
		var have []pool.Seen
		for p := range rnd.IntN(4) {
			w := pool.Want{Pool: fmt.Sprint("p", p), Driver: drivers[p%2], Most: rnd.IntN(3), Drain: rnd.IntN(5) == 0}
			w.Demand = pool.Demand{Warm: rnd.IntN(3), Headroom: rnd.IntN(2)}
			for range rnd.IntN(3) {
				w.Demand.Jobs = append(w.Demand.Jobs, at.Add(time.Hour-time.Duration(rnd.IntN(400))*time.Second))
			}
			if rnd.IntN(4) == 0 {
				w.Hungry = at.Add(time.Duration(rnd.IntN(60)) * time.Minute)
			}
			if rnd.IntN(5) == 0 {
				w.Blocked = wait.Reason{Code: wait.Other, Text: "blocked"}
			}
			wants = append(wants, w)
		}
		for r := range rnd.IntN(6) {
			of := rnd.IntN(4)
			s := seen(fmt.Sprint("r", r), fmt.Sprint("p", of), states[rnd.IntN(len(states))].State)
			s.Driver, s.Aged = drivers[of%2], rnd.IntN(4) == 0
			if rnd.IntN(4) == 0 {
				s.Outdated = "old"
			}
			have = append(have, s)
		}
		check(t, seed, wants, have, limits)
	}
}

func check(t *testing.T, seed uint64, wants []pool.Want, have []pool.Seen, limits pool.Limits) {
	t.Helper()
	taken := limits.Taken
	for _, s := range have {
		if s.State.TakesSlot() {
			taken++
		}
	}
	room := max(0, limits.Slots-taken)
	starts, macs := map[string]int{}, 0
	ready := map[string]int{}
	for _, s := range have {
		if s.Driver == "tart" && s.State.TakesSlot() {
			macs++
		}
		if s.State == runner.Idle || s.State.OnItsWay() {
			ready[s.Pool]++
		}
	}
	total := 0
	for _, act := range pool.Decide(at.Add(time.Hour), wants, have, limits) {
		i := slices.IndexFunc(wants, func(w pool.Want) bool { return w.Pool == act.Pool })
		switch act.Verb {
		case pool.Start:
			starts[act.Pool]++
			total++
			if wants[i].Driver == "tart" {
				macs++
				if most := limits.Drivers["tart"]; most > 0 && macs > most {
					t.Errorf("seed %d: %d guests of tart, %d can run", seed, macs, most)
				}
			}
			if wants[i].Drain || !wants[i].Blocked.None() {
				t.Errorf("seed %d: started a runner for %+v", seed, wants[i])
			}
		case pool.Stop:
			j := slices.IndexFunc(have, func(s pool.Seen) bool { return s.Name == act.Runner })
			if s := have[j].State; s == runner.Busy || s.Ending() {
				t.Errorf("seed %d: stopped a runner that is %s", seed, s)
			}
			if ready[act.Pool]--; act.Yields && ready[act.Pool] < len(wants[i].Demand.Jobs) {
				t.Errorf("seed %d: pool %+v gave a runner away that its jobs need", seed, wants[i])
			}
		case pool.Wait:
			if act.Waits.Code == "" || act.Waits.Text == "" {
				t.Errorf("seed %d: pool %s waits for no reason", seed, act.Pool)
			}
		}
	}
	if total > room {
		t.Errorf("seed %d: %d starts with %d free slots", seed, total, room)
	}
	for _, w := range wants {
		held := 0
		for _, s := range have {
			if s.Pool == w.Pool && s.State.TakesSlot() {
				held++
			}
		}
		if w.Most > 0 && starts[w.Pool] > max(0, w.Most-held) {
			t.Errorf("seed %d: pool %+v holds %d and starts %d", seed, w, held, starts[w.Pool])
		}
	}
}
