package transfer

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/mirego/tasuki/internal/image"
	"github.com/mirego/tasuki/internal/image/store"
	"github.com/mirego/tasuki/internal/image/tartfmt"
)

// The boot artifact: an OCI image manifest of the artifact kind (OCI image
// specification 1.1, "Guidelines for Artifact Usage").
const (
	mediaBootArtifact = "application/vnd.tasuki.boot.v1"
	mediaKernel       = "application/vnd.tasuki.kernel.v1"
	mediaInitrd       = "application/vnd.tasuki.initrd.v1"
	mediaEmpty        = "application/vnd.oci.empty.v1+json"
	annotationImage   = "org.tasuki.image"

	maxBootFile = 2 << 30
)

var emptyJSON = []byte("{}")

type bootManifest struct {
	SchemaVersion int                  `json:"schemaVersion"`
	MediaType     string               `json:"mediaType"`
	ArtifactType  string               `json:"artifactType"`
	Config        tartfmt.Descriptor   `json:"config"`
	Layers        []tartfmt.Descriptor `json:"layers"`
	// Subject is the image, for registries that list what refers to one.
	Subject     tartfmt.Descriptor `json:"subject,omitzero"`
	Annotations map[string]string  `json:"annotations"`
}

// bootTag is the tag of the boot artifact of an image.
func bootTag(imageDigest string) string {
	return "sha256-" + image.DigestHex(imageDigest) + ".boot"
}

// bootFile is a kernel or an initrd.
type bootFile struct {
	mediaType, label, name string
	path                   func(*image.Source) string
}

var bootFiles = []bootFile{
	{mediaKernel, image.LabelKernelDigest, store.FileKernel, func(s *image.Source) string { return s.Kernel }},
	{mediaInitrd, image.LabelInitrdDigest, store.FileInitrd, func(s *image.Source) string { return s.Initrd }},
}

// pushBootFiles uploads kernel and initrd, puts their digests into labels, and
// returns the artifact's layers.
func (c *client) pushBootFiles(ctx context.Context, src *image.Source, labels map[string]string) ([]tartfmt.Descriptor, error) {
	var layers []tartfmt.Descriptor
	for _, bf := range bootFiles {
		delete(labels, bf.label)
		path := bf.path(src)
		if path == "" {
			continue
		}
		d, err := describeFile(path, bf.mediaType)
		if err != nil {
			return nil, err
		}
		if err := c.upload(ctx, blobSource{d.Digest, d.Size, func() (io.ReadCloser, error) { return os.Open(path) }}); err != nil {
			return nil, fmt.Errorf("%s: %w", bf.name, err)
		}
		labels[bf.label] = d.Digest
		layers = append(layers, d)
	}
	return layers, nil
}

func describeFile(path, mediaType string) (tartfmt.Descriptor, error) {
	f, err := os.Open(path)
	if err != nil {
		return tartfmt.Descriptor{}, err
	}
	defer f.Close()
	sum := sha256.New()
	n, err := io.Copy(sum, f)
	if err != nil {
		return tartfmt.Descriptor{}, err
	}
	return tartfmt.Descriptor{MediaType: mediaType, Digest: fmt.Sprintf("sha256:%x", sum.Sum(nil)), Size: n}, nil
}

// pushBootArtifact tags the uploaded files as belonging to an image.
func (c *client) pushBootArtifact(ctx context.Context, img tartfmt.Descriptor, layers []tartfmt.Descriptor) error {
	config := describe(emptyJSON, mediaEmpty)
	if err := c.upload(ctx, memoryBlob(config, emptyJSON)); err != nil {
		return err
	}
	b, err := json.Marshal(bootManifest{
		SchemaVersion: 2, MediaType: tartfmt.MediaManifest, ArtifactType: mediaBootArtifact,
		Config: config, Layers: layers, Subject: img, Annotations: map[string]string{annotationImage: img.Digest},
	})
	if err != nil {
		return err
	}
	return c.putManifest(ctx, bootTag(img.Digest), describe(b, "").Digest, b)
}

// pullBootFiles brings the files that the image's labels name into dir. The
// artifact only says how long they are; the labels, which the image's digest
// covers, say what they are.
func (c *client) pullBootFiles(ctx context.Context, m *meter, imageDigest string, labels map[string]string, dir string) error {
	wanted := map[string]string{} // media type to digest
	for _, bf := range bootFiles {
		if d := labels[bf.label]; d != "" {
			wanted[bf.mediaType] = d
		}
	}
	if len(wanted) == 0 {
		if labels[image.LabelBoot] == image.BootKernel {
			return fmt.Errorf("image %s boots by kernel, but has no label %s; push it again", imageDigest, image.LabelKernelDigest)
		}
		return nil
	}
	raw, _, err := c.manifest(ctx, bootTag(imageDigest))
	if err != nil {
		if errors.Is(err, image.ErrNotInRegistry) {
			return fmt.Errorf("its boot artifact %s is not in the registry; copy that tag along with the image: %w", bootTag(imageDigest), err)
		}
		return err
	}
	var bm bootManifest
	if err := json.Unmarshal(raw, &bm); err != nil {
		return fmt.Errorf("cannot read boot artifact %s: %w", bootTag(imageDigest), err)
	}
	layers := map[string]tartfmt.Descriptor{}
	for _, l := range bm.Layers {
		layers[l.MediaType] = l
	}
	for _, bf := range bootFiles {
		digest, ok := wanted[bf.mediaType]
		if !ok {
			continue
		}
		l := layers[bf.mediaType]
		if l.Digest != digest || image.CheckDigest(digest) != nil || l.Size <= 0 || l.Size > maxBootFile {
			return fmt.Errorf("boot artifact %s has the %s %q of %d bytes, but the image wants %q", bootTag(imageDigest), bf.name, l.Digest, l.Size, digest)
		}
		if err := c.fetchFile(ctx, m, l, filepath.Join(dir, bf.name)); err != nil {
			return fmt.Errorf("%s: %w", bf.name, err)
		}
	}
	return nil
}
