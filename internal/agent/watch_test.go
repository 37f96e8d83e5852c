package agent

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mirego/tasuki/internal/base/secret"
	"github.com/mirego/tasuki/internal/event"
	"github.com/mirego/tasuki/internal/journal"
	"github.com/mirego/tasuki/internal/pool"
	"github.com/mirego/tasuki/internal/runner"
)

// scope is GitHub as these tests say.
type scope struct {
	GitHub
	list   []runner.Remote
	err    error
	remove error
}

func (s *scope) Runners(context.Context) ([]runner.Remote, error) { return s.list, s.err }
func (s *scope) Remove(context.Context, int64) error              { return s.remove }
func (s *scope) Runner(_ context.Context, id int64) (runner.Remote, bool, error) {
	for _, r := range s.list {
		if r.ID == id {
			return r, true, s.err
		}
	}
	return runner.Remote{}, false, s.err
}

type events struct {
	mu   sync.Mutex
	seen []event.Event
}

func (e *events) Emit(ev event.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.seen = append(e.seen, ev)
}

// quiet is an agent that does nothing by itself.
func quiet(t *testing.T) (*Agent, *events) {
	t.Helper()
	j, err := journal.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	heard := &events{}
	a, err := New(Options{
		Host: "test", Installation: "abc123", Home: t.TempDir(), Journal: j, Events: heard, Log: slog.New(slog.DiscardHandler),
		NewKey: func() (secret.String, string, error) { return secret.String{}, "", errors.New("no keys here") },
	})
	if err != nil {
		t.Fatal(err)
	}
	a.life = t.Context()
	return a, heard
}

const orphan = "tasuki-test-abc123-ios-aaaaaa"

// A registration that GitHub keeps because of its job was not removed.
func TestABusyOrphanIsNotCalledRemoved(t *testing.T) {
	t.Parallel()
	a, heard := quiet(t)
	g := &scope{list: []runner.Remote{{ID: 7, Name: orphan}}, remove: runner.ErrBusy}
	state := &scopeState{orphans: map[int64]time.Time{7: time.Now().Add(-time.Hour)}}
	a.observeScope(t.Context(), g, state)
	a.work.Wait()
	if len(heard.seen) > 0 {
		t.Errorf("told %+v, want nothing", heard.seen)
	}
	g.remove = nil
	a.observeScope(t.Context(), g, state)
	a.work.Wait()
	if len(heard.seen) != 1 || heard.seen[0].Kind != event.OrphanRemoved {
		t.Errorf("told %+v, want that it was removed", heard.seen)
	}
}

// What one scope answers says nothing of another.
func TestProblemsOfScopesAreKeptApart(t *testing.T) {
	t.Parallel()
	a, _ := quiet(t)
	a.observeScope(t.Context(), &scope{err: errors.New("502 Bad Gateway")}, &scopeState{name: "octo/bad"})
	a.observeScope(t.Context(), &scope{}, &scopeState{name: "octo/good"})
	if got := strings.Join(a.Status().Problems, "\n"); got != "github octo/bad: cannot list runners: 502 Bad Gateway" {
		t.Errorf("problems: %q", got)
	}
}

// What another installation registered stays, however long nobody here keeps it.
func TestSameNameHostsKeepTheirRegistrations(t *testing.T) {
	t.Parallel()
	a, heard := quiet(t)
	g := &scope{list: []runner.Remote{{ID: 7, Name: "tasuki-test-zzz999-ios-aaaaaa"}, {ID: 8, Name: "somebody-else"}}}
	old := time.Now().Add(-time.Hour)
	a.observeScope(t.Context(), g, &scopeState{orphans: map[int64]time.Time{7: old, 8: old}})
	a.work.Wait()
	if len(heard.seen) > 0 {
		t.Errorf("told %+v, want nothing", heard.seen)
	}
}

// A guest whose record was lost, and whose runner is at work, is left to
// finish; one that an old listing still holds ended well.
func TestWhoseGuestIsRemoved(t *testing.T) {
	t.Parallel()
	a, _ := quiet(t)
	a.started = time.Now()
	g := &scope{list: []runner.Remote{{ID: 7, Name: orphan, Busy: true}}}
	state := &scopeState{}
	a.scopes[g] = state
	if a.nobodys(orphan, time.Now()) {
		t.Error("a guest may be removed before GitHub was asked")
	}
	a.observeScope(t.Context(), g, state)
	if a.nobodys(orphan, time.Now()) {
		t.Error("a guest at work may be removed")
	}
	g.list = nil
	a.observeScope(t.Context(), g, state)
	if !a.nobodys(orphan, time.Now()) {
		t.Error("a guest of nobody's may not be removed")
	}
	a.ended[orphan] = time.Now()
	if a.nobodys(orphan, time.Now().Add(-time.Second)) {
		t.Error("a guest that ended after it was listed may be removed")
	}
}

// A runner that waits and that GitHub sees as offline never gets a job.
func TestARunnerThatStaysOffline(t *testing.T) {
	t.Parallel()
	a, _ := quiet(t)
	g := &scope{}
	k := a.newKeeper(Pool{Spec: pool.Spec{Name: "ios"}, GitHub: g}, orphan)
	k.follower = &follower{}
	k.rec.RemoteID, k.rec.State = 7, runner.Idle
	now := time.Now()
	k.entered = now.Add(-time.Hour)
	check := time.NewTimer(time.Hour)
	defer check.Stop()
	for _, c := range []struct {
		what string
		now  runner.Remote
		ago  time.Duration
		want string
	}{
		{"for a moment", runner.Remote{ID: 7}, time.Minute, ""},
		{"but it is back", runner.Remote{ID: 7, Online: true}, 10 * time.Minute, ""},
		{"but it is at work", runner.Remote{ID: 7, Busy: true}, 10 * time.Minute, ""},
		{"for long", runner.Remote{ID: 7}, 10 * time.Minute, "GitHub has seen it offline for 10m"},
	} {
		k.remote = remoteView{}
		k.observeRemote(runner.Remote{ID: 7}, true, now.Add(-c.ago))
		k.observeRemote(runner.Remote{ID: 7}, true, now)
		g.list = []runner.Remote{c.now}
		to, _, err := k.checkIdle(t.Context(), check)
		if got := errText(err); to != "" || !strings.HasPrefix(got, c.want) || (c.want == "") != (err == nil) {
			t.Errorf("offline, %s: to %q, %q, want %q", c.what, to, got, c.want)
		}
	}
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
