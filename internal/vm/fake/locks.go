package fake

import (
	"context"
	"sync"
)

// locks lets one operation at a time work on a guest, by name.
type locks struct {
	mu   sync.Mutex
	held map[string]*held
}

type held struct {
	turn chan struct{} // holds one token while the lock is free
	want int           // how many hold it or wait for it
}

// lock waits for the lock or the end of ctx.
func (l *locks) lock(ctx context.Context, name string) (unlock func(), err error) {
	l.mu.Lock()
	if l.held == nil {
		l.held = make(map[string]*held)
	}
	h := l.held[name]
	if h == nil {
		h = &held{turn: make(chan struct{}, 1)}
		h.turn <- struct{}{}
		l.held[name] = h
	}
	h.want++
	l.mu.Unlock()

	leave := func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if h.want--; h.want == 0 {
			delete(l.held, name)
		}
	}
	select {
	case <-h.turn:
		return func() { h.turn <- struct{}{}; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, context.Cause(ctx)
	}
}

// busy says whether an operation works on the guest.
func (l *locks) busy(name string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.held[name] != nil
}
