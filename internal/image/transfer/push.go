package transfer

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"runtime"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/mirego/tasuki/internal/image"
	"github.com/mirego/tasuki/internal/image/sparse"
	"github.com/mirego/tasuki/internal/image/tartfmt"
)

// Push uploads an image under ref's tag and returns the digest of its manifest.
// What the registry already has is not sent again. The tag is set last, so
// nobody ever pulls half an image; a push that ends early leaves only blobs
// that nothing names, and the next one finds them there.
func Push(ctx context.Context, src image.Source, ref image.Ref, opt Options) (digest string, err error) {
	opt = opt.withDefaults()
	if ref.Tag() == "" {
		return "", fmt.Errorf("cannot push image %q: it needs a tag, such as %s", ref, ref.Registry()+"/"+ref.Name()+":latest")
	}
	digest, err = push(ctx, &src, ref, opt)
	if err != nil {
		return "", fmt.Errorf("cannot push image %s: %w", ref, err)
	}
	return digest, nil
}

func push(ctx context.Context, src *image.Source, ref image.Ref, opt Options) (string, error) {
	disk, err := os.Open(src.Disk)
	if err != nil {
		return "", err
	}
	defer disk.Close()
	info, err := disk.Stat()
	if err != nil {
		return "", err
	}
	if size := info.Size(); size == 0 || size > tartfmt.MaxDiskSize {
		return "", fmt.Errorf("disk %q has %d bytes", src.Disk, size)
	}
	c, err := newClient(ctx, ref, opt, scopePush)
	if err != nil {
		return "", err
	}
	defer c.close()

	p := &diskPush{c: c, disk: disk, size: info.Size(), m: &meter{report: opt.Progress}, zeros: map[int64]tartfmt.Chunk{}}
	m := &tartfmt.Manifest{UploadTime: opt.Now()}
	if m.Chunks, err = p.run(ctx); err != nil {
		return "", err
	}
	labels := map[string]string{}
	maps.Copy(labels, src.Labels)
	boot, err := c.pushBootFiles(ctx, src, labels)
	if err != nil {
		return "", err
	}
	if err := c.pushSmall(ctx, src, labels, m); err != nil {
		return "", err
	}
	b := m.Encode()
	digest := describe(b, "").Digest
	if len(boot) > 0 {
		if err := c.pushBootArtifact(ctx, digest, boot); err != nil {
			return "", fmt.Errorf("boot artifact: %w", err)
		}
	}
	return digest, c.putManifest(ctx, ref.Tag(), digest, b)
}

// pushSmall uploads what is not disk and describes it in the manifest.
func (c *client) pushSmall(ctx context.Context, src *image.Source, labels map[string]string, m *tartfmt.Manifest) error {
	config := src.ConfigJSON
	if len(config) == 0 {
		config = tartfmt.DefaultVMConfig(labels)
	}
	ociConfig := tartfmt.EncodeOCIConfig(labels)
	m.VMConfig = describe(config, tartfmt.MediaConfig)
	m.OCIConfig = describe(ociConfig, tartfmt.MediaOCIConfig)
	nvram := memoryBlob(describe(tartfmt.NoNVRAM, tartfmt.MediaNVRAM), tartfmt.NoNVRAM)
	m.NVRAM = describe(tartfmt.NoNVRAM, tartfmt.MediaNVRAM)
	if src.NVRAM != "" {
		d, err := describeFile(src.NVRAM, tartfmt.MediaNVRAM)
		if err != nil {
			return err
		}
		m.NVRAM = d
		nvram = blobSource{d.Digest, d.Size, func() (io.ReadCloser, error) { return os.Open(src.NVRAM) }}
	}
	for _, b := range []blobSource{memoryBlob(m.VMConfig, config), memoryBlob(m.OCIConfig, ociConfig), nvram} {
		if err := c.upload(ctx, b); err != nil {
			return err
		}
	}
	return nil
}

