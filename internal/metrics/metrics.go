// Package metrics tells Prometheus what a host does.
//
// It has two sources. Counters and histograms read the events, as they happen;
// gauges are made when somebody asks, from the agent's status and from what the
// command line hands over. Neither stores anything: a new agent begins at 0,
// which Prometheus knows as a reset. Durations are in seconds and sizes in
// bytes, and every metric has a row in the table that the reference is made of.
//
// Labels are bounded: by the configuration (pools, scopes, slots), by our own
// words (states, reasons) or by a list (routes, conclusions). A runner's name is
// never one.
package metrics

import (
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/mirego/tasuki/internal/api"
	"github.com/mirego/tasuki/internal/event"
	"github.com/mirego/tasuki/internal/runner"
)

// maxRoutes bounds the routes of GitHub that have series of their own.
const maxRoutes = 48

// Quota is what is left of one of GitHub's limits, for one scope.
type Quota struct {
	Scope, Resource  string
	Limit, Remaining int // calls
	Reset            time.Time
}

// Disk is the file system of the agent's home, in bytes.
type Disk struct{ Size, Free int64 }

// Options say what a scrape may ask. Each function answers from memory, and
// may be called at the same time; nil: those metrics are left out.
type Options struct {
	Version   string
	GoVersion string
	Quotas    func() []Quota
	Releases  func() []api.RunnerRelease
	Disk      func() (Disk, error)
	// Leaked is how many slots the hypervisors count as taken although no guest
	// runs in them.
	Leaked func() int
	// Lost counts the events that readers did not keep, by reader.
	Lost func() map[string]int64
}

// Metrics is the registry of one agent. It is an event.Sink. Its methods may
// be called at the same time.
type Metrics struct {
	opt        Options
	registry   *prometheus.Registry
	counters   map[string]*prometheus.CounterVec
	histograms map[string]*prometheus.HistogramVec

	mu     sync.Mutex
	status func() api.Status
	since  time.Time // when we began: what was before is not ours to count
	slots  event.Slots
	busy   map[int]*busySlot
	live   map[string]*seen
	pulls  map[string]pull // by pool
	routes map[string]bool
	pools  map[string]bool // whose series have begun
}

// busySlot adds up a slot's time with a job.
type busySlot struct {
	before time.Duration // of jobs that are over
	runner string        // that executes one now
	from   time.Time
}

// seen is what was counted of a runner that is not gone.
type seen struct{ queued, concluded, busy, over bool }

// left says whether its job is known to be over.
func (s *seen) left() bool { return s != nil && s.over }

// pull is how far an image is on its way, in bytes.
type pull struct {
	image        string
	done, reused int64
}

// New returns a registry that has counted nothing yet.
func New(opt Options) *Metrics {
	m := &Metrics{
		opt: opt, registry: prometheus.NewRegistry(), since: time.Now(),
		counters: map[string]*prometheus.CounterVec{}, histograms: map[string]*prometheus.HistogramVec{},
		busy: map[int]*busySlot{}, live: map[string]*seen{}, pulls: map[string]pull{}, routes: map[string]bool{}, pools: map[string]bool{},
	}
	for _, name := range []string{jobs, runnersEnded, pullBytes, reusedBytes, imageFailures, imageRolls, imagesPruned, prunedBytes, orphans, deprecations, gitHubCalls, refusals} {
		r := row(name)
		v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: r.Name, Help: r.Help + "."}, r.Labels)
		m.counters[name] = v
		m.registry.MustRegister(v)
	}
	for _, name := range []string{turnaround, stepDuration, jobQueue, jobDuration, gitHubTime} {
		r := row(name)
		v := prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: r.Name, Help: r.Help + ".", Buckets: Buckets,
			NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 100, NativeHistogramMinResetDuration: time.Hour,
		}, r.Labels)
		m.histograms[name] = v
		m.registry.MustRegister(v)
	}
	m.counters[imagesPruned].WithLabelValues()
	m.counters[prunedBytes].WithLabelValues()
	for _, status := range refused {
		m.counters[refusals].WithLabelValues(strconv.Itoa(status))
	}
	m.registry.MustRegister(scrape{m}, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Watch names the agent whose status each scrape asks for. Call it once, before
// the first scrape.
func (m *Metrics) Watch(status func() api.Status) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.status = status
}

