package store

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/mirego/tasuki/internal/image"
	"github.com/mirego/tasuki/internal/image/sparse"
	"github.com/mirego/tasuki/internal/image/tartfmt"
)

// Verified is what a verification read.
type Verified struct {
	// Bytes of the disk were compared with the digests of their content.
	Bytes int64 `json:"bytes"`
	// Unknown bytes have no digest in the manifest: very old images have none.
	Unknown int64 `json:"unknown,omitempty"`
}

// Verify reads an image whole and compares it with its digest: the manifest
// with the digest itself, every chunk of the disk and every file with what the
// manifest and the labels say. The error wraps image.ErrDamaged and names the
// first places that differ. Progress, which may be nil, is told raw bytes of
// the disk; its calls do not overlap.
func (s *Store) Verify(ctx context.Context, digest string, progress func(done, total int64)) (Verified, error) {
	release, err := s.Hold(digest)
	if err != nil {
		return Verified{}, err
	}
	defer release()
	dir, err := s.path(digest)
	if err != nil {
		return Verified{}, err
	}
	v := &verification{dir: dir, progress: progress}
	mf, err := v.files(digest)
	if err != nil {
		return Verified{}, fmt.Errorf("cannot verify image %s: %w", digest, err)
	}
	if err := v.disk(ctx, mf); err != nil {
		return Verified{}, fmt.Errorf("cannot verify image %s: %w", digest, err)
	}
	if len(v.wrong) > 0 {
		slices.Sort(v.wrong)
		err := errors.Join(v.wrong[:min(len(v.wrong), mostNamed)].errors()...)
		return v.read, fmt.Errorf("%w: %s differs from its digest in %d places; remove it and pull again:\n%w", image.ErrDamaged, digest, len(v.wrong), err)
	}
	return v.read, nil
}

// mostNamed is how many places an error names.
const mostNamed = 5

type places []string

func (p places) errors() []error {
	var out []error
	for _, s := range p {
		out = append(out, errors.New(s))
	}
	return out
}

type verification struct {
	dir      string
	progress func(done, total int64)

	mu    sync.Mutex
	read  Verified
	wrong places
	done  int64
}

func (v *verification) differs(format string, args ...any) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.wrong = append(v.wrong, fmt.Sprintf(format, args...))
}

// files compares everything but the disk.
func (v *verification) files(digest string) (*tartfmt.Manifest, error) {
	raw, err := os.ReadFile(filepath.Join(v.dir, FileManifest))
	if err != nil {
		return nil, err
	}
	if got := fmt.Sprintf("sha256:%x", sha256.Sum256(raw)); got != digest {
		return nil, fmt.Errorf("%w: its manifest has the digest %s", image.ErrDamaged, got)
	}
	mf, err := tartfmt.Parse(raw)
	if err != nil {
		return nil, err
	}
	v.file(FileOCIConfig, mf.OCIConfig.Digest)
	v.file(FileConfig, mf.VMConfig.Digest)
	if mf.NVRAM.Digest != fmt.Sprintf("sha256:%x", sha256.Sum256(tartfmt.NoNVRAM)) {
		v.file(FileNVRAM, mf.NVRAM.Digest)
	}
	oci, err := os.ReadFile(filepath.Join(v.dir, FileOCIConfig))
	if err != nil {
		return mf, nil //nolint:nilerr // named as a place that differs
	}
	labels, err := tartfmt.ParseOCIConfig(oci)
	if err != nil {
		return mf, nil //nolint:nilerr // named as a place that differs
	}
	v.file(FileKernel, labels[image.LabelKernelDigest])
	v.file(FileInitrd, labels[image.LabelInitrdDigest])
	return mf, nil
}

// file compares one file; want is "" if the image has none of it.
func (v *verification) file(name, want string) {
	if want == "" {
		return
	}
	f, err := os.Open(filepath.Join(v.dir, name))
	if err != nil {
		v.differs("%s: %v", name, err)
		return
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		v.differs("%s: %v", name, err)
		return
	}
	if got := fmt.Sprintf("sha256:%x", sum.Sum(nil)); got != want {
		v.differs("%s has the digest %s, not %s", name, got, want)
	}
}

// disk compares every chunk.
func (v *verification) disk(ctx context.Context, mf *tartfmt.Manifest) error {
	f, err := os.Open(filepath.Join(v.dir, FileDisk))
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Size() != mf.DiskSize() {
		v.differs("%s has %d bytes, not %d", FileDisk, info.Size(), mf.DiskSize())
		return nil
	}
	var zeros tartfmt.Zeros
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	for _, ch := range mf.Chunks {
		g.Go(func() error {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return v.chunk(f, ch, &zeros, mf.DiskSize())
		})
	}
	return g.Wait()
}

func (v *verification) chunk(f *os.File, ch tartfmt.Chunk, zeros *tartfmt.Zeros, total int64) error {
	got := ""
	if ch.RawDigest != "" {
		start, _, err := sparse.NextData(f, ch.Offset)
		if err == nil && start >= ch.Offset+ch.RawSize {
			got = zeros.Digest(ch.RawSize)
		}
		if got == "" {
			if got, err = sparse.Digest(f, ch.Offset, ch.RawSize); err != nil {
				return err
			}
		}
		if got != ch.RawDigest {
			v.differs("%s from byte %d: %d bytes have the digest %s, not %s", FileDisk, ch.Offset, ch.RawSize, got, ch.RawDigest)
		}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if ch.RawDigest == "" {
		v.read.Unknown += ch.RawSize
	} else {
		v.read.Bytes += ch.RawSize
	}
	v.done += ch.RawSize
	if v.progress != nil {
		v.progress(v.done, total)
	}
	return nil
}
