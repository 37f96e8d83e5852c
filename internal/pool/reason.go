package pool

import (
	"fmt"
	"slices"
	"strings"
)

const clock = "15:04:05 UTC"

// wait says why pools have fewer runners than they want. Headroom is not
// missed: it is what nobody else needs.
func (h *host) wait() {
	for _, p := range h.pools {
		if p.unserved > 0 || slices.ContainsFunc(p.missing, func(c claim) bool { return c.kind != headroom }) {
			h.actions = append(h.actions, Action{Verb: Wait, Pool: p.Pool, Reason: h.reason(p)})
		}
	}
}

// reason says why the pool lacks runners.
func (h *host) reason(p *party) string {
	switch {
	case p.Blocked != "":
		return p.Blocked
	case p.unserved == 0 && !p.room():
		return fmt.Sprintf("the pool has as many runners as it may (max: %d)", p.Most)
	case p.unserved == 0 && p.rests(h.now):
		return fmt.Sprintf("gave its slot to a job of another pool; takes one again at %s", p.Yielded.Add(calm).UTC().Format(clock))
	case h.limits.Drivers[p.Driver] < 0:
		return fmt.Sprintf("no free slot: driver %s runs no guest of ours, since others hold what the hypervisor allows", p.Driver)
	case h.full(p.Driver) && h.taken < h.limits.Slots:
		return fmt.Sprintf("no free slot: driver %s runs %d guests, taken by %s", p.Driver, h.limits.Drivers[p.Driver], h.takenBy(p.Driver))
	}
	by := h.takenBy("")
	if by == "" {
		return fmt.Sprintf("no free slot (the host has %d)", h.limits.Slots)
	}
	return fmt.Sprintf("no free slot: the host has %d, taken by %s", h.limits.Slots, by)
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
