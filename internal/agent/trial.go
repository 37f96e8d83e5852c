package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/mirego/tasuki/internal/base/atomicfile"
	"github.com/mirego/tasuki/internal/event"
	"github.com/mirego/tasuki/internal/image"
	"github.com/mirego/tasuki/internal/runner"
	"github.com/mirego/tasuki/internal/vm"
)

// imagesFile holds what is known of the pools' images: the next agent goes on
// with it.
const imagesFile = "images.json"

// trialFailures is how many first runners of a new image may fail in a row
// while the one before works.
const trialFailures = 2

// imageMemory is what is known of one pool's images, by digest.
type imageMemory struct {
	Ref      string `json:"ref"`                // as configured; of another reference nothing is known
	Proven   string `json:"proven,omitempty"`   // a runner of it waited or worked last
	Previous string `json:"previous,omitempty"` // proven before that
	Rejected string `json:"rejected,omitempty"` // its first runners failed; it is not tried again
	Why      string `json:"why,omitempty"`      // it was rejected
	Pinned   string `json:"pinned,omitempty"`   // a person wants this one, whatever the reference means
	// RolledBack: it is pinned by a rollback, which a refresh ends.
	RolledBack bool `json:"rolled_back,omitempty"`
}

// trial is a newer image that no runner of the pool has proven yet. One runner
// at a time is made from it; the others from the pool's image.
type trial struct {
	image.Local
	ready    bool      // its turn has come
	after    time.Time // and not before
	failures int       // its runners that failed in a row while the pool's image worked
}

// memory returns what is known of the pool's images. The caller holds a.mu.
func (a *Agent) memory(p *poolState) *imageMemory {
	m := a.memories[p.Spec.Name]
	if m == nil || m.Ref != p.Spec.Image {
		m = &imageMemory{Ref: p.Spec.Image}
		a.memories[p.Spec.Name] = m
	}
	return m
}

// found is what bringImages brought to this host.
type found struct {
	base   image.Local // what runners are made from while the newest is on trial
	newest image.Local
	pinned string // as imageMemory.Pinned when it was asked for
}

// bringImages brings to this host what the pool's reference means now, and the
// image that its runners are made from meanwhile: where nothing better is
// known, the same.
func (a *Agent) bringImages(ctx context.Context, p *poolState) (f found, err error) {
	bring := func(ref string) (image.Local, error) {
		return p.Images.Image(ctx, ref, func(done, total int64) {
			a.emit(event.Event{Kind: event.ImagePulling, Pool: p.Spec.Name, Image: ref, Done: done, Total: total})
		})
	}
	a.mu.Lock()
	m, has := *a.memory(p), p.hasImage
	f.base, f.pinned = p.image, m.Pinned
	a.mu.Unlock()
	ref := p.Spec.Image
	if m.Pinned != "" {
		ref = byDigest(ref, m.Pinned)
	}
	if f.newest, err = bring(ref); err != nil || has && m.Pinned == "" {
		return f, err
	}
	if m.Pinned != "" || m.Proven == "" || m.Proven == f.newest.Digest {
		f.base = f.newest
		return f, nil
	}
	f.base, err = bring(byDigest(ref, m.Proven))
	if err != nil && f.newest.Digest == m.Rejected {
		return f, fmt.Errorf("%s was rejected (%s), and the one before: %w", m.Rejected, m.Why, err)
	}
	if err != nil {
		a.log.Warn("the image before is not to be had: the new one is used untried", "pool", p.Spec.Name, "err", err)
		f.base = f.newest
	}
	return f, nil
}

// byDigest names an image of ref's repository.
func byDigest(ref, digest string) string {
	name, _, _ := strings.Cut(ref, "@")
	return name + "@" + digest
}

// imageReady takes over what bringImages found. A newer image is tried first,
// unless GitHub refuses the runner of the one before: then nothing is lost.
func (a *Agent) imageReady(p *poolState, f found) {
	a.mu.Lock()
	defer a.mu.Unlock()
	m := a.memory(p)
	if a.poolNamed(p.Spec.Name) != p || m.Pinned != f.pinned {
		return // a person changed it meanwhile
	}
	base, newest := f.base, f.newest
	if p.refused != nil && newest.Digest != m.Rejected {
		base = newest
	}
	news := !p.hasImage || p.image.Digest != base.Digest
	if news {
		p.works = base.Digest == m.Proven
	}
	p.image, p.hasImage, p.imageErr = base, true, ""
	if m.Pinned == "" && m.Rejected != "" && m.Rejected != newest.Digest {
		m.Rejected, m.Why = "", ""
		a.writeImages()
	}
	switch {
	case m.Pinned != "", newest.Digest == p.image.Digest, newest.Digest == m.Rejected:
		p.trial = nil
	case p.trial == nil || p.trial.Digest != newest.Digest:
		p.trial, news = &trial{Local: newest, ready: true}, true
	}
	a.setProblem(imageProblem(p), "")
	a.tellRejected(p)
	if news {
		a.emit(event.Event{Kind: event.ImageReady, Pool: p.Spec.Name, Image: newest.Digest})
		a.poke()
	}
}

