package why_test

import (
	"strings"
	"testing"
	"time"

	"github.com/mirego/tasuki/internal/api"
	"github.com/mirego/tasuki/internal/pool"
	"github.com/mirego/tasuki/internal/runner"
	"github.com/mirego/tasuki/internal/wait"
	"github.com/mirego/tasuki/internal/why"
)

var now = time.Date(2026, 1, 2, 15, 4, 5, 0, time.UTC)

// facts are of a job that waits, and a host that could run it.
func facts() why.Facts {
	return why.Facts{
		Now: now,
		Job: why.Job{
			ID: 7, RunID: 3, Name: "build", Repository: "acme/app", Status: "queued", URL: "https://github.com/acme/app/actions/runs/3/job/7",
			Labels: []string{"self-hosted", "linux", "Small"}, Created: now.Add(-12 * time.Minute),
		},
		Run:   why.Run{ID: 3, Status: "queued"},
		Pools: []why.Pool{{Name: "small", Scope: "acme", Labels: []string{"self-hosted", "Linux", "X64", "small"}}},
		Host:  why.Host{Status: &api.Status{Slots: 2, Pools: []api.Pool{{Name: "small", Image: "reg.example/x:1", Standby: 1, Idle: 1, Demand: "standby: 1"}}}},
	}
}

// supply changes the host's one pool.
func supply(change func(*api.Pool)) func(*why.Facts) {
	return func(f *why.Facts) { change(&f.Host.Status.Pools[0]) }
}

