package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/mirego/tasuki/internal/image"
	"github.com/mirego/tasuki/internal/image/sparse"
	"github.com/mirego/tasuki/internal/image/store"
	"github.com/mirego/tasuki/internal/image/tartfmt"
)

// bases are the manifests whose layers a push may use again: that of the image
// that the disk was made from, and that of the image which has the tag now.
func (c *client) bases(ctx context.Context, src *image.Source) ([]*tartfmt.Manifest, error) {
	var out []*tartfmt.Manifest
	if src.Base.Dir != "" {
		mf, err := store.Manifest(src.Base)
		if err != nil {
			return nil, err
		}
		out = append(out, mf)
	}
	raw, _, err := c.manifest(ctx, c.ref.Tag())
	if err != nil {
		// Some registries refuse (403) to say that a repository does not exist.
		if _, refused := errors.AsType[*statusError](err); refused || errors.Is(err, image.ErrNotInRegistry) {
			return out, nil
		}
		return nil, err
	}
	if mf, err := tartfmt.Parse(raw); err == nil { // anything else can have the tag too
		out = append(out, mf)
	}
	return out, nil
}

// contentOf maps digests of raw content to chunks that have it; of several the
// first manifest's counts.
func contentOf(manifests []*tartfmt.Manifest) map[string]tartfmt.Chunk {
	known := map[string]tartfmt.Chunk{}
	for _, mf := range manifests {
		for _, ch := range mf.Chunks {
			if _, ok := known[ch.RawDigest]; !ok && ch.RawDigest != "" {
				known[ch.RawDigest] = ch
			}
		}
	}
	return known
}

// span is a part of the disk that becomes one chunk, or several of at most step
// bytes if it is longer and its content is not known.
type span struct {
	off, size, step int64
}

// cut divides the disk into spans. Unless a size is asked for, they follow the
// chunks of the first base, since only equal spans have equal digests.
func cut(size, want int64, bases []*tartfmt.Manifest) []span {
	step := tartfmt.ChunkSize(size, want)
	if want == 0 && len(bases) > 0 {
		if spans := along(bases[0], size, step); spans != nil {
			return spans
		}
	}
	return plain(nil, 0, size, step)
}

// along follows a base; it returns nil if that could make too many layers.
func along(base *tartfmt.Manifest, size, step int64) []span {
	var spans []span
	var off, most int64
	for _, ch := range base.Chunks {
		if ch.Offset+ch.RawSize > size {
			break
		}
		spans = append(spans, span{ch.Offset, ch.RawSize, step})
		off = ch.Offset + ch.RawSize
		most += (ch.RawSize + step - 1) / step
	}
	most += (size - off + step - 1) / step
	if most > tartfmt.MaxLayers-2 {
		return nil
	}
	return plain(spans, off, size, step)
}

func plain(spans []span, off, size, step int64) []span {
	for ; off < size; off += step {
		spans = append(spans, span{off, min(step, size-off), step})
	}
	return spans
}

// diskPush turns spans of a disk into chunks and uploads them.
type diskPush struct {
	c     *client
	disk  *os.File
	size  int64
	m     *meter
	known map[string]tartfmt.Chunk // by digest of the raw content
	data  atomic.Int64             // bytes in blocks that are not zeros
	zeros tartfmt.Zeros

	mu        sync.Mutex
	zeroBlobs map[int64]tartfmt.Chunk // by raw size; their blobs are in the registry
}

