package registry

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// metrics are a server's own, so that servers of one process do not mix.
type metrics struct {
	registry *prometheus.Registry
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	bytes    *prometheus.CounterVec
	refused  *prometheus.CounterVec
	runs     *prometheus.CounterVec
	freed    prometheus.Counter
	lastGood prometheus.Gauge
	closed   prometheus.Gauge
}

func newMetrics() *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tasuki_registry_requests_total", Help: "Requests that were answered, by what was asked for.",
		}, []string{"method", "kind", "mirror", "status"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "tasuki_registry_request_seconds", Help: "How long answers took, bodies included.",
			Buckets: []float64{.005, .025, .1, .5, 1, 5, 15, 60, 300},
		}, []string{"kind"}),
		bytes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tasuki_registry_bytes_total", Help: "Bytes of bodies that came in (pushes) and went out (pulls).",
		}, []string{"direction"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tasuki_registry_refused_total", Help: "Requests that were refused: anonymous, password, role, pace (too many wrong passwords), users (the file cannot be read), disk (full).",
		}, []string{"reason"}),
		runs: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tasuki_registry_gc_runs_total", Help: "Collections of garbage, by result: ok or failed.",
		}, []string{"result"}),
		freed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "tasuki_registry_gc_freed_bytes_total", Help: "Bytes of blobs that collections deleted.",
		}),
		lastGood: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "tasuki_registry_gc_last_success_timestamp_seconds", Help: "When a collection of garbage last went well; 0: not since the start.",
		}),
		closed: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "tasuki_registry_gc_last_closed_seconds", Help: "How long pushes had to wait for the last collection.",
		}),
	}
	m.registry.MustRegister(m.requests, m.seconds, m.bytes, m.refused, m.runs, m.freed, m.lastGood, m.closed)
	return m
}

// watch adds what is looked up when it is asked for.
func (m *metrics) watch(s *Server) {
	m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "tasuki_registry_disk_free_bytes", Help: "What the disk below the registry has left.",
	}, func() float64 {
		free, err := s.free(s.dir)
		if err != nil {
			return -1
		}
		return float64(free)
	}))
	if s.opt.Certificate != nil {
		m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "tasuki_registry_certificate_expiry_timestamp_seconds", Help: "When the server's certificate ends.",
		}, func() float64 { return float64(s.opt.Certificate.expiry().Unix()) }))
	}
}

func (m *metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}

func (m *metrics) denied(reason string) { m.refused.WithLabelValues(reason).Inc() }

func (m *metrics) request(r *http.Request, rec *recorder, in int64, took time.Duration) {
	path, mirrored := r.URL.Path, "no"
	if rest, ok := strings.CutPrefix(path, "/v2/"+mirrorPrefix+"/"); ok {
		mirrored = "yes"
		_, path, _ = strings.Cut(rest, "/")
		path = "/v2/" + path
	}
	kind := parseRoute(path).kind
	if kind == "" {
		kind = "other"
	}
	method := r.Method
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPut, http.MethodPost, http.MethodPatch, http.MethodDelete:
	default:
		method = "other"
	}
	m.requests.WithLabelValues(method, kind, mirrored, strconv.Itoa(rec.code())).Inc()
	m.seconds.WithLabelValues(kind).Observe(took.Seconds())
	m.bytes.WithLabelValues("in").Add(float64(in))
	m.bytes.WithLabelValues("out").Add(float64(rec.n))
}

func (m *metrics) collected(r Report, err error) {
	if r.DryRun {
		return
	}
	m.closed.Set(r.Closed.Seconds())
	if err != nil {
		m.runs.WithLabelValues("failed").Inc()
		return
	}
	m.runs.WithLabelValues("ok").Inc()
	m.freed.Add(float64(r.Bytes))
	m.lastGood.SetToCurrentTime()
}
