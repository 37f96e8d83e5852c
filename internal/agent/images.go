package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/mirego/tasuki/internal/event"
	"github.com/mirego/tasuki/internal/image"
	"github.com/mirego/tasuki/internal/vm"
)

// pruneTimeout bounds one removal of images that nobody needs.
const pruneTimeout = 10 * time.Minute

// ImageStore is Images that keep what they bring on this host's disk. The
// agent says what of it is needed, and has the rest removed when the disk fills.
type ImageStore interface {
	Images
	// Local returns the image that ref meant when its registry was last asked,
	// if it is here. It asks nobody.
	Local(ref string) (image.Local, bool)
	// Hold keeps an image from being removed by anybody until release is called
	// or this process ends. It counts as a use. Errors: image.ErrNotFound.
	Hold(digest string) (release func(), err error)
	// Prune removes images until keep.Floor bytes are free, as keep says.
	Prune(ctx context.Context, keep image.Retention) (image.Pruned, error)
	// AskRoom names who makes room when a pull needs more bytes than are free. It
	// is called before Image.
	AskRoom(room func(ctx context.Context, need int64) error)
}

// holdKey is an image in a store.
type holdKey struct {
	store  ImageStore
	digest string
}

// hold keeps an image for so many pools and runners.
type hold struct {
	users   int
	release func()
}

// acquire holds an image, so that nobody removes it; letGo ends that. The error
// wraps image.ErrNotFound if somebody did already. Images without a store need
// no hold. It may wait a moment.
func (a *Agent) acquire(images Images, digest string) error {
	store, ok := images.(ImageStore)
	if !ok {
		return nil
	}
	a.mu.Lock()
	shared := a.share(images, digest)
	a.mu.Unlock()
	if shared {
		return nil
	}
	release, err := store.Hold(digest)
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.share(images, digest) { // somebody was faster
		release()
		return nil
	}
	a.holds[holdKey{store, digest}] = &hold{1, release}
	return nil
}

// share is acquire for an image that is held already; else it reports false.
// The caller holds a.mu.
func (a *Agent) share(images Images, digest string) bool {
	store, ok := images.(ImageStore)
	if !ok {
		return false
	}
	h := a.holds[holdKey{store, digest}]
	if h != nil {
		h.users++
	}
	return h != nil
}

// letGo ends one hold. The caller holds a.mu.
func (a *Agent) letGo(images Images, digest string) {
	store, ok := images.(ImageStore)
	if !ok {
		return
	}
	key := holdKey{store, digest}
	h := a.holds[key]
	if h == nil {
		return
	}
	if h.users--; h.users == 0 {
		delete(a.holds, key)
		h.release()
	}
}

func (a *Agent) letGoAll(images Images, digests []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, digest := range digests {
		a.letGo(images, digest)
	}
}

// holdFor holds for a pool what its next runners may be made from, and nothing
// else. Somebody holds them already. The caller holds a.mu.
func (a *Agent) holdFor(p *poolState, digests ...string) {
	old := p.held
	p.held = nil
	for _, digest := range digests {
		if a.share(p.Images, digest) {
			p.held = append(p.held, digest)
		}
	}
	for _, digest := range old {
		a.letGo(p.Images, digest)
	}
}

// releaseImages ends all holds: the next agent, or whoever prunes meanwhile,
// knows from the journal and the guests what is needed.
func (a *Agent) releaseImages() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for key, h := range a.holds {
		delete(a.holds, key)
		h.release()
	}
}

// holdImage holds what an adopted runner's guest is a clone of.
func (k *keeper) holdImage() {
	digest := k.record().Image
	if k.holds != "" || digest == "" {
		return
	}
	if err := k.a.acquire(k.pool.Images, digest); err != nil {
		k.a.log.Warn("the image of a guest is not held", "runner", k.name, "image", digest, "err", err)
		return
	}
	k.holds = digest
}

