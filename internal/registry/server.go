package registry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/registry/handlers"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/filesystem" // the driver that Dir is served by
)

const (
	// headerTimeout bounds how long a client may take over its request's head.
	headerTimeout = 30 * time.Second
	// idleTimeout closes connections that nobody uses.
	idleTimeout = 2 * time.Minute
	// shutdownTimeout is how long requests may finish once Run was told to end.
	shutdownTimeout = 10 * time.Second
)

// Options configure a Server.
type Options struct {
	// Dir holds everything that the registry stores; it is created if missing.
	// One server at a time may write to it.
	Dir string
	// ReadOnly refuses pushes and deletions (HTTP 405).
	ReadOnly bool
	// Protect, if not nil, wraps the registry's handler. It is where requests
	// are authenticated and authorised before they reach the registry.
	Protect func(http.Handler) http.Handler
	// Log gets one debug line per request and a warning per failure; nil
	// means slog.Default.
	Log *slog.Logger
}

// Server is one registry. Create it with New; its methods may be called from
// several goroutines. Several servers can live in one process.
type Server struct {
	app     *handlers.App
	handler http.Handler
	log     *slog.Logger
	detach  func()
}

// New opens the registry in opt.Dir. Close it, unless Run is called, which
// closes it at its end.
func New(opt Options) (_ *Server, err error) {
	if opt.Dir == "" {
		return nil, errors.New("cannot open registry: no directory was given")
	}
	dir, err := filepath.Abs(opt.Dir)
	if err != nil {
		return nil, fmt.Errorf("cannot open registry %q: %w", opt.Dir, err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("cannot open registry: %w", err)
	}
	log := opt.Log
	if log == nil {
		log = slog.Default()
	}
	id, detach := bridge.attach(log)
	defer func() {
		// NewApp reports a bad configuration by a panic only.
		if r := recover(); r != nil {
			detach()
			err = fmt.Errorf("cannot open registry %q: %v", dir, r)
		}
	}()
	//nolint:staticcheck // the library looks its instance up under this plain string
	ctx := context.WithValue(context.Background(), instanceKey, id)
	s := &Server{app: handlers.NewApp(ctx, appConfig(dir, opt.ReadOnly)), log: log, detach: detach}
	s.handler = s.withInstance(id, s.app)
	if opt.Protect != nil {
		s.handler = opt.Protect(s.handler)
	}
	return s, nil
}

// appConfig is the library's configuration for a directory. Upload purging is
// off: it is a goroutine that nobody can wait for.
func appConfig(dir string, readOnly bool) *configuration.Configuration {
	conf := &configuration.Configuration{
		Version: "0.1",
		Storage: configuration.Storage{
			"filesystem": configuration.Parameters{"rootdirectory": dir},
			"delete":     configuration.Parameters{"enabled": true},
			"redirect":   configuration.Parameters{"disable": true},
			"maintenance": configuration.Parameters{
				"uploadpurging": map[any]any{"enabled": false},
				"readonly":      map[any]any{"enabled": readOnly},
			},
		},
	}
	conf.Catalog.MaxEntries = 1000
	return conf
}

// withInstance marks each request's context so that the library's log lines
// find the logger of this server, and logs the request.
func (s *Server) withInstance(id string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		//nolint:staticcheck // see New
		r = r.WithContext(context.WithValue(r.Context(), instanceKey, id))
		next.ServeHTTP(w, r)
		s.log.Debug("registry request", "method", r.Method, "path", r.URL.Path, "remote", r.RemoteAddr, "took", time.Since(start))
	})
}

// Handler serves the registry's API under /v2/.
func (s *Server) Handler() http.Handler { return s.handler }

// Close releases what New took. It does not wait for requests; Run does.
func (s *Server) Close() error {
	defer s.detach()
	if err := s.app.Shutdown(); err != nil {
		return fmt.Errorf("cannot close registry: %w", err)
	}
	return nil
}

// Run serves on l until ctx ends, then lets requests finish for some seconds,
// cuts those that remain, and closes the server. It always closes l and
// returns nil after an orderly end.
func (s *Server) Run(ctx context.Context, l net.Listener) error {
	srv := &http.Server{
		Handler:           s.handler,
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	s.log.Info("registry serves", "address", l.Addr().String())

	var err error
	select {
	case err = <-served:
		err = fmt.Errorf("cannot serve registry on %s: %w", l.Addr(), err)
	case <-ctx.Done():
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
		defer cancel()
		if shutErr := srv.Shutdown(stop); shutErr != nil {
			s.log.Warn("registry cuts requests that did not finish", "err", shutErr)
			_ = srv.Close()
		}
		<-served
	}
	return errors.Join(err, s.Close())
}
