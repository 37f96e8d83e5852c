package emulator

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/mirego/tasuki/internal/base/secret"
)

// Flow says how a runner program that is configured with a registration token registers.
type Flow int

// The flows. Runners with a JIT configuration are not concerned.
const (
	FlowV2 Flow = iota // by REST (runners/register)
	FlowV1             // by the legacy agents API; jobs reach it by the broker all the same
)

// Options configure an Emulator. The zero value is ready to use.
type Options struct {
	// AdvertiseURL is the emulator's address as runners see it, written into everything they read. When it
	// is empty, the Host header of the call in question is taken.
	AdvertiseURL string
	// PollHold is how long a poll without a message is held: 50 s when zero.
	PollHold time.Duration
	// LockDuration is how long a running job lives without a renewal: 10 min when zero, as at GitHub.
	LockDuration time.Duration
	// PickupTimeout is how long an offered job may stay unacquired until it is queued again: 60 s when zero.
	PickupTimeout time.Duration
	// CancelGrace is how long a job may go on after a cancellation until it is abandoned: 5 min when zero.
	CancelGrace time.Duration
	// OfflineAfter is how long a runner counts as online after its last poll ended or its job was renewed: 60 s
	// when zero.
	OfflineAfter time.Duration
	// QueueTimeout is how long a job waits for a runner until it fails: 24 h when zero.
	QueueTimeout time.Duration
	// Flow is what config --token leads to.
	Flow Flow
	// Repository is the one repository there is: "octo/demo" when empty. Its owner is the one organization.
	Repository string
	// Groups are the names of runner groups beside Default; their ids count from 2.
	Groups []string
	// GroupRules say what runner groups admit, by name; a group that has none admits everything private.
	GroupRules map[string]GroupRule
	// Public makes the repository a public one, which only groups that allow it admit.
	Public bool
	// Secrets and Vars are what workflows see under those names.
	Secrets, Vars map[string]string
	// Token, if set, is the credential that REST calls must carry: a personal access token.
	Token secret.String
	// Scopes are what a classic Token may do, as in "repo, admin:org"; a Token without scopes may do everything.
	Scopes []string
	// App is a GitHub App whose installation tokens REST calls may carry as well; none when nil.
	App *App
	// Quota is how many REST calls there may be.
	Quota Quota
	// ScaleSets is how the scale-set service behaves.
	ScaleSets ScaleSetOptions
	// CollectOffline is how long an ephemeral runner without a job may be offline until its registration is
	// removed: 24 h when zero. Other runners may fourteen times as long.
	CollectOffline time.Duration
	// CollectIdle is how long a runner may be without a job, connected or not, until its registration is
	// removed: for ever when zero.
	CollectIdle time.Duration
	// RunnerRelease is the runner program that GitHub offers for download.
	RunnerRelease RunnerRelease
	// MinRunnerVersion is the oldest runner that is given messages, such as "2.329.0"; any is when empty.
	MinRunnerVersion string
	// Faults are what goes wrong; none when empty. See Fault.
	Faults []Fault
	// Log takes one debug line per request and one info line per transition; discarded when nil.
	Log *slog.Logger
}

// GroupRule says what a runner group of an organization or an enterprise admits.
type GroupRule struct {
	// Closed keeps the repository out.
	Closed bool
	// AllowPublic lets a public repository in.
	AllowPublic bool
}

