package daemon

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/mirego/tasuki/internal/api"
	"github.com/mirego/tasuki/internal/event"
)

const (
	// headerTimeout bounds how long a client may take over its request's head.
	headerTimeout = 10 * time.Second
	// shutdownTimeout is how long calls may finish once Run was told to end.
	shutdownTimeout = 5 * time.Second
	// maxBody bounds a request's body in bytes.
	maxBody = 64 << 10
)

// Agent is what the API shows and does; *agent.Agent is one.
type Agent interface {
	Status() api.Status
	Drain(pool string) error
	Resume(pool string) error
	RefreshImage(pool string) error
	RollbackImage(pool string) error
	PinImage(pool, digest string) error
	Hold(name string, d time.Duration) error
	Login(name string) (api.Login, error)
	LogPath(name string) string
	ConsolePath(name string) string
}

// Events is where live events come from; *event.Bus is one.
type Events interface {
	Subscribe() (<-chan event.Event, func())
}

// Runs is a history of runners; *history.History is one.
type Runs interface {
	Runs(ctx context.Context, q api.RunQuery) ([]api.Run, error)
	Stats(ctx context.Context, q api.RunQuery) (api.RunStats, error)
}

// Options are what a Server needs.
type Options struct {
	Agent  Agent
	Events Events
	// Past returns the events since a time, oldest first; nil: none are kept.
	Past func(since time.Time) iter.Seq2[event.Event, error]
	// Reload takes a changed configuration over. On an error the old one stays.
	Reload func(context.Context) error
	// Metrics serves /metrics; nil: there are none.
	Metrics http.Handler
	// Complete adds to a status what the agent does not know; nil: nothing.
	Complete func(*api.Status)
	// Runs is the history of runners; nil: none is kept.
	Runs Runs
	// Console makes a link into the web console; nil: there is none.
	Console func(context.Context) (api.ConsoleLink, error)
	Log     *slog.Logger // nil: discarded
}

// Server is the API of one agent.
type Server struct {
	opt Options
	log *slog.Logger
}

// New returns a server that has opened nothing yet.
func New(opt Options) *Server {
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	return &Server{opt: opt, log: opt.Log}
}

// Handler returns the API's routes.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	for pattern, handle := range map[string]func(http.ResponseWriter, *http.Request) error{
		"GET /v1/status":                       s.status,
		"GET /v1/events":                       s.events,
		"POST /v1/drain":                       s.drain,
		"POST /v1/resume":                      s.resume,
		"POST /v1/reload":                      s.reload,
		"POST /v1/runners/{name}/hold":         s.hold,
		"GET /v1/runners/{name}/login":         s.login,
		"GET /v1/runners/{name}/log":           s.runnerLog,
		"POST /v1/pools/{name}/image/refresh":  s.refreshImage,
		"POST /v1/pools/{name}/image/rollback": s.rollbackImage,
		"POST /v1/pools/{name}/image/pin":      s.pinImage,
		"GET /v1/runs":                         s.runs,
		"GET /v1/stats":                        s.stats,
		"POST /v1/console":                     s.console,
		"GET /metrics":                         s.metrics,
		"GET /healthz":                         s.health,
		"/":                                    s.nowhere,
	} {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			r.Body = http.MaxBytesReader(w, r.Body, maxBody)
			if err := handle(w, r); err != nil {
				s.fail(w, r, err)
			}
		})
	}
	return mux
}

// Run serves on l until ctx ends; calls may then finish for some seconds, and
// streams end at once. It closes l.
func (s *Server) Run(ctx context.Context, l net.Listener) error {
	srv := &http.Server{
		Handler:           s.Handler(),
		ReadHeaderTimeout: headerTimeout,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	select {
	case err := <-served:
		return fmt.Errorf("cannot serve the agent's socket: %w", err)
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	if srv.Shutdown(grace) != nil {
		_ = srv.Close()
	}
	<-served
	return nil
}

func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	status, hint := statusOf(err)
	level := slog.LevelDebug
	if status >= http.StatusInternalServerError {
		level = slog.LevelWarn
	}
	s.log.Log(r.Context(), level, "request failed", "method", r.Method, "path", r.URL.Path, "status", status, "err", err)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(api.Error{Error: err.Error(), Hint: hint})
}

func answer(w http.ResponseWriter, v any) error {
	w.Header().Set("Content-Type", "application/json")
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	// An error is the client's going away: there is nobody to tell.
	_ = enc.Encode(v)
	return nil
}

func done(w http.ResponseWriter, err error) error {
	if err == nil {
		w.WriteHeader(http.StatusNoContent)
	}
	return err
}
