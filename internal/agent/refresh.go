package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/mirego/tasuki/internal/base/backoff"
	"github.com/mirego/tasuki/internal/event"
	"github.com/mirego/tasuki/internal/image"
)

// pullTold is how often an image on its way is an event.
const pullTold = time.Second

// pull is an image on its way to this host for a pool.
type pull struct {
	ref   string
	since time.Time
	at    time.Time      // when it was an event last
	told  image.Progress // and of what
	image.Progress
}

// watchImage keeps the pool's newest image on the host. A registry that does
// not answer costs the refresh and nothing else.
func (a *Agent) watchImage(ctx context.Context, p *poolState) {
	a.takeLocal(p)
	for failures := 0; ctx.Err() == nil; {
		f, err := a.bringImages(ctx, p)
		pause := a.opt.ImageRefresh/2 + time.Duration(float64(a.opt.ImageRefresh)*randomFraction())
		switch {
		case ctx.Err() != nil:
		case err != nil:
			failures++
			pause = a.refreshPause(failures, err)
			a.imageFailed(p, err)
		default:
			failures = 0
			a.imageReady(p, f)
		}
		a.letGoAll(p.Images, f.held)
		if !p.awaitRefresh(ctx, pause) {
			return
		}
	}
}

// refreshPause is how long a pool's registry is left alone after so many
// failures in a row: as long as it asks for, if it does (incident pull-storm).
func (a *Agent) refreshPause(failures int, err error) time.Duration {
	pause := backoff.Policy{First: time.Second, Most: max(a.opt.ImageRefresh, time.Second)}.Delay(failures, nil)
	var paced interface{ RetryAfter() time.Duration }
	if errors.As(err, &paced) && paced.RetryAfter() > pause {
		// Not before, and not with all the others who were told so.
		pause = paced.RetryAfter() + time.Duration(float64(a.opt.ImageRefresh/2)*randomFraction())
	}
	return pause
}

// found is what bringImages brought to this host.
type found struct {
	base   image.Local // what runners are made from while the newest is on trial
	from   string      // the reference that base came from
	newest image.Local
	pinned string   // as imageMemory.Pinned when it was asked for
	held   []string // digests that were held meanwhile
}

// takeLocal lets a pool that has no image begin at once with the one that it
// worked on last, or that its reference meant, if that is here: no job waits
// for a pull while there is an image (incident pull-on-job-path).
func (a *Agent) takeLocal(p *poolState) {
	store, ok := p.Images.(ImageStore)
	if !ok {
		return
	}
	a.mu.Lock()
	has, m := p.hasImage || a.poolNamed(p.Spec.Name) != p, imageMemory{}
	if !has {
		m = *a.memory(p)
	}
	a.mu.Unlock()
	if has {
		return
	}
	refs := []string{m.Ref}
	if m.Pinned+m.Proven != "" { // what the reference means may never have been tried
		refs = nil
	}
	for _, digest := range []string{m.Proven, m.Pinned} {
		if digest != "" {
			refs = slices.Insert(refs, 0, m.refOf(digest))
		}
	}
	for _, ref := range refs {
		img, here := store.Local(ref)
		if here && (img.Digest != m.Rejected || img.Digest == m.Pinned) && a.acquire(p.Images, img.Digest) == nil {
			a.begins(p, img, ref)
			a.letGoAll(p.Images, []string{img.Digest})
			return
		}
	}
}

// begins lets a pool begin with an image that was here.
func (a *Agent) begins(p *poolState, img image.Local, ref string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.poolNamed(p.Spec.Name) != p {
		return
	}
	p.image, p.from, p.hasImage, p.works = img, ref, true, img.Digest == a.memory(p).Proven
	a.holdFor(p, img.Digest)
	a.tellRejected(p)
	a.emit(event.Event{Kind: event.ImageReady, Pool: p.Spec.Name, Image: img.Digest})
	a.poke()
}

