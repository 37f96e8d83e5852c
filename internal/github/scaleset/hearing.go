package scaleset

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/actions/scaleset"

	"github.com/mirego/tasuki/internal/base/backoff"
	"github.com/mirego/tasuki/internal/wait"
)

// hearing is one session of a scale set. It belongs to one goroutine.
type hearing struct {
	s    *Set
	g    *generation
	open session
	gone bool // GitHub knows the session no more
}

// run hears messages until the session breaks or ctx ends; nil: the set is no
// more.
func (l *hearing) run(ctx context.Context) error {
	failures, slow := 0, 0
	for ctx.Err() == nil {
		if over, err := l.drained(ctx); over || err != nil {
			return err
		}
		err := l.hear(ctx)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err == nil:
			if failures > 0 {
				l.s.report(l.g, wait.Reason{})
			}
			failures, slow = 0, 0
			continue
		case errors.Is(err, errClosed):
			return err
		case errors.Is(err, errSlow):
			if slow++; slow == maxSlow {
				return err
			}
			continue
		}
		failures++
		if c := statusOf(err); failures >= fewFailures && c >= 400 && c < 500 && c != http.StatusTooManyRequests {
			return errors.Join(errClosed, err) // the session may be over under another word
		}
		pause := l.s.failed(l.g, err, failures, time.Now())
		if backoff.Sleep(ctx, pause) != nil {
			return context.Cause(ctx)
		}
	}
	return context.Cause(ctx)
}

// hear polls once and deals with what came.
func (l *hearing) hear(ctx context.Context) error {
	if err := l.settle(ctx); err != nil {
		return err
	}
	var m *message
	asked, changed := time.Now(), false
	err := l.tried(ctx, func(ctx context.Context) (err error) {
		wait, stop := context.WithCancelCause(ctx)
		defer stop(nil)
		if l.draining() {
			end := time.AfterFunc(drainPace, func() { stop(errInterrupted) })
			defer end.Stop()
		}
		l.interruptible(func() { stop(errInterrupted) })
		last, capacity := l.asking() // after that: what changes from now on interrupts
		m, err = l.s.svc.poll(wait, l.open, last, capacity)
		if errors.Is(err, errInterrupted) {
			changed, err = true, nil // the next poll announces something else
		}
		return err
	})
	if err != nil {
		return err
	}
	if m == nil {
		if !changed && time.Since(asked) < leastPoll { // an empty 200, at once
			_ = backoff.Sleep(ctx, leastPoll)
		}
		return l.recount(ctx)
	}
	return l.handle(ctx, m)
}

func (l *hearing) draining() bool {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	return l.s.giving(l.g)
}

var errInterrupted = errors.New("what the set announces has changed")

func (l *hearing) interruptible(interrupt func()) {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	l.g.interrupt = interrupt
}

// asking returns the last message that was dealt with, and how many jobs the set
// may hold. That is the same number however many run: GitHub takes it as a
// total, and keeps jobs for ever from a set that announces 0.
func (l *hearing) asking() (last int64, capacity int) {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	if l.s.drained || l.s.giving(l.g) {
		return l.g.Cursor, 0
	}
	return l.g.Cursor, max(l.s.settings.Capacity, 1)
}

// tried calls with the session's token, and once more with a new one. The error
// is errClosed if the session is over.
func (l *hearing) tried(ctx context.Context, call func(context.Context) error) error {
	err := call(ctx)
	if statusOf(err) == http.StatusUnauthorized {
		next, failed := l.s.svc.refresh(ctx, l.open)
		switch {
		case failed == nil:
			l.open = next
			l.statistics(next.statistics)
			err = call(ctx)
		case statusOf(failed) != 0 && statusOf(failed) < http.StatusInternalServerError:
			l.gone = true
			return errors.Join(errClosed, failed)
		default:
			return failed
		}
	}
	switch statusOf(err) {
	case http.StatusUnauthorized, http.StatusNotFound, http.StatusGone:
		return errors.Join(errClosed, err)
	}
	if e, ok := errors.AsType[*Error](err); ok && (strings.Contains(e.Type, "SessionExpired") || strings.Contains(e.Type, "SessionNotFound")) {
		return errors.Join(errClosed, err)
	}
	return err
}

// statistics takes figures over that came without a message; nil: none came.
func (l *hearing) statistics(f *scaleset.RunnerScaleSetStatistic) {
	if f == nil {
		return
	}
	l.s.mu.Lock()
	l.g.count(*f, time.Now())
	l.s.mu.Unlock()
	l.s.changed()
}

