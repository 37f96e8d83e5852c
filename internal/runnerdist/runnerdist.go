// Package runnerdist keeps the newest releases of the runner program
// (actions/runner) on this host, so that a guest whose image carries an older
// one can be given a newer without waiting for a download.
//
// A platform is a guest's system and architecture in Go's words. For each that
// somebody asks for, the Cache asks GitHub now and then what it offers, brings
// the archive, compares its checksum, and only then places it. It keeps the
// release that GitHub offered last and the one before, which a launch may still
// be copying. What was placed is listed in OS-ARCH.json beside the archives;
// partial/ holds downloads that were cut off, which the next try goes on with.
//
// Nobody waits for any of this: Latest answers from memory, with what is there.
package runnerdist

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/mirego/tasuki/internal/api"
	"github.com/mirego/tasuki/internal/base/backoff"
	"github.com/mirego/tasuki/internal/runner"
)

const (
	// DefaultEvery is how often GitHub is asked what it offers.
	DefaultEvery = time.Hour
	// DefaultKeep is how many releases of a platform are kept.
	DefaultKeep = 2
	// askTimeout bounds asking GitHub what it offers.
	askTimeout = time.Minute
	// fetchTimeout bounds bringing one archive; a download that this cuts off is
	// resumed by the next try.
	fetchTimeout = 30 * time.Minute
)

// Source is a GitHub that offers releases; *github.Client is one.
type Source interface {
	Downloads(ctx context.Context) ([]runner.Download, error)
}

// Platform is a guest's system ("linux", "darwin") and architecture ("amd64",
// "arm64").
type Platform struct{ OS, Arch string }

func (p Platform) String() string { return p.OS + "-" + p.Arch }

// Options are what a Cache needs.
type Options struct {
	Dir string // made if missing; the Cache's alone
	// Sources returns who is asked, the first that answers counts. It is called
	// before each refresh.
	Sources func() []Source
	// Platforms are wanted from the start; others once Latest is asked for them.
	Platforms []Platform
	HTTP      http.RoundTripper // carries the archives; nil: http.DefaultTransport
	Every     time.Duration     // pace of refreshes; 0: DefaultEvery
	Keep      int               // releases of a platform, at least 2; 0: DefaultKeep
	// Stall is how long a download may bring nothing; 0: 1 min.
	Stall time.Duration
	Log   *slog.Logger   // nil: slog.Default
	Rand  func() float64 // in [0, 1); nil: math/rand/v2
}

// Cache keeps releases. Its methods may be called at the same time; Run once.
type Cache struct {
	opt  Options
	http *http.Client
	wake chan struct{}

	mu        sync.Mutex
	platforms map[Platform]*platform
}

// platform is what the Cache knows of one.
type platform struct {
	kept    []kept // the one that GitHub offered last first
	checked time.Time
	trouble string // why the last refresh failed
}

// New reads what the folder has and asks nobody. Releases whose archives are
// missing or have another size are forgotten; Run compares the checksums of
// the others.
func New(opt Options) (*Cache, error) {
	opt.Every = cmp.Or(opt.Every, DefaultEvery)
	opt.Keep = max(2, cmp.Or(opt.Keep, DefaultKeep))
	opt.Stall = cmp.Or(opt.Stall, time.Minute)
	if opt.HTTP == nil {
		opt.HTTP = http.DefaultTransport
	}
	if opt.Log == nil {
		opt.Log = slog.Default()
	}
	if opt.Rand == nil {
		opt.Rand = rand.Float64
	}
	if err := os.MkdirAll(filepath.Join(opt.Dir, partialDir), 0o700); err != nil {
		return nil, fmt.Errorf("cannot keep releases of the runner program: %w", err)
	}
	c := &Cache{
		opt: opt, http: &http.Client{Transport: opt.HTTP, CheckRedirect: onlySafe},
		wake: make(chan struct{}, 1), platforms: map[Platform]*platform{},
	}
	if err := c.load(); err != nil {
		return nil, err
	}
	for _, p := range opt.Platforms {
		if c.platforms[p] == nil {
			c.platforms[p] = &platform{}
		}
	}
	return c, nil
}

// Latest returns the newest release that is on this host for a platform; false
// if there is none yet. It never waits; a platform that nobody asked for before
// is brought from then on.
func (c *Cache) Latest(system, arch string) (runner.Release, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.platforms[Platform{system, arch}]
	if p == nil {
		c.platforms[Platform{system, arch}] = &platform{}
		c.poke()
		return runner.Release{}, false
	}
	if len(p.kept) == 0 {
		return runner.Release{}, false
	}
	return c.release(p.kept[0]), true
}

