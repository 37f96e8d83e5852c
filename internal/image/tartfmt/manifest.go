package tartfmt

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/mirego/tasuki/internal/image"
)

// ErrFormat says that bytes are not an image that we can read.
var ErrFormat = errors.New("not a readable tart image")

// Descriptor names one blob of an image.
type Descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int64             `json:"size"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// Chunk is one disk layer with its place in the disk. Sizes and offsets are in
// bytes.
type Chunk struct {
	Descriptor
	Offset  int64
	RawSize int64
	// RawDigest is the digest of the raw content, or "" if the layer does not say.
	RawDigest string
}

// Manifest is a parsed image manifest, or one to be encoded.
type Manifest struct {
	OCIConfig  Descriptor // the stub with the labels
	VMConfig   Descriptor
	Chunks     []Chunk
	NVRAM      Descriptor
	UploadTime time.Time // zero if the manifest does not say
}

// DiskSize is the raw size of the disk in bytes.
func (m *Manifest) DiskSize() int64 {
	if len(m.Chunks) == 0 {
		return 0
	}
	last := m.Chunks[len(m.Chunks)-1]
	return last.Offset + last.RawSize
}

// Parse reads a manifest. Errors wrap ErrFormat. It is strict about the order
// of layers, as newer tart is, and about everything that decides which bytes
// go where; it ignores keys and annotations that it does not know.
func Parse(b []byte) (*Manifest, error) {
	if len(b) > MaxManifestSize {
		return nil, bad("manifest has %d bytes, more than %d", len(b), MaxManifestSize)
	}
	var raw struct {
		SchemaVersion int               `json:"schemaVersion"`
		MediaType     string            `json:"mediaType"`
		Annotations   map[string]string `json:"annotations"`
		Config        Descriptor        `json:"config"`
		Layers        []Descriptor      `json:"layers"`
		Manifests     []json.RawMessage `json:"manifests"`
	}
	if err := json.Unmarshal(b, &raw); err != nil {
		return nil, bad("manifest is not JSON: %v", err)
	}
	if len(raw.Manifests) > 0 {
		return nil, bad("it is an index of several images, not an image")
	}
	if raw.SchemaVersion != 2 || (raw.MediaType != "" && raw.MediaType != MediaManifest) {
		return nil, bad("manifest has schema version %d and media type %q", raw.SchemaVersion, raw.MediaType)
	}
	n := len(raw.Layers)
	if n < 3 {
		return nil, bad("manifest has %d layers; a VM image has a config, a disk and an nvram layer", n)
	}
	if first := raw.Layers[0].MediaType; first != MediaConfig {
		return nil, bad("the first layer is %q, not %q", first, MediaConfig)
	}
	if last := raw.Layers[n-1].MediaType; last != MediaNVRAM {
		return nil, bad("the last layer is %q, not %q", last, MediaNVRAM)
	}
	m := &Manifest{OCIConfig: raw.Config, VMConfig: raw.Layers[0], NVRAM: raw.Layers[n-1]}
	for _, d := range []Descriptor{m.OCIConfig, m.VMConfig, m.NVRAM} {
		if err := d.check(); err != nil {
			return nil, err
		}
	}
	chunks, err := parseChunks(raw.Layers[1 : n-1])
	if err != nil {
		return nil, err
	}
	m.Chunks = chunks
	if t, err := time.Parse(time.RFC3339, raw.Annotations[AnnotationUploadTime]); err == nil {
		m.UploadTime = t
	}
	return m, nil
}

func parseChunks(layers []Descriptor) ([]Chunk, error) {
	var offset int64
	chunks := make([]Chunk, 0, len(layers))
	for i, d := range layers {
		switch d.MediaType {
		case MediaDisk:
		case mediaDiskV1:
			return nil, bad("its disk is in the old disk.v1 form; push it again with a tart of 2023 or later")
		case mediaDiskASIF:
			return nil, bad("its disk is stacked (ASIF), which needs macOS 27; push it from a VM that was not cloned with --stacked")
		default:
			return nil, bad("layer %d has the media type %q", i+1, d.MediaType)
		}
		if err := d.check(); err != nil {
			return nil, err
		}
		size, err := strconv.ParseInt(d.Annotations[AnnotationRawSize], 10, 64)
		if err != nil || size <= 0 || size > MaxDiskSize-offset {
			return nil, bad("disk layer %d has %q for its raw size", i+1, d.Annotations[AnnotationRawSize])
		}
		rawDigest := d.Annotations[AnnotationRawDigest]
		if rawDigest != "" {
			if err := image.CheckDigest(rawDigest); err != nil {
				return nil, bad("disk layer %d: content digest: %v", i+1, err)
			}
		}
		chunks = append(chunks, Chunk{Descriptor: d, Offset: offset, RawSize: size, RawDigest: rawDigest})
		offset += size
	}
	return chunks, nil
}

func (d Descriptor) check() error {
	if err := image.CheckDigest(d.Digest); err != nil {
		return bad("blob of type %q: %v", d.MediaType, err)
	}
	if d.Size < 0 || d.Size > MaxDiskSize {
		return bad("blob %s has the size %d", d.Digest, d.Size)
	}
	return nil
}

func bad(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrFormat, fmt.Sprintf(format, args...))
}

// Encode writes the manifest as tart's encoder does, byte for byte. Chunks keep
// only the annotations that RawSize and RawDigest give: what newer tart notes on
// the first one, the digest of the whole disk, would be wrong for another disk.
func (m *Manifest) Encode() []byte {
	annotations := map[string]string{AnnotationDiskSize: strconv.FormatInt(m.DiskSize(), 10)}
	if !m.UploadTime.IsZero() {
		annotations[AnnotationUploadTime] = m.UploadTime.UTC().Format(time.RFC3339)
	}
	b := make([]byte, 0, 1024+360*len(m.Chunks))
	b = append(b, `{"annotations":`...)
	b = appendMap(b, annotations)
	b = append(b, `,"config":`...)
	b = appendDescriptor(b, m.OCIConfig, nil)
	b = append(b, `,"layers":[`...)
	b = appendDescriptor(b, m.VMConfig, map[string]string{})
	for _, c := range m.Chunks {
		a := map[string]string{AnnotationRawSize: strconv.FormatInt(c.RawSize, 10)}
		if c.RawDigest != "" {
			a[AnnotationRawDigest] = c.RawDigest
		}
		b = append(b, ',')
		b = appendDescriptor(b, c.Descriptor, a)
	}
	b = append(b, ',')
	b = appendDescriptor(b, m.NVRAM, map[string]string{})
	b = append(b, `],"mediaType":`...)
	b = appendString(b, MediaManifest)
	return append(b, `,"schemaVersion":2}`...)
}

// appendDescriptor writes annotations unless they are nil.
func appendDescriptor(b []byte, d Descriptor, annotations map[string]string) []byte {
	b = append(b, '{')
	if annotations != nil {
		b = append(b, `"annotations":`...)
		b = appendMap(b, annotations)
		b = append(b, ',')
	}
	b = append(b, `"digest":`...)
	b = appendString(b, d.Digest)
	b = append(b, `,"mediaType":`...)
	b = appendString(b, d.MediaType)
	b = append(b, `,"size":`...)
	b = strconv.AppendInt(b, d.Size, 10)
	return append(b, '}')
}
