package agent_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/mirego/tasuki/internal/agent"
	"github.com/mirego/tasuki/internal/emulator"
	"github.com/mirego/tasuki/internal/event"
	"github.com/mirego/tasuki/internal/runner"
	"github.com/mirego/tasuki/internal/vm/fake"
)

// nameBook holds every name that a credential was asked for.
type nameBook struct {
	mu    sync.Mutex
	asked map[string]string // name to the host that asked
	twice []string
}

func (b *nameBook) note(name, host string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.asked == nil {
		b.asked = map[string]string{}
	}
	if by, known := b.asked[name]; known {
		b.twice = append(b.twice, fmt.Sprintf("%s by %s and %s", name, by, host))
	}
	b.asked[name] = host
}

type noting struct {
	agent.GitHub
	book *nameBook
	host string
}

func (n noting) Credential(ctx context.Context, r runner.Registration) (runner.Credential, error) {
	n.book.note(r.Name, n.host)
	return n.GitHub.Credential(ctx, r)
}

// Thirty hosts run one and the same configuration, host name included, against
// one GitHub: each job is executed once, no name is used twice, nobody takes
// away what another registered, and all go in peace.
func TestSameNameHostsThirty(t *testing.T) {
	t.Parallel()
	const hosts = 30
	w := newWorld(t, emulator.Options{LockDuration: 2 * time.Minute})
	book, heard := &nameBook{}, &eventList{}
	var agents []*host
	for i := range hosts {
		at := site{t.TempDir(), w.url, w.program, fmt.Sprintf("same%02d", i)}
		agents = append(agents, w.runAt(at, fake.Faults{}, func(o *agent.Options) {
			o.Events = heard
			// Thirty hosts on one machine: what they look at, they look at less often.
			o.Tick, o.Resync = time.Second, 3*time.Second
			o.Pools[0].GitHub = noting{o.Pools[0].GitHub, book, o.Installation}
		}))
	}
	w.until("each host has a runner that waits", func() bool {
		for _, h := range agents {
			if h.Status().Pools[0].Idle == 0 {
				return false
			}
		}
		return true
	})
	if got := len(w.em.State().Runners); got != hosts {
		t.Errorf("%d runners are registered, want %d", got, hosts)
	}
	w.concluded(w.submit(hosts+10), "success")
	for _, h := range agents {
		h.Shutdown()
	}
	for _, h := range agents {
		select {
		case <-h.done:
		case <-time.After(patience):
			t.Fatalf("a host does not end: %+v", h.Status().Runners)
		}
	}
	if len(book.twice) > 0 {
		t.Errorf("names that were used twice: %q", book.twice)
	}
	if n := heard.count(event.OrphanRemoved); n > 0 {
		t.Errorf("%d times somebody took away what nobody kept, and all was kept", n)
	}
	if left := w.em.State().Runners; len(left) > 0 {
		t.Errorf("registrations left: %+v", left)
	}
}
