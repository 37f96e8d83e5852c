package console

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/mirego/tasuki/internal/api"
	"github.com/mirego/tasuki/internal/why"
)

// now is what the page Now shows.
type now struct {
	Status  api.Status
	Slots   []slotRow
	Pools   []poolRow
	Needs   []need // what is wrong, the worst first
	Waits   []why.Answer
	Checked time.Time // when the machine was last looked at
	Full    float64   // share of the last hour's slots that went to jobs
	Jobs    int       // of the last hour
	Busy    int
	Idle    int
	Queued  int       // jobs that no runner has taken
	Oldest  time.Time // since when the first of them waits
}

// slotRow is one slot.
type slotRow struct {
	Slot   int         // from 0; -1: a runner that is between slots
	Runner *api.Runner // nil: the slot is free
	Phase  phase
}

// poolRow is one pool.
type poolRow struct {
	api.Pool
	Why  why.Answer
	Pull *why.Pull
}

// need is something that a person should look at.
type need struct {
	Level string // "problem" or "warning"
	What  string // where it comes from
	Text  string
	Why   string
	Mend  string
}

// now gathers what the page Now shows.
func (c *Console) now() now {
	n := now{Status: c.opt.Status()}
	at := n.Status.Now
	if at.IsZero() {
		at = time.Now()
	}
	pulls := c.opt.Feed.pulling()
	host := why.Host{Status: &n.Status, Pulls: pulls}
	for _, p := range n.Status.Pools {
		row := poolRow{Pool: p, Why: why.OfPool(p.Name, host, at)}
		if pull, on := pulls[p.Name]; on {
			row.Pull = &pull
		}
		n.Pools = append(n.Pools, row)
		if row.Why.Waits {
			n.Waits = append(n.Waits, row.Why)
		}
		n.Queued += p.Jobs
		if !p.OldestJob.IsZero() && (n.Oldest.IsZero() || p.OldestJob.Before(n.Oldest)) {
			n.Oldest = p.OldestJob
		}
		n.Busy, n.Idle = n.Busy+p.Busy, n.Idle+p.Idle
	}
	n.Slots = slotRows(n.Status, c.opt.Feed.slotOf())
	n.Full, n.Jobs = c.opt.Feed.full(n.Status.Slots, later(at.Add(-time.Hour), n.Status.Started), at)
	n.needs(c.checks.latest())
	return n
}

// slotRows puts runners into their slots; every slot of the host has a row.
func slotRows(s api.Status, slots map[string]int) []slotRow {
	rows := make([]slotRow, s.Slots)
	for i := range rows {
		rows[i].Slot = i
	}
	for _, r := range s.Runners {
		i, seated := slots[r.Name]
		if !seated || !r.State.TakesSlot() {
			continue
		}
		for len(rows) <= i {
			rows = append(rows, slotRow{Slot: len(rows)})
		}
		if rows[i].Runner == nil {
			rows[i].Runner, rows[i].Phase = &r, phaseOf(r.State)
		}
	}
	return rows
}

// needs gathers what a person should look at.
func (n *now) needs(found []Finding, at time.Time) {
	n.Checked = at
	for _, p := range n.Status.Problems {
		what, text, ok := strings.Cut(p, ": ")
		if !ok {
			what, text = "agent", p
		}
		n.Needs = append(n.Needs, need{Level: "problem", What: what, Text: text})
	}
	for _, p := range n.Pools {
		if p.Rejected != "" {
			n.Needs = append(n.Needs, need{Level: "warning", What: "image of pool " + p.Name,
				Text: "the newer image " + shortDigest(p.Rejected) + " failed twice; the pool stays on " + shortDigest(p.Digest),
				Mend: "push an image that works, then: tasuki image refresh " + p.Name})
		}
		if p.Deprecated > 0 {
			n.Needs = append(n.Needs, need{Level: "problem", What: "runner program of pool " + p.Name,
				Text: "GitHub gives no jobs to its version", Mend: "runner: host in the pool, or an image with a newer program"})
		}
	}
	for _, r := range n.Status.Runners {
		switch {
		case r.Failed:
			n.Needs = append(n.Needs, need{Level: "warning", What: "runner " + shortName(r.Name), Text: cmp.Or(r.Failure, r.Reason)})
		case !r.Hold.IsZero() && phaseOf(r.State) == kept:
			n.Needs = append(n.Needs, need{Level: "warning", What: "runner " + shortName(r.Name), Text: "its guest is kept for a person, and takes a slot",
				Mend: "tasuki ssh " + r.Name + "\ntasuki hold " + r.Name + " --for 0s"})
		}
	}
	for _, f := range found {
		if f.Level == "problem" || f.Level == "warning" {
			n.Needs = append(n.Needs, need{Level: f.Level, What: f.Check, Text: f.Seen, Why: f.Why, Mend: f.Mend})
		}
	}
	slices.SortStableFunc(n.Needs, func(a, b need) int { return cmp.Compare(a.Level, b.Level) }) // problem, warning
}

// nowParts are the parts of the page Now that a stream keeps up to date: the
// ids of elements, each with the template of what it holds.
var nowParts = []string{"summary", "needs", "slots", "waits", "pools"}

func (c *Console) nowPage(w http.ResponseWriter, r *http.Request) error {
	return c.show(w, r, http.StatusOK, "now", page{Title: "Now", Here: "now", Live: "/live?page=now", Body: c.now()})
}

// nowView renders what of Now changes.
func (c *Console) nowView(context.Context) (map[string]string, error) {
	return c.parts(nowParts, c.now())
}

// Phases are those of the legend.
func (now) Phases() []string {
	return []string{string(starting), string(waiting), string(working), string(ending), string(kept), "failed", "free"}
}
