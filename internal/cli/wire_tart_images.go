package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/mirego/tasuki/internal/base/atomicfile"
	"github.com/mirego/tasuki/internal/image"
	"github.com/mirego/tasuki/internal/image/sparse"
	"github.com/mirego/tasuki/internal/image/transfer"
	"github.com/mirego/tasuki/internal/vm/tart"
)

// tartImages brings images into tart's own cache, by tart pull: by the digest
// that the registry names for a reference now. What it brought it removes again
// when nobody needs it; what others pulled stays. It implements
// agent.ImageStore.
type tartImages struct {
	driver   *tart.Driver
	registry *registryImages // knows how registries are spoken to
	file     string          // holds the book
	own      bool            // by our own transfer, not by tart pull
	log      *slog.Logger

	mu    sync.Mutex
	book  tartBook
	given map[string]bool // references that were answered once
	holds map[string]int  // by digest
	going map[string]bool // digests that are being removed
	room  func(ctx context.Context, need int64) error
}

// tartBook is what is known of images in tart's cache.
type tartBook struct {
	// Meant is what references meant when their registry was last asked.
	Meant map[string]tartMeant `json:"meant"`
	// Pulled are the images that we brought, by reference with digest.
	Pulled map[string]tartPulled `json:"pulled"`
}

type tartMeant struct {
	Digest string            `json:"digest"`
	Labels map[string]string `json:"labels"`
}

type tartPulled struct {
	Arrived time.Time `json:"arrived"`
	Used    time.Time `json:"used"`
}

func newTartImages(d *tart.Driver, registry *registryImages, file string) (*tartImages, error) {
	t := &tartImages{driver: d, registry: registry, file: file, log: registry.log, given: map[string]bool{}, holds: map[string]int{}, going: map[string]bool{}}
	data, err := os.ReadFile(file)
	switch {
	case err == nil:
		_ = json.Unmarshal(data, &t.book) // what cannot be read is asked for again
	case !errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("cannot read which images tart has: %w", err)
	}
	if t.book.Meant == nil {
		t.book.Meant = map[string]tartMeant{}
	}
	if t.book.Pulled == nil {
		t.book.Pulled = map[string]tartPulled{}
	}
	return t, nil
}

// Image asks the registry what ref means and pulls what is missing. When the
// agent has just started and the registry does not answer, what the reference
// meant last serves (incident registry-down-cached). No pool waits for
// another's pull.
func (t *tartImages) Image(ctx context.Context, ref string, progress func(image.Progress)) (image.Local, error) {
	parsed, err := image.Parse(ref)
	if err != nil {
		return image.Local{}, err
	}
	last, there := t.last(parsed)
	now, err := t.newest(ctx, parsed, last, there, progress)
	t.mu.Lock()
	defer t.mu.Unlock()
	if err != nil && ctx.Err() == nil && there && !t.given[ref] {
		t.log.Warn("registry does not answer; the image that it named last is used", "image", ref, "digest", last.Digest, "err", err)
		now, err = last, nil
	}
	if err != nil {
		return image.Local{}, err
	}
	if now.Digest != last.Digest || !there {
		t.book.Meant[ref] = now
		if err := t.write(); err != nil {
			return image.Local{}, err
		}
	}
	t.given[ref] = true
	return t.local(parsed, now), nil
}

// last returns what ref meant when the registry was last asked, if tart has it.
func (t *tartImages) last(ref image.Ref) (tartMeant, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	m := t.book.Meant[ref.String()]
	if m.Digest == "" && ref.Digest() != "" { // it was pulled under its tag
		for name, other := range t.book.Meant {
			if of, err := image.Parse(name); err == nil && other.Digest == ref.Digest() && of.Registry() == ref.Registry() && of.Name() == ref.Name() {
				m = other
			}
		}
	}
	return m, m.Digest != "" && t.driver.Cached(ref.WithDigest(m.Digest))
}

// local is the image as the agent knows it. The caller holds t.mu.
func (t *tartImages) local(ref image.Ref, m tartMeant) image.Local {
	return image.Local{Ref: ref, Digest: m.Digest, Labels: withRunner(m.Labels), Arrived: t.book.Pulled[ref.WithDigest(m.Digest).String()].Arrived}
}

