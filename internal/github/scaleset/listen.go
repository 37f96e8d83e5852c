package scaleset

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"time"

	"github.com/mirego/tasuki/internal/base/backoff"
	"github.com/mirego/tasuki/internal/github"
	"github.com/mirego/tasuki/internal/runner"
	"github.com/mirego/tasuki/internal/wait"
)

var (
	// failurePace is how long to wait after failures in a row.
	failurePace = backoff.Policy{First: time.Second, Most: time.Minute}
	// deniedPace is for refusals that only a person can mend.
	deniedPace = backoff.Policy{First: 5 * time.Second, Most: 5 * time.Minute}
	// conflictPace is for a session of our own that an agent before us left
	// open; it ends by itself, after some 50 s as measured by others.
	conflictPace = backoff.Policy{First: 2 * time.Second, Most: 20 * time.Second}
	// foreignPace is for a session of somebody else.
	foreignPace = backoff.Policy{First: time.Minute, Most: 10 * time.Minute}
)

const (
	// closeTimeout bounds the good-bye of an agent that ends.
	closeTimeout = 5 * time.Second
	// leastPoll is the pace of polls that come back with nothing at once.
	leastPoll = time.Second
	// maxSlow is how many polls in a row may go unanswered until the session is
	// opened anew.
	maxSlow = 3
	// maxConflict is how long our own session of before may be in the way until
	// people are told.
	maxConflict = 2 * time.Minute
	// fewFailures in a row are not worth a word to people.
	fewFailures = 3
	// steady is how long a session must last for failures before it to be over.
	steady = time.Minute
	// silence is how long after the last statistics new ones are asked for.
	silence = 5 * time.Minute
	// drainPace is how often a set that drains is looked at.
	drainPace = 5 * time.Second
	// drainPatience is how long runners of a set that drains may stay.
	drainPatience = 15 * time.Minute
)

// ownerPrefix begins the names of our sessions' owners:
// tasuki-INSTALLATION-HOST.
const ownerPrefix = "tasuki-"

func (s *Set) owner() string { return ownerPrefix + s.opt.Installation + "-" + s.opt.Host }

// conflict says that the set's session is somebody's.
type conflict struct {
	owner string // as the service names it; empty: it does not
	ours  bool
	err   error
}

func (c *conflict) Error() string { return c.err.Error() }
func (c *conflict) Unwrap() error { return c.err }

var ownerForm = regexp.MustCompile(`session for owner ['"]?([^\s'"]+?)['"]?\.?(?:\s|$)`)

// holderOf reads whose session is in the way; nil: that is not it.
func holderOf(err error, installation string) *conflict {
	e, ok := errors.AsType[*Error](err)
	if !ok || e.Status != http.StatusConflict && !strings.Contains(e.Type, "SessionConflictException") {
		return nil
	}
	c := &conflict{err: err}
	if m := ownerForm.FindStringSubmatch(e.Message); m != nil {
		c.owner = m[1]
	}
	c.ours = strings.HasPrefix(c.owner, ownerPrefix+installation+"-")
	return c
}

// who is an owner in words.
func who(owner string) string {
	rest, ours := strings.CutPrefix(owner, ownerPrefix)
	installation, host, both := strings.Cut(rest, "-")
	switch {
	case ours && both:
		return fmt.Sprintf("installation %s on host %s", installation, host)
	case owner != "":
		return owner
	}
	return "somebody else"
}

// keep serves one scale set until ctx ends or the set is no more.
func (s *Set) keep(ctx context.Context, g *generation) {
	failures, since := 0, time.Now()
	for ctx.Err() == nil && s.has(g) {
		began := time.Now()
		heard, err := s.serve(ctx, g)
		if ctx.Err() != nil || err == nil {
			return
		}
		if heard && time.Since(began) > steady {
			failures, since = 0, time.Now()
		}
		if c, ok := errors.AsType[*conflict](err); ok && !c.ours && s.gives(g) {
			s.log.Info("a scale set that gives way is somebody else's by now", "scale_set", g.Base, "holder", who(c.owner))
			s.forget(g)
			return
		}
		failures++
		pause := s.failed(g, err, failures, since)
		if backoff.Sleep(ctx, pause) != nil {
			return
		}
	}
}

// gives says whether a set gives way to another that is there.
func (s *Set) gives(g *generation) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.giving(g)
}

