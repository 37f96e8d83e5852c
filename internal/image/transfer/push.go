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
	"strconv"
	"strings"

	"github.com/mirego/tasuki/internal/image"
	"github.com/mirego/tasuki/internal/image/tartfmt"
)

// Push uploads an image under ref's tag and returns the digest of its manifest.
// What the registry already has is not sent again, and what the base image
// (src.Base) or the image that the tag names now has in common with this one is
// not even compressed again: its layers keep their descriptors. The tag is set last, so
// nobody ever pulls half an image; a push that ends early leaves only blobs
// that nothing names, and the next one finds them there.
func Push(ctx context.Context, src image.Source, ref image.Ref, opt Options) (digest string, err error) {
	opt = opt.withDefaults()
	if ref.Tag() == "" {
		return "", fmt.Errorf("cannot push image %q: it needs a tag, such as %s", ref, ref.Registry()+"/"+ref.Name()+":latest")
	}
	digest, err = push(ctx, &src, ref, opt)
	if e, ok := errors.AsType[*statusError](err); ok && strings.Contains(e.text, blobUnknown) {
		// What the registry had was swept up before the manifest named it.
		opt.Log.Warn("blobs are gone from the registry; the push begins anew", "ref", ref.String(), "err", err)
		digest, err = push(ctx, &src, ref, opt)
	}
	if err != nil {
		return "", fmt.Errorf("cannot push image %s: %w", ref, err)
	}
	return digest, nil
}

// blobUnknown is the distribution specification's code for a manifest that names
// a blob which is not there.
const blobUnknown = "MANIFEST_BLOB_UNKNOWN"

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

	p := &diskPush{c: c, disk: disk, size: info.Size(), m: &meter{report: opt.Progress}, zeroBlobs: map[int64]tartfmt.Chunk{}}
	bases, err := c.bases(ctx, src)
	if err != nil {
		return "", err
	}
	p.known = contentOf(bases)
	m := &tartfmt.Manifest{UploadTime: opt.Now()}
	if m.Chunks, err = p.run(ctx, cut(info.Size(), opt.ChunkSize, bases)); err != nil {
		return "", err
	}
	labels := map[string]string{}
	maps.Copy(labels, src.Labels)
	if src.Disk != src.Base.Disk { // else it is the base itself, and stays what it is
		labels[image.LabelDiskData] = strconv.FormatInt(p.data.Load(), 10)
		if src.Base.Digest != "" {
			labels[image.LabelBase] = src.Base.Digest
		}
	}
	boot, err := c.pushBootFiles(ctx, src, labels)
	if err != nil {
		return "", err
	}
	if err := c.pushSmall(ctx, src, labels, m); err != nil {
		return "", err
	}
	b := m.Encode()
	img := describe(b, tartfmt.MediaManifest)
	if len(boot) > 0 {
		if err := c.pushBootArtifact(ctx, img, boot); err != nil {
			return "", fmt.Errorf("boot artifact: %w", err)
		}
	}
	return img.Digest, c.putManifest(ctx, ref.Tag(), img.Digest, b)
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
