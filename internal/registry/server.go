package registry

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mirego/tasuki/internal/base/secret"
)

const (
	// headerTimeout bounds how long a client may take over its request's head.
	headerTimeout = 30 * time.Second
	// idleTimeout closes connections that nobody uses.
	idleTimeout = 2 * time.Minute
	// stallTimeout ends a request whose body, or answer, does not move on.
	stallTimeout = 2 * time.Minute
	// shutdownTimeout is how long requests may finish once Run was told to end.
	shutdownTimeout = 10 * time.Second
)

// Options configure a Server.
type Options struct {
	// Dir holds everything that the registry stores; it is created if missing.
	// One server at a time may write to it: see Lock.
	Dir string
	// ReadOnly refuses pushes and deletions (HTTP 405).
	ReadOnly bool
	// Users is the file that says who may do what; "" asks nobody.
	Users string
	// Open lets anybody do everything while the file of users is not there.
	Open bool
	// AnonymousPull lets anybody read.
	AnonymousPull bool
	// Mirrors are registries that are shown below /v2/mirror/NAME/.
	Mirrors []Mirror
	// Policy says what is garbage.
	Policy Policy
	// CollectEvery is how often Run collects garbage; 0 is never.
	CollectEvery time.Duration
	// MetricsToken lets those who present it as a bearer token read /metrics,
	// beside callers on loopback.
	MetricsToken secret.String
	// Certificate, if not nil, makes Run speak TLS.
	Certificate *Certificate
	// AccessLog logs each request at level info, else at debug.
	AccessLog bool
	// Log gets the access log and a warning per failure; nil means
	// slog.Default.
	Log *slog.Logger
}

// Server is one registry. Create it with New; its methods may be called from
// several goroutines. Several servers can live in one process.
type Server struct {
	opt     Options
	dir     string
	id      string
	access  *controller
	depot   *depot
	mirrors map[string]*mirror
	metrics *metrics
	handler http.Handler
	log     *slog.Logger
	detach  func()
	apps    []interface{ Shutdown() error }
	collect sync.Mutex                       // held by the one collection at a time
	free    func(dir string) (uint64, error) // bytes that the disk has left
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
	if err := opt.Policy.check(); err != nil {
		return nil, err
	}
	if opt.Log == nil {
		opt.Log = slog.Default()
	}
	s := &Server{opt: opt, dir: dir, log: opt.Log, metrics: newMetrics(), mirrors: map[string]*mirror{}, free: freeBytes}
	s.id, s.detach = bridge.attach(opt.Log)
	if err := s.open(); err != nil {
		s.detach()
		return nil, fmt.Errorf("cannot open registry %q: %w", dir, err)
	}
	return s, nil
}

func (s *Server) open() error {
	if err := registerAccess(); err != nil {
		return err
	}
	s.access = &controller{open: s.opt.Open, anonymous: s.opt.AnonymousPull, denied: s.metrics.denied}
	if s.opt.Users != "" {
		var err error
		if s.access.users, err = newDirectory(s.opt.Users); err != nil {
			return err
		}
	}
	app, err := newApp(s.id, appConfig(s.dir, s.opt.ReadOnly, s.access))
	if err != nil {
		return err
	}
	s.apps = append(s.apps, app)
	s.depot = &depot{dir: s.dir, app: app}
	for _, m := range s.opt.Mirrors {
		mir, err := s.newMirror(m)
		if err != nil {
			return err
		}
		if s.mirrors[mir.name] != nil {
			return fmt.Errorf("two mirrors are called %q; give one of them another name", mir.name)
		}
		s.mirrors[mir.name] = mir
	}
	s.metrics.watch(s)
	s.handler = s.chain()
	return nil
}

// Handler serves the registry's API under /v2/, /healthz and /metrics.
func (s *Server) Handler() http.Handler { return s.handler }

// Close releases what New took. It does not wait for requests; Run does.
func (s *Server) Close() error {
	defer s.detach()
	var errs []error
	for _, app := range s.apps {
		errs = append(errs, app.Shutdown())
	}
	for _, m := range s.mirrors {
		errs = append(errs, m.close())
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("cannot close registry: %w", err)
	}
	return nil
}

// Run serves on l until ctx ends, then lets requests finish for some seconds,
// cuts those that remain, and closes the server. Meanwhile it collects garbage
// and deletes abandoned uploads. It always closes l and returns nil after an
// orderly end.
func (s *Server) Run(ctx context.Context, l net.Listener) error {
	srv := &http.Server{
		Handler:           s.handler,
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	scheme := "http"
	if s.opt.Certificate != nil {
		scheme = "https"
		// HTTP/2 would put all chunks of a pull on one connection, and is
		// slower at it.
		l = tls.NewListener(l, &tls.Config{
			MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}, GetCertificate: s.opt.Certificate.get(s.log),
		})
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	s.log.Info("registry serves", "address", l.Addr().String(), "scheme", scheme, "dir", s.dir)

	chores, stopChores := context.WithCancel(ctx)
	defer stopChores()
	var busy sync.WaitGroup
	busy.Go(func() { s.keepHouse(chores) })

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
	stopChores()
	busy.Wait()
	return errors.Join(err, s.Close())
}

// freeBytes is what the file system of dir has left for us.
func freeBytes(dir string) (uint64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, fmt.Errorf("cannot tell the free space of %q: %w", dir, err)
	}
	return uint64(st.Bavail) * uint64(st.Bsize), nil //nolint:unconvert // the types differ between systems
}