// newest returns what the registry says, with the image in tart's cache.
func (t *tartImages) newest(ctx context.Context, ref image.Ref, last tartMeant, there bool, progress func(image.Progress)) (tartMeant, error) {
	opt := t.registry.options(ctx, ref, nil)
	if there {
		opt.Tries = 1
	}
	short, cancel := context.WithTimeoutCause(ctx, resolveTimeout, errors.New("the registry does not answer"))
	defer cancel()
	digest, err := transfer.Resolve(short, ref, opt)
	if err != nil || there && digest == last.Digest {
		return last, err
	}
	about, err := transfer.Inspect(short, ref.WithDigest(digest), opt)
	if err != nil {
		return last, err
	}
	now := tartMeant{Digest: digest, Labels: about.Labels}
	if t.driver.Cached(ref.WithDigest(digest)) {
		return now, nil
	}
	if err := t.makeRoom(ctx, about, there); err != nil {
		return last, fmt.Errorf("cannot pull image %s: %w", ref, err)
	}
	if t.own {
		err = t.transfer(ctx, ref.WithDigest(digest), progress)
	} else {
		login := tart.Login{Username: opt.Username, Password: opt.Password, HTTP: opt.Insecure || ref.Loopback()}
		err = t.driver.Pull(ctx, ref.WithDigest(digest), login, func(done, total int64) {
			if progress != nil { // tart tells percents
				progress(image.Progress{Done: about.Download * done / total, Total: about.Download})
			}
		})
	}
	if err != nil {
		return last, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	at := time.Now().UTC()
	t.book.Pulled[ref.WithDigest(digest).String()] = tartPulled{at, at}
	return now, t.write()
}

// transfer brings an image by our own pull, and puts it where tart has its own.
// The copy of it that is ours goes: where the file system shares space, nothing
// was copied.
func (t *tartImages) transfer(ctx context.Context, ref image.Ref, progress func(image.Progress)) error {
	s := t.registry.store
	_, err := s.Get(ref.Digest())
	ours := errors.Is(err, image.ErrNotFound) // else somebody wanted it there
	img, err := transfer.Pull(ctx, ref, s, t.registry.options(ctx, ref, progress))
	if err != nil {
		return err
	}
	release, err := s.Hold(ref.Digest())
	if err != nil {
		return err
	}
	err = t.driver.Admit(ctx, ref, img)
	release()
	if err != nil || !ours {
		return err
	}
	if err := s.Remove(ref.Digest()); err != nil && !errors.Is(err, image.ErrInUse) {
		t.log.Warn("image is here twice: in tart's cache and in ours", "image", ref.String(), "err", err)
	}
	return nil
}

// makeRoom refuses an image that may not fit, after what nobody needs is gone.
// Where runners can be made meanwhile, their guests' room comes first.
func (t *tartImages) makeRoom(ctx context.Context, about transfer.Inspection, there bool) error {
	need, spare := about.DiskSize-about.Zeros, int64(0)
	if data, err := strconv.ParseInt(about.Labels[image.LabelDiskData], 10, 64); err == nil && data > 0 {
		need = min(need, data)
	}
	if there {
		spare = t.registry.floor
	}
	free, err := t.free()
	if err != nil || free >= need+spare {
		return err
	}
	t.mu.Lock()
	room := t.room
	t.mu.Unlock()
	var noRoom error // it counts only where room lacks
	if room != nil {
		noRoom = room(ctx, need+spare)
	}
	if free, err = t.free(); err != nil || free >= need+spare {
		return err
	}
	if noRoom != nil {
		return fmt.Errorf("cannot free %d MB for its disk: %w", need>>20, noRoom)
	}
	return fmt.Errorf("%w: its disk may take %d MB more, and tart's cache has %d MB, of which %d MB are to stay free; tart list says what is there, tart prune removes what others pulled",
		image.ErrNoSpace, need>>20, free>>20, spare>>20)
}

func (t *tartImages) free() (int64, error) {
	disk, err := diskOf(t.driver.TartHome())
	return disk.Free, err
}

// Local implements agent.ImageStore.
func (t *tartImages) Local(ref string) (image.Local, bool) {
	parsed, err := image.Parse(ref)
	if err != nil {
		return image.Local{}, false
	}
	m, there := t.last(parsed)
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.local(parsed, m), there
}

// Hold implements agent.ImageStore. A clone under tart needs its image no more,
// and nobody but this agent removes what it brought, so a count is enough.
func (t *tartImages) Hold(digest string) (release func(), err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.going[digest] {
		return nil, fmt.Errorf("cannot hold image %s, which is being removed: %w", digest, image.ErrNotFound)
	}
	t.holds[digest]++
	for name, p := range t.book.Pulled {
		if ref, err := image.Parse(name); err == nil && ref.Digest() == digest {
			p.Used = time.Now().UTC()
			t.book.Pulled[name] = p // written with the next change: it is only an order
		}
	}
	return sync.OnceFunc(func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if t.holds[digest]--; t.holds[digest] <= 0 {
			delete(t.holds, digest)
		}
	}), nil
}