// Handler serves the metrics.
func (m *Metrics) Handler() http.Handler {
	served := promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4, Timeout: 10 * time.Second})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		m.begin()
		served.ServeHTTP(w, r)
	})
}

// begin lets the counters and histograms of pools that are new begin at 0: a
// counter that appears with its first count has not grown, as far as Prometheus
// can tell, and the first failure of a pool would raise no alert.
func (m *Metrics) begin() {
	m.mu.Lock()
	ask := m.status
	m.mu.Unlock()
	if ask == nil {
		return
	}
	for _, p := range ask().Pools {
		m.mu.Lock()
		known := m.pools[p.Name]
		m.pools[p.Name] = true
		m.mu.Unlock()
		if known {
			continue
		}
		for _, name := range []string{pullBytes, reusedBytes, imageFailures, orphans, deprecations} {
			m.counters[name].WithLabelValues(p.Name)
		}
		for _, result := range []string{rollProven, rollRejected} {
			m.counters[imageRolls].WithLabelValues(p.Name, result)
		}
		for _, word := range []string{"success", "failure", "cancelled", unknown} {
			m.counters[jobs].WithLabelValues(p.Name, word)
		}
		m.counters[runnersEnded].WithLabelValues(p.Name, "well", "")
		for _, row := range runner.Table() {
			if row.State.OnItsWay() || row.State == runner.Idle || row.State == runner.Busy {
				m.counters[runnersEnded].WithLabelValues(p.Name, "failed", string(row.State))
			}
		}
		for _, name := range []string{turnaround, jobQueue, jobDuration} {
			m.histograms[name].WithLabelValues(p.Name)
		}
	}
}

// GitHubCall counts a request to GitHub; status 0 means that no reply came.
func (m *Metrics) GitHubCall(method, route string, status int, took time.Duration) {
	m.mu.Lock()
	if !m.routes[route] && len(m.routes) >= maxRoutes {
		route = "other"
	}
	m.routes[route] = true
	m.mu.Unlock()
	word := "none"
	if status != 0 {
		word = strconv.Itoa(status)
	}
	m.counters[gitHubCalls].WithLabelValues(method, route, word).Inc()
	if slices.Contains(refused, status) {
		m.counters[refusals].WithLabelValues(word).Inc()
	}
	m.histograms[gitHubTime].WithLabelValues(route).Observe(took.Seconds())
}

// Emit implements event.Sink.
func (m *Metrics) Emit(e event.Event) {
	m.mu.Lock()
	defer m.mu.Unlock()
	seat := m.slots.See(e)
	switch e.Kind {
	case event.RunnerMoved:
		m.moved(e, seat)
		m.job(e)
		if e.To == runner.Gone {
			delete(m.live, e.Runner)
		}
	case event.RunnerJob:
		m.job(e)
	case event.ImagePulling:
		m.pulling(e)
	case event.ImageReady, event.ImageFailed:
		delete(m.pulls, e.Pool)
		if e.Kind == event.ImageFailed {
			m.counters[imageFailures].WithLabelValues(e.Pool).Inc()
		}
	case event.ImageProven:
		m.counters[imageRolls].WithLabelValues(e.Pool, rollProven).Inc()
	case event.ImageRejected:
		m.counters[imageRolls].WithLabelValues(e.Pool, rollRejected).Inc()
	case event.ImagePruned:
		m.counters[imagesPruned].WithLabelValues().Inc()
		m.counters[prunedBytes].WithLabelValues().Add(float64(e.Done))
	case event.RunnerDeprecated:
		m.counters[deprecations].WithLabelValues(e.Pool).Inc()
	case event.OrphanRemoved:
		m.counters[orphans].WithLabelValues(e.Pool).Inc()
	}
}

