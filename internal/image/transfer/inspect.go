package transfer

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/mirego/tasuki/internal/image"
	"github.com/mirego/tasuki/internal/image/store"
	"github.com/mirego/tasuki/internal/image/tartfmt"
)

// Inspection is what an image's manifest and configurations say. Sizes are in
// bytes.
type Inspection struct {
	Ref    image.Ref `json:"ref,omitzero"`
	Digest string    `json:"digest"`
	// DiskSize is the apparent size of the disk; Zeros is how much of it is in
	// layers of zeros, which are never moved.
	DiskSize int64 `json:"diskSize"`
	Zeros    int64 `json:"zeros"`
	// Download is what a host that has nothing of it fetches, without kernel
	// and initrd.
	Download int64 `json:"download"`
	// Layers is how many disk layers there are; LargestLayer is the raw length
	// of the longest one.
	Layers       int   `json:"layers"`
	LargestLayer int64 `json:"largestLayer"`
	// UploadTime is zero if the manifest does not say.
	UploadTime time.Time `json:"uploadTime,omitzero"`
	// Labels are those of the OCI configuration; never nil.
	Labels map[string]string `json:"labels"`
	// VMConfig is tart's config.json.
	VMConfig json.RawMessage `json:"vmConfig,omitempty"`

	// Manifest is the parsed manifest, Raw its bytes.
	Manifest *tartfmt.Manifest `json:"-"`
	Raw      []byte            `json:"-"`
}

// Inspect asks a registry about an image; it fetches no layers. The errors are
// those of Pull.
func Inspect(ctx context.Context, ref image.Ref, opt Options) (Inspection, error) {
	opt = opt.withDefaults()
	fail := func(err error) (Inspection, error) {
		return Inspection{}, fmt.Errorf("cannot inspect image %s: %w", ref, err)
	}
	c, err := newClient(ctx, ref, opt, scopePull)
	if err != nil {
		return fail(err)
	}
	defer c.close()
	raw, digest, err := c.manifest(ctx, tagOrDigest(ref))
	if err != nil {
		return fail(err)
	}
	mf, err := tartfmt.Parse(raw)
	if err != nil {
		return fail(err)
	}
	m := &meter{}
	oci, err := c.fetchBytes(ctx, m, mf.OCIConfig, maxOCIConfig)
	if err != nil {
		return fail(err)
	}
	config, err := c.fetchBytes(ctx, m, mf.VMConfig, maxVMConfig)
	if err != nil {
		return fail(err)
	}
	in, err := inspection(raw, oci, config)
	if err != nil {
		return fail(err)
	}
	in.Ref, in.Digest = ref, digest
	return in, nil
}

// InspectLocal says the same of an image of this host, without a registry.
func InspectLocal(img image.Local) (Inspection, error) {
	var b [3][]byte
	for i, name := range []string{store.FileManifest, store.FileOCIConfig, store.FileConfig} {
		var err error
		if b[i], err = os.ReadFile(filepath.Join(img.Dir, name)); err != nil {
			return Inspection{}, fmt.Errorf("cannot inspect image %s: %w", img.Digest, err)
		}
	}
	in, err := inspection(b[0], b[1], b[2])
	if err != nil {
		return Inspection{}, fmt.Errorf("cannot inspect image %s: %w", img.Digest, err)
	}
	in.Ref, in.Digest = img.Ref, img.Digest
	return in, nil
}

// tagOrDigest is how the reference names its manifest to the registry.
func tagOrDigest(ref image.Ref) string {
	if ref.Digest() != "" {
		return ref.Digest()
	}
	return ref.Tag()
}

func inspection(raw, oci, config []byte) (Inspection, error) {
	mf, err := tartfmt.Parse(raw)
	if err != nil {
		return Inspection{}, err
	}
	labels, err := tartfmt.ParseOCIConfig(oci)
	if err != nil {
		return Inspection{}, err
	}
	in := Inspection{
		DiskSize: mf.DiskSize(), Layers: len(mf.Chunks), UploadTime: mf.UploadTime, Labels: labels, Manifest: mf, Raw: raw,
		Download: mf.OCIConfig.Size + mf.VMConfig.Size + mf.NVRAM.Size,
	}
	if json.Valid(config) {
		in.VMConfig = config
	}
	var zeros tartfmt.Zeros
	seen := map[string]bool{}
	for _, ch := range mf.Chunks {
		in.LargestLayer = max(in.LargestLayer, ch.RawSize)
		switch {
		case zeros.Chunk(ch):
			in.Zeros += ch.RawSize
		case !seen[ch.Digest]:
			seen[ch.Digest] = true
			in.Download += ch.Size
		}
	}
	return in, nil
}

// Difference is what a host that has one image does to get another.
type Difference struct {
	From string `json:"from"`
	To   string `json:"to"`
	// Fetch is how many layers it fetches, FetchBytes how long they are as they
	// travel, FetchRaw on the disk.
	Fetch      int   `json:"fetch"`
	FetchBytes int64 `json:"fetchBytes"`
	FetchRaw   int64 `json:"fetchRaw"`
	// Have is how many layers, and HaveRaw how many bytes on the disk, it takes
	// from what it has. Zeros are in neither.
	Have    int   `json:"have"`
	HaveRaw int64 `json:"haveRaw"`
	// Labels are the names of labels that differ, sorted.
	Labels []string `json:"labels,omitempty"`
}

// Diff says what a host that has from has to fetch for to. Layers are the same
// if their content is, wherever they lie and however they were compressed.
func Diff(from, to Inspection) Difference {
	d := Difference{From: from.Digest, To: to.Digest, Labels: differing(from.Labels, to.Labels)}
	have := map[string]bool{}
	for _, ch := range from.Manifest.Chunks {
		have[ch.RawDigest] = ch.RawDigest != ""
	}
	var zeros tartfmt.Zeros
	fetched := map[string]bool{}
	for _, ch := range to.Manifest.Chunks {
		switch {
		case zeros.Chunk(ch):
		case have[ch.RawDigest]:
			d.Have++
			d.HaveRaw += ch.RawSize
		case !fetched[ch.Digest]:
			fetched[ch.Digest] = true
			d.Fetch++
			d.FetchBytes += ch.Size
			d.FetchRaw += ch.RawSize
		}
	}
	return d
}

func differing(a, b map[string]string) []string {
	all := map[string]string{}
	maps.Copy(all, a)
	maps.Copy(all, b)
	maps.DeleteFunc(all, func(name, _ string) bool {
		va, inA := a[name]
		vb, inB := b[name]
		return inA == inB && va == vb
	})
	return slices.Sorted(maps.Keys(all))
}
