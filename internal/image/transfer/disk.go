package transfer

import (
	"context"
	"crypto/sha256"
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

	"github.com/mirego/tasuki/internal/image/sparse"
	"github.com/mirego/tasuki/internal/image/store"
	"github.com/mirego/tasuki/internal/image/tartfmt"
)

// diskPull puts a disk together from its chunks.
type diskPull struct {
	c       *client
	m       *meter
	mf      *tartfmt.Manifest
	disk    *os.File
	journal *journal
	// dirty says that the disk may hold remains of an earlier transfer, so
	// what is to be zeros must be cleared.
	dirty bool
}

// job is a blob to fetch, and the chunks that it makes.
type job struct {
	tartfmt.Chunk
	indexes []int
}

// pullDisk makes dir's disk hold the image's content. What an earlier transfer
// left there, and its journal names, is kept if its digest is right.
func (c *client) pullDisk(ctx context.Context, m *meter, mf *tartfmt.Manifest, dir string) (err error) {
	p := &diskPull{c: c, m: m, mf: mf}
	path := filepath.Join(dir, store.FileDisk)
	info, err := os.Stat(path)
	switch {
	case err == nil:
		p.dirty = info.Size() > 0
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	p.disk, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.disk.Close()) }()
	if err := p.disk.Truncate(mf.DiskSize()); err != nil {
		return err
	}
	journalPath := filepath.Join(dir, journalFile)
	done := readJournal(journalPath, len(mf.Chunks))
	if !p.dirty {
		clear(done)
	}
	if err := p.check(ctx, done); err != nil {
		return err
	}
	if p.journal, err = createJournal(journalPath, done); err != nil {
		return err
	}
	defer p.journal.close()
	jobs, err := p.plan(done)
	if err != nil {
		return err
	}
	return p.run(ctx, jobs)
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
		sum := sha256.New()
		r := io.NewSectionReader(p.disk, ch.Offset, ch.RawSize)
		if _, err := io.CopyBuffer(struct{ io.Writer }{sum}, r, make([]byte, 256<<10)); err != nil {
			return err
		}
		p.m.add(ch.RawSize)
		if fmt.Sprintf("sha256:%x", sum.Sum(nil)) != ch.RawDigest {
			mu.Lock()
			delete(done, i)
			mu.Unlock()
		}
		return nil
	})
}

// plan says which blobs to fetch. Zeros are not fetched, and equal blobs once.
func (p *diskPull) plan(done map[int]bool) ([]*job, error) {
	var zeros tartfmt.Zeros
	type key struct {
		digest  string
		rawSize int64
	}
	byBlob := map[key]*job{}
	var jobs []*job
	for i, ch := range p.mf.Chunks {
		if done[i] {
			continue
		}
		if p.dirty {
			if err := sparse.Clear(p.disk, ch.Offset, ch.RawSize); err != nil {
				return nil, err
			}
		}
		if zeros.Chunk(ch) {
			continue
		}
		k := key{ch.Digest, ch.RawSize}
		if j := byBlob[k]; j != nil {
			j.indexes = append(j.indexes, i)
			continue
		}
		j := &job{Chunk: ch, indexes: []int{i}}
		byBlob[k] = j
		jobs = append(jobs, j)
	}
	return jobs, nil
}

func (p *diskPull) run(ctx context.Context, jobs []*job) error {
	var total int64
	for _, j := range jobs {
		total += j.Size
	}
	p.m.begin(PhasePull, total)
	defer p.m.end()
	decoders := sync.Pool{New: func() any { return new(tartfmt.Decoder) }}
	return each(ctx, p.c.opt.Parallel, jobs, func(ctx context.Context, j *job) error {
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
		for _, i := range j.indexes { // the failed attempt may have written anything
			if err := sparse.Clear(p.disk, p.mf.Chunks[i].Offset, j.RawSize); err != nil {
				return err
			}
		}
		return nil
	}
	err := p.c.fetch(ctx, p.m, j.Descriptor, begin, func(r io.Reader) error { return dec.Decode(&w, r, j.RawSize) })
	if err != nil {
		return fmt.Errorf("disk at %d: %w", j.Offset, err)
	}
	return p.journal.add(j.indexes)
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

func allocated(path string) int64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return sparse.Allocated(info)
}
