package registry

import (
	"context"
	"sync"
)

// gate lets many writers in at once, or one sweep alone. Its zero value is open.
type gate struct {
	mu      sync.Mutex
	writers int
	shut    chan struct{} // not nil while a sweep waits or works; closed when it ends
	empty   chan struct{} // closed when the last writer leaves while the gate is shut
}

// enter lets a writer in, waiting for a sweep to end for as long as ctx lasts.
// The writer calls leave once.
func (g *gate) enter(ctx context.Context) (leave func(), ok bool) {
	for {
		g.mu.Lock()
		shut := g.shut
		if shut == nil {
			g.writers++
			g.mu.Unlock()
			return sync.OnceFunc(g.leave), true
		}
		g.mu.Unlock()
		select {
		case <-shut:
		case <-ctx.Done():
			return nil, false
		}
	}
}

func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.writers--
	if g.writers == 0 && g.empty != nil {
		close(g.empty)
		g.empty = nil
	}
}

// close keeps new writers out and waits until those inside have left. The
// caller opens the gate again. If ctx ends first the gate is open again and the
// cause is returned. One sweep at a time: callers hold a lock of their own.
func (g *gate) close(ctx context.Context) (open func(), err error) {
	g.mu.Lock()
	shut := make(chan struct{})
	g.shut = shut
	empty := make(chan struct{})
	if g.writers == 0 {
		close(empty)
	} else {
		g.empty = empty
	}
	g.mu.Unlock()
	open = sync.OnceFunc(func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.shut, g.empty = nil, nil
		close(shut)
	})
	select {
	case <-empty:
		return open, nil
	case <-ctx.Done():
		open()
		return nil, context.Cause(ctx)
	}
}
