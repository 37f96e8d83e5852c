package agent_test

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mirego/tasuki/internal/agent"
	"github.com/mirego/tasuki/internal/emulator"
	"github.com/mirego/tasuki/internal/event"
	"github.com/mirego/tasuki/internal/image"
	"github.com/mirego/tasuki/internal/runner"
	"github.com/mirego/tasuki/internal/vm/fake"
)

// shelf is a store of images of 100 bytes each, on a disk of so many bytes. It
// outlives agents, as a disk does.
type shelf struct {
	*tagged
	mu    sync.Mutex
	disk  int64
	here  map[string]int // by digest: when it was used, as a count
	uses  int
	meant map[string]string // by reference: the digest of when it was asked
	held  map[string]int
	gate  chan struct{} // pulls wait until it is closed; nil: they do not
	pulls map[string]int
	room  func(context.Context, int64) error
}

func newShelf(images *tagged, disk int64) *shelf {
	return &shelf{tagged: images, disk: disk, here: map[string]int{}, meant: map[string]string{}, held: map[string]int{}, pulls: map[string]int{}}
}

func (s *shelf) free() int64 { return s.disk - 100*int64(len(s.here)) }

func (s *shelf) Image(ctx context.Context, ref string, progress func(image.Progress)) (image.Local, error) {
	img, err := s.tagged.Image(ctx, ref, nil)
	if err != nil {
		return img, err
	}
	s.mu.Lock()
	_, there := s.here[img.Digest]
	gate, short, room := s.gate, s.free() < 100, s.room
	s.mu.Unlock()
	if !there {
		progress(image.Progress{Total: 100})
		if short {
			if err := room(ctx, 100); err != nil {
				return image.Local{}, err
			}
		}
		if gate != nil {
			progress(image.Progress{Done: 40, Total: 100, Reused: 10})
			select {
			case <-gate:
			case <-ctx.Done():
				return image.Local{}, ctx.Err()
			}
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !there && s.free() < 100 {
		return image.Local{}, fmt.Errorf("%w: 100 bytes", image.ErrNoSpace)
	}
	if !there {
		s.pulls[img.Digest]++
		s.use(img.Digest)
	}
	s.meant[ref] = img.Digest
	return img, nil
}

// use notes a use. The caller holds s.mu.
func (s *shelf) use(digest string) {
	s.uses++
	s.here[digest] = s.uses
}

func (s *shelf) Local(ref string) (image.Local, bool) {
	s.mu.Lock()
	digest := s.meant[ref]
	if _, d, ok := strings.Cut(ref, "@"); ok {
		digest = d
	}
	_, there := s.here[digest]
	s.mu.Unlock()
	if !there {
		return image.Local{}, false
	}
	img, err := s.tagged.Image(context.Background(), "@"+digest, nil)
	return img, err == nil
}

func (s *shelf) Hold(digest string) (func(), error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, there := s.here[digest]; !there {
		return nil, fmt.Errorf("cannot hold: %w", image.ErrNotFound)
	}
	s.use(digest)
	s.held[digest]++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.held[digest]--
	}, nil
}

func (s *shelf) Prune(_ context.Context, keep image.Retention) (done image.Pruned, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []image.Stored
	for digest, used := range s.here {
		all = append(all, image.Stored{Local: image.Local{Digest: digest}, Size: 100, LastUsed: time.Unix(int64(used), 0), InUse: s.held[digest] > 0})
	}
	for _, img := range keep.Excess(all, s.free()) {
		delete(s.here, img.Digest)
		done.Images = append(done.Images, img)
	}
	done.Free = s.free()
	return done, nil
}

func (s *shelf) AskRoom(room func(context.Context, int64) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.room = room
}

// close lets pulls wait; the returned function ends that.
func (s *shelf) close() (open func()) {
	gate := make(chan struct{})
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gate = gate
	return func() { close(gate) }
}

// has lists the numbers of the images that are there.
func (s *shelf) has() []int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []int64
	for n := range s.dirs {
		if _, there := s.here[digestOf(int64(n))]; there {
			out = append(out, int64(n))
		}
	}
	return out
}

func (s *shelf) anyHeld() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	held := maps.Clone(s.held)
	maps.DeleteFunc(held, func(_ string, n int) bool { return n == 0 })
	return slices.Sorted(maps.Keys(held))
}

// runOn runs a pool of one runner on a shelf.
func (w *world) runOn(s *shelf, heard *eventList, change func(*agent.Options)) *host {
	return w.run(fake.Faults{}, func(o *agent.Options) {
		o.Slots, o.Pools[0].Spec.Standby, o.Pools[0].Spec.Image = 2, 1, "r.example.com/linux:stable"
		o.Pools[0].Images, o.Events, o.ImageRefresh = s, heard, 200*time.Millisecond
		if change != nil {
			change(o)
		}
	})
}

