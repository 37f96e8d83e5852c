package scaleset

import (
	"context"
	"errors"
	"time"

	"github.com/mirego/tasuki/internal/runner"
)

// Credential registers a runner with the set: with one that drains while that
// has jobs which no runner took and none is on its way for. The registration's
// group and labels are the set's. Errors: runner.ErrExists, runner.ErrDenied.
func (s *Set) Credential(ctx context.Context, r runner.Registration) (runner.Credential, error) {
	s.mu.Lock()
	g := s.book.Sets[0]
	for _, old := range s.serving() {
		if !old.Draining.IsZero() && old.ID != 0 && len(old.waiting(time.Now())) > old.idle() {
			g = old
		}
	}
	id, problem := g.ID, s.problem
	s.mu.Unlock()
	if id == 0 {
		return runner.Credential{}, errors.New("cannot register a runner: the scale set is not there yet" + suffix(problem.Text))
	}
	cred, err := s.svc.jit(ctx, id, r.Name, r.WorkFolder)
	if err != nil {
		return cred, err
	}
	s.mu.Lock()
	g.Runners[r.Name] = registered{cred.ID, time.Now().UTC()}
	s.mu.Unlock()
	if err := s.save(); err != nil {
		// It serves all the same; what it does is only told later.
		s.log.Warn("a runner was not written down", "runner", r.Name, "err", err)
	}
	return cred, nil
}

func suffix(problem string) string {
	if problem == "" {
		return ""
	}
	return ": " + problem
}

// Runners returns every runner of the scope, and compares them with the book.
func (s *Set) Runners(ctx context.Context) ([]runner.Remote, error) {
	asked := time.Now()
	all, err := s.svc.client.Runners(ctx)
	if err != nil {
		return nil, err
	}
	changed := false
	s.mu.Lock()
	for _, g := range s.book.Sets {
		changed = g.observe(all, asked) || changed
	}
	s.mu.Unlock()
	if changed {
		s.changed()
	}
	return all, nil
}

// Runner returns one runner; false: GitHub does not know it.
func (s *Set) Runner(ctx context.Context, id int64) (runner.Remote, bool, error) {
	r, there, err := s.svc.client.Runner(ctx, id)
	if err != nil {
		return r, there, err
	}
	changed := false
	s.mu.Lock()
	for _, g := range s.book.Sets {
		for name, known := range g.Runners {
			switch {
			case known.ID != id:
			case !there:
				changed = g.gone(name) || changed
			case r.Busy:
				changed = g.took(name, time.Now()) || changed
			}
		}
	}
	s.mu.Unlock()
	if changed {
		s.changed()
	}
	return r, there, nil
}

// Remove takes a runner away; see github.Client.
func (s *Set) Remove(ctx context.Context, id int64) error {
	if err := s.svc.client.Remove(ctx, id); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, g := range s.book.Sets {
		for name, known := range g.Runners {
			if known.ID == id {
				g.gone(name)
			}
		}
	}
	return nil
}

// Job returns the job that a runner took, as the set's messages told, or as the
// REST API tells where it can be searched. Messages do not tell a job's number.
func (s *Set) Job(ctx context.Context, name string, since time.Time) (runner.Job, bool, error) {
	s.mu.Lock()
	heard, ok := s.past[name]
	s.mu.Unlock()
	if ok && heard.Conclusion != "" {
		return heard, true, nil
	}
	found, there, err := s.svc.client.Job(ctx, name, since)
	if ok && (err != nil || !there) {
		return heard, true, nil
	}
	return found, there, err
}

// remember keeps what runners did lately. The caller holds s.mu.
func (s *Set) remember(all []news) {
	if len(s.past) > maxPast {
		clear(s.past)
	}
	for _, n := range all {
		s.past[n.runner] = n.job
	}
}

// tell tells the agent.
func (s *Set) tell(all []news) {
	s.mu.Lock()
	ear := s.ear
	s.mu.Unlock()
	for _, n := range all {
		switch {
		case n.over && ear.Completed != nil:
			ear.Completed(n.runner, n.job)
		case !n.over && ear.Started != nil:
			ear.Started(n.runner, n.job)
		}
	}
	if ear.Changed != nil {
		ear.Changed()
	}
}