func (o Options) withDefaults() Options {
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{
		{&o.PollHold, 50 * time.Second},
		{&o.LockDuration, 10 * time.Minute},
		{&o.PickupTimeout, time.Minute},
		{&o.CancelGrace, 5 * time.Minute},
		{&o.OfflineAfter, time.Minute},
		{&o.QueueTimeout, 24 * time.Hour},
		{&o.CollectOffline, 24 * time.Hour},
	} {
		if *d.field <= 0 {
			*d.field = d.value
		}
	}
	o.ScaleSets, o.Quota = o.ScaleSets.withDefaults(), o.Quota.withDefaults()
	if o.Repository == "" {
		o.Repository = "octo/demo"
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

// Emulator is one GitHub: one repository, its runs, and the runners registered for it.
type Emulator struct {
	opts       Options
	log        *slog.Logger
	instance   string // GUID, new for each emulator
	signingKey []byte
	handler    http.Handler
	feeds      sync.WaitGroup // open websockets, which an http.Server does not wait for

	mu       sync.Mutex
	base     string        // AdvertiseURL, without a slash at the end
	fallback string        // the listener's address, when nothing was advertised
	wake     chan struct{} // closed and replaced whenever something changed
	watchers map[chan struct{}]struct{}
	alarm    *time.Timer // for the next deadline
	closed   bool
	lastID   map[string]int64
	runners  map[int64]*runner // registrations, and for a while those that are gone
	runs     []*run
	jobs     map[string]*job // by GUID
	active   map[*job]struct{}
	grants   map[string]grant // registration and remove tokens
	faults   []*fault
	sets     map[int64]*scaleSet
	usage    map[string]*usage // of the quota, by bucket
	keys     keyring
	apps     []*registeredApp
	drafts   map[string]*appDraft // by code
}

// New returns an emulator that is ready to serve.
func New(opts Options) *Emulator {
	e := &Emulator{
		opts:       opts.withDefaults(),
		instance:   newGUID(),
		signingKey: randomBytes(32),
		base:       strings.TrimRight(opts.AdvertiseURL, "/"),
		wake:       make(chan struct{}),
		watchers:   map[chan struct{}]struct{}{},
		lastID:     map[string]int64{},
		runners:    map[int64]*runner{},
		jobs:       map[string]*job{},
		active:     map[*job]struct{}{},
		grants:     map[string]grant{},
		sets:       map[int64]*scaleSet{},
		usage:      map[string]*usage{},
		drafts:     map[string]*appDraft{},
	}
	e.log = e.opts.Log
	if a := e.opts.App; a != nil {
		e.addApp(&registeredApp{App: a, slug: "tasuki", name: "tasuki", owner: e.owner()}, append(slices.Clone(a.Elsewhere), e.owner())...)
	}
	e.SetFaults(opts.Faults)
	e.handler = e.middleware(e.metered(e.routes()))
	return e
}

// Handler returns everything the emulator serves. Deadlines are kept whether or not Run is used.
func (e *Emulator) Handler() http.Handler { return e.handler }

// Run serves on the listener until ctx ends, then cuts the open polls and returns nil. The emulator is
// over then: its deadlines are kept no longer.
func (e *Emulator) Run(ctx context.Context, ln net.Listener) error {
	e.mu.Lock()
	e.fallback = "http://" + ln.Addr().String()
	e.mu.Unlock()
	base, cut := context.WithCancelCause(context.WithoutCancel(ctx))
	srv := &http.Server{
		Handler:           e.handler,
		BaseContext:       func(net.Listener) context.Context { return base },
		ReadHeaderTimeout: 30 * time.Second,
		ErrorLog:          slog.NewLogLogger(e.log.Handler(), slog.LevelDebug),
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln) }()
	var err error
	select {
	case <-ctx.Done():
		cut(errors.New("the emulator ends"))
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
		if srv.Shutdown(grace) != nil {
			srv.Close()
		}
		cancel()
		<-served
	case err = <-served:
		cut(err)
		err = fmt.Errorf("cannot serve the emulator on %s: %w", ln.Addr(), err)
	}
	e.feeds.Wait()
	e.mu.Lock()
	defer e.mu.Unlock()
	e.closed = true
	if e.alarm != nil {
		e.alarm.Stop()
	}
	return err
}

// SetAdvertiseURL changes the address that runners are told from now on.
func (e *Emulator) SetAdvertiseURL(u string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.base = strings.TrimRight(u, "/")
}

// baseFor returns the emulator's address as the maker of the request (nil: nobody in particular) sees it,
// without a slash at the end.
func (e *Emulator) baseFor(r *http.Request) string {
	e.mu.Lock()
	base, fallback := e.base, e.fallback
	e.mu.Unlock()
	switch {
	case base != "":
		return base
	case r == nil && fallback != "":
		return fallback
	case r == nil:
		return "http://emulator.invalid"
	case r.TLS != nil:
		return "https://" + r.Host
	}
	return "http://" + r.Host
}

// Watch returns a channel that gets a value some time after each change of the State (several changes
// may be one value), and a function that ends it.
func (e *Emulator) Watch() (<-chan struct{}, func()) {
	c := make(chan struct{}, 1)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.watchers[c] = struct{}{}
	return c, func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		delete(e.watchers, c)
	}
}

// changed hands queued jobs to scale sets and wakes everybody who waits for something. The lock is held.
func (e *Emulator) changed() {
	e.assign()
	close(e.wake)
	e.wake = make(chan struct{})
	for c := range e.watchers {
		select {
		case c <- struct{}{}:
		default:
		}
	}
	e.setAlarm()
}

// await calls check under the lock until it returns true, each time something changed. It returns false
// when ctx ended or the limit passed first.
func (e *Emulator) await(ctx context.Context, limit time.Duration, check func() bool) bool {
	timeout := time.NewTimer(limit)
	defer timeout.Stop()
	for {
		e.mu.Lock()
		done, wake := check(), e.wake
		e.mu.Unlock()
		if done {
			return true
		}
		select {
		case <-wake:
		case <-ctx.Done():
			return false
		case <-timeout.C:
			return false
		}
	}
}

// next counts the ids of one kind. The lock is held.
func (e *Emulator) next(kind string) int64 {
	e.lastID[kind]++
	return e.lastID[kind]
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	rand.Read(b) // never fails: crypto/rand ends the program instead
	return b
}

func newGUID() string {
	b := randomBytes(16)
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
