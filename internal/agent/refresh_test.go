package agent

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/mirego/tasuki/internal/event"
	"github.com/mirego/tasuki/internal/image"
	"github.com/mirego/tasuki/internal/pool"
)

// busyRegistry says when it wants to be asked again.
type busyRegistry struct{ after time.Duration }

func (b busyRegistry) Error() string             { return "429 Too Many Requests" }
func (b busyRegistry) RetryAfter() time.Duration { return b.after }

// Incident pull-storm: a host that is told to come back later does, with some
// spread; one that is told nothing comes back within the refresh.
func TestPullStorm(t *testing.T) {
	a := &Agent{opt: Options{ImageRefresh: time.Minute}}
	different := map[time.Duration]bool{}
	for range 50 {
		asked := fmt.Errorf("cannot resolve image r/x:1: %w", busyRegistry{5 * time.Minute})
		pause := a.refreshPause(1, asked)
		if pause < 5*time.Minute || pause > 5*time.Minute+30*time.Second {
			t.Fatalf("asked for 5m it comes back after %v", pause)
		}
		different[pause] = true
		for _, failures := range []int{1, 3, 100} {
			if pause := a.refreshPause(failures, errors.New("connection refused")); pause <= 0 || pause > 2*time.Minute {
				t.Fatalf("after %d failures it comes back after %v", failures, pause)
			}
		}
	}
	if len(different) < 10 {
		t.Errorf("50 hosts come back at %d moments", len(different))
	}
}

// What is remembered of a pool's images over what happens to them.
func TestImageMemory(t *testing.T) {
	m := imageMemory{Ref: "r/x:1"}
	m.proved("sha256:a", "r/x:1")
	m.means("sha256:b")
	m.reject("sha256:b", "it does not boot")
	m.means("sha256:c")
	if m.Rejected != "" {
		t.Errorf("the reference means another image, and %s counts as rejected", m.Rejected)
	}
	m.proved("sha256:c", "r/y:2")
	if m.Previous != "sha256:a" || m.refOf("sha256:a") != "r/x:1@sha256:a" || m.refOf("sha256:c") != "r/y:2@sha256:c" {
		t.Errorf("previous %s, by name %s; now %s", m.Previous, m.refOf("sha256:a"), m.refOf("sha256:c"))
	}
	m.means("sha256:b")
	if m.Rejected != "sha256:b" || m.Why != "it does not boot" {
		t.Errorf("the tag came back to the rejected image: %q, %q", m.Rejected, m.Why)
	}
	m.proved("sha256:b", "r/x:1") // somebody pinned it
	if m.Rejected != "" || len(m.Rejections) != 0 {
		t.Errorf("it works and is rejected: %q, %v", m.Rejected, m.Rejections)
	}
	for i := range 3 * mostRejections {
		m.reject(fmt.Sprint("sha256:", i), "no")
	}
	if len(m.Rejections) != mostRejections {
		t.Errorf("%d rejections are remembered", len(m.Rejections))
	}
}

// Everything that a pool may go to or back to is needed; a rejected image only
// until a newer one comes.
func TestNeededImages(t *testing.T) {
	m := imageMemory{
		Ref: "r/x:1", Newest: "sha256:bad", Rejected: "sha256:bad", Proven: "sha256:proven", Previous: "sha256:previous", Pinned: "sha256:pinned",
	}
	for _, newer := range []bool{false, true} {
		var keep image.Retention
		m.need(&keep, "linux", newer)
		for _, digest := range []string{m.Proven, m.Previous, m.Pinned} {
			if keep.Needed[digest] == "" {
				t.Errorf("%s may go", digest)
			}
		}
		if (keep.Needed[m.Rejected] != "") == newer {
			t.Errorf("a newer one comes: %v; the rejected is needed: %q", newer, keep.Needed[m.Rejected])
		}
	}
}

// A failure whose figures alone change is told once.
func TestAFailureIsToldOnce(t *testing.T) {
	var told []string
	a := &Agent{opt: Options{Events: sinkFunc(func(e event.Event) { told = append(told, e.Reason) })}, problems: map[string]string{}, log: slog.New(slog.DiscardHandler), wake: make(chan struct{}, 1)}
	p := &poolState{Pool: Pool{Spec: pool.Spec{Name: "linux"}}}
	a.pools = []*poolState{p}
	for _, text := range []string{"no space: 20 MB, 317 MB free", "no space: 20 MB, 42 MB free", "connection refused", "no space: 20 MB, 42 MB free"} {
		a.imageFailed(p, errors.New(text))
	}
	if want := []string{"no space: 20 MB, 317 MB free", "connection refused", "no space: 20 MB, 42 MB free"}; !slices.Equal(told, want) {
		t.Errorf("told %q, want %q", told, want)
	}
}

type sinkFunc func(event.Event)

func (f sinkFunc) Emit(e event.Event) { f(e) }