func describe(b []byte, mediaType string) tartfmt.Descriptor {
	return tartfmt.Descriptor{MediaType: mediaType, Digest: fmt.Sprintf("sha256:%x", sha256.Sum256(b)), Size: int64(len(b))}
}

func memoryBlob(d tartfmt.Descriptor, b []byte) blobSource {
	return blobSource{d.Digest, d.Size, func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil }}
}

// diskPush cuts a disk into chunks and uploads them.
type diskPush struct {
	c    *client
	disk *os.File
	size int64
	m    *meter

	mu    sync.Mutex
	zeros map[int64]tartfmt.Chunk // by raw size; their blobs are in the registry
}

func (p *diskPush) run(ctx context.Context) ([]tartfmt.Chunk, error) {
	step := tartfmt.ChunkSize(p.size, p.c.opt.ChunkSize)
	chunks := make([]tartfmt.Chunk, 0, (p.size+step-1)/step)
	for off := int64(0); off < p.size; off += step {
		chunks = append(chunks, tartfmt.Chunk{Offset: off, RawSize: min(step, p.size-off)})
	}
	p.m.begin(PhasePush, p.size)
	next := make(chan *tartfmt.Chunk)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(next)
		for i := range chunks {
			select {
			case next <- &chunks[i]:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		return nil
	})
	// Compressing and hashing keep a core busy each; more workers would only
	// take more memory.
	for range min(p.c.opt.Parallel, runtime.GOMAXPROCS(0)+1, len(chunks)) {
		g.Go(func() error {
			w := chunkPusher{diskPush: p}
			for ch := range next {
				if err := w.push(ctx, ch); err != nil {
					return fmt.Errorf("disk at %d: %w", ch.Offset, err)
				}
				p.m.add(ch.RawSize)
			}
			return nil
		})
	}
	err := g.Wait()
	p.m.end()
	return chunks, err
}

// chunkPusher is one worker with its buffers.
type chunkPusher struct {
	*diskPush
	enc       tartfmt.Encoder
	raw, blob []byte
}

// push fills the chunk's descriptor in and uploads its blob.
func (w *chunkPusher) push(ctx context.Context, ch *tartfmt.Chunk) error {
	start, _, err := sparse.NextData(w.disk, ch.Offset)
	if err != nil {
		return err
	}
	if start >= ch.Offset+ch.RawSize {
		return w.pushZeros(ctx, ch)
	}
	if int64(cap(w.raw)) < ch.RawSize {
		w.raw = make([]byte, ch.RawSize)
	}
	raw := w.raw[:ch.RawSize]
	if _, err := w.disk.ReadAt(raw, ch.Offset); err != nil {
		if errors.Is(err, io.EOF) {
			err = errors.New("it became shorter while it was pushed")
		}
		return err
	}
	if sparse.IsZero(raw) {
		return w.pushZeros(ctx, ch)
	}
	ch.RawDigest = describe(raw, "").Digest
	w.blob = w.enc.Append(w.blob[:0], raw)
	ch.Descriptor = describe(w.blob, tartfmt.MediaDisk)
	return w.c.upload(ctx, memoryBlob(ch.Descriptor, w.blob))
}

// pushZeros does push for a chunk of zeros, whose blob is made once per length.
func (w *chunkPusher) pushZeros(ctx context.Context, ch *tartfmt.Chunk) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	z, ok := w.zeros[ch.RawSize]
	if !ok {
		raw := make([]byte, ch.RawSize)
		blob := w.enc.Append(nil, raw)
		z.RawDigest, z.Descriptor = describe(raw, "").Digest, describe(blob, tartfmt.MediaDisk)
		if err := w.c.upload(ctx, memoryBlob(z.Descriptor, blob)); err != nil {
			return err
		}
		w.zeros[ch.RawSize] = z
	}
	ch.Descriptor, ch.RawDigest = z.Descriptor, z.RawDigest
	return nil
}
