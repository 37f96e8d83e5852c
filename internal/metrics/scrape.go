package metrics

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/mirego/tasuki/internal/api"
	"github.com/mirego/tasuki/internal/runner"
	"github.com/mirego/tasuki/internal/why"
)

// versionLife is how long GitHub gives jobs to a release of the runner program
// once a newer one is out. Source: docs.github.com, "Self-hosted runners
// reference", on runner software updates.
const versionLife = 30 * 24 * time.Hour

// scrape makes the metrics that say what is now.
type scrape struct{ *Metrics }

// Describe sends nothing: which series there are is found out by collecting.
func (scrape) Describe(chan<- *prometheus.Desc) {}

// sheet takes the values of one scrape.
type sheet chan<- prometheus.Metric

// set adds a value of a metric of the table.
func (s sheet) set(name string, value float64, labels ...string) {
	r, kind := row(name), prometheus.GaugeValue
	if r.Kind == Counter {
		kind = prometheus.CounterValue
	}
	m, err := prometheus.NewConstMetric(prometheus.NewDesc(r.Name, r.Help+".", r.Labels, nil), kind, value, labels...)
	if err != nil {
		m = prometheus.NewInvalidMetric(prometheus.NewDesc(r.Name, r.Help+".", r.Labels, nil), err)
	}
	s <- m
}

// stamp adds a time; none for the zero time.
func (s sheet) stamp(name string, at time.Time, labels ...string) {
	if !at.IsZero() {
		s.set(name, float64(at.UnixMilli())/1000, labels...)
	}
}

// Collect implements prometheus.Collector.
func (c scrape) Collect(ch chan<- prometheus.Metric) {
	s := sheet(ch)
	s.set("tasuki_build_info", 1, c.opt.Version, c.opt.GoVersion)
	c.mu.Lock()
	ask := c.status
	c.mu.Unlock()
	if ask != nil {
		status := ask()
		c.host(s, status)
		c.runners(s, status)
		c.pools(s, status)
		c.busyTime(s, status)
		c.slotStates(s, status)
	}
	c.surroundings(s)
}

func (c scrape) host(s sheet, st api.Status) {
	s.set("tasuki_host_draining", truth(st.Draining))
	s.set("tasuki_problems", float64(len(st.Problems)))
	s.set("tasuki_slots_leaked", float64(c.leaked()))
	count := map[string]int{}
	taken := 0
	for _, r := range st.Runners {
		if r.State.TakesSlot() {
			count[slotState(r.State)]++
			taken++
		}
	}
	for _, state := range slotStates {
		if state != slotFree {
			s.set("tasuki_slots", float64(count[state]), state, "")
		}
	}
	s.set("tasuki_slots", float64(max(0, st.Slots-taken)), slotFree, freeReason(st, c.waits(st)))
}

// waits returns the codes of why pools wait, by pool.
func (c scrape) waits(st api.Status) map[string]string {
	out := map[string]string{}
	for _, p := range st.Pools {
		if !p.Waits.None() {
			out[p.Name] = string(why.OfPool(p.Name, why.Host{Status: &st}, st.Now).Reason)
		}
	}
	return out
}

func (c scrape) runners(s sheet, st api.Status) {
	count := map[[2]string]int{}
	for _, r := range st.Runners {
		count[[2]string{r.Pool, string(r.State)}]++
	}
	for _, p := range st.Pools {
		for _, row := range runner.Table() {
			if row.State != runner.Gone {
				s.set("tasuki_runners", float64(count[[2]string{p.Name, string(row.State)}]), p.Name, string(row.State))
				delete(count, [2]string{p.Name, string(row.State)})
			}
		}
	}
	for at, n := range count { // of pools that are no more
		s.set("tasuki_runners", float64(n), at[0], at[1])
	}
}

