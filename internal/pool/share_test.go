package pool_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mirego/tasuki/internal/pool"
	"github.com/mirego/tasuki/internal/runner"
	"github.com/mirego/tasuki/internal/wait"
)

// ago is a time before the one that these tests decide at.
func ago(d time.Duration) time.Time { return at.Add(time.Hour - d) }

func TestDecideShares(t *testing.T) {
	start := func(p string) pool.Action { return pool.Action{Verb: pool.Start, Pool: p} }
	jobs := func(waits ...time.Duration) pool.Demand {
		var d pool.Demand
		for _, w := range waits {
			d.Jobs = append(d.Jobs, ago(w))
		}
		return d
	}
	on := func(driver string, s pool.Seen) pool.Seen { s.Driver = driver; return s }
	const gaveWay = "gives way to a job that waits in pool a since 04:02:55 UTC"
	tests := map[string]struct {
		wants  []pool.Want
		seen   []pool.Seen
		limits pool.Limits
		want   []pool.Action
	}{
		"the oldest job first, then the floor, then headroom": {
			wants: []pool.Want{
				{Pool: "a", Demand: pool.Demand{Headroom: 1}}, {Pool: "b", Demand: pool.Demand{Warm: 1}},
				{Pool: "c", Demand: jobs(time.Minute)}, {Pool: "d", Demand: jobs(3 * time.Minute)},
			},
			limits: pool.Limits{Slots: 4},
			want:   []pool.Action{start("d"), start("c"), start("b"), start("a")},
		},
		"jobs that came together: the pool with the fewest slots first": {
			wants:  []pool.Want{{Pool: "a", Demand: jobs(3*time.Second, 3*time.Second)}, {Pool: "b", Demand: jobs(2 * time.Second)}},
			limits: pool.Limits{Slots: 2},
			want:   []pool.Action{start("a"), start("b"), {Verb: pool.Wait, Pool: "a", Waits: wait.Reason{Code: wait.NoSlot, Text: "no free slot (the host has 2)"}}},
		},
		"headroom that is not there is not missed": {
			wants:  []pool.Want{{Pool: "a", Demand: pool.Demand{Headroom: 3}}},
			limits: pool.Limits{Slots: 1},
			want:   []pool.Action{start("a")},
		},
		"a warm runner gives way to another pool's job": {
			wants:  []pool.Want{{Pool: "a", Demand: jobs(10 * time.Second)}, {Pool: "b", Demand: pool.Demand{Warm: 1}}},
			seen:   []pool.Seen{seen("w", "b", runner.Idle)},
			limits: pool.Limits{Slots: 1},
			want: []pool.Action{
				{Verb: pool.Stop, Pool: "b", Runner: "w", Reason: "gives way to a job that waits in pool a since 04:03:55 UTC", Yields: true},
				{Verb: pool.Wait, Pool: "a", Waits: wait.Reason{Code: wait.NoSlot, Text: "no free slot: the host has 1, taken by 1 idle in pool b"}},
			},
		},
		"but none that its own jobs need": {
			wants:  []pool.Want{{Pool: "a", Demand: jobs(4 * time.Minute)}, {Pool: "b", Demand: jobs(time.Second)}},
			seen:   []pool.Seen{seen("w", "b", runner.Idle)},
			limits: pool.Limits{Slots: 1},
			want:   []pool.Action{{Verb: pool.Wait, Pool: "a", Waits: wait.Reason{Code: wait.NoSlot, Text: "no free slot: the host has 1, taken by 1 idle in pool b"}}},
		},
		"headroom goes before warm runners": {
			wants: []pool.Want{{Pool: "a", Demand: jobs(70 * time.Second)}, {Pool: "b", Demand: pool.Demand{Warm: 2}},
				{Pool: "c", Demand: pool.Demand{Headroom: 1}}},
			seen:   []pool.Seen{seen("w1", "b", runner.Idle), seen("w2", "b", runner.Connecting), seen("h", "c", runner.Idle)},
			limits: pool.Limits{Slots: 3},
			want: []pool.Action{
				{Verb: pool.Stop, Pool: "c", Runner: "h", Reason: gaveWay, Yields: true},
				{Verb: pool.Wait, Pool: "a", Waits: wait.Reason{Code: wait.NoSlot, Text: "no free slot: the host has 3, taken by 1 idle in pool b, 1 idle in pool c, 1 starting in pool b"}},
			},
		},
		"a slot that is being freed is waited for": {
			wants: []pool.Want{{Pool: "a", Demand: jobs(time.Minute)}, {Pool: "b", Demand: pool.Demand{Warm: 1}}},
			seen: []pool.Seen{seen("w", "b", runner.Idle),
				{Name: "x", Pool: "a", State: runner.Stopping, Since: ago(time.Second)}},
			limits: pool.Limits{Slots: 2},
			want:   []pool.Action{{Verb: pool.Wait, Pool: "a", Waits: wait.Reason{Code: wait.NoSlot, Text: "no free slot: the host has 2, taken by 1 idle in pool b, 1 stopping in pool a"}}},
		},
		"a pool that gave way rests": {
			wants:  []pool.Want{{Pool: "b", Demand: pool.Demand{Warm: 1}, Yielded: ago(time.Minute)}},
			limits: pool.Limits{Slots: 1},
			want:   []pool.Action{{Verb: pool.Wait, Pool: "b", Waits: wait.Reason{Code: wait.Yielded, Text: "gave its slot to a job of another pool; takes one again at 04:05:05 UTC"}}},
		},
		"the turn of a pool that had nothing for long": {
			wants:  []pool.Want{{Pool: "a", Demand: jobs(time.Minute)}, {Pool: "b", Demand: pool.Demand{Warm: 1}, Hungry: ago(12 * time.Minute)}},
			limits: pool.Limits{Slots: 1},
			want: []pool.Action{
				{Verb: pool.Start, Pool: "b", Aged: true},
				{Verb: pool.Wait, Pool: "a", Waits: wait.Reason{Code: wait.NoSlot, Text: "no free slot (the host has 1)"}},
			},
		},
		"a job about to lapse goes before it": {
			wants:  []pool.Want{{Pool: "a", Demand: jobs(4 * time.Minute)}, {Pool: "b", Demand: pool.Demand{Warm: 1}, Hungry: ago(12 * time.Minute)}},
			limits: pool.Limits{Slots: 1},
			want:   []pool.Action{start("a"), {Verb: pool.Wait, Pool: "b", Waits: wait.Reason{Code: wait.NoSlot, Text: "no free slot (the host has 1)"}}},
		},
		"a runner that has its turn does not give way": {
			wants:  []pool.Want{{Pool: "a", Demand: jobs(4 * time.Minute)}, {Pool: "b", Demand: pool.Demand{Warm: 1}}},
			seen:   []pool.Seen{{Name: "w", Pool: "b", State: runner.Idle, Since: ago(time.Minute), Aged: true}},
			limits: pool.Limits{Slots: 1},
			want:   []pool.Action{{Verb: pool.Wait, Pool: "a", Waits: wait.Reason{Code: wait.NoSlot, Text: "no free slot: the host has 1, taken by 1 idle in pool b"}}},
		},
		"each driver has its own bound": {
			wants: []pool.Want{{Pool: "mac", Driver: "tart", Demand: pool.Demand{Warm: 3}}, {Pool: "linux", Driver: "qemu", Demand: pool.Demand{Warm: 2}}},
			seen:  []pool.Seen{on("tart", seen("m", "mac", runner.Busy))}, limits: pool.Limits{Slots: 4, Drivers: map[string]int{"tart": 2}},
			want: []pool.Action{start("mac"), start("linux"), start("linux"),
				{Verb: pool.Wait, Pool: "mac", Waits: wait.Reason{Code: wait.NoSlot, Text: "no free slot: the host has 4, taken by 1 busy in pool mac"}}},
		},
		"whose bound is reached takes no other driver's slot": {
			wants:  []pool.Want{{Pool: "a", Driver: "tart", Demand: jobs(time.Minute)}, {Pool: "linux", Driver: "qemu", Demand: pool.Demand{Warm: 1}}},
			seen:   []pool.Seen{on("tart", seen("m", "a", runner.Busy)), on("tart", seen("n", "a", runner.Busy)), on("qemu", seen("w", "linux", runner.Idle))},
			limits: pool.Limits{Slots: 4, Drivers: map[string]int{"tart": 2}},
			want:   []pool.Action{{Verb: pool.Wait, Pool: "a", Waits: wait.Reason{Code: wait.NoSlot, Text: "no free slot: driver tart runs 2 guests, taken by 2 busy in pool a"}}},
		},
		"a runner whose job was withdrawn is kept for a moment": {
			wants:  []pool.Want{{Pool: "a"}},
			seen:   []pool.Seen{{Name: "x", Pool: "a", State: runner.Idle, Since: ago(20 * time.Second)}, {Name: "y", Pool: "a", State: runner.Idle, Since: ago(40 * time.Second)}},
			limits: pool.Limits{Slots: 2},
			want:   []pool.Action{{Verb: pool.Stop, Pool: "a", Runner: "y", Reason: "more runners wait than the pool wants (jobs: 0, warm: 0)"}},
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
