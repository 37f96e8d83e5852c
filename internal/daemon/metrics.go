package daemon

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/mirego/tasuki/internal/base/backoff"
	"github.com/mirego/tasuki/internal/base/secret"
)

const (
	// tokenLife is how long a token that was read is used before its source is
	// asked again, so that a rotated one is picked up.
	tokenLife = time.Minute
	// minToken is the least length of a token: shorter ones can be guessed.
	minToken = 16
	// scrapeTimeout bounds one answer.
	scrapeTimeout = 30 * time.Second
)

// listenPace is how a taken port is tried again.
var listenPace = backoff.Policy{First: time.Second, Most: time.Minute}

// MetricsOptions are what ServeMetrics needs.
type MetricsOptions struct {
	Listen string // address:port
	// Token reads what a client must send as a bearer token.
	Token   func(context.Context) (secret.String, error)
	Handler http.Handler
	// Problem says what is wrong now, for a person; an empty text ends it. Nil:
	// nobody wants to know.
	Problem func(text string)
	// Opened hears the address that is listened on; nil: nobody does.
	Opened func(net.Addr)
	Log    *slog.Logger // nil: discarded
}

// ServeMetrics serves metrics over TCP until ctx ends, to whoever sends the
// token, and nothing else. A port that is taken is tried again and again: no
// runner depends on it.
func ServeMetrics(ctx context.Context, opt MetricsOptions) {
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	tell := func(text string) {
		if opt.Problem != nil {
			opt.Problem(text)
		}
	}
	g := Guarded(opt)
	for n := 1; ctx.Err() == nil; n++ {
		var config net.ListenConfig
		l, err := config.Listen(ctx, "tcp", opt.Listen)
		if err == nil {
			tell("")
			opt.Log.Info("metrics are served", "address", l.Addr().String())
			if opt.Opened != nil {
				opt.Opened(l.Addr())
			}
			err, n = serve(ctx, l, g), 0
		}
		if ctx.Err() != nil {
			return
		}
		tell(fmt.Sprintf("cannot serve metrics on %s: %v", opt.Listen, cause(err)))
		opt.Log.Warn("metrics are not served", "address", opt.Listen, "err", err)
		if backoff.Sleep(ctx, listenPace.Delay(max(n, 1), nil)) != nil {
			return
		}
	}
}

// cause drops the addresses of a network error.
func cause(err error) error {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return op.Err
	}
	return err
}

func serve(ctx context.Context, l net.Listener, h http.Handler) error {
	srv := &http.Server{
		Handler: h, ReadHeaderTimeout: headerTimeout, WriteTimeout: scrapeTimeout, IdleTimeout: 2 * time.Minute,
		MaxHeaderBytes: 16 << 10, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug),
	}
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
	defer stop()
	return srv.Serve(l)
}

// Guarded returns the handler that ServeMetrics serves.
func Guarded(opt MetricsOptions) http.Handler {
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	return &guard{opt: opt}
}

// guard lets through who has the token. It is the same to everybody else
// whatever they ask for.
type guard struct {
	opt MetricsOptions

	mu    sync.Mutex
	token secret.String
	read  time.Time
}

// ServeHTTP implements http.Handler.
func (g *guard) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	token, err := g.current(r.Context())
	if err != nil {
		g.opt.Log.Warn("token for metrics is not readable; nobody is served", "err", err)
		http.Error(w, "the token for metrics cannot be read: see the agent's log", http.StatusServiceUnavailable)
		return
	}
	// Digests have one length, so that the time tells nothing of the token's.
	scheme, sent, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	want, got := sha256.Sum256([]byte(token.Reveal())), sha256.Sum256([]byte(strings.TrimSpace(sent)))
	if same := subtle.ConstantTimeCompare(want[:], got[:]) == 1; !same || !strings.EqualFold(scheme, "Bearer") {
		w.Header().Set("WWW-Authenticate", `Bearer realm="tasuki metrics"`)
		http.Error(w, "unauthorized", http.StatusUnauthorized)
		return
	}
	if r.URL.Path != "/metrics" || r.Method != http.MethodGet && r.Method != http.MethodHead {
		http.NotFound(w, r)
		return
	}
	g.opt.Handler.ServeHTTP(w, r)
}

// current returns the token. One that cannot be read any more goes on.
func (g *guard) current(ctx context.Context) (secret.String, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.token.Empty() && time.Since(g.read) < tokenLife {
		return g.token, nil
	}
	token, err := g.opt.Token(ctx)
	if n := len(token.Reveal()); err == nil && n < minToken {
		err = fmt.Errorf("it has %d characters and needs at least %d: openssl rand -hex 32 makes one", n, minToken)
	}
	if err != nil && g.token.Empty() {
		return secret.String{}, err
	}
	if err == nil {
		g.token = token
	}
	g.read = time.Now()
	return g.token, nil
}
