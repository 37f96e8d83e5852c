// Package namelock lets one operation at a time work on the thing of a name,
// within this process.
package namelock

import (
	"context"
	"sync"
)

// Set is a lock for each name. The zero value is ready; its methods may be
// called at the same time. A name that nobody uses costs nothing.
type Set struct {
	mu   sync.Mutex
	held map[string]*held
}

type held struct {
	taken chan struct{} // holds one token while the lock is taken, so that a wait can end with a context
	users int           // how many hold it or wait for it
}

// Lock waits for the lock of a name, or for the end of ctx, and then returns its
// cause. unlock must be called once.
func (s *Set) Lock(ctx context.Context, name string) (unlock func(), err error) {
	s.mu.Lock()
	h := s.held[name]
	if h == nil {
		h = &held{taken: make(chan struct{}, 1)}
		if s.held == nil {
			s.held = map[string]*held{}
		}
		s.held[name] = h
	}
	h.users++
	s.mu.Unlock()
	if ctx.Err() == nil {
		select {
		case h.taken <- struct{}{}:
			return func() { <-h.taken; s.leave(name, h) }, nil
		case <-ctx.Done():
		}
	}
	s.leave(name, h)
	return nil, context.Cause(ctx)
}

func (s *Set) leave(name string, h *held) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h.users--; h.users == 0 {
		delete(s.held, name)
	}
}

// Busy says whether somebody holds the lock of a name or waits for it.
func (s *Set) Busy(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.held[name] != nil
}