// Status returns what is kept of each platform, in order, and what is wrong.
func (c *Cache) Status() []api.RunnerRelease {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []api.RunnerRelease
	for _, at := range slices.SortedFunc(maps.Keys(c.platforms), func(a, b Platform) int { return strings.Compare(a.String(), b.String()) }) {
		p := c.platforms[at]
		r := api.RunnerRelease{OS: at.OS, Arch: at.Arch, Checked: p.checked, Problem: p.trouble}
		if len(p.kept) > 0 {
			r.Version, r.Published = p.kept[0].Version, p.kept[0].Published
		}
		out = append(out, r)
	}
	return out
}

// Run refreshes until ctx ends, first at once. What fails is tried again, each
// time later, and costs nothing else.
func (c *Cache) Run(ctx context.Context) {
	c.verifyAll(ctx)
	pace := backoff.Policy{First: 10 * time.Second, Most: c.opt.Every}
	for failures := 0; ctx.Err() == nil; {
		pause := c.opt.Every/2 + time.Duration(float64(c.opt.Every)*c.opt.Rand())
		if c.refresh(ctx) {
			failures = 0
		} else {
			failures++
			pause = pace.Delay(failures, c.opt.Rand)
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
		case <-c.wake:
		case <-timer.C:
		}
		timer.Stop()
	}
}

func (c *Cache) poke() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// refresh brings what GitHub offers now for every platform; false if anything
// failed.
func (c *Cache) refresh(ctx context.Context) bool {
	c.mu.Lock()
	wanted := slices.Collect(maps.Keys(c.platforms))
	c.mu.Unlock()
	if len(wanted) == 0 {
		return true
	}
	offers, err := c.offers(ctx)
	well := true
	for _, at := range wanted {
		problem := err
		if problem == nil {
			problem = c.bring(ctx, at, offers)
		}
		if ctx.Err() != nil {
			return true // we end; that is nobody's failure
		}
		c.note(at, problem)
		well = well && problem == nil
	}
	return well
}

// note keeps how a refresh went, and says so when that is news.
func (c *Cache) note(at Platform, err error) {
	c.mu.Lock()
	p := c.platforms[at]
	before := p.trouble
	if p.trouble = ""; err != nil {
		p.trouble = err.Error()
	} else {
		p.checked = time.Now().UTC()
	}
	now := p.trouble
	c.mu.Unlock()
	switch {
	case now != "" && now != before:
		c.opt.Log.Warn("release of the runner program not refreshed", "platform", at.String(), "err", err)
	case now == "" && before != "":
		c.opt.Log.Info("release of the runner program is refreshed again", "platform", at.String())
	}
}

var errNobody = errors.New("no GitHub is configured to ask")

// offers asks the sources, in order, until one answers.
func (c *Cache) offers(ctx context.Context) ([]runner.Download, error) {
	err := errNobody
	for _, s := range c.opt.Sources() {
		short, cancel := context.WithTimeoutCause(ctx, askTimeout, errors.New("GitHub does not answer in time"))
		var list []runner.Download
		list, err = s.Downloads(short)
		cancel()
		if err == nil {
			return list, nil
		}
	}
	return nil, err
}

// bring makes the offered release of a platform the one that Latest gives.
func (c *Cache) bring(ctx context.Context, at Platform, offers []runner.Download) error {
	i := slices.IndexFunc(offers, func(d runner.Download) bool { return d.OS == at.OS && d.Arch == at.Arch })
	if i < 0 {
		return fmt.Errorf("cannot keep a runner release for %s: GitHub offers none", at)
	}
	d := offers[i]
	if err := check(d); err != nil {
		return fmt.Errorf("cannot keep runner release %s for %s: %w", d.Version, at, err)
	}
	if c.chosen(at, d.SHA256) {
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, fetchTimeout, fmt.Errorf("it is not here after %v; the next try goes on with it", fetchTimeout))
	defer cancel()
	published, err := c.fetch(ctx, d)
	if err == nil {
		err = c.place(at, d, published)
	}
	if err != nil {
		return fmt.Errorf("cannot keep runner release %s for %s: %w", d.Version, at, err)
	}
	c.opt.Log.Info("release of the runner program is on this host", "platform", at.String(), "version", d.Version)
	return nil
}