// proven waits until a pool is on an image that a runner proved.
func (w *world) proven(h *host, heard *eventList, n int64) {
	w.t.Helper()
	w.until(fmt.Sprintf("image %d works", n), func() bool {
		return h.Status().Pools[0].Digest == digestOf(n) && heard.entered(n, runner.Busy) > 0
	})
}

// Incident pull-on-job-path: jobs waited for a pull, half an hour. While a newer
// image comes, and also when the agent was started anew meanwhile, runners are
// made from the one that is here.
func TestPullOnJobPath(t *testing.T) {
	t.Parallel()
	w := newWorld(t, emulator.Options{})
	s, heard := newShelf(newTagged(t, w), 1000), &eventList{}
	h := w.runOn(s, heard, nil)
	w.concluded(w.submit(1), "success")
	w.proven(h, heard, 0)

	open := s.close()
	s.tag.Store(2)
	w.until("the newer image is on its way", func() bool { return h.Status().Pools[0].Pulling != nil })
	w.concluded(w.submit(2), "success")
	w.finish(h)

	h = w.runOn(s, heard, nil)
	w.until("the next agent pulls, too", func() bool { return h.Status().Pools[0].Pulling != nil })
	w.concluded(w.submit(2), "success")
	if p := h.Status().Pools[0]; p.Pulling == nil || p.Pulling.Done != 40 || p.Pulling.Total != 100 || p.Pulling.Reused != 10 || p.Digest != digestOf(0) {
		t.Errorf("while jobs ran: %+v on %s, want the pull of image 2 under way", p.Pulling, p.Digest)
	}
	open()
	w.concluded(w.submit(2), "success")
	w.until("the pool rolls", func() bool { return h.Status().Pools[0].Digest == digestOf(2) })
	w.finish(h)
	if held := s.anyHeld(); len(held) > 0 {
		t.Errorf("held after the end: %v", held)
	}
}

// A changed reference in the configuration is one more image to be tried: a bad
// one costs two runners, and what worked before is gone back to by name.
func TestAChangedReferenceIsTried(t *testing.T) {
	t.Parallel()
	w := newWorld(t, emulator.Options{})
	s, heard := newShelf(newTagged(t, w), 1000), &eventList{}
	h := w.runOn(s, heard, nil)
	w.concluded(w.submit(1), "success")
	w.proven(h, heard, 0)
	change := func(ref string, n int64) {
		t.Helper()
		pools := slices.Clone(h.opt.Pools)
		pools[0].Spec.Image = ref
		s.tag.Store(n)
		if err := h.Reconfigure(pools, 2, 0); err != nil {
			t.Fatal(err)
		}
	}
	change("other.example.com/bad:1", 1)
	w.until("the other image is rejected", func() bool { return h.Status().Pools[0].Rejected == digestOf(1) })
	w.concluded(w.submit(2), "success")
	if all, _ := heard.made(1, ""); all != 2 {
		t.Errorf("%d runners were made from the bad image, want 2", all)
	}
	change("other.example.com/good:1", 2)
	w.until("the third is tried", func() bool { return heard.entered(2, runner.Preparing) == 1 })
	for heard.count(event.ImageProven) == 0 {
		w.concluded(w.submit(1), "success")
	}
	w.until("the pool goes over", func() bool {
		p := h.Status().Pools[0]
		return p.Digest == digestOf(2) && p.Previous == digestOf(0) && p.Rejected == ""
	})
	if err := h.RollbackImage("fake"); err != nil {
		t.Fatal(err)
	}
	w.until("the pool goes back", func() bool { return h.Status().Pools[0].Digest == digestOf(0) })
	s.mu.Lock()
	_, named := s.meant["r.example.com/linux:stable@"+digestOf(0)]
	s.mu.Unlock()
	if !named {
		t.Error("the image before was not asked for where it came from")
	}
	// Another reference ends a rollback, as a refresh does.
	change("r.example.com/linux:next", 2)
	w.until("the rollback is over", func() bool { return h.Status().Pools[0].Pinned == "" })
	w.finish(h)
}

