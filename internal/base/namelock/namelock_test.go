package namelock_test

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/mirego/tasuki/internal/base/namelock"
)

func TestOneAtATimeForAName(t *testing.T) {
	var set namelock.Set
	var work sync.WaitGroup
	at, most := map[string]int{}, 0
	var mu sync.Mutex
	for n := range 40 {
		work.Go(func() {
			name := []string{"a", "b"}[n%2]
			unlock, err := set.Lock(t.Context(), name)
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			at[name]++
			most = max(most, at[name])
			mu.Unlock()
			runtime.Gosched() // the others may try meanwhile
			mu.Lock()
			at[name]--
			mu.Unlock()
			unlock()
		})
	}
	work.Wait()
	if most != 1 {
		t.Errorf("%d held one lock at once", most)
	}
	if set.Busy("a") || set.Busy("b") {
		t.Error("a lock that nobody holds is busy")
	}
}

func TestAWaitEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var set namelock.Set
		unlock, err := set.Lock(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		if !set.Busy("a") {
			t.Error("a lock that is held is not busy")
		}
		other, err := set.Lock(t.Context(), "b") // another name's is free
		if err != nil {
			t.Fatal(err)
		}
		other()
		enough := errors.New("enough")
		ctx, cancel := context.WithCancelCause(t.Context())
		ended := make(chan error)
		go func() {
			_, err := set.Lock(ctx, "a")
			ended <- err
		}()
		synctest.Wait()
		cancel(enough)
		if err := <-ended; !errors.Is(err, enough) {
			t.Errorf("Lock: %v, want the cause", err)
		}
		unlock()
		// One whose context has ended gets none, even if it is free.
		if _, err := set.Lock(ctx, "a"); !errors.Is(err, enough) || set.Busy("a") {
			t.Errorf("Lock: %v, busy: %v", err, set.Busy("a"))
		}
	})
}
