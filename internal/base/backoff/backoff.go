// Package backoff says how long to wait before the next try.
//
// Delays double from First to Most, each with full jitter in its upper half,
// so that many hosts that failed together do not return together. The caller
// brings the randomness and does the waiting, so tests need no clock.
package backoff

import (
	"context"
	"math/rand/v2"
	"time"
)

// Policy is a pace of retries. The zero value waits 0.5 s, then doubles to 1 min.
type Policy struct {
	First time.Duration // delay after the first failure; 0 means 500 ms
	Most  time.Duration // no delay is longer; 0 means 1 min
}

// Delay returns the wait after the nth failure in a row (n from 1), between
// half and all of the nominal delay. random gives values in [0, 1); nil means
// math/rand/v2.
func (p Policy) Delay(n int, random func() float64) time.Duration {
	if random == nil {
		random = rand.Float64
	}
	first, most := p.First, p.Most
	if first <= 0 {
		first = 500 * time.Millisecond
	}
	if most <= 0 {
		most = time.Minute
	}
	d := first
	for range max(n, 1) - 1 {
		if d >= most/2 {
			d = most
			break
		}
		d *= 2
	}
	d = min(d, most)
	return d/2 + time.Duration(random()*float64(d/2))
}

// Sleep waits for d or until ctx ends, and then returns ctx's cause.
func Sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Retry calls try until it succeeds, until retry says that its error is final,
// or until ctx ends; between tries it waits as p says. It returns the last
// error of try. Bound it with a deadline in ctx.
func (p Policy) Retry(ctx context.Context, retry func(error) bool, try func(context.Context) error) error {
	for n := 1; ; n++ {
		err := try(ctx)
		if err == nil || !retry(err) {
			return err
		}
		if Sleep(ctx, p.Delay(n, nil)) != nil {
			return err
		}
	}
}