// watchStoreOf keeps the floor of free space where a pool's images are, by
// removing those that nobody needs. The caller holds a.mu.
func (a *Agent) watchStoreOf(p *poolState) {
	store, ok := p.Images.(ImageStore)
	if !ok || a.stores[store] {
		return
	}
	a.stores[store] = true
	store.AskRoom(func(ctx context.Context, need int64) error {
		_, err := a.prune(ctx, store, need, "a newer image needs the room")
		return err
	})
	ctx, source := a.life, "room for images of pool "+p.Spec.Name
	a.work.Go(func() {
		every(ctx, a.opt.ImageRefresh, func() { a.keepFloor(ctx, store, source) })
	})
}

// errUnseen: nothing may be removed before it is known what is needed.
var errUnseen = errors.New("what guests there are is not known yet")

// keepFloor removes images that nobody needs until the floor holds.
func (a *Agent) keepFloor(ctx context.Context, store ImageStore, source string) {
	ctx, cancel := context.WithTimeoutCause(ctx, pruneTimeout, fmt.Errorf("removing images took longer than %v", pruneTimeout))
	defer cancel()
	done, err := a.prune(ctx, store, a.opt.ImageFloor, "the disk fills up")
	switch {
	case errors.Is(err, errUnseen), errors.Is(err, context.Canceled):
		return
	case err != nil:
		a.problem(source, fmt.Sprintf("cannot make room: %v", err))
	case done.Free < a.opt.ImageFloor:
		a.problem(source, fmt.Sprintf("less than %s are free, and every image that is left is needed; tasuki image prune --dry-run says for what", gigabytes(a.opt.ImageFloor)))
	default:
		a.problem(source, "")
	}
}

// prune removes images of a store that nobody needs until so many bytes are
// free, and tells of each.
func (a *Agent) prune(ctx context.Context, store ImageStore, floor int64, why string) (image.Pruned, error) {
	keep, known := a.retention(store)
	if !known {
		return image.Pruned{}, errUnseen
	}
	keep.Floor = floor
	done, err := store.Prune(ctx, keep)
	for _, img := range done.Images {
		a.log.Info("image removed", "image", img.Digest, "ref", img.Ref.String(), "bytes", img.Size, "last_used", img.LastUsed.UTC(), "reason", why)
		a.emit(event.Event{Kind: event.ImagePruned, Image: img.Digest, Done: img.Size, Reason: why})
	}
	for _, digest := range done.Partials {
		a.log.Info("what was left of a pull removed", "image", digest, "reason", why)
		a.emit(event.Event{Kind: event.ImagePruned, Image: digest, Reason: why + "; it never came to its end"})
	}
	return done, err
}

// retention says which images of a store are needed, and why; false: that is
// not known yet, since a hypervisor did not say which guests it has.
func (a *Agent) retention(store ImageStore) (image.Retention, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	var keep image.Retention
	for _, p := range a.pools {
		if p.Images != Images(store) {
			continue
		}
		keep.Need(p.image.Digest, fmt.Sprintf("pool %s runs on it", p.Spec.Name))
		if p.trial != nil {
			keep.Need(p.trial.Digest, fmt.Sprintf("pool %s tries it", p.Spec.Name))
		}
		m := a.memory(p)
		m.need(&keep, p.Spec.Name, p.pull != nil && p.pull.ref == p.Spec.Image)
	}
	for _, k := range a.keepers {
		keep.Need(k.record().Image, fmt.Sprintf("runner %s is made from it", k.name))
	}
	for name, rec := range a.stranded {
		keep.Need(rec.Image, fmt.Sprintf("runner %s is made from it", name))
	}
	for _, d := range a.drivers {
		if !d.listed {
			return keep, false
		}
		for _, g := range d.guests {
			keep.Need(g.Image, fmt.Sprintf("guest %s is a clone of it", g.Name))
		}
	}
	return keep, len(a.drivers) > 0
}

// sawGuests notes what a hypervisor listed. The caller holds a.mu.
func (s *driverState) sawGuests(guests []vm.Instance) { s.guests, s.listed = guests, true }

// gigabytes writes a size for people.
func gigabytes(n int64) string { return fmt.Sprintf("%.3g GB", float64(n)/1e9) }