func TestOfJob(t *testing.T) {
	tests := map[string]struct {
		change func(*why.Facts)
		reason why.Reason
		says   string // in the line
		more   string // in what follows it
		still  bool   // it waits for nothing
	}{
		"over": {reason: why.Ended, still: true, says: "it is over: failure, on runner r1, 5m ago", change: func(f *why.Facts) {
			f.Job.Status, f.Job.Conclusion, f.Job.Runner, f.Job.Completed = "completed", "failure", "r1", now.Add(-5*time.Minute)
		}},
		"running here": {reason: why.Running, still: true, says: "it runs on r1 for 1m", more: `pool "small" of this host, busy`, change: func(f *why.Facts) {
			f.Job.Status, f.Job.Runner, f.Job.Started = "in_progress", "r1", now.Add(-time.Minute)
			f.Host.Status.Runners = []api.Runner{{Name: "r1", Pool: "small", State: runner.Busy}}
		}},
		"running elsewhere": {reason: why.Running, still: true, says: "it runs on laptop", more: "not of this host", change: func(f *why.Facts) {
			f.Job.Status, f.Job.Runner = "in_progress", "laptop"
		}},
		"unservable-job: the run ended": {reason: why.RunEnded, says: "its run 3 has ended (cancelled): no runner will ever get it", change: func(f *why.Facts) {
			f.Run = why.Run{ID: 3, Status: "completed", Conclusion: "cancelled"}
		}},
		"for an approval": {reason: why.Approval, says: "an approval of its environment", change: func(f *why.Facts) { f.Job.Status = "waiting" }},
		"for its group":   {reason: why.Approval, says: "concurrency group", change: func(f *why.Facts) { f.Job.Status = "pending" }},
		"GitHub's own":    {reason: why.Hosted, says: "[ubuntu-latest], which are GitHub's own runners", change: func(f *why.Facts) { f.Job.Labels = []string{"ubuntu-latest"} }},
		"a pool named so": {reason: why.NotOffered, says: "1 runner waits idle", change: func(f *why.Facts) {
			f.Job.Labels, f.Pools[0].Labels = []string{"ubuntu-24.04"}, []string{"Ubuntu-24.04"}
		}},
		"not GitHub's own":   {reason: why.Labels, says: "lacks ubuntu", change: func(f *why.Facts) { f.Job.Labels = []string{"ubuntu"} }},
		"no pools":           {reason: why.Labels, says: "this host has no pools", change: func(f *why.Facts) { f.Pools = nil }},
		"another repository": {reason: why.Scope, says: `pool "small" has its labels, and registers for acme/other`, change: func(f *why.Facts) { f.Pools[0].Scope = "acme/other" }},
		"another owner":      {reason: why.Scope, says: "registers for games", change: func(f *why.Facts) { f.Pools[0].Scope = "games" }},
		"unservable-job: no pool has its labels": {reason: why.Labels, change: func(f *why.Facts) {
			f.Job.Labels = append(f.Job.Labels, "gpu")
			f.Pools = append([]why.Pool{{Name: "tiny", Scope: "acme", Labels: []string{"self-hosted"}}}, f.Pools...)
		}, says: `[self-hosted, linux, Small, gpu]: the nearest, "small", lacks gpu`, more: `pool "tiny" has [self-hosted]`},
		"another's runner has them": {reason: why.Labels, change: func(f *why.Facts) {
			f.Job.Labels = []string{"gpu"}
			f.Others = []runner.Remote{{Name: "laptop", Labels: []string{"GPU"}}, {Name: "rack", Labels: []string{"x"}}}
		}, says: "lacks gpu", more: "not of this host: laptop (offline)"},
		"unservable-job: the group does not admit": {reason: why.Group, change: func(f *why.Facts) {
			f.Pools[0].Refused = `runner group "builders" does not admit acme/app`
		}, says: `"builders" does not admit acme/app, so pool "small" never hears of it`},
		"no agent": {reason: why.NoAgent, says: `pool "small" could take it, and no agent runs`, change: func(f *why.Facts) { f.Host.Status = nil }},
		"silent-pending: GitHub has not offered it": {reason: why.NotOffered, says: "GitHub has not offered it yet: 1 runner waits idle of pool \"small\" with these labels", more: "it waits for 12m"},
		"a scale set without work": {reason: why.NotOffered, change: supply(func(p *api.Pool) { p.Standby, p.Idle, p.Demand, p.Listens = 0, 0, "scale set small: 0 assigned", true }),
			says: "starts a runner as soon as it is asked to"},
		"no slot": {reason: why.NoSlot, change: func(f *why.Facts) {
			f.Host.Status.Pools[0].Idle = 0
			f.Host.Status.Pools[0].Waits = waitOf(pool.Want{Pool: "small", Demand: pool.Demand{Warm: 1}}, []pool.Seen{{Name: "r1", Pool: "large", State: runner.Busy}}, 1)
			f.Host.Status.Runners = []api.Runner{{Name: "r1", Pool: "large", State: runner.Busy, Since: now.Add(-time.Hour), Job: runner.Job{Name: "train"}}}
		}, says: `pool "small" could take it: no free slot: the host has 1, taken by 1 busy in pool large`, more: `r1 of pool "large" is busy for 1h with "train"`},
		"the most hopeful pool speaks": {reason: why.Starting, change: func(f *why.Facts) {
			f.Pools = append(f.Pools, why.Pool{Name: "spare", Scope: "acme/app", Labels: f.Pools[0].Labels})
			f.Host.Status.Pools = []api.Pool{{Name: "small", Standby: 1, Waits: wait.Reason{Code: wait.NoImage, Text: "image not on this host: 404"}}, {Name: "spare", Standby: 1, Starting: 1}}
			f.Host.Status.Runners = []api.Runner{{Name: "r2", Pool: "spare", State: runner.Connecting, Since: now.Add(-20 * time.Second)}}
		}, says: `pool "spare" could take it: its runner is on its way: r2 is connecting for 20s`, more: `pool "small" could take it too: image not on this host: 404`},
		"what was not seen is said": {reason: why.NotOffered, change: func(f *why.Facts) { f.Unseen = []string{"the runner group: 403"} }, says: "not offered", more: "not seen: the runner group: 403"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			f := facts()
			if tt.change != nil {
				tt.change(&f)
			}
			check(t, why.OfJob(f), tt.reason, tt.says, tt.more)
			if got := why.OfJob(f); got.Waits == tt.still || got.Subject != `job 7 "build" of acme/app` {
				t.Errorf("waits %t, subject %q", got.Waits, got.Subject)
			}
		})
	}
}