// recount asks for statistics when none came for long: messages may be lost.
func (l *hearing) recount(ctx context.Context) error {
	l.s.mu.Lock()
	l.g.sweep(time.Now())
	due := time.Since(l.g.told) >= silence || l.s.giving(l.g)
	l.s.mu.Unlock()
	if !due {
		return nil
	}
	set, err := l.s.svc.set(ctx, l.g.ID)
	if err != nil {
		return err
	}
	l.statistics(set.Statistics)
	return nil
}

// handle deals with a message: jobs that are offered are taken, what it tells is
// written down, and only then is it acknowledged.
func (l *hearing) handle(ctx context.Context, m *message) error {
	s, g := l.s, l.g
	if err := l.acquire(ctx, m); err != nil {
		return err
	}
	s.mu.Lock()
	var all []news
	before := g.Cursor
	if m.id > before {
		all = g.apply(m, s.svc.client.Web(), time.Now())
		g.Cursor = m.id
		s.remember(all)
	}
	if m.unread > 0 {
		g.told = time.Time{} // figures are asked for at the next silence
	}
	s.mu.Unlock()
	if m.unread > 0 {
		s.log.Warn("job messages cannot be read and are left out", "scale_set", g.Name, "message", m.id, "count", m.unread)
	}
	if m.id <= before {
		// Dealt with, whoever sends it again; not at any pace.
		err := l.acknowledge(ctx, m.id)
		_ = backoff.Sleep(ctx, leastPoll)
		return err
	}
	if err := s.save(); err != nil {
		s.tell(all) // it is told once: the book has it when the message comes again
		s.mu.Lock()
		g.Cursor = before // so that it comes again; what it told is in the book once
		s.mu.Unlock()
		return err
	}
	s.tell(all)
	return l.settle(ctx)
}

// settle acknowledges the last message that was dealt with, unless GitHub knows.
func (l *hearing) settle(ctx context.Context) error {
	l.s.mu.Lock()
	last, known := l.g.Cursor, l.g.Acknowledged
	l.s.mu.Unlock()
	if last == known {
		return nil
	}
	if err := l.acknowledge(ctx, last); err != nil {
		return err
	}
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	l.g.Acknowledged = last // written down with the next message, or at the end
	return nil
}

// acknowledge ends a message. One that GitHub does not know, any more, is ended:
// whether the session is, the next poll says.
func (l *hearing) acknowledge(ctx context.Context, id int64) error {
	err := l.tried(ctx, func(ctx context.Context) error { return l.s.svc.acknowledge(ctx, l.open, id) })
	switch code := statusOf(err); {
	case err == nil || l.gone:
		return err
	case code == http.StatusBadRequest, code == http.StatusNotFound, code == http.StatusGone:
		l.s.log.Info("a message was not there to be acknowledged", "scale_set", l.g.Name, "message", id, "err", err)
		return nil
	}
	return err
}

// acquire takes the jobs that a message offers, in the flow that has offers. A
// job without a number cannot be taken.
func (l *hearing) acquire(ctx context.Context, m *message) error {
	var ids []int64
	for _, j := range m.available {
		if j.RunnerRequestID != 0 {
			ids = append(ids, j.RunnerRequestID)
		}
	}
	if _, capacity := l.asking(); len(ids) == 0 || capacity == 0 {
		return nil
	}
	err := l.tried(ctx, func(ctx context.Context) error { return l.s.svc.acquire(ctx, l.open, ids) })
	if code := statusOf(err); !errors.Is(err, errClosed) && code >= 400 && code < 500 && code != http.StatusTooManyRequests {
		l.s.log.Warn("jobs that were offered could not be taken", "scale_set", l.g.Name, "err", err)
		return nil // they are offered again, or are somebody else's
	}
	return err
}

// drained ends a set that gives way to another, once it is empty.
func (l *hearing) drained(ctx context.Context) (over bool, err error) {
	s, g, now := l.s, l.g, time.Now()
	s.mu.Lock()
	draining := s.giving(g)
	f, fresh := g.figures, g.told.After(g.Draining)
	empty := fresh && len(g.waiting(now)) == 0 && len(g.Jobs) == 0 && f.TotalAssignedJobs == 0 && f.TotalRunningJobs == 0 &&
		(f.TotalRegisteredRunners == 0 || now.Sub(g.Draining) > drainPatience)
	g.dropping = draining && empty
	s.mu.Unlock()
	if !draining || !empty {
		return false, nil
	}
	l.close(ctx)
	return true, s.drop(ctx, g)
}

// close ends the session, if it is not over: the next agent meets no conflict.
func (l *hearing) close(ctx context.Context) {
	if l.gone {
		return
	}
	l.gone = true
	l.interruptible(func() {})
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	if err := l.s.svc.close(ctx, l.open); err != nil {
		l.s.log.Debug("the session was not closed and ends by itself", "scale_set", l.g.Name, "err", err)
	}
}