func (c scrape) pools(s sheet, st api.Status) {
	waits := c.waits(st)
	for _, p := range st.Pools {
		s.set("tasuki_pool_wanted_runners", float64(p.Standby), p.Name)
		s.set("tasuki_pool_draining", truth(p.Draining), p.Name)
		s.set("tasuki_jobs_waiting", float64(p.Jobs), p.Name)
		oldest := 0.0
		if !p.OldestJob.IsZero() {
			oldest = max(0, st.Now.Sub(p.OldestJob).Seconds())
		}
		s.set(oldestWaiting, oldest, p.Name)
		reason := waits[p.Name]
		if reason != "" {
			s.set("tasuki_pool_waiting", 1, p.Name, reason)
		}
		s.set("tasuki_runner_version_deprecated", truth(reason == string(why.Deprecated)), p.Name)
		if p.Digest != "" {
			s.set("tasuki_image_info", 1, p.Name, p.Image, p.Digest)
			s.stamp("tasuki_image_pulled_timestamp_seconds", p.ImageArrived, p.Name)
		}
		if p.Pulling != nil && p.Pulling.Total > 0 {
			s.set("tasuki_image_pull_progress_ratio", float64(p.Pulling.Done)/float64(p.Pulling.Total), p.Name)
		}
		s.set("tasuki_image_rejected", truth(p.Rejected != ""), p.Name)
		s.set("tasuki_image_trying", truth(p.Trying != ""), p.Name)
		s.set("tasuki_image_pinned", truth(p.Pinned != ""), p.Name)
	}
}

// busyTime tells the time of each slot with jobs, up to now.
func (c scrape) busyTime(s sheet, st api.Status) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := map[int]time.Duration{}
	for _, r := range st.Runners {
		if !r.State.TakesSlot() {
			continue
		}
		c.slots.Adopt(r.Name)
		slot := c.slots.Of(r.Name)
		if slot < 0 || r.State != runner.Busy || c.live[r.Name].left() {
			continue // the status is older than the last event
		}
		from := later(c.since, r.Since)
		if b := c.busySlot(slot); b.runner == r.Name {
			from = b.from
		}
		now[slot] = max(0, st.Now.Sub(from))
	}
	for slot := range max(c.slots.Count(), st.Slots) {
		sum := c.busySlot(slot).before + now[slot]
		s.set(busyTime, sum.Seconds(), strconv.Itoa(slot))
	}
}

// leaked is how many slots the hypervisors have lost.
func (c scrape) leaked() int {
	if c.opt.Leaked == nil {
		return 0
	}
	return c.opt.Leaked()
}

// slotStates tells what each slot does. Slots that leaked are no more among
// those of the status, and stand behind them.
func (c scrape) slotStates(s sheet, st api.Status) {
	c.mu.Lock()
	defer c.mu.Unlock()
	does := map[int]string{}
	for _, r := range st.Runners {
		if slot := c.slots.Of(r.Name); slot >= 0 && r.State.TakesSlot() {
			does[slot] = slotState(r.State)
		}
	}
	free, leaked := 0, c.leaked()
	for slot := range max(c.slots.Count(), st.Slots) + leaked {
		state, taken := does[slot]
		switch {
		case taken:
		case free < st.Slots-len(does):
			state, free = slotFree, free+1
		case leaked > 0:
			state, leaked = slotLeaked, leaked-1
		default:
			continue // of a time when the host had more slots
		}
		s.set("tasuki_slot_state", slotNumber(state), strconv.Itoa(slot))
	}
}

// surroundings tells what is not the agent's.
func (c scrape) surroundings(s sheet) {
	if c.opt.Quotas != nil {
		for _, q := range c.opt.Quotas() {
			s.set("tasuki_github_quota_limit", float64(q.Limit), q.Scope, q.Resource)
			s.set("tasuki_github_quota_remaining", float64(q.Remaining), q.Scope, q.Resource)
			s.stamp("tasuki_github_quota_reset_timestamp_seconds", q.Reset, q.Scope, q.Resource)
		}
	}
	if c.opt.Releases != nil {
		for _, r := range c.opt.Releases() {
			if r.Version != "" {
				s.set("tasuki_runner_release_info", 1, r.OS, r.Arch, r.Version)
				s.stamp("tasuki_runner_release_published_timestamp_seconds", r.Published, r.OS, r.Arch)
			}
			checked := 0.0
			if !r.Checked.IsZero() {
				checked = float64(r.Checked.UnixMilli()) / 1000
			}
			s.set("tasuki_runner_release_checked_timestamp_seconds", checked, r.OS, r.Arch)
			if newest := later(r.Published, r.Checked); r.Version != "" && !newest.IsZero() {
				s.stamp("tasuki_runner_release_end_timestamp_seconds", newest.Add(versionLife), r.OS, r.Arch)
			}
		}
	}
	if c.opt.Disk != nil {
		if d, err := c.opt.Disk(); err == nil {
			s.set("tasuki_disk_size_bytes", float64(d.Size))
			s.set("tasuki_disk_free_bytes", float64(d.Free))
		}
	}
	if c.opt.Lost != nil {
		for reader, n := range c.opt.Lost() {
			s.set("tasuki_events_lost_total", float64(n), reader)
		}
	}
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