func check(t *testing.T, got why.Answer, reason why.Reason, says, more string) {
	t.Helper()
	details := strings.Join(got.Details, "\n")
	if got.Reason != reason || !strings.Contains(got.Text, says) || !strings.Contains(details, more) {
		t.Errorf("got %s %q\n%s\nwant %s, %q, %q", got.Reason, got.Text, details, reason, says, more)
	}
	if strings.Contains(got.Text, "\n") {
		t.Errorf("%q has more than one line", got.Text)
	}
	if got.Waits && got.Mend == "" && reason != why.Starting && reason != why.Waiting {
		t.Errorf("%s: nothing says what to do", got.Reason)
	}
}

// waitOf is what the decision says for a pool that cannot have a runner.
func waitOf(w pool.Want, seen []pool.Seen, slots int) wait.Reason {
	for _, act := range pool.Decide(now, []pool.Want{w}, seen, pool.Limits{Slots: slots}) {
		if act.Verb == pool.Wait {
			return act.Waits
		}
	}
	return wait.Reason{}
}

func TestOfPool(t *testing.T) {
	tests := map[string]struct {
		change func(*why.Host)
		reason why.Reason
		says   string
		more   string
		still  bool
	}{
		"ready":      {reason: why.Ready, still: true, says: "all the runners it wants", more: "it wants 1 waiting and has 1 idle, 0 on their way, 0 busy"},
		"no such":    {reason: why.NoAgent, says: "no agent of this host keeps such a pool", change: func(h *why.Host) { h.Status.Pools = nil }},
		"stopping":   {reason: why.Draining, says: "the agent ends", change: func(h *why.Host) { h.Status.Stopping, h.Status.Draining = true, true }},
		"drained":    {reason: why.Draining, says: "the host is drained", change: func(h *why.Host) { h.Status.Draining = true }},
		"pool alone": {reason: why.Draining, says: "the pool is drained", change: func(h *why.Host) { h.Status.Pools[0].Draining = true }},
		"no slots":   {reason: why.NoCapacity, says: "no slots", change: func(h *why.Host) { h.Status.Slots = 0 }},
		"standby 0":  {reason: why.NoCapacity, says: "standby: 0", change: onPool(func(p *api.Pool) { p.Standby, p.Idle, p.Demand = 0, 0, "standby: 0" })},
		"max": {reason: why.Most, says: "as many runners as it may (max: 1)", change: onPool(func(p *api.Pool) {
			p.Waits = waitOf(pool.Want{Pool: "small", Demand: pool.Demand{Warm: 1}, Most: 1}, []pool.Seen{{Name: "a", Pool: "small", State: runner.Busy}}, 2)
		})},
		"yielded": {reason: why.Yielded, says: "takes one again at 15:05:05 UTC", change: onPool(func(p *api.Pool) {
			p.Waits = waitOf(pool.Want{Pool: "small", Demand: pool.Demand{Warm: 1}, Yielded: now.Add(-time.Minute)}, nil, 1)
		})},
		"no image": {reason: why.NoImage, says: "404 manifest unknown", change: onPool(func(p *api.Pool) {
			p.Waits = wait.Reason{Code: wait.NoImage, Text: "image not on this host: 404 manifest unknown"}
		})},
		"pulling": {reason: why.Pulling, says: "reg.example/x:1", change: onPool(func(p *api.Pool) {
			p.Waits = wait.Reason{Code: wait.Pulling, Text: "image is being brought to this host: reg.example/x:1"}
		})},
		"pulling, so far": {reason: why.Pulling, says: "3.1 GB of 20.0 GB, 4s ago", change: func(h *why.Host) {
			h.Status.Pools[0].Waits = wait.Reason{Code: wait.Pulling, Text: "image is being brought to this host: reg.example/x:1"}
			h.Pulls = map[string]why.Pull{"small": {Done: 3_100_000_000, Total: 20_000_000_000, At: now.Add(-4 * time.Second)}}
		}},
		"limited": {reason: why.Limited, says: "until 16:00:00 UTC", change: onPool(func(p *api.Pool) {
			p.Waits = wait.Reason{Code: wait.Limited, Text: "2 failed in a row, next try at 15:10:00 UTC: GitHub is left alone until 16:00:00 UTC: all 5000 calls of the hour are used up"}
		})},
		"denied": {reason: why.Denied, says: "GitHub refuses us", change: onPool(func(p *api.Pool) {
			p.Waits = wait.Reason{Code: wait.Denied, Text: "1 failed in a row, next try at 15:10:00 UTC: cannot register a runner of acme: GitHub refuses us: 403"}
		})},
		"deprecated": {reason: why.Deprecated, says: "deprecated", change: onPool(func(p *api.Pool) {
			p.Waits = wait.Reason{Code: wait.Deprecated, Text: "1 failed in a row, next try at 15:10:00 UTC: runner version 2.300.0 is deprecated and cannot receive messages"}
		})},
		"failing": {reason: why.Failing, says: "next try at 15:10:00 UTC", more: "r1: still connecting after 5m", change: func(h *why.Host) {
			h.Status.Pools[0].Waits = wait.Reason{Code: wait.Failing, Text: "3 failed in a row, next try at 15:10:00 UTC: still connecting after 5m0s"}
			h.Status.Runners = []api.Runner{{Name: "r1", Pool: "small", State: runner.Deleting, Failed: true, Failure: "still connecting after 5m0s"}}
		}},
		"two on their way": {reason: why.Starting, says: "2 of its runners are on their way", more: "r2 is registering", change: func(h *why.Host) {
			h.Status.Pools[0].Idle, h.Status.Pools[0].Starting = 0, 2
			h.Status.Runners = []api.Runner{{Name: "r1", Pool: "small", State: runner.Cloning}, {Name: "r2", Pool: "small", State: runner.Registering}}
		}},
		"held": {reason: why.SetHeld, says: "held by rack-2", change: func(h *why.Host) {
			held := `scale set "small" is held by rack-2, and GitHub lets one host at a time listen to a set`
			h.Status.Pools[0].Deaf = wait.Reason{Code: wait.SetHeld, Text: held}
			h.Status.Problems = []string{"jobs of pool tiny, small: " + held, "jobs of pool large: scale set is held by rack-9"}
		}},
		"its scale set cannot be made": {reason: why.Denied, says: "GitHub refuses us: 403", change: func(h *why.Host) {
			h.Status.Pools[0].Deaf = wait.Reason{Code: wait.Denied, Text: "cannot make scale set: GitHub refuses us: 403"}
		}},
		"its listener has ended": {reason: why.Waiting, says: "restart the agent", change: func(h *why.Host) {
			h.Status.Pools[0].Deaf = wait.Reason{Code: wait.Other, Text: "the listener for jobs has ended: restart the agent"}
		}},
		"its problems": {reason: why.Ready, still: true, says: "all", more: "problem: image of pool small: no route", change: func(h *why.Host) {
			h.Status.Problems = []string{"image of pool small: no route", "image of pool smaller: none of ours"}
		}},
		"another word": {reason: why.Waiting, says: "for the moon", change: onPool(func(p *api.Pool) { p.Waits = wait.Reason{Code: wait.Other, Text: "for the moon"} })},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			h := facts().Host
			if tt.change != nil {
				tt.change(&h)
			}
			got := why.OfPool("small", h, now)
			check(t, got, tt.reason, tt.says, tt.more)
			if got.Waits == tt.still || got.Subject != `pool "small"` {
				t.Errorf("waits %t, subject %q", got.Waits, got.Subject)
			}
			if d := strings.Join(got.Details, "\n"); got.Reason == why.SetHeld && strings.Contains(d, got.Text) {
				t.Errorf("it says twice: %s", d)
			} else if strings.Contains(d, "rack-9") || strings.Contains(d, "smaller") {
				t.Errorf("another pool's problem: %s", d)
			}
		})
	}
}

func onPool(change func(*api.Pool)) func(*why.Host) {
	return func(h *why.Host) { change(&h.Status.Pools[0]) }
}

func TestCovers(t *testing.T) {
	for scope, want := range map[string]bool{
		"acme": true, "ACME": true, "acme/app": true, "Acme/App": true, "enterprises/big": true,
		"acm": false, "acme/app2": false, "other/app": false, "": false,
	} {
		if got := why.Covers(scope, "acme/app"); got != want {
			t.Errorf("%q covers acme/app: %t, want %t", scope, got, want)
		}
	}
}
