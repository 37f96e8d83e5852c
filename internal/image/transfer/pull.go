package transfer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/mirego/tasuki/internal/image"
	"github.com/mirego/tasuki/internal/image/store"
	"github.com/mirego/tasuki/internal/image/tartfmt"
)

const (
	maxOCIConfig = 4 << 20
	maxVMConfig  = 1 << 20
	maxNVRAM     = 512 << 20
)

// Resolve asks the registry which digest ref means now. A reference by digest
// means that digest, and the registry is not asked. The error wraps
// image.ErrNotInRegistry if there is no such image.
func Resolve(ctx context.Context, ref image.Ref, opt Options) (digest string, err error) {
	if ref.Digest() != "" {
		return ref.Digest(), nil
	}
	opt = opt.withDefaults()
	fail := func(err error) (string, error) {
		return "", fmt.Errorf("cannot resolve image %s: %w", ref, err)
	}
	c, err := newClient(ctx, ref, opt, scopePull)
	if err != nil {
		return fail(err)
	}
	defer c.close()
	if digest, err = c.resolve(ctx); err != nil {
		return fail(err)
	}
	return digest, nil
}

// Pull brings an image into the store and returns it. An image that is there
// already is not fetched again, and one that is named by digest is then not
// even asked for, so that a registry which is down does no harm. What other local
// images have of it is taken from them. After a pull
// by tag the store remembers what the tag meant.
//
// The error wraps image.ErrNotInRegistry if the registry has no such image and
// tartfmt.ErrFormat if it is no VM image that we can use. Whenever Pull fails,
// the store shows nothing of the image, and the next Pull goes on from what
// arrived.
func Pull(ctx context.Context, ref image.Ref, s *store.Store, opt Options) (image.Local, error) {
	opt = opt.withDefaults()
	img, err := pull(ctx, ref, s, opt)
	if err != nil {
		return image.Local{}, fmt.Errorf("cannot pull image %s: %w", ref, err)
	}
	if err := s.Remember(ref, img.Digest); err != nil {
		return image.Local{}, err
	}
	s.Touch(img.Digest)
	return img, nil
}

func pull(ctx context.Context, ref image.Ref, s *store.Store, opt Options) (image.Local, error) {
	if ref.Digest() != "" {
		if img, err := s.Get(ref.Digest()); !errors.Is(err, image.ErrNotFound) {
			return img, err
		}
	}
	c, err := newClient(ctx, ref, opt, scopePull)
	if err != nil {
		return image.Local{}, err
	}
	defer c.close()
	digest, err := c.resolve(ctx)
	if err != nil {
		return image.Local{}, err
	}
	if img, err := s.Get(digest); !errors.Is(err, image.ErrNotFound) {
		return img, err
	}
	m := &meter{report: opt.Progress}
	part, err := s.Begin(ctx, digest, func() { m.begin(PhaseWait, 0) })
	if err != nil {
		return image.Local{}, err
	}
	defer part.Close()
	if img, err := s.Get(digest); !errors.Is(err, image.ErrNotFound) {
		return img, errors.Join(err, part.Discard()) // the transfer that we waited for brought it
	}
	m.begin(PhasePull, 0)
	labels, err := c.fill(ctx, digest, s, part.Dir(), m)
	if err != nil {
		if errors.Is(err, image.ErrNoSpace) && empty(part) { // nothing is left to go on from
			err = errors.Join(err, part.Discard())
		}
		return image.Local{}, err
	}
	m.begin(PhaseFinish, 0)
	img, err := part.Commit(image.Local{Ref: ref, Labels: labels})
	m.end()
	return img, err
}

// empty says whether nothing of the disk arrived.
func empty(part *store.Partial) bool {
	info, err := os.Stat(filepath.Join(part.Dir(), store.FileDisk))
	return err != nil || info.Size() == 0
}

// fill makes dir hold everything of the image and returns its labels.
func (c *client) fill(ctx context.Context, digest string, s *store.Store, dir string, m *meter) (map[string]string, error) {
	raw, _, err := c.manifest(ctx, digest)
	if err != nil {
		return nil, err
	}
	mf, err := tartfmt.Parse(raw)
	if err != nil {
		return nil, err
	}
	ociConfig, err := c.fetchBytes(ctx, m, mf.OCIConfig, maxOCIConfig)
	if err != nil {
		return nil, err
	}
	labels, err := tartfmt.ParseOCIConfig(ociConfig)
	if err != nil {
		return nil, err
	}
	if err := c.pullDisk(ctx, m, mf, target{store: s, dir: dir, data: dataSize(labels)}); err != nil {
		return nil, err
	}
	if mf.VMConfig.Size > maxVMConfig || mf.NVRAM.Size > maxNVRAM {
		return nil, fmt.Errorf("%w: its configuration has %d bytes, its nvram %d", tartfmt.ErrFormat, mf.VMConfig.Size, mf.NVRAM.Size)
	}
	if err := c.fetchFile(ctx, m, mf.VMConfig, filepath.Join(dir, store.FileConfig)); err != nil {
		return nil, err
	}
	if mf.NVRAM.Digest != describe(tartfmt.NoNVRAM, "").Digest {
		if err := c.fetchFile(ctx, m, mf.NVRAM, filepath.Join(dir, store.FileNVRAM)); err != nil {
			return nil, err
		}
	}
	if err := c.pullBootFiles(ctx, m, digest, labels, dir); err != nil {
		return nil, err
	}
	for name, b := range map[string][]byte{store.FileManifest: raw, store.FileOCIConfig: ociConfig} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			return nil, err
		}
	}
	return labels, nil
}

// target is where an image is put together.
type target struct {
	store *store.Store
	dir   string
	data  int64 // bytes that the disk takes, as the image says; 0 if it does not
}

// dataSize is what the image says that its disk takes.
func dataSize(labels map[string]string) int64 {
	n, err := strconv.ParseInt(labels[image.LabelDiskData], 10, 64)
	if err != nil {
		return 0
	}
	return max(n, 0)
}