// Incident reroll-of-the-bad-image, where the tag comes back to it.
func TestRerollOfTheBadImageLater(t *testing.T) {
	t.Parallel()
	w := newWorld(t, emulator.Options{})
	s, heard := newShelf(newTagged(t, w), 1000), &eventList{}
	h := w.runOn(s, heard, nil)
	w.concluded(w.submit(1), "success")
	w.proven(h, heard, 0)
	for range 2 {
		s.tag.Store(1)
		w.until("the image is rejected", func() bool { return h.Status().Pools[0].Rejected == digestOf(1) })
		s.tag.Store(0)
		w.until("the tag means the good one", func() bool { return h.Status().Pools[0].Rejected == "" })
	}
	if all, _ := heard.made(1, ""); all != 2 {
		t.Errorf("%d runners were made from the bad image, want 2", all)
	}
	if err := h.RefreshImage("fake"); err != nil {
		t.Fatal(err)
	}
	s.tag.Store(1)
	w.until("a person has it tried again", func() bool { all, _ := heard.made(1, ""); return all > 2 })
	w.finish(h)
}

// Incident disk-full, the part of the agent: it removes what nobody needs,
// before a pull that would not fit and to keep the floor, and nothing else.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	w := newWorld(t, emulator.Options{})
	images, heard := newTagged(t, w), &eventList{}
	for range 5 {
		images.dirs = append(images.dirs, w.program)
	}
	s := newShelf(images, 400)
	s.use(digestOf(6)) // somebody pulled them by hand
	s.use(digestOf(5))
	h := w.runOn(s, heard, nil)
	w.concluded(w.submit(1), "success")
	w.proven(h, heard, 0)
	roll := func(n int64) {
		t.Helper()
		s.tag.Store(n)
		for h.Status().Pools[0].Digest != digestOf(n) {
			w.concluded(w.submit(1), "success")
		}
		w.proven(h, heard, n)
	}
	roll(2)
	if got := s.has(); !slices.Equal(got, []int64{0, 2, 5, 6}) || heard.count(event.ImagePruned) > 0 {
		t.Errorf("with room for all: %v are there, %d went", got, heard.count(event.ImagePruned))
	}
	s.mu.Lock() // what nobody needs was used last
	s.use(digestOf(6))
	s.use(digestOf(5))
	s.mu.Unlock()
	s.tag.Store(1) // the bad one; it needs room
	w.until("it is rejected", func() bool { return h.Status().Pools[0].Rejected == digestOf(1) })
	if got := s.has(); !slices.Equal(got, []int64{0, 1, 2, 5}) {
		t.Errorf("%v are there, want the previous, the rejected, the proven, and the one that was used later", got)
	}
	if err := h.PinImage("fake", digestOf(3)); err != nil {
		t.Fatal(err)
	}
	w.until("the pool is on the pinned image", func() bool { return h.Status().Pools[0].Digest == digestOf(3) })
	if got := s.has(); !slices.Equal(got, []int64{0, 1, 2, 3}) {
		t.Errorf("%v are there: the last that nobody needs must have gone", got)
	}
	// All that is left is needed: the one pinned to, what worked, what worked
	// before, what the tag means. One more does not fit, and is told of, until a
	// job on the pinned image makes the oldest one nobody's.
	if err := h.PinImage("fake", digestOf(4)); err != nil {
		t.Fatal(err)
	}
	w.until("what does not fit is told", func() bool {
		return strings.Contains(h.problems(), image.ErrNoSpace.Error()) || slices.Contains(s.has(), 4)
	})
	for !slices.Contains(s.has(), 4) {
		w.concluded(w.submit(1), "success")
	}
	if got := s.has(); slices.Contains(got, 0) || !slices.Contains(got, 2) {
		t.Errorf("%v are there; the oldest had to make room, and not the one that worked before", got)
	}
	w.finish(h)
	if got := heard.count(event.ImagePruned); got < 3 {
		t.Errorf("%d images were told to have gone", got)
	}
}

// The floor is kept without a pull; where only needed images are left, that is
// told, and over when there is room again.
func TestTheFloorIsKept(t *testing.T) {
	t.Parallel()
	w := newWorld(t, emulator.Options{})
	s, heard := newShelf(newTagged(t, w), 400), &eventList{}
	s.use(digestOf(2))
	h := w.runOn(s, heard, func(o *agent.Options) { o.ImageFloor = 350 })
	w.until("what nobody needs is gone", func() bool { return slices.Equal(s.has(), []int64{0}) })
	w.until("the rest is told", func() bool {
		return contains(h.problems(), "room for images of pool fake: less than ", "every image that is left is needed")
	})
	s.mu.Lock()
	s.disk = 1000
	s.mu.Unlock()
	w.until("it is well again", func() bool { return h.problems() == "" })
	w.concluded(w.submit(1), "success")
	w.finish(h)
}

