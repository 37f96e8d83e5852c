package console

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"html/template"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mirego/tasuki/internal/api"
	"github.com/mirego/tasuki/internal/base/backoff"
	"github.com/mirego/tasuki/internal/image"
)

// Off is the Listen of a console that nobody wants.
const Off = "off"

// ErrOff: the configuration wants no console.
var ErrOff = errors.New("the console is off")

// Host is the agent; *agent.Agent is one.
type Host interface {
	Drain(pool string) error
	Resume(pool string) error
	// LogPath is the file with what a runner's program wrote, ConsolePath that of
	// its guest's console; they may not be there.
	LogPath(runner string) string
	ConsolePath(runner string) string
}

// Runs is a history of runners; *history.History is one.
type Runs interface {
	Runs(ctx context.Context, q api.RunQuery) ([]api.Run, error)
	Stats(ctx context.Context, q api.RunQuery) (api.RunStats, error)
	// Series returns what Stats does, for each step of the time.
	Series(ctx context.Context, q api.RunQuery, step time.Duration) ([]api.RunStats, error)
}

// Finding is what one check of the machine found.
type Finding struct {
	Check string // its name
	Level string // "ok", "warning", "problem" or "unknown"
	Seen  string
	Why   string // why it matters
	Mend  string // what to do: words, or commands
}

// Difference is what a host that has one image fetches for another.
type Difference struct {
	Fetch  int64 // bytes that travel
	Raw    int64 // bytes of the disk that they are
	Have   int64 // bytes of the disk that are here already
	Labels []Relabel
}

// Relabel is a label that differs between two images; empty: it is missing.
type Relabel struct{ Name, Was, Is string }

// Options are what a Console needs.
type Options struct {
	// Listen is a loopback address and a port; empty: a free port, opened when
	// the first link is asked for; Off: none at all.
	Listen string
	// Hosts are further names that a reverse proxy with TLS serves it by.
	Hosts []string
	// Installation tells the agents of one machine apart.
	Installation string
	Host         Host
	Status       func() api.Status
	Feed         *Feed
	// Runs is the history; nil: none is kept.
	Runs Runs
	// Findings looks at the machine, which may take seconds; nil: nobody can.
	Findings func(context.Context) []Finding
	// Images lists the images of this host; nil: the pools need none.
	Images func(context.Context) ([]image.Stored, error)
	// Diff compares two images of this host by their digests; nil: nobody can.
	Diff func(ctx context.Context, from, to string) (Difference, error)
	// Problem says what is wrong now, for a person; an empty text ends it. Nil:
	// nobody wants to know.
	Problem func(text string)
	Log     *slog.Logger // nil: discarded
}

// Console serves the pages. Make it with New, then Run it once; its other
// methods may be called at any time, from anywhere.
type Console struct {
	opt    Options
	log    *slog.Logger
	gate   *gate
	assets *assets
	pages  *template.Template // whole pages
	still  *template.Template // parts of pages, for streams
	checks checks
	asked  chan struct{} // holds a value once a link was asked for
	born   string        // tells this process's streams from another's

	streams atomic.Int64 // open ones

	mu      sync.Mutex
	address string        // that is listened on; empty: none is
	trouble error         // why not
	news    chan struct{} // closed when one of them changes
}

// New returns a console that has opened nothing yet.
func New(opt Options) (*Console, error) {
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	c := &Console{
		opt: opt, log: opt.Log, asked: make(chan struct{}, 1), news: make(chan struct{}), born: rand.Text(),
		gate: &gate{cookie: "tasuki-" + cmp.Or(opt.Installation, "console")},
	}
	for _, h := range opt.Hosts {
		c.gate.hosts = append(c.gate.hosts, strings.ToLower(h))
	}
	var err error
	if c.assets, err = newAssets(); err != nil {
		return nil, fmt.Errorf("cannot prepare the console: %w", err)
	}
	if c.pages, c.still, err = c.parse(); err != nil {
		return nil, fmt.Errorf("cannot prepare the console: %w", err)
	}
	c.checks.look, c.checks.wanted = opt.Findings, make(chan struct{}, 1)
	return c, nil
}

