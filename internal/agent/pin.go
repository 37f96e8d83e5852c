package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/mirego/tasuki/internal/image"
)

// ErrImage: the pool's image cannot be changed as asked.
var ErrImage = errors.New("the pool's image stays as it is")

// RefreshImage asks now what the pool's image means, forgets that one was
// rejected, and ends a RollbackImage. It does not wait. Errors: ErrNoPool,
// ErrImage while the pool is pinned.
func (a *Agent) RefreshImage(pool string) error {
	return a.changeImage(pool, func(p *poolState, m *imageMemory) error {
		if m.Pinned != "" && !m.RolledBack {
			return fmt.Errorf("cannot refresh pool %q: it is pinned to %s (tasuki image pin %s off): %w", pool, m.Pinned, pool, ErrImage)
		}
		m.unpin()
		m.Rejected, m.Why, m.Rejections = "", "", nil
		p.trial = nil
		return nil
	})
}

// RollbackImage goes to the image that worked before, untried, and stays there
// until RefreshImage. Errors: ErrNoPool, ErrImage where none is known.
func (a *Agent) RollbackImage(pool string) error {
	return a.changeImage(pool, func(p *poolState, m *imageMemory) error {
		to, ref := m.Previous, m.PreviousRef
		if p.image.Digest != m.Proven {
			to, ref = m.Proven, m.ProvenRef
		}
		if to == "" {
			return fmt.Errorf("cannot roll pool %q back: no image of it worked before: %w", pool, ErrImage)
		}
		m.Pinned, m.PinnedRef, m.RolledBack = to, ref, true
		return nil
	})
}

// PinImage goes to the image of a digest, untried, and stays there; an empty
// digest ends that. Errors: ErrNoPool, ErrImage for what is no digest.
func (a *Agent) PinImage(pool, digest string) error {
	return a.changeImage(pool, func(p *poolState, m *imageMemory) error {
		if err := image.CheckDigest(digest); digest != "" && err != nil {
			return fmt.Errorf("cannot pin pool %q: %w: %w", pool, err, ErrImage)
		}
		if m.unpin(); digest != "" {
			m.Pinned, m.PinnedRef = digest, p.Spec.Image
		}
		return nil
	})
}

// changeImage lets a person change what is known of a pool's image, durably.
func (a *Agent) changeImage(pool string, change func(*poolState, *imageMemory) error) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	p := a.poolNamed(pool)
	if p == nil {
		return fmt.Errorf("cannot find pool %q: %w", pool, ErrNoPool)
	}
	m := a.memory(p)
	before := *m
	before.Rejections = slices.Clone(m.Rejections)
	err := change(p, m)
	if err == nil {
		err = a.saveImages()
	}
	if err != nil {
		*m = before
		return err
	}
	a.tellRejected(p)
	select {
	case p.ask <- struct{}{}:
	default:
	}
	return nil
}

// awaitRefresh waits for d, or until somebody asks for the image now. It
// reports false when ctx ends first.
func (p *poolState) awaitRefresh(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-p.ask:
	case <-timer.C:
	}
	return true
}
