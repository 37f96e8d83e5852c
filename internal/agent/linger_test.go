package agent

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mirego/tasuki/internal/base/secret"
	"github.com/mirego/tasuki/internal/pool"
	"github.com/mirego/tasuki/internal/runner"
)

// noJournal forgets everything; nothing of these tests reads it.
type noJournal struct{}

func (noJournal) Put(runner.Record) error       { return nil }
func (noJournal) Delete(string) error           { return nil }
func (noJournal) All() ([]runner.Record, error) { return nil, nil }

// counting is GitHub that lets nobody go, and counts how often it was asked.
type counting struct {
	scope
	asked int
	after int // so many refusals it lets go; 0: never
}

func (c *counting) Remove(context.Context, int64) error {
	c.asked++
	if c.after > 0 && c.asked > c.after {
		return nil
	}
	return errors.New("502 Bad Gateway")
}

// An agent that ends asks GitHub once more to let a lingering runner go, however
// long it would have waited otherwise, and leaves the rest to the next agent.
func TestALastTryForALingeringRunner(t *testing.T) {
	for _, lets := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			a, err := New(Options{Host: "test", Installation: "abc123", Home: "/nowhere", Journal: noJournal{},
				NewKey: func() (secret.String, string, error) { return secret.String{}, "", errors.New("no keys here") }})
			if err != nil {
				t.Fatal(err)
			}
			life, end := context.WithCancel(t.Context())
			a.life = life
			g := &counting{}
			k := a.newKeeper(Pool{Spec: pool.Spec{Name: "ios"}, GitHub: g}, orphan)
			k.rec = runner.Record{Name: orphan, Pool: "ios", State: runner.Lingering, Since: time.Now(), RemoteID: 7, Asked: true}
			k.entered = time.Now()
			a.mu.Lock()
			a.keep(k)
			a.mu.Unlock()
			time.Sleep(2 * time.Hour)
			synctest.Wait()
			asked := g.asked
			if asked < 10 || asked > 40 {
				t.Errorf("GitHub was asked %d times in two hours", asked)
			}
			if lets {
				g.after = asked
			}
			a.Shutdown()
			if a.settled() {
				t.Error("nothing more to wait for, before GitHub was asked once more")
			}
			synctest.Wait()
			if !a.settled() || g.asked != asked+1 {
				t.Errorf("lets go %v: settled %v after %d more calls, want one", lets, a.settled(), g.asked-asked)
			}
			end()
			a.work.Wait()
		})
	}
}
