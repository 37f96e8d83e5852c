package transfer

import (
	"context"
	"sync"
	"time"

	"github.com/mirego/tasuki/internal/base/backoff"
)

// Limiter bounds how many bytes a second pass, over all the transfers that it
// is given to. A nil Limiter bounds nothing. It may be used by several
// goroutines.
type Limiter struct {
	rate float64 // bytes a second

	mu   sync.Mutex
	free time.Time // when all that was let through has had its time
}

// burst is how far a limiter that was idle may run ahead.
const burst = 100 * time.Millisecond

// NewLimiter makes a limiter of so many bytes a second; nil if that is not
// positive.
func NewLimiter(bytesPerSecond int64) *Limiter {
	if bytesPerSecond <= 0 {
		return nil
	}
	return &Limiter{rate: float64(bytesPerSecond)}
}

// wait returns once n bytes may have passed.
func (l *Limiter) wait(ctx context.Context, n int) error {
	if l == nil || n <= 0 {
		return nil
	}
	l.mu.Lock()
	now := time.Now()
	if earliest := now.Add(-burst); l.free.Before(earliest) {
		l.free = earliest
	}
	l.free = l.free.Add(time.Duration(float64(n) / l.rate * float64(time.Second)))
	pause := l.free.Sub(now)
	l.mu.Unlock()
	if pause <= 0 {
		return nil
	}
	return backoff.Sleep(ctx, pause)
}
