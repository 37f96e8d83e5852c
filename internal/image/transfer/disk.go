package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/mirego/tasuki/internal/image"
	"github.com/mirego/tasuki/internal/image/sparse"
	"github.com/mirego/tasuki/internal/image/store"
	"github.com/mirego/tasuki/internal/image/tartfmt"
)

// diskPull puts a disk together from its chunks.
type diskPull struct {
	c       *client
	m       *meter
	mf      *tartfmt.Manifest
	store   *store.Store
	donors  *donors
	disk    *os.File
	journal *journal
	// cloned says that the disk began as a clone of another image's.
	cloned bool
	// dirty says that the disk may hold remains of an earlier transfer, or of
	// another image, so what is to be zeros must be cleared.
	dirty bool
}

// job is content to bring, and the chunks that it makes.
type job struct {
	tartfmt.Chunk
	indexes []int
	donor   place // where this host has it; or the zero place
}

// pullDisk makes dir's disk hold the image's content, whose blocks of data take
// so many bytes, as far as that is known (else 0). What an earlier transfer
// left there, and its journal names, is kept if its digest is right.
func (c *client) pullDisk(ctx context.Context, m *meter, mf *tartfmt.Manifest, into target) (err error) {
	p := &diskPull{c: c, m: m, mf: mf, store: into.store, donors: findDonors(into.store, mf)}
	defer p.donors.close()
	path, journalPath := filepath.Join(into.dir, store.FileDisk), filepath.Join(into.dir, store.FileJournal)
	done, err := p.open(path, journalPath)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.disk.Close()) }()
	if err := p.check(ctx, done); err != nil {
		return err
	}
	if p.journal, err = createJournal(journalPath, done); err != nil {
		return err
	}
	defer p.journal.close()
	jobs := p.plan(done)
	if err := p.checkSpace(ctx, jobs, into.data); err != nil {
		return err
	}
	if err := p.disk.Truncate(mf.DiskSize()); err != nil {
		return err
	}
	if err := p.clean(done); err != nil {
		return err
	}
	return p.run(ctx, jobs, p.cloneSize(done))
}

// cloneSize is what the chunks that a clone of another image brought would have
// travelled.
func (p *diskPull) cloneSize(done map[int]bool) int64 {
	var n int64
	if p.cloned {
		for i := range done {
			n += p.mf.Chunks[i].Size
		}
	}
	return n
}

// open opens the disk and says which of its chunks may be right already. Where
// nothing is there and the file system can clone, it begins as a clone of the
// local image that has most in common with it.
func (p *diskPull) open(path, journalPath string) (done map[int]bool, err error) {
	var like string
	info, err := os.Stat(path)
	switch {
	case err == nil && info.Size() > 0:
		p.dirty = true
		done = readJournal(journalPath, len(p.mf.Chunks))
	case err == nil || errors.Is(err, fs.ErrNotExist):
		if like, done = p.donors.mostAlike(p.mf); like != "" {
			_ = os.Remove(path)
			p.cloned = sparse.CloneFile(path, like) == nil
			p.dirty = p.cloned
		}
		if !p.dirty {
			clear(done)
		}
	default:
		return nil, err
	}
	if p.disk, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644); err != nil {
		return nil, err
	}
	if p.cloned {
		p.donors.probe(p.disk, like)
		// Checking a clone takes a while; whoever dies over it need not clone again.
		j, err := createJournal(journalPath, done)
		if err != nil {
			_ = p.disk.Close()
			return nil, err
		}
		j.close()
	}
	return done, nil
}

// check hashes the chunks that the journal names, and takes from done those
// that are not what they should be.
func (p *diskPull) check(ctx context.Context, done map[int]bool) error {
	if len(done) == 0 {
		return nil
	}
	var total int64
	for i := range done {
		total += p.mf.Chunks[i].RawSize
	}
	p.m.begin(PhaseCheck, total)
	defer p.m.end()
	var mu sync.Mutex
	return each(ctx, p.c.opt.Parallel, slices.Sorted(maps.Keys(done)), func(_ context.Context, i int) error {
		ch := p.mf.Chunks[i]
		got, err := sparse.Digest(p.disk, ch.Offset, ch.RawSize)
		if _, unreadable := errors.AsType[*sparse.ReadError](err); err != nil && !unreadable {
			return err
		}
		p.m.add(ch.RawSize)
		if got != ch.RawDigest {
			mu.Lock()
			delete(done, i)
			mu.Unlock()
		}
		return nil
	})
}

// plan says what to bring. Zeros are not brought, and equal content once.
func (p *diskPull) plan(done map[int]bool) []*job {
	var zeros tartfmt.Zeros
	type key struct {
		digest  string
		rawSize int64
	}
	byContent := map[key]*job{}
	var jobs []*job
	for i, ch := range p.mf.Chunks {
		if done[i] || zeros.Chunk(ch) {
			continue
		}
		k := key{ch.Digest, ch.RawSize}
		if j := byContent[k]; j != nil {
			j.indexes = append(j.indexes, i)
			continue
		}
		j := &job{Chunk: ch, indexes: []int{i}, donor: p.donors.find(ch)}
		byContent[k] = j
		jobs = append(jobs, j)
	}
	return jobs
}