// giving is gives for a caller that holds s.mu.
func (s *Set) giving(g *generation) bool {
	return !g.Draining.IsZero() && len(s.book.Sets) > 0 && s.book.Sets[0].ID != 0
}

// codeOf says why a set hears of nothing.
func codeOf(err error) wait.Code {
	var limit *github.LimitError
	switch {
	case errors.Is(err, runner.ErrDenied):
		return wait.Denied
	case errors.As(err, &limit):
		return wait.Limited
	}
	return wait.Other
}

// failed tells what went wrong and returns how long to wait.
func (s *Set) failed(g *generation, err error, failures int, since time.Time) time.Duration {
	s.log.Debug("listening failed", "scale_set", g.Base, "failures", failures, "err", err)
	var c *conflict
	if errors.As(err, &c) && !c.ours {
		s.held(g, who(c.owner), false)
		s.report(g, wait.Reason{Code: wait.SetHeld, Text: fmt.Sprintf("scale set %q is held by %s, and GitHub lets one host at a time listen to a set: "+
			"give this host's pool a scaleset name of its own, or use standby for a pool that several hosts share", g.Base, who(c.owner))})
		return foreignPace.Delay(failures, s.opt.Random)
	}
	if c != nil {
		s.held(g, "", true)
		if time.Since(since) > maxConflict {
			s.report(g, wait.Reason{Code: wait.SetHeld, Text: fmt.Sprintf("scale set %q: our own session of before is still open since %s; it is asked again until it ends",
				g.Base, since.UTC().Format("15:04:05 UTC"))})
		}
		return conflictPace.Delay(failures, s.opt.Random)
	}
	if errors.Is(err, errClosed) && failures < fewFailures {
		return failurePace.Delay(failures, s.opt.Random)
	}
	if failures >= fewFailures || g.ID == 0 || errors.Is(err, runner.ErrDenied) {
		s.report(g, wait.Reason{Code: codeOf(err), Text: fmt.Sprintf("scale set %q: %v", g.Base, err)})
	}
	pace := failurePace
	if errors.Is(err, runner.ErrDenied) {
		pace = deniedPace
	}
	return paced(err, pace.Delay(failures, s.opt.Random))
}

// paced is a pause, or what GitHub asked for if that is longer.
func paced(err error, pause time.Duration) time.Duration {
	var limit interface{ RetryAfter() time.Duration }
	if errors.As(err, &limit) {
		return max(pause, limit.RetryAfter())
	}
	return pause
}

// held keeps who else holds the session; "": it is ours, or an error hid whose.
func (s *Set) held(g *generation, holder string, known bool) {
	s.mu.Lock()
	before := *g
	g.holder, g.known = holder, g.known || known
	if holder != "" {
		g.known = false
	}
	same := before.holder == g.holder && before.known == g.known
	s.mu.Unlock()
	if !same {
		s.changed()
	}
}

// serve opens a session and hears messages until it breaks, and says whether a
// session was there. Without an error the set is no more.
func (s *Set) serve(ctx context.Context, g *generation) (heard bool, err error) {
	if err := s.ensure(ctx, g); err != nil {
		return false, err
	}
	open, err := s.svc.open(ctx, g.id(s), s.owner())
	if err != nil {
		if c := holderOf(err, s.opt.Installation); c != nil {
			return false, c
		}
		if statusOf(err) == http.StatusNotFound {
			s.lost(g)
		}
		return false, fmt.Errorf("cannot open its session: %w", err)
	}
	s.log.Info("listening to a scale set", "scale_set", g.Name, "id", g.ID, "session", open.id)
	l := &hearing{s: s, g: g, open: open}
	defer l.close(ctx)
	s.mu.Lock()
	g.Heard = true
	s.mu.Unlock()
	s.held(g, "", true)
	s.report(g, wait.Reason{})
	l.statistics(open.statistics)
	return true, l.run(ctx)
}

func (g *generation) id(s *Set) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return g.ID
}

// lost forgets a set that GitHub does not know any more: somebody deleted it, or
// nobody listened for a week.
func (s *Set) lost(g *generation) {
	s.log.Warn("the scale set is gone and is made anew", "scale_set", g.Name, "id", g.ID)
	if s.gives(g) {
		s.forget(g) // another serves
		return
	}
	s.mu.Lock()
	g.reset()
	s.mu.Unlock()
	if err := s.save(); err != nil {
		s.log.Error("cannot write down that the scale set is gone", "err", err)
	}
	s.changed()
}