// claim says whether an image may be removed now; nobody can hold it then.
func (t *tartImages) claim(digest string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.holds[digest] > 0 {
		return false
	}
	t.going[digest] = true
	return true
}

// AskRoom implements agent.ImageStore.
func (t *tartImages) AskRoom(room func(ctx context.Context, need int64) error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.room = room
}

// Prune implements agent.ImageStore: of what was brought here, and nothing else.
func (t *tartImages) Prune(ctx context.Context, keep image.Retention) (done image.Pruned, err error) {
	before, freeErr := t.free()
	done.Free = before
	var stay []string // that cannot go: the others still do
	for ; freeErr == nil && ctx.Err() == nil && done.Free < keep.Floor; done.Free, freeErr = t.free() {
		excess := keep.Excess(slices.DeleteFunc(t.stored(), func(img image.Stored) bool {
			return slices.Contains(stay, img.Ref.String())
		}), done.Free)
		if len(excess) == 0 {
			break
		}
		img := excess[0]
		gone, removeErr := t.forget(ctx, img.Ref)
		if !gone {
			stay = append(stay, img.Ref.String())
		} else {
			done.Images = append(done.Images, img)
		}
		err = errors.Join(err, removeErr)
	}
	done.Freed = max(done.Free-before, 0)
	return done, errors.Join(err, freeErr)
}

// forget removes an image that nobody holds.
func (t *tartImages) forget(ctx context.Context, ref image.Ref) (gone bool, err error) {
	if !t.claim(ref.Digest()) {
		return false, nil
	}
	err = t.driver.Forget(ctx, ref)
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.going, ref.Digest())
	if err != nil {
		return false, err
	}
	delete(t.book.Pulled, ref.String())
	return true, t.write()
}

// stored lists what was brought here and is there still.
func (t *tartImages) stored() []image.Stored {
	t.mu.Lock()
	pulled, held := maps.Clone(t.book.Pulled), maps.Clone(t.holds)
	t.mu.Unlock()
	var out []image.Stored
	for name, p := range pulled {
		ref, err := image.Parse(name)
		if err != nil || !t.driver.Cached(ref) {
			continue
		}
		img := image.Stored{Local: image.Local{Ref: ref, Digest: ref.Digest(), Arrived: p.Arrived}, LastUsed: p.Used, InUse: held[ref.Digest()] > 0}
		_ = filepath.WalkDir(t.driver.CacheDir(ref), func(_ string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() {
				return nil //nolint:nilerr // what cannot be read does not count
			}
			if info, err := e.Info(); err == nil {
				img.Size += sparse.Allocated(info)
			}
			return nil
		})
		out = append(out, img)
	}
	return out
}

// write makes the book durable. The caller holds t.mu.
func (t *tartImages) write() error {
	maps.DeleteFunc(t.book.Pulled, func(name string, _ tartPulled) bool {
		ref, err := image.Parse(name)
		return err != nil || !t.driver.Cached(ref)
	})
	data, err := json.MarshalIndent(t.book, "", "  ")
	if err != nil {
		return err
	}
	return atomicfile.Write(t.file, append(data, '\n'), 0o600)
}

// withRunner says where the runner program is in an image that does not, as
// the public images for tart do not: ~/actions-runner.
func withRunner(labels map[string]string) map[string]string {
	out := map[string]string{image.LabelRunnerDir: "~/actions-runner", image.LabelRunnerKind: image.RunnerOfficial}
	maps.Copy(out, labels)
	return out
}