// moved counts a transition. The caller holds m.mu.
func (m *Metrics) moved(e event.Event, seat event.Seat) {
	if e.From != "" {
		m.histograms[stepDuration].WithLabelValues(e.Pool, string(e.From)).Observe(e.Took)
	}
	if seat.Turnaround > 0 {
		m.histograms[turnaround].WithLabelValues(e.Pool).Observe(seat.Turnaround.Seconds())
	}
	m.work(e, seat.Slot)
	if e.From == runner.Busy {
		m.histograms[jobDuration].WithLabelValues(e.Pool).Observe(e.Took)
	}
	if e.To != runner.Gone {
		return
	}
	result, state := "well", ""
	if e.Failed {
		result, state = "failed", failedIn(e.Record)
	}
	m.counters[runnersEnded].WithLabelValues(e.Pool, result, state).Inc()
}

// failedIn is the state from which a runner that failed began to end.
func failedIn(rec *runner.Record) string {
	if rec == nil {
		return unknown
	}
	for i, v := range rec.Steps {
		if v.State == runner.Leaving && i > 0 {
			return string(rec.Steps[i-1].State)
		}
	}
	return unknown
}

// work keeps the time that a slot spends with jobs. The caller holds m.mu.
func (m *Metrics) work(e event.Event, slot int) {
	if slot < 0 {
		return
	}
	b := m.busySlot(slot)
	switch {
	case e.To == runner.Busy:
		b.runner, b.from = e.Runner, e.Time
	case e.From == runner.Busy:
		from := b.from
		if b.runner != e.Runner { // it was busy when we began
			from = later(m.since, e.Time.Add(-time.Duration(e.Took*float64(time.Second))))
		}
		b.before += max(0, e.Time.Sub(from))
		b.runner = ""
	}
}

func (m *Metrics) busySlot(slot int) *busySlot {
	b := m.busy[slot]
	if b == nil {
		b = &busySlot{}
		m.busy[slot] = b
	}
	return b
}

// job counts what became known of a job, each thing once. The caller holds
// m.mu.
func (m *Metrics) job(e event.Event) {
	if e.Kind == event.RunnerJob && e.Record != nil && e.Record.State == runner.Gone {
		return // it was counted
	}
	s := m.live[e.Runner]
	if s == nil {
		s = &seen{}
		m.live[e.Runner] = s
	}
	s.busy = s.busy || e.To == runner.Busy || e.From == runner.Busy
	s.over = s.over || e.From == runner.Busy
	if j := e.Job; !s.queued && !j.Queued.IsZero() && !j.Started.IsZero() {
		s.queued = true
		m.histograms[jobQueue].WithLabelValues(e.Pool).Observe(max(0, j.Started.Sub(j.Queued).Seconds()))
	}
	known, over := e.Job.Conclusion != "", e.To == runner.Gone && (s.busy || !e.Job.Started.IsZero())
	if !s.concluded && (known || over) {
		s.concluded = true
		m.counters[jobs].WithLabelValues(e.Pool, conclusion(e.Job.Conclusion)).Inc()
	}
}

// pulling counts the bytes that came since the last event. Each pull begins
// with an event of none. The caller holds m.mu.
func (m *Metrics) pulling(e event.Event) {
	before := m.pulls[e.Pool]
	if e.Image != before.image || e.Done < before.done || e.Reused < before.reused {
		before = pull{}
	}
	reused := e.Reused - before.reused
	m.counters[reusedBytes].WithLabelValues(e.Pool).Add(float64(reused))
	m.counters[pullBytes].WithLabelValues(e.Pool).Add(float64(max(0, e.Done-before.done-reused)))
	m.pulls[e.Pool] = pull{e.Image, e.Done, e.Reused}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