const (
	// linkPatience bounds how long a link waits for the port.
	linkPatience = 10 * time.Second
	// headerTimeout bounds how long a client may take over its request's head.
	headerTimeout = 10 * time.Second
	// stopPatience is how long answers may finish once Run was told to end.
	stopPatience = 2 * time.Second
)

// listenPace is how a taken port is tried again.
var listenPace = backoff.Policy{First: time.Second, Most: time.Minute}

// Run serves until ctx ends. A port that is taken is tried again and again: no
// runner depends on it.
func (c *Console) Run(ctx context.Context) {
	if c.opt.Listen == Off {
		return
	}
	if c.opt.Listen == "" {
		select {
		case <-ctx.Done():
			return
		case <-c.asked:
		}
	}
	c.recall(ctx)
	var work sync.WaitGroup
	defer work.Wait()
	work.Go(func() { c.checks.run(ctx) })
	listen := cmp.Or(c.opt.Listen, "127.0.0.1:0")
	for n := 1; ctx.Err() == nil; n++ {
		var config net.ListenConfig
		l, err := config.Listen(ctx, "tcp", listen)
		if err == nil {
			listen = l.Addr().String() // a free port that was found is kept
			c.log.Info("console is served", "address", listen)
			c.tell(listen, nil)
			err, n = c.serve(ctx, l), 0
		}
		if ctx.Err() != nil {
			return
		}
		c.log.Warn("console is not served", "address", listen, "err", err)
		c.tell("", fmt.Errorf("cannot listen on %s: %w", listen, cause(err)))
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

// recall brings the feed what the history knows of the hours before.
func (c *Console) recall(ctx context.Context) {
	if c.opt.Runs != nil {
		runs, err := c.opt.Runs.Runs(ctx, api.RunQuery{Since: time.Now().Add(-feedAge), Limit: feedRuns})
		if err != nil {
			c.log.Warn("console begins without the hours before", "err", err)
		}
		for i, j := 0, len(runs)-1; i < j; i, j = i+1, j-1 {
			runs[i], runs[j] = runs[j], runs[i]
		}
		c.opt.Feed.Recall(runs)
	}
	c.opt.Feed.Settle(c.opt.Status())
}

// tell says where the console is, or why it is nowhere.
func (c *Console) tell(address string, trouble error) {
	text := ""
	if trouble != nil {
		text = trouble.Error()
	}
	if c.opt.Problem != nil {
		c.opt.Problem(text)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.address, c.trouble = address, trouble
	close(c.news)
	c.news = make(chan struct{})
}

func (c *Console) serve(ctx context.Context, l net.Listener) error {
	srv := &http.Server{
		Handler: c.Handler(), ReadHeaderTimeout: headerTimeout, IdleTimeout: 2 * time.Minute,
		MaxHeaderBytes: 16 << 10, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug),
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopPatience)
	defer cancel()
	if srv.Shutdown(grace) != nil {
		_ = srv.Close()
	}
	return <-served
}

// Link returns an address that lets one browser in, once. It opens the port if
// that was not wanted before. Errors: ErrOff, and why it cannot listen.
func (c *Console) Link(ctx context.Context) (api.ConsoleLink, error) {
	if c.opt.Listen == Off {
		return api.ConsoleLink{}, fmt.Errorf("cannot open the console: %w", ErrOff)
	}
	select {
	case c.asked <- struct{}{}:
	default:
	}
	ctx, cancel := context.WithTimeoutCause(ctx, linkPatience, errors.New("it does not listen yet"))
	defer cancel()
	for {
		c.mu.Lock()
		address, trouble, news := c.address, c.trouble, c.news
		c.mu.Unlock()
		if address != "" {
			token, ends := c.gate.mint(time.Now())
			return api.ConsoleLink{URL: "http://" + address + enterPath + token, Address: address, Ends: ends.UTC(), Hosts: c.opt.Hosts, Path: enterPath + token}, nil
		}
		if trouble != nil {
			return api.ConsoleLink{}, fmt.Errorf("cannot open the console: %w", trouble)
		}
		select {
		case <-news:
		case <-ctx.Done():
			return api.ConsoleLink{}, fmt.Errorf("cannot open the console: %w", context.Cause(ctx))
		}
	}
}