// judge says for each pool with a new image whether its turn has come: first of
// all, and after a runner of it ended, once one of the pool's image listens. So
// both are tried in turn, and what fails with both is not the new one's fault.
// The caller holds a.mu.
func (a *Agent) judge(now time.Time) {
	for _, p := range a.pools {
		tried, serves := false, false
		for _, k := range a.keepers {
			rec := k.record()
			if rec.Pool != p.Spec.Name || rec.State.Ending() {
				continue
			}
			tried = tried || p.tries(rec.Image)
			serves = serves || rec.Image == p.image.Digest && (rec.State == runner.Idle || rec.State == runner.Busy)
		}
		p.works = p.works || serves
		if t := p.trial; t != nil {
			t.ready = !tried && (t.ready || serves && !now.Before(t.after))
		}
	}
}

// tries says whether a digest is that of the image under trial.
func (p *poolState) tries(digest string) bool { return p.trial != nil && p.trial.Digest == digest }

// nextImage returns what the next runner is made from. The caller holds a.mu.
func (a *Agent) nextImage(p *poolState) image.Local {
	if p.trial == nil || !p.trial.ready {
		return p.image
	}
	p.trial.ready = false
	a.emit(event.Event{Kind: event.ImageTried, Pool: p.Spec.Name, Image: p.trial.Digest})
	return p.trial.Local
}

// proved takes in that a runner of an image works. The caller holds a.mu.
func (a *Agent) proved(p *poolState, digest string) {
	if p.tries(digest) {
		p.image, p.trial = p.trial.Local, nil
		a.emit(event.Event{Kind: event.ImageProven, Pool: p.Spec.Name, Image: digest})
		a.poke()
	}
	if digest != p.image.Digest {
		return
	}
	p.works = true
	m := a.memory(p)
	if m.Proven == digest && m.Rejected != digest {
		return
	}
	if m.Proven != digest {
		m.Previous, m.Proven = m.Proven, digest
	}
	if m.Rejected == digest { // it was pinned all the same, and works
		m.Rejected, m.Why = "", ""
	}
	a.writeImages()
	a.tellRejected(p)
}

// disproved takes in that a runner of an image failed before it had a job. It
// reports whether that is the new image's fault, and so not the pool's. The
// caller holds a.mu.
func (a *Agent) disproved(p *poolState, rec runner.Record, err error) bool {
	switch {
	case p.trial == nil:
		p.works = p.works && rec.Image != p.image.Digest
		return false
	case rec.Image == p.image.Digest:
		p.works, p.trial.failures, p.trial.ready = false, 0, true
		return false
	case !p.tries(rec.Image) || !p.works || !blamesImage(rec.State, err):
		return false
	}
	t := p.trial
	t.failures++
	t.after = time.Now().Add(failurePace.Delay(t.failures, nil))
	if t.failures >= trialFailures {
		m := a.memory(p)
		m.Rejected, m.Why = t.Digest, rec.Failure
		p.trial = nil
		a.writeImages()
		a.tellRejected(p)
		a.emit(event.Event{Kind: event.ImageRejected, Pool: p.Spec.Name, Image: m.Rejected, Reason: m.Why, Failed: true})
	}
	a.poke()
	return true
}

// blamesImage says whether a failure can be the image's: that GitHub or the
// hypervisor refused is not.
func blamesImage(s runner.State, err error) bool {
	return s != runner.Preparing && s != runner.Requesting && !refused(err) && !errors.Is(err, vm.ErrLimit)
}

func trialProblem(p *poolState) string { return "new image of pool " + p.Spec.Name }

// tellRejected keeps the rejected image for people to see. The caller holds a.mu.
func (a *Agent) tellRejected(p *poolState) {
	text := ""
	if m := a.memory(p); m.Rejected != "" && m.Rejected != p.image.Digest {
		text = fmt.Sprintf("image %s rejected: %s; runs on the previous, %s (tasuki image refresh %s tries it again)",
			m.Rejected, m.Why, p.image.Digest, p.Spec.Name)
	}
	a.setProblem(trialProblem(p), text)
}

// writeImages makes durable what is known of the images. That it cannot is a
// problem and stops nothing. The caller holds a.mu.
func (a *Agent) writeImages() {
	text := ""
	if err := a.saveImages(); err != nil {
		text = err.Error()
	}
	a.setProblem(imagesFile, text)
}

func (a *Agent) saveImages() error {
	b, _ := json.MarshalIndent(a.memories, "", " ") // plain data
	if err := atomicfile.Write(filepath.Join(a.opt.Home, imagesFile), append(b, '\n'), 0o600); err != nil {
		return fmt.Errorf("cannot write down which images work: %w", err)
	}
	return nil
}

// readImages goes on with what the last agent knew. The caller holds a.mu.
func (a *Agent) readImages() error {
	path := filepath.Join(a.opt.Home, imagesFile)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = json.Unmarshal(b, &a.memories)
	}
	if err != nil {
		return fmt.Errorf("cannot read which images work from %q (without that file, nothing is known): %w", path, err)
	}
	if a.memories == nil {
		a.memories = map[string]*imageMemory{}
	}
	return nil
}
