package pool

import (
	"fmt"
	"slices"
	"strings"

	"github.com/mirego/tasuki/internal/wait"
)

const clock = "15:04:05 UTC"

// wait says why pools have fewer runners than they want. Headroom is not
// missed: it is what nobody else needs.
func (h *host) wait() {
	for _, p := range h.pools {
		if p.unserved > 0 || slices.ContainsFunc(p.missing, func(c claim) bool { return c.kind != headroom }) {
			h.actions = append(h.actions, Action{Verb: Wait, Pool: p.Pool, Waits: h.reason(p)})
		}
	}
}

// reason says why the pool lacks runners.
func (h *host) reason(p *party) wait.Reason {
	switch {
	case !p.Blocked.None():
		return p.Blocked
	case p.unserved == 0 && !p.room():
		return wait.Reason{Code: wait.Most, Text: fmt.Sprintf("the pool has as many runners as it may (max: %d)", p.Most)}
	case p.unserved == 0 && p.rests(h.now):
		return wait.Reason{Code: wait.Yielded, Text: fmt.Sprintf("gave its slot to a job of another pool; takes one again at %s",
			p.Yielded.Add(calm).UTC().Format(clock))}
	}
	return wait.Reason{Code: wait.NoSlot, Text: "no free slot" + h.noSlot(p)}
}

// noSlot says who has the slots.
func (h *host) noSlot(p *party) string {
	switch {
	case h.limits.Drivers[p.Driver] < 0:
		return fmt.Sprintf(": driver %s runs no guest of ours, since others hold what the hypervisor allows", p.Driver)
	case h.full(p.Driver) && h.taken < h.limits.Slots:
		return fmt.Sprintf(": driver %s runs %d guests, taken by %s", p.Driver, h.limits.Drivers[p.Driver], h.takenBy(p.Driver))
	}
	by := h.takenBy("")
	if by == "" {
		return fmt.Sprintf(" (the host has %d)", h.limits.Slots)
	}
	return fmt.Sprintf(": the host has %d, taken by %s", h.limits.Slots, by)
}

// takenBy says what holds the slots, those of one driver or all.
func (h *host) takenBy(driver string) string {
	count := map[string]int{}
	for _, s := range h.seen {
		if s.State.TakesSlot() && (driver == "" || s.Driver == driver) {
			word := string(s.State)
			if s.State.OnItsWay() {
				word = "starting"
			}
			count[word+" in pool "+s.Pool]++
		}
	}
	if h.limits.Taken > 0 && driver == "" {
		count["that no pool keeps"] = h.limits.Taken
	}
	var parts []string
	for what, n := range count {
		parts = append(parts, fmt.Sprintf("%d %s", n, what))
	}
	slices.Sort(parts)
	return strings.Join(parts, ", ")
}
