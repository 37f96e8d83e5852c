package transfer

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestLimiterKeepsTheRateOverAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLimiter(1000)
		start := time.Now()
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for range 50 {
					if err := l.wait(t.Context(), 50); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		// 10,000 bytes at 1000 a second, less what an idle limiter gives at once.
		if took := time.Since(start); took != 10*time.Second-burst {
			t.Errorf("10,000 bytes took %v", took)
		}
		time.Sleep(time.Hour) // idle time is not saved up
		start = time.Now()
		for range 20 {
			if err := l.wait(t.Context(), 100); err != nil {
				t.Error(err)
			}
		}
		if took := time.Since(start); took != 2*time.Second-burst {
			t.Errorf("2,000 bytes after an idle hour took %v", took)
		}
	})
}

func TestLimiterEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := NewLimiter(1).wait(ctx, 1000); err == nil {
			t.Error("a wait of 1000 s ended without an error")
		}
		if NewLimiter(0) != nil || (*Limiter)(nil).wait(ctx, 1<<30) != nil {
			t.Error("no limit is not one")
		}
	})
}

// Retry-After is the least; hosts that got the same answer are spread behind it.
func TestRetryAfterIsSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &client{opt: Options{}.withDefaults()}
		told := &statusError{code: 429, retryAfter: 20 * time.Second}
		seen := map[time.Duration]bool{}
		for range 50 {
			start := time.Now()
			if err := c.pause(t.Context(), "blob", 1, told); err != nil {
				t.Fatal(err)
			}
			took := time.Since(start)
			if took < 20*time.Second || took > 40*time.Second {
				t.Errorf("waited %v", took)
			}
			seen[took.Truncate(time.Second)] = true
		}
		if len(seen) < 10 {
			t.Errorf("50 hosts came back in %d different seconds", len(seen))
		}
	})
}
