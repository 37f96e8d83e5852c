package agent

import (
	"errors"
	"fmt"
	"time"

	"github.com/mirego/tasuki/internal/event"
	"github.com/mirego/tasuki/internal/image"
	"github.com/mirego/tasuki/internal/runner"
	"github.com/mirego/tasuki/internal/vm"
)

// trialFailures is how many first runners of a new image may fail in a row
// while the one before works.
const trialFailures = 2

// trial is a newer image that no runner of the pool has proven yet. One runner
// at a time is made from it; the others from the pool's image.
type trial struct {
	image.Local
	ready    bool      // its turn has come
	after    time.Time // and not before
	failures int       // its runners that failed in a row while the pool's image worked
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
		p.image, p.trial, p.from = p.trial.Local, nil, p.Spec.Image
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
	m.proved(digest, p.from)
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
		m.reject(t.Digest, rec.Failure)
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
