package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mirego/tasuki/internal/guest"
	"github.com/mirego/tasuki/internal/pool"
	"github.com/mirego/tasuki/internal/runner"
	"github.com/mirego/tasuki/internal/vm"
	"github.com/mirego/tasuki/internal/wait"
)

// gone is GitHub that notes whom it was told to remove.
type gone struct {
	scope
	removed []int64
}

func (g *gone) Remove(_ context.Context, id int64) error {
	g.removed = append(g.removed, id)
	g.list = slices.DeleteFunc(g.list, func(r runner.Remote) bool { return r.ID == id })
	return nil
}

// Registrations of ours that no guest backs go after their grace; those that may
// be at work, that we keep, or that are others' stay.
func TestOfflineOrphans(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _ := quiet(t)
		g := &gone{}
		g.list = []runner.Remote{
			{ID: 1, Name: orphan}, {ID: 2, Name: "tasuki-test-abc123-ios-bbbbbb", Busy: true},
			{ID: 3, Name: "tasuki-test-abc123-ios-cccccc"}, {ID: 4, Name: "tasuki-test-zzz999-ios-aaaaaa"}, {ID: 5, Name: "abc123"},
		}
		a.keepers["tasuki-test-abc123-ios-cccccc"] = a.newKeeper(Pool{GitHub: g}, "tasuki-test-abc123-ios-cccccc")
		state := &scopeState{}
		for range 3 { // 90 s: within the grace
			a.observeScope(t.Context(), g, state)
			time.Sleep(30 * time.Second)
		}
		a.work.Wait()
		if len(g.removed) > 0 {
			t.Errorf("removed %v within the grace", g.removed)
		}
		for range 4 {
			time.Sleep(30 * time.Second)
			a.observeScope(t.Context(), g, state)
			a.work.Wait()
		}
		if !slices.Equal(g.removed, []int64{1}) {
			t.Errorf("removed %v, want 1 alone", g.removed)
		}
	})
}

// GitHub loses sight of a runner whose job goes on: that ends nothing.
func TestOfflineButBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _ := quiet(t)
		k := a.newKeeper(Pool{Spec: pool.Spec{Name: "ios"}, GitHub: &scope{}}, orphan)
		k.follower = &follower{news: make(chan news, 1)}
		k.rec = runner.Record{Name: orphan, Pool: "ios", State: runner.Busy, RemoteID: 7, Job: runner.Job{Started: time.Now()}}
		k.entered = time.Now()
		left := make(chan string, 1)
		go func() {
			_, reason, _ := k.busy(t.Context())
			left <- reason
		}()
		for range 120 { // an hour
			k.observeRemote(runner.Remote{ID: 7}, true, time.Now())
			time.Sleep(30 * time.Second)
		}
		synctest.Wait()
		select {
		case reason := <-left:
			t.Fatalf("it left: %s", reason)
		default:
		}
		k.follower.news <- news{exit: &guest.Exit{Ended: true}}
		if reason := <-left; reason != "its job is over" {
			t.Errorf("it left because %q", reason)
		}
	})
}

// nothing is a driver of which nothing is asked but what it is.
type nothing struct{ vm.Driver }

func (nothing) Capabilities() vm.Capabilities {
	return vm.Capabilities{GuestOS: "linux", GuestArch: "amd64"}
}

// offer is a host that keeps one release.
type offer string

func (o offer) Latest(string, string) (runner.Release, bool) {
	return runner.Release{Version: string(o)}, true
}

// A pool whose runners' version GitHub refuses asks again slowly, and at once
// when its guests would run another.
func TestVersionDeprecatedPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, heard := quiet(t)
		p := &poolState{Pool: Pool{Spec: pool.Spec{Name: "ios", Runner: runner.FromImage}, Driver: nothing{}}, hasImage: true}
		p.image.Digest = "sha256:old"
		tries := 0
		for end := time.Now().Add(6 * time.Hour); time.Now().Before(end); time.Sleep(10 * time.Second) {
			a.reconsider(p)
			if !p.blocked(time.Now()).None() {
				continue
			}
			tries++
			for range 2 { // two of its runners meet it
				err := deprecated{version: "2.300.0", image: "sha256:old"}
				p.failed(err.Error(), err, time.Now(), time.Now())
				a.refuse(p, orphan, err, time.Now())
			}
		}
		if tries < 12 || tries > 40 || p.deprecated != 2*tries || len(heard.seen) != 2*tries {
			t.Errorf("%d tries in six hours (%d runners, %d events)", tries, p.deprecated, len(heard.seen))
		}
		err := deprecated{version: "2.300.0", image: "sha256:old"}
		for what, change := range map[string]func(){
			"another image":         func() { p.image.Digest = "sha256:new" },
			"a release of the host": func() { a.opt.Releases = offer("2.336.0") },
		} {
			p.Spec.Runner, p.image.Digest = runner.FromHost, "sha256:old"
			p.failed(err.Error(), err, time.Now(), time.Now())
			a.refuse(p, orphan, err, time.Now())
			a.reconsider(p)
			if p.blocked(time.Now()).None() {
				t.Errorf("before %s: not blocked", what)
			}
			change()
			a.reconsider(p)
			if why := p.blocked(time.Now()); !why.None() {
				t.Errorf("with %s: %s", what, why.Text)
			}
		}
	})
}

// What a pool waits for is told by the error, not read out of its words.
func TestKindOf(t *testing.T) {
	for want, err := range map[wait.Code]error{
		wait.Denied:     fmt.Errorf("cannot register: %w", runner.ErrDenied),
		wait.NoSlot:     fmt.Errorf("cannot start: %w", vm.ErrLimit),
		wait.Deprecated: fmt.Errorf("listening: %w", deprecated{version: "2.300.0"}),
		wait.Failing:    errors.New("GitHub refuses us, failed in a row"),
	} {
		if got := kindOf(err); got != want {
			t.Errorf("%v: %q, want %q", err, got, want)
		}
	}
}
