package agent_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mirego/tasuki/internal/agent"
	"github.com/mirego/tasuki/internal/emulator"
	"github.com/mirego/tasuki/internal/event"
	"github.com/mirego/tasuki/internal/image"
	"github.com/mirego/tasuki/internal/runner"
	"github.com/mirego/tasuki/internal/vm/fake"
)

// tagged is a repository whose tag can be moved. The images are numbered.
type tagged struct {
	tag  atomic.Int64
	dirs []string // of their runner programs
}

func digestOf(n int64) string { return fmt.Sprintf("sha256:%064d", n) }

func (i *tagged) Image(_ context.Context, ref string, _ func(image.Progress)) (image.Local, error) {
	n := i.tag.Load()
	if _, digest, ok := strings.Cut(ref, "@"); ok {
		for n = 0; digestOf(n) != digest; n++ {
			if int(n) == len(i.dirs) {
				return image.Local{}, fmt.Errorf("no image %s", ref)
			}
		}
	}
	return image.Local{Digest: digestOf(n), Labels: map[string]string{
		image.LabelRunnerKind: "command", image.LabelRunnerDir: i.dirs[n], image.LabelUser: "runner",
	}}, nil
}

// newTagged has two good images, 0 and 2, and between them a bad one. Its tag
// names the first.
func newTagged(t *testing.T, w *world) *tagged {
	t.Helper()
	bad := t.TempDir()
	if err := os.WriteFile(filepath.Join(bad, "run"), []byte("#!/bin/sh\nexit 7\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	return &tagged{dirs: []string{w.program, bad, w.program}}
}

// runTagged runs a pool of two runners on images.
func (w *world) runTagged(images *tagged, heard *eventList) *host {
	return w.run(fake.Faults{}, func(o *agent.Options) {
		o.Slots, o.Pools[0].Spec.Standby = 3, 2
		o.Pools[0].Images, o.Events, o.ImageRefresh = images, heard, 200*time.Millisecond
	})
}

// made returns how many runners were made from an image, and how many of them
// before the first event of a kind.
func (l *eventList) made(n int64, before event.Kind) (all, early int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	seen := false
	for _, e := range l.seen {
		seen = seen || e.Kind == before
		if e.Kind != event.RunnerMoved || e.To != runner.Preparing || e.Image != digestOf(n) {
			continue
		}
		all++
		if !seen {
			early++
		}
	}
	return all, early
}

// entered counts the runners of an image that entered a state.
func (l *eventList) entered(n int64, s runner.State) (count int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.seen {
		if e.Kind == event.RunnerMoved && e.To == s && e.Image == digestOf(n) {
			count++
		}
	}
	return count
}

// image returns what a runner was made from.
func (l *eventList) image(name string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.seen {
		if e.Kind == event.RunnerMoved && e.Runner == name {
			return e.Image
		}
	}
	return ""
}

func (h *host) problems() string { return strings.Join(h.Status().Problems, "\n") }

// Exactly one runner is made from a new image before one of it worked.
func TestFirstRunnerOfAnImage(t *testing.T) {
	t.Parallel()
	w := newWorld(t, emulator.Options{})
	images, heard := newTagged(t, w), &eventList{}
	h := w.runTagged(images, heard)
	w.concluded(w.submit(1), "success")
	images.tag.Store(2)
	w.until("a runner of the new image listens", func() bool { return heard.entered(2, runner.Idle) == 1 })
	if d := h.Status().Pools[0].Digest; d != digestOf(0) {
		t.Errorf("the pool went over to %s before its runner worked", d)
	}
	for _, r := range h.Status().Runners {
		if r.State == runner.Idle && heard.image(r.Name) == digestOf(0) {
			if err := h.opt.Pools[0].Driver.Destroy(t.Context(), r.Name); err != nil {
				t.Fatal(err)
			}
		}
	}
	before := heard.entered(0, runner.Idle)
	w.until("another of the old one takes its place", func() bool { return heard.entered(0, runner.Idle) > before || heard.entered(2, runner.Idle) > 1 })
	for heard.count(event.ImageProven) == 0 {
		w.concluded(w.submit(3), "success")
	}
	w.until("the pool rolls", func() bool { return heard.entered(2, runner.Idle) >= 3 })
	if _, early := heard.made(2, event.ImageProven); early != 1 {
		t.Errorf("%d runners were made from the new image before one worked, want 1", early)
	}
	if d := h.Status().Pools[0].Digest; d != digestOf(2) {
		t.Errorf("the pool is on %s", d)
	}
	w.finish(h)
}

// A new image whose runners fail costs two of them: the pool stays on the one
// before by itself, and says so; the next one that the tag names is tried.
func TestBadImageRoll(t *testing.T) {
	t.Parallel()
	w := newWorld(t, emulator.Options{})
	images, heard := newTagged(t, w), &eventList{}
	h := w.runTagged(images, heard)
	w.concluded(w.submit(1), "success")
	images.tag.Store(1)
	w.until("the image is rejected", func() bool {
		return contains(h.problems(), "image "+digestOf(1)+" rejected: ", "; runs on the previous, "+digestOf(0))
	})
	w.concluded(w.submit(3), "success")
	if all, _ := heard.made(1, ""); all != 2 || heard.count(event.ImageRejected) != 1 {
		t.Errorf("%d runners of the bad image, rejected %d times; want 2, once", all, heard.count(event.ImageRejected))
	}
	images.tag.Store(2)
	w.until("the next image is tried", func() bool { return heard.entered(2, runner.Idle) == 1 })
	if p := h.problems(); p != "" {
		t.Errorf("problems: %s", p)
	}
	w.finish(h)
}

// A rejected image is not rolled again: not when the tag is asked, and not by
// the next agent.
func TestRerollOfTheBadImage(t *testing.T) {
	t.Parallel()
	w := newWorld(t, emulator.Options{})
	images, heard := newTagged(t, w), &eventList{}
	h := w.runTagged(images, heard)
	w.concluded(w.submit(1), "success")
	images.tag.Store(1)
	w.until("the image is rejected", func() bool { return heard.count(event.ImageRejected) == 1 })
	w.finish(h)

	again := &eventList{}
	h = w.runTagged(images, again)
	w.until("the next agent says why", func() bool {
		return contains(h.problems(), "image "+digestOf(1)+" rejected: ", "; runs on the previous, "+digestOf(0))
	})
	for range 3 {
		w.concluded(w.submit(2), "success")
	}
	for _, l := range []*eventList{heard, again} {
		want := 0
		if l == heard {
			want = 2
		}
		if all, _ := l.made(1, ""); all != want {
			t.Errorf("%d runners of the bad image, want %d", all, want)
		}
	}
	images.tag.Store(2)
	w.until("another image is tried", func() bool { return again.entered(2, runner.Idle) == 1 })
	w.finish(h)
}

// A person goes back, stays there whatever the tag names, and goes on.
func TestRollbackAndPin(t *testing.T) {
	t.Parallel()
	w := newWorld(t, emulator.Options{})
	images, heard := newTagged(t, w), &eventList{}
	h := w.runTagged(images, heard)
	if err := h.RollbackImage("fake"); !errors.Is(err, agent.ErrImage) {
		t.Errorf("rollback without a previous image: %v", err)
	}
	if err := h.PinImage("nope", ""); !errors.Is(err, agent.ErrNoPool) {
		t.Errorf("pin of no pool: %v", err)
	}
	if err := h.PinImage("fake", "latest"); !errors.Is(err, agent.ErrImage) {
		t.Errorf("pin to no digest: %v", err)
	}
	w.concluded(w.submit(1), "success")
	images.tag.Store(1)
	w.until("the image is rejected", func() bool { return h.Status().Pools[0].Rejected == digestOf(1) })
	for _, step := range []struct {
		name string
		do   func() error
		want int64
	}{
		{"pin", func() error { return h.PinImage("fake", digestOf(2)) }, 2},
		{"rollback", func() error { return h.RollbackImage("fake") }, 0},
	} {
		if err := step.do(); err != nil {
			t.Fatal(err)
		}
		w.until(step.name, func() bool {
			p := h.Status().Pools[0]
			return p.Digest == digestOf(step.want) && p.Pinned == p.Digest
		})
	}
	if err := h.PinImage("fake", digestOf(2)); err != nil {
		t.Fatal(err)
	}
	if err := h.RefreshImage("fake"); !errors.Is(err, agent.ErrImage) {
		t.Errorf("refresh of a pinned pool: %v", err)
	}
	if err := errors.Join(h.PinImage("fake", ""), h.RefreshImage("fake")); err != nil {
		t.Fatal(err)
	}
	if p := h.Status().Pools[0]; p.Rejected != "" || p.Pinned != "" {
		t.Errorf("after a refresh: rejected %q, pinned %q", p.Rejected, p.Pinned)
	}
	w.until("the rejected image is tried again", func() bool { all, _ := heard.made(1, ""); return all > 2 })
	w.finish(h)
}
