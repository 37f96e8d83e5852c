package console

import (
	"context"
	"sync"
	"time"

	"github.com/mirego/tasuki/internal/base/backoff"
)

// checkEvery is how often the machine is looked at while somebody watches.
const checkEvery = 5 * time.Minute

// checks are the findings of the machine. They take seconds, so that they are
// looked for beside the pages.
type checks struct {
	look   func(context.Context) []Finding
	wanted chan struct{} // holds a value once somebody has asked

	mu    sync.Mutex
	found []Finding
	at    time.Time // of the last look; zero: none was made
}

// latest returns what was found last, and when.
func (k *checks) latest() ([]Finding, time.Time) {
	select {
	case k.wanted <- struct{}{}:
	default:
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.found, k.at
}

// run looks until ctx ends: again after a while, once somebody asks.
func (k *checks) run(ctx context.Context) {
	for k.look != nil {
		found := k.look(ctx)
		k.mu.Lock()
		k.found, k.at = found, time.Now()
		k.mu.Unlock()
		if backoff.Sleep(ctx, checkEvery) != nil {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-k.wanted:
		}
	}
}