// clean makes zeros of what is not done yet.
func (p *diskPull) clean(done map[int]bool) error {
	if !p.dirty {
		return nil
	}
	for i, ch := range p.mf.Chunks {
		if done[i] {
			continue
		}
		if err := sparse.Clear(p.disk, ch.Offset, ch.RawSize); err != nil {
			return err
		}
	}
	return nil
}

// checkSpace refuses a pull that may not fit. What a chunk takes is not known
// before it is there: at most its raw length, and all of them together no more
// than the image says of itself.
func (p *diskPull) checkSpace(ctx context.Context, jobs []*job, data int64) error {
	var need int64
	for _, j := range jobs {
		if !p.donors.shares(j) {
			need += j.RawSize * int64(len(j.indexes))
		}
	}
	if data > 0 {
		need = min(need, data)
	}
	if need == 0 {
		return nil
	}
	need += p.c.opt.Reserve
	free, err := p.store.Free()
	var noRoom error // what kept room from being made counts only where it lacks
	if err == nil && free < need && p.c.opt.Room != nil {
		noRoom = p.c.opt.Room(ctx, need)
		free, err = p.store.Free()
	}
	if err != nil {
		return err
	}
	if need > free && noRoom != nil {
		return fmt.Errorf("cannot free %d MB for its disk: %w", need>>20, noRoom)
	}
	if need > free {
		spare := ""
		if p.c.opt.Reserve > 0 {
			spare = fmt.Sprintf(", of which %d MB are to stay free", p.c.opt.Reserve>>20)
		}
		return fmt.Errorf("%w: its disk may take %d MB more, and %s has %d MB free%s; tasuki image prune --dry-run says what could go, and why the rest is needed",
			image.ErrNoSpace, (need-p.c.opt.Reserve)>>20, p.store.Dir(), free>>20, spare)
	}
	return nil
}

func (p *diskPull) run(ctx context.Context, jobs []*job, cloned int64) error {
	total := cloned
	for _, j := range jobs {
		total += j.Size
	}
	p.m.begin(PhasePull, total)
	p.m.reuse(cloned)
	defer p.m.end()
	decoders := sync.Pool{New: func() any { return new(tartfmt.Decoder) }}
	return each(ctx, p.c.opt.Parallel, jobs, func(ctx context.Context, j *job) error {
		if found, err := p.clone(j); found || err != nil {
			return err
		}
		dec := decoders.Get().(*tartfmt.Decoder)
		defer decoders.Put(dec)
		return p.fetch(ctx, j, dec)
	})
}

// fetch brings one blob to all its places in the disk.
func (p *diskPull) fetch(ctx context.Context, j *job, dec *tartfmt.Decoder) error {
	var w chunkWriter
	begin := func(n int) error {
		w = chunkWriter{pull: p, job: j}
		if n == 1 {
			return nil
		}
		return p.clear(j)
	}
	err := p.c.fetch(ctx, p.m, j.Descriptor, begin, func(r io.Reader) error { return dec.Decode(&w, r, j.RawSize) })
	if err != nil {
		return fmt.Errorf("disk at %d: %w", j.Offset, err)
	}
	return p.written(j)
}

// written notes that a job's chunks are in their places.
func (p *diskPull) written(j *job) error {
	for _, i := range j.indexes {
		sparse.StartWriting(p.disk, p.mf.Chunks[i].Offset, j.RawSize)
	}
	return p.journal.add(j.indexes)
}

// clone brings a job's content from another image of this host. It reports
// false if there is none, or if what is there is not what it should be.
func (p *diskPull) clone(j *job) (bool, error) {
	if j.donor.path == "" {
		return false, nil
	}
	for _, i := range j.indexes {
		ch := p.mf.Chunks[i]
		same, err := p.donors.bring(p.disk, ch, j.donor)
		if err != nil {
			return false, fmt.Errorf("disk at %d: %w", ch.Offset, err)
		}
		if !same {
			p.c.opt.Log.Warn("a local image is damaged; its content is fetched instead", "disk", j.donor.path, "offset", j.donor.off, "digest", ch.RawDigest)
			return false, p.clear(j)
		}
	}
	p.m.reuse(j.Size)
	return true, p.written(j)
}

// clear makes zeros of a job's places after a failed attempt.
func (p *diskPull) clear(j *job) error {
	for _, i := range j.indexes {
		if err := sparse.Clear(p.disk, p.mf.Chunks[i].Offset, j.RawSize); err != nil {
			return err
		}
	}
	return nil
}

// chunkWriter writes a blob's raw bytes to each of its chunks' places.
type chunkWriter struct {
	pull *diskPull
	job  *job
	n    int64
}

func (w *chunkWriter) Write(b []byte) (int, error) {
	for _, i := range w.job.indexes {
		if err := sparse.WriteAt(w.pull.disk, b, w.pull.mf.Chunks[i].Offset+w.n); err != nil {
			return 0, fmt.Errorf("cannot write disk: %w", err)
		}
	}
	w.n += int64(len(b))
	return len(b), nil
}

// each calls do for all items, at most n at a time, until one fails.
func each[T any](ctx context.Context, n int, items []T, do func(context.Context, T) error) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(n)
	for _, item := range items {
		g.Go(func() error {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return do(ctx, item)
		})
	}
	return g.Wait()
}