func (p *diskPush) run(ctx context.Context, spans []span) ([]tartfmt.Chunk, error) {
	p.m.begin(PhasePush, p.size)
	defer p.m.end()
	made := make([][]tartfmt.Chunk, len(spans))
	next := make(chan int)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(next)
		for i := range spans {
			select {
			case next <- i:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		return nil
	})
	// Compressing and hashing keep a core busy each; more workers would only
	// take more memory.
	for range min(p.c.opt.Parallel, runtime.GOMAXPROCS(0)+1, len(spans)) {
		g.Go(func() (err error) {
			w := chunkPusher{diskPush: p}
			for i := range next {
				if made[i], err = w.span(ctx, spans[i]); err != nil {
					return fmt.Errorf("disk at %d: %w", spans[i].off, err)
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	var chunks []tartfmt.Chunk
	for _, some := range made {
		chunks = append(chunks, some...)
	}
	return chunks, nil
}

// chunkPusher is one worker with its buffers.
type chunkPusher struct {
	*diskPush
	enc       tartfmt.Encoder
	raw, blob []byte
}

// span makes the chunks of a span.
func (w *chunkPusher) span(ctx context.Context, s span) ([]tartfmt.Chunk, error) {
	if s.size > s.step {
		ch, found, err := w.unchanged(ctx, s)
		if err != nil || found {
			return []tartfmt.Chunk{ch}, err
		}
	}
	var chunks []tartfmt.Chunk
	for off := s.off; off < s.off+s.size; off += s.step {
		ch := tartfmt.Chunk{Offset: off, RawSize: min(s.step, s.off+s.size-off)}
		if err := w.push(ctx, &ch); err != nil {
			return nil, err
		}
		chunks = append(chunks, ch)
	}
	return chunks, nil
}

// unchanged hashes a long span, piece by piece, and returns the base's chunk if
// it has that content and the registry has its blob.
func (w *chunkPusher) unchanged(ctx context.Context, s span) (tartfmt.Chunk, bool, error) {
	ch := tartfmt.Chunk{Offset: s.off, RawSize: s.size}
	empty, err := w.isHole(&ch)
	if err != nil {
		return ch, false, err
	}
	var data int64
	if empty {
		ch.RawDigest = w.zeros.Digest(s.size)
	}
	if ch.RawDigest == "" {
		if ch.RawDigest, data, err = sparse.Scan(w.disk, s.off, s.size); err != nil {
			return ch, false, shorter(err)
		}
	}
	found, err := w.reuse(ctx, &ch)
	if err == nil && found {
		w.data.Add(data)
		w.m.reuse(s.size)
	}
	return ch, found, err
}

// reuse takes the descriptor of a known chunk with the same content, if the
// registry has its blob.
func (w *chunkPusher) reuse(ctx context.Context, ch *tartfmt.Chunk) (bool, error) {
	known, ok := w.known[ch.RawDigest]
	if !ok || known.RawSize != ch.RawSize {
		return false, nil
	}
	found, err := w.c.has(ctx, known.Digest)
	if err == nil && found {
		ch.Descriptor = known.Descriptor
	}
	return found, err
}

func (w *chunkPusher) isHole(ch *tartfmt.Chunk) (bool, error) {
	start, _, err := sparse.NextData(w.disk, ch.Offset)
	return start >= ch.Offset+ch.RawSize, err
}

// push fills the chunk's descriptor in and uploads its blob if it is missing.
func (w *chunkPusher) push(ctx context.Context, ch *tartfmt.Chunk) error {
	empty, err := w.isHole(ch)
	if err != nil {
		return err
	}
	if empty {
		return w.pushZeros(ctx, ch)
	}
	if int64(cap(w.raw)) < ch.RawSize {
		w.raw = make([]byte, ch.RawSize)
	}
	raw := w.raw[:ch.RawSize]
	if _, err := w.disk.ReadAt(raw, ch.Offset); err != nil {
		return shorter(err)
	}
	data := sparse.DataSize(raw)
	if data == 0 {
		return w.pushZeros(ctx, ch)
	}
	w.data.Add(data)
	ch.RawDigest = describe(raw, "").Digest
	found, err := w.reuse(ctx, ch)
	if err != nil {
		return err
	}
	if found {
		w.m.reuse(ch.RawSize)
		return nil
	}
	w.blob = w.enc.Append(w.blob[:0], raw)
	ch.Descriptor = describe(w.blob, tartfmt.MediaDisk)
	if err := w.c.upload(ctx, memoryBlob(ch.Descriptor, w.blob)); err != nil {
		return err
	}
	w.m.add(ch.RawSize)
	return nil
}

// shorter says what the end of a file means that was longer a moment ago.
func shorter(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("it became shorter while it was pushed")
	}
	return err
}

// pushZeros does push for a chunk of zeros, whose blob is made once per length.
func (w *chunkPusher) pushZeros(ctx context.Context, ch *tartfmt.Chunk) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	z, ok := w.zeroBlobs[ch.RawSize]
	if !ok {
		raw := make([]byte, ch.RawSize)
		z = tartfmt.Chunk{RawSize: ch.RawSize, RawDigest: describe(raw, "").Digest}
		found, err := w.reuse(ctx, &z)
		if err != nil {
			return err
		}
		if !found {
			blob := w.enc.Append(nil, raw)
			z.Descriptor = describe(blob, tartfmt.MediaDisk)
			if err := w.c.upload(ctx, memoryBlob(z.Descriptor, blob)); err != nil {
				return err
			}
		}
		w.zeroBlobs[ch.RawSize] = z
	}
	ch.Descriptor, ch.RawDigest = z.Descriptor, z.RawDigest
	w.m.add(ch.RawSize)
	return nil
}
