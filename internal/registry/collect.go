package registry

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"time"
)

const (
	// drainTimeout is how long a collection waits for pushes under way.
	drainTimeout = 2 * time.Minute
	// collectAgain is when one that had to give up is tried again.
	collectAgain = 15 * time.Minute
	// firstCollect is when the first one comes after a start.
	firstCollect = 10 * time.Minute
	// houseTick is how often Run looks for uploads and certificates to renew.
	houseTick = time.Hour
	// uploadAge is how long an upload that nothing is added to is kept.
	uploadAge = 3 * 24 * time.Hour
)

// ErrBusy says that a collection of garbage gave up because pushes, or another
// collection, did not end.
var ErrBusy = errors.New("the registry is busy")

// Report is what a collection of garbage deleted, or would have.
type Report struct {
	DryRun    bool     `json:"dryRun"`
	Tags      []string `json:"tags"`      // repository:tag
	Manifests []string `json:"manifests"` // repository@digest
	Blobs     int      `json:"blobs"`
	Bytes     int64    `json:"bytes"` // of the blobs
	Uploads   int      `json:"uploads"`
	// Closed is how long pushes had to wait.
	Closed time.Duration `json:"closedNanoseconds"`
}

// Collect collects the garbage of all depots while the server runs. Pushes
// under way may finish, for two minutes; then the error wraps ErrBusy and
// nothing was deleted. It can be killed at any point: what is left then is
// garbage still.
func (s *Server) Collect(ctx context.Context, policy Policy, dryRun bool) (Report, error) {
	if err := policy.check(); err != nil {
		return Report{}, err
	}
	if !s.collect.TryLock() {
		return Report{}, fmt.Errorf("cannot collect garbage: another collection is under way: %w", ErrBusy)
	}
	defer s.collect.Unlock()
	total := Report{DryRun: dryRun, Tags: []string{}, Manifests: []string{}}
	now := time.Now()
	err := s.depot.collect(ctx, &total, marker{policy: policy, now: now}, dryRun)
	for _, name := range slices.Sorted(maps.Keys(s.mirrors)) {
		m := s.mirrors[name]
		// What a mirror holds can be had again: no tag of it is kept for its
		// own sake.
		mk := marker{policy: Policy{Grace: policy.Grace}, now: now, unused: now.Add(-m.opt.Keep)}
		err = errors.Join(err, m.collect(ctx, &total, mk, dryRun))
	}
	s.metrics.collected(total, err)
	if err != nil {
		return total, fmt.Errorf("cannot collect garbage: %w", err)
	}
	s.log.Info("registry collected garbage", "dry_run", dryRun, "tags", len(total.Tags), "manifests", len(total.Manifests),
		"blobs", total.Blobs, "bytes", total.Bytes, "uploads", total.Uploads, "closed", total.Closed)
	return total, nil
}

// collect marks and sweeps one depot. Nobody writes from the moment that the
// gate is closed until it is opened again.
func (d *depot) collect(ctx context.Context, total *Report, mk marker, dryRun bool) error {
	drain, cancel := context.WithTimeoutCause(ctx, drainTimeout, fmt.Errorf("pushes did not end within %s: %w", drainTimeout, ErrBusy))
	defer cancel()
	open, err := d.gate.close(drain)
	if err != nil {
		return err
	}
	defer open()
	start := time.Now()
	mk.d = d
	p, err := mk.mark()
	if err != nil {
		return err
	}
	for _, it := range p.tags {
		total.Tags = append(total.Tags, it.what)
	}
	for _, it := range p.manifests {
		total.Manifests = append(total.Manifests, it.what)
	}
	if !dryRun {
		if err := d.sweep(ctx, p); err != nil {
			return err
		}
		n, err := d.purgeUploads(mk.now.Add(-uploadAge))
		total.Uploads += n
		if err != nil {
			return err
		}
	}
	total.Blobs += len(p.blobs)
	total.Bytes += p.bytes
	total.Closed += time.Since(start)
	return nil
}

// sweep deletes what a plan says. It goes on to the end of what it began with
// one item, and ends between two when ctx does.
func (d *depot) sweep(ctx context.Context, p plan) error {
	doomed := map[string]bool{}
	for _, it := range p.blobs {
		doomed[it.hash] = true
	}
	d.doomed.Store(&doomed)
	defer d.doomed.Store(nil)
	for _, step := range []struct {
		items []item
		first string // what is deleted first, so that the rest is debris
	}{{p.tags, filepath.Join("current", "link")}, {p.manifests, "link"}, {p.links, "link"}, {p.blobs, "data"}} {
		for _, it := range step.items {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if err := os.Remove(filepath.Join(it.path, step.first)); err != nil && !os.IsNotExist(err) {
				return fmt.Errorf("cannot delete %s: %w", it.what, err)
			}
			if err := os.RemoveAll(it.path); err != nil {
				return fmt.Errorf("cannot delete %s: %w", it.what, err)
			}
		}
	}
	return nil
}

// keepHouse collects garbage when it is due, deletes abandoned uploads and
// renews the certificate, until ctx ends.
func (s *Server) keepHouse(ctx context.Context) {
	tick := time.NewTicker(houseTick)
	defer tick.Stop()
	collect := time.NewTimer(s.firstCollect())
	defer collect.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if n, err := s.depot.purgeUploads(time.Now().Add(-uploadAge)); err != nil || n > 0 {
				s.log.Info("registry deleted abandoned uploads", "uploads", n, "err", err)
			}
			if s.opt.Certificate != nil {
				s.opt.Certificate.renew(s.log)
			}
		case <-collect.C:
			next := s.opt.CollectEvery
			if _, err := s.Collect(ctx, s.opt.Policy, false); err != nil && ctx.Err() == nil {
				next = min(next, collectAgain)
				s.log.Warn("registry could not collect garbage", "err", err, "again", next)
			}
			collect.Reset(next)
		}
	}
}

// firstCollect spreads the collections of machines that start together.
func (s *Server) firstCollect() time.Duration {
	if s.opt.CollectEvery <= 0 {
		return 1<<63 - 1
	}
	return min(firstCollect, s.opt.CollectEvery) + rand.N(s.opt.CollectEvery/10+1)
}