// bringImages brings to this host what the pool's reference means now, and the
// image that its runners are made from meanwhile: where nothing better is
// known, the same.
func (a *Agent) bringImages(ctx context.Context, p *poolState) (f found, err error) {
	a.mu.Lock()
	if a.poolNamed(p.Spec.Name) != p {
		a.mu.Unlock()
		return f, context.Canceled // the configuration was changed
	}
	m, has := *a.memory(p), p.hasImage
	f.base, f.from, f.pinned = p.image, p.from, m.Pinned
	a.mu.Unlock()
	bring := func(ref string) (image.Local, error) {
		img, err := a.bring(ctx, p, ref)
		if err == nil {
			if err = a.acquire(p.Images, img.Digest); err == nil {
				f.held = append(f.held, img.Digest)
			}
		}
		return img, err
	}
	ref := m.Ref
	if m.Pinned != "" {
		ref = m.refOf(m.Pinned)
	}
	if f.newest, err = bring(ref); err != nil || has && m.Pinned == "" {
		return f, err
	}
	if m.Pinned != "" || m.Proven == "" || m.Proven == f.newest.Digest {
		f.base, f.from = f.newest, ref
		return f, nil
	}
	f.from = m.refOf(m.Proven)
	f.base, err = bring(f.from)
	if err != nil && f.newest.Digest == m.Rejected {
		return f, fmt.Errorf("%s was rejected (%s), and the one before: %w", m.Rejected, m.Why, err)
	}
	if err != nil {
		a.log.Warn("the image before is not to be had: the new one is used untried", "pool", p.Spec.Name, "err", err)
		f.base, f.from = f.newest, ref
	}
	return f, nil
}

// bring brings one image, and tells how far it is.
func (a *Agent) bring(ctx context.Context, p *poolState, ref string) (image.Local, error) {
	defer func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		if p.pull != nil {
			a.tellPull(p)
		}
		p.pull = nil
	}()
	return p.Images.Image(ctx, ref, func(now image.Progress) {
		a.mu.Lock()
		defer a.mu.Unlock()
		if p.pull == nil {
			p.pull = &pull{ref: ref, since: time.Now()}
		}
		if p.pull.Progress = now; time.Since(p.pull.at) >= pullTold {
			a.tellPull(p)
		}
	})
}

// tellPull makes an event of how far a pool's pull is, if that is new. The
// caller holds a.mu.
func (a *Agent) tellPull(p *poolState) {
	now := p.pull.Progress
	if !p.pull.at.IsZero() && p.pull.told == now {
		return
	}
	p.pull.at, p.pull.told = time.Now(), now
	a.emit(event.Event{Kind: event.ImagePulling, Pool: p.Spec.Name, Image: p.pull.ref, Done: now.Done, Total: now.Total, Reused: now.Reused})
}

// imageReady takes over what bringImages found. A newer image is tried first,
// unless GitHub refuses the runner of the one before: then nothing is lost.
func (a *Agent) imageReady(p *poolState, f found) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.poolNamed(p.Spec.Name) != p {
		return
	}
	m := a.memory(p)
	if m.Pinned != f.pinned {
		return // a person changed it meanwhile
	}
	base, from, newest := f.base, f.from, f.newest
	if m.Pinned == "" && m.Newest != newest.Digest {
		m.means(newest.Digest)
		a.writeImages()
	}
	if p.refused != nil && newest.Digest != m.Rejected {
		base, from = newest, p.Spec.Image
	}
	news := !p.hasImage || p.image.Digest != base.Digest
	if news {
		p.works = base.Digest == m.Proven
	}
	p.image, p.from, p.hasImage, p.imageErr = base, from, true, ""
	switch {
	case m.Pinned != "", newest.Digest == p.image.Digest, newest.Digest == m.Rejected:
		p.trial = nil
	case p.trial == nil || p.trial.Digest != newest.Digest:
		p.trial, news = &trial{Local: newest, ready: true}, true
	}
	a.holdFor(p, base.Digest, newest.Digest)
	a.setProblem(imageProblem(p), "")
	a.tellRejected(p)
	if news {
		a.emit(event.Event{Kind: event.ImageReady, Pool: p.Spec.Name, Image: newest.Digest})
		a.poke()
	}
}

func imageProblem(p *poolState) string { return "image of pool " + p.Spec.Name }

func (a *Agent) imageFailed(p *poolState, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.poolNamed(p.Spec.Name) != p {
		return
	}
	// Figures in it, such as how much is free, are no news.
	if a.problems[imageProblem(p)] == "" || !sameWords(p.imageErr, err.Error()) {
		p.imageErr = err.Error()
		a.setProblem(imageProblem(p), err.Error())
		a.emit(event.Event{Kind: event.ImageFailed, Pool: p.Spec.Name, Image: p.Spec.Image, Reason: err.Error(), Failed: true})
		a.poke()
	}
}

// sameWords says whether two texts differ at most in their figures.
func sameWords(a, b string) bool {
	words := func(text string) string {
		return strings.Map(func(r rune) rune {
			if r >= '0' && r <= '9' {
				return -1
			}
			return r
		}, text)
	}
	return words(a) == words(b)
}