// What the guest of an adopted runner is a clone of stays, also when its pool
// went on to other images meanwhile.
func TestAdoptedGuestsKeepTheirImage(t *testing.T) {
	t.Parallel()
	w := newWorld(t, emulator.Options{})
	w.program = programDir(t, "20s")
	images, heard := newTagged(t, w), &eventList{}
	s := newShelf(images, 1000)
	h := w.runOn(s, heard, nil)
	run := w.submit(1)
	busy := w.runner(h, runner.Busy)
	h.end()
	if err := <-h.done; err != nil {
		t.Fatal(err)
	}
	if held := s.anyHeld(); len(held) > 0 {
		t.Errorf("the agent that ended holds %v", held)
	}
	// Nothing but the guest speaks for its image.
	if err := os.Remove(filepath.Join(w.home, "images.json")); err != nil {
		t.Fatal(err)
	}
	s.tag.Store(2)
	s.mu.Lock()
	s.meant = map[string]string{}
	s.mu.Unlock()
	h = w.runOn(s, heard, func(o *agent.Options) { o.ImageFloor = 1000 })
	w.until("the pool has its newest image", func() bool { return slices.Contains(s.has(), 2) })
	w.until("the floor was looked at", func() bool { return contains(h.problems(), "every image that is left is needed") })
	if r := w.runner(h, runner.Busy); r.Name != busy.Name || !slices.Contains(s.has(), 0) {
		t.Errorf("runner %s is busy, images %v are there; want %s and its image, 0", r.Name, s.has(), busy.Name)
	}
	w.concluded(run, "success")
	w.finish(h)
}

// A configuration that is taken over while a newer image is tried changes
// nothing about the trial.
func TestReloadWhileATrialRuns(t *testing.T) {
	t.Parallel()
	w := newWorld(t, emulator.Options{})
	s, heard := newShelf(newTagged(t, w), 1000), &eventList{}
	h := w.runOn(s, heard, nil)
	w.concluded(w.submit(1), "success")
	w.proven(h, heard, 0)
	s.tag.Store(1)
	w.until("the bad image is tried", func() bool { all, _ := heard.made(1, ""); return all > 0 })
	for heard.count(event.ImageRejected) == 0 {
		if err := h.Reconfigure(h.opt.Pools, 2, 0); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond)
	}
	w.concluded(w.submit(2), "success")
	if all, _ := heard.made(1, ""); all != 2 {
		t.Errorf("%d runners were made from the bad image, want 2", all)
	}
	if p := h.Status().Pools[0]; p.Digest != digestOf(0) || p.Rejected != digestOf(1) {
		t.Errorf("the pool is on %s, rejected %q", p.Digest, p.Rejected)
	}
	w.finish(h)
}

// An image that a person pinned a pool to and that is nowhere is told of; the
// pool goes on with the one that worked, also after a restart of the agent.
func TestAPinnedImageThatIsGone(t *testing.T) {
	t.Parallel()
	w := newWorld(t, emulator.Options{})
	s, heard := newShelf(newTagged(t, w), 1000), &eventList{}
	h := w.runOn(s, heard, nil)
	w.concluded(w.submit(1), "success")
	w.proven(h, heard, 0)
	if err := h.PinImage("fake", digestOf(77)); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		w.until("it is told", func() bool { return contains(h.problems(), "image of pool fake: no image", digestOf(77)) })
		w.concluded(w.submit(1), "success")
		if p := h.Status().Pools[0]; p.Digest != digestOf(0) || p.Pinned != digestOf(77) {
			t.Errorf("the pool is on %s, pinned to %s", p.Digest, p.Pinned)
		}
		w.finish(h)
		h = w.runOn(s, heard, nil)
	}
	if err := h.PinImage("fake", ""); err != nil {
		t.Fatal(err)
	}
	w.until("it is well again", func() bool { return h.problems() == "" })
	w.finish(h)
}

// The agent died after a newer image came and before any runner was made from
// it: the next one tries it first, too.
func TestDeathBetweenPullAndSwitch(t *testing.T) {
	t.Parallel()
	w := newWorld(t, emulator.Options{})
	s, heard := newShelf(newTagged(t, w), 1000), &eventList{}
	h := w.runOn(s, heard, nil)
	w.concluded(w.submit(1), "success")
	w.proven(h, heard, 0)
	w.finish(h)
	s.tag.Store(1) // the bad one
	s.mu.Lock()
	s.use(digestOf(1))
	s.meant["r.example.com/linux:stable"] = digestOf(1)
	s.mu.Unlock()
	h = w.runOn(s, heard, nil)
	w.until("it is rejected", func() bool { return h.Status().Pools[0].Rejected == digestOf(1) })
	w.concluded(w.submit(2), "success")
	if all, _ := heard.made(1, ""); all != 2 {
		t.Errorf("%d runners were made from the bad image, want 2", all)
	}
	w.finish(h)
}
