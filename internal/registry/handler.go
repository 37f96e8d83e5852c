package registry

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// patience is how long a push waits for a sweep before it is told to come
// again. Clients wait about half a minute for the head of an answer.
const patience = 15 * time.Second

// retryAfterSweep is when a push that a sweep keeps out shall come again, in seconds.
const retryAfterSweep = 5

// spareDisk is what uploads must leave free, in bytes: manifests, tags and the
// collector need a little of it to work at all.
const spareDisk = 256 << 20

// chain is what every request goes through.
func (s *Server) chain() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", s.serveHealth)
	mux.Handle("GET /metrics", s.metricsHandler())
	mux.HandleFunc("/v2/", s.serveAPI)
	mux.HandleFunc("/v2", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/v2/", http.StatusMovedPermanently)
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		writeError(w, http.StatusNotFound, "UNSUPPORTED", "this is a registry of container and VM images; its API is below /v2/")
	})
	return s.recorded(mux)
}

// recorded logs and counts each request, and marks its context so that the
// library's log lines find the logger of this server.
func (s *Server) recorded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		rec := &recorder{ResponseWriter: w, control: http.NewResponseController(w)}
		//nolint:staticcheck // see newApp
		ctx := context.WithValue(r.Context(), instanceKey, s.id)
		r = r.WithContext(context.WithValue(ctx, recorderKey{}, rec))
		body := &movingBody{ReadCloser: r.Body, control: rec.control}
		if r.Body != nil && r.Body != http.NoBody {
			r.Body = body
		}
		next.ServeHTTP(rec, r)
		took := time.Since(start)
		s.metrics.request(r, rec, body.n, took)
		level := slog.LevelDebug
		if s.opt.AccessLog {
			level = slog.LevelInfo
		}
		s.log.LogAttrs(ctx, level, "registry request", slog.String("method", r.Method), slog.String("path", r.URL.Path),
			slog.Int("status", rec.code()), slog.Int64("in", body.n), slog.Int64("out", rec.n),
			slog.String("user", rec.user), slog.String("remote", r.RemoteAddr), slog.Duration("took", took))
	})
}

type recorderKey struct{}

// recorder notes what was answered, gives up on a client that takes nothing
// for too long, and drops what is written once the answer is finished.
type recorder struct {
	http.ResponseWriter
	control  *http.ResponseController
	status   int
	n        int64
	user     string
	finished bool // a refusal was written; the library writes on
	moved    time.Time
	onHeader func(http.Header)
	trouble  atomic.Pointer[trouble]   // replaces a refusal
	explain  func(status int) *trouble // asked about a refusal, if there is no trouble
}

// Unwrap is for http.ResponseController.
func (rec *recorder) Unwrap() http.ResponseWriter { return rec.ResponseWriter }

func (rec *recorder) code() int {
	if rec.status == 0 {
		return http.StatusOK
	}
	return rec.status
}

func (rec *recorder) WriteHeader(status int) {
	if rec.finished || rec.status >= 200 {
		return
	}
	if status >= http.StatusBadRequest {
		t, explain := rec.trouble.Swap(nil), rec.explain
		if rec.explain = nil; t == nil && explain != nil {
			t = explain(status)
		}
		if t != nil {
			t.answer(rec)
			rec.finished = true
			return
		}
	}
	rec.status = status
	if rec.onHeader != nil {
		rec.onHeader(rec.Header())
	}
	rec.ResponseWriter.WriteHeader(status)
}

func (rec *recorder) Write(b []byte) (int, error) {
	if rec.finished {
		return len(b), nil
	}
	if rec.status == 0 {
		rec.WriteHeader(http.StatusOK)
	}
	if now := time.Now(); now.Sub(rec.moved) > time.Second {
		rec.moved = now
		_ = rec.control.SetWriteDeadline(now.Add(stallTimeout)) // not every writer has deadlines
	}
	n, err := rec.ResponseWriter.Write(b)
	rec.n += int64(n)
	return n, err
}

// movingBody gives up on a client that sends nothing for too long.
type movingBody struct {
	io.ReadCloser
	control *http.ResponseController
	n       int64
	moved   time.Time
}

func (b *movingBody) Read(p []byte) (int, error) {
	if now := time.Now(); now.Sub(b.moved) > time.Second {
		b.moved = now
		_ = b.control.SetReadDeadline(now.Add(stallTimeout))
	}
	n, err := b.ReadCloser.Read(p)
	b.n += int64(n)
	return n, err
}

