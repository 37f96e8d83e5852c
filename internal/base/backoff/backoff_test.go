package backoff_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mirego/tasuki/internal/base/backoff"
)

func TestDelayDoublesWithinItsBounds(t *testing.T) {
	p := backoff.Policy{First: time.Second, Most: 10 * time.Second}
	for n, want := range map[int]time.Duration{1: time.Second, 2: 2 * time.Second, 4: 8 * time.Second, 5: 10 * time.Second, 1000: 10 * time.Second} {
		low := p.Delay(n, func() float64 { return 0 })
		high := p.Delay(n, func() float64 { return 0.999999 })
		if low != want/2 || high > want || high < want-time.Millisecond {
			t.Errorf("delay %d lies in %v..%v, want %v..%v", n, low, high, want/2, want)
		}
	}
}

func TestRetryEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		boom := errors.New("boom")
		tries := 0
		err := backoff.Policy{First: time.Second}.Retry(ctx, func(error) bool { return true }, func(context.Context) error {
			tries++
			return boom
		})
		if !errors.Is(err, boom) || tries < 3 || tries > 8 {
			t.Errorf("got %v after %d tries", err, tries)
		}
	})
}

func TestRetryStopsAtAFinalError(t *testing.T) {
	final := errors.New("no such image")
	tries := 0
	err := backoff.Policy{}.Retry(t.Context(), func(err error) bool { return !errors.Is(err, final) }, func(context.Context) error {
		tries++
		return final
	})
	if !errors.Is(err, final) || tries != 1 {
		t.Errorf("got %v after %d tries, want one", err, tries)
	}
}