// serveAPI authenticates a request and brings it to its depot.
func (s *Server) serveAPI(w http.ResponseWriter, r *http.Request) {
	r, ok := s.access.authenticate(w, r)
	if !ok {
		return
	}
	if rec, ok := w.(*recorder); ok {
		rec.user = callerOf(r.Context()).name
	}
	if rest, ok := strings.CutPrefix(r.URL.Path, "/v2/"+mirrorPrefix+"/"); ok {
		s.serveMirror(w, r, rest)
		return
	}
	rt := parseRoute(r.URL.Path)
	if s.depot.isDoomed(rt.reference) {
		writeError(w, http.StatusNotFound, "BLOB_UNKNOWN", "%s is garbage that is being deleted", rt.reference)
		return
	}
	if !writes(r) {
		s.depot.app.ServeHTTP(w, r)
		if r.Method == http.MethodHead && rt.kind == kindBlob && status(w) == http.StatusOK && callerOf(r.Context()).role == Writer {
			// A push asks so, and then relies on it.
			s.depot.touch(rt.repository, "_layers", rt.reference, time.Now())
		}
		return
	}
	leave, ok := s.admit(w, r, s.depot)
	if !ok {
		return
	}
	defer leave()
	if !s.roomFor(w, r) {
		return
	}
	if rec, ok := w.(*recorder); ok {
		rec.explain = s.filledUp
	}
	s.depot.app.ServeHTTP(w, r)
	if rt.kind == kindUpload && status(w) == http.StatusCreated {
		// The blob may have been there, old, and named by nothing.
		s.depot.touch(rt.repository, "_layers", r.FormValue("digest")+r.FormValue("mount"), time.Now())
	}
}

func status(w http.ResponseWriter) int {
	if rec, ok := w.(*recorder); ok {
		return rec.code()
	}
	return 0
}

func writes(r *http.Request) bool { return r.Method != http.MethodGet && r.Method != http.MethodHead }

// admit lets a writer into a depot, or tells it to come again.
func (s *Server) admit(w http.ResponseWriter, r *http.Request, d *depot) (leave func(), ok bool) {
	ctx, cancel := context.WithTimeout(r.Context(), patience)
	defer cancel()
	leave, ok = d.gate.enter(ctx)
	if !ok {
		w.Header().Set("Retry-After", strconv.Itoa(retryAfterSweep))
		writeError(w, http.StatusServiceUnavailable, "UNAVAILABLE", "the registry is collecting garbage; pushes go on in a moment")
	}
	return leave, ok
}

// roomFor refuses an upload that the disk has no room for, in words that the
// library has not.
func (s *Server) roomFor(w http.ResponseWriter, r *http.Request) bool {
	if r.Method == http.MethodDelete {
		return true
	}
	free, err := s.free(s.dir)
	if err != nil || free >= uint64(max(r.ContentLength, 0))+spareDisk {
		return true // what cannot be told is not refused
	}
	s.log.Warn("registry refuses an upload: its disk is full", "free", free, "upload", r.ContentLength, "dir", s.dir)
	s.fullDisk(free).answer(w)
	return false
}

// filledUp says whether an upload failed since the disk has no room any more:
// most clients do not say beforehand how much they send.
func (s *Server) filledUp(status int) *trouble {
	if status < http.StatusInternalServerError {
		return nil
	}
	free, err := s.free(s.dir)
	if err != nil || free >= spareDisk {
		return nil
	}
	s.log.Warn("registry cuts an upload: its disk is full", "free", free, "dir", s.dir)
	return s.fullDisk(free)
}

func (s *Server) fullDisk(free uint64) *trouble {
	s.metrics.denied("disk")
	return &trouble{http.StatusInsufficientStorage, "UNAVAILABLE", 0, fmt.Sprintf(
		"the registry's disk is full: %d MB are free; whoever runs it: delete images, then tasuki registry gc --grace 0s", free>>20)}
}

// serveHealth says whether the registry can do its work.
func (s *Server) serveHealth(w http.ResponseWriter, _ *http.Request) {
	free, err := s.free(s.dir)
	state := struct {
		Status    string `json:"status"`
		FreeBytes uint64 `json:"freeBytes"`
		Sweeping  bool   `json:"sweeping"`
		Why       string `json:"why,omitempty"`
	}{"ok", free, s.depot.doomed.Load() != nil, ""}
	code := http.StatusOK
	switch {
	case err != nil:
		code, state.Status, state.Why = http.StatusServiceUnavailable, "failed", "its directory cannot be reached"
	case free < spareDisk:
		state.Status, state.Why = "full", "its disk has no room for pushes; pulls go on"
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(state)
}

// metricsHandler answers on loopback, and to those who know the token.
func (s *Server) metricsHandler() http.Handler {
	serve := s.metrics.handler()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ip := net.ParseIP(remoteHost(r))
		local := ip != nil && ip.IsLoopback() && r.Header.Get("X-Forwarded-For") == "" && r.Header.Get("Forwarded") == ""
		token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		if !local && !sameSecret(token, s.opt.MetricsToken) {
			w.Header().Set("WWW-Authenticate", `Bearer realm="metrics"`)
			writeError(w, http.StatusUnauthorized, "UNAUTHORIZED", "the metrics want their token, or to be asked on the registry's own machine")
			return
		}
		serve.ServeHTTP(w, r)
	})
}

// writeError answers as the distribution specification asks: a JSON object
// with codes and messages.
func writeError(w http.ResponseWriter, status int, code, format string, args ...any) {
	type one struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	}
	body, _ := json.Marshal(map[string][]one{"errors": {{code, fmt.Sprintf(format, args...)}}})
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)+1))
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n'))
}
