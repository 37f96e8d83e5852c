package transfer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/mirego/tasuki/internal/image"
	"github.com/mirego/tasuki/internal/image/tartfmt"
)

// Place is a reference and how its registry is spoken to.
type Place struct {
	Ref     image.Ref
	Options Options
}

// Tag gives the image that from means another name in the same registry, and
// returns its digest. Nothing is downloaded: within a repository only the
// manifest is sent again, byte for byte; into another repository the registry
// is asked to link the blobs, which not every registry does.
func Tag(ctx context.Context, from, to image.Ref, opt Options) (digest string, err error) {
	fail := func(err error) (string, error) { return "", fmt.Errorf("cannot tag image %s as %s: %w", from, to, err) }
	if from.Registry() != to.Registry() {
		return fail(errors.New("they are in two registries; pull the one and push the other"))
	}
	done, err := replicate(ctx, Place{from, opt}, Place{to, opt}, false)
	if err != nil {
		return fail(err)
	}
	return done.Digest, nil
}

// Copied is what a copy did.
type Copied struct {
	Digest string `json:"digest"`
	// Sent and Bytes are the blobs that went through this host, and their size;
	// Present are those that the target had, or that its registry linked.
	Sent    int   `json:"sent"`
	Bytes   int64 `json:"bytes"`
	Present int   `json:"present"`
}

// Copy brings an image from one registry to another as it is: the manifest byte
// for byte, so the digest stays, and the blobs, which pass through without
// touching this host's disk. What the target has is not moved, and within one
// registry nothing is if the registry can link. The tag is set last.
func Copy(ctx context.Context, from, to Place) (Copied, error) {
	done, err := replicate(ctx, from, to, true)
	if err != nil {
		return done, fmt.Errorf("cannot copy image %s to %s: %w", from.Ref, to.Ref, err)
	}
	return done, nil
}

// replica is a copy in progress.
type replica struct {
	from, to *client
	link     bool // both are repositories of one registry
	move     bool // blobs may pass through this host
	m        *meter
}

func replicate(ctx context.Context, from, to Place, move bool) (done Copied, err error) {
	if to.Ref.Tag() == "" {
		return done, fmt.Errorf("%s needs a tag, such as %s", to.Ref, to.Ref.WithTag(image.DefaultTag))
	}
	r := &replica{move: move, link: from.Ref.Registry() == to.Ref.Registry(), m: &meter{report: to.Options.Progress}}
	if r.from, err = newClient(ctx, from.Ref, from.Options.withDefaults(), scopePull); err != nil {
		return done, err
	}
	defer r.from.close()
	var also []string
	if r.link && from.Ref.Name() != to.Ref.Name() {
		also = []string{from.Ref.Name()}
	}
	if r.to, err = newClient(ctx, to.Ref, to.Options.withDefaults(), scopePush, also...); err != nil {
		return done, err
	}
	defer r.to.close()
	raw, digest, err := r.from.manifest(ctx, tagOrDigest(from.Ref))
	if err != nil {
		return done, err
	}
	mf, err := tartfmt.Parse(raw)
	if err != nil {
		return done, err
	}
	done.Digest = digest
	if r.link && from.Ref.Name() == to.Ref.Name() {
		return done, r.to.putManifest(ctx, to.Ref.Tag(), digest, raw)
	}
	if err := r.blobs(ctx, blobsOf(mf), &done); err != nil {
		return done, err
	}
	if err := r.boot(ctx, mf, digest, &done); err != nil {
		return done, fmt.Errorf("boot artifact: %w", err)
	}
	return done, r.to.putManifest(ctx, to.Ref.Tag(), digest, raw)
}

// blobsOf lists every blob that a manifest names.
func blobsOf(mf *tartfmt.Manifest) []tartfmt.Descriptor {
	all := []tartfmt.Descriptor{mf.OCIConfig, mf.VMConfig, mf.NVRAM}
	for _, ch := range mf.Chunks {
		all = append(all, ch.Descriptor)
	}
	return all
}

// boot copies the boot artifact, if the image's labels name one.
func (r *replica) boot(ctx context.Context, mf *tartfmt.Manifest, digest string, done *Copied) error {
	oci, err := r.from.fetchBytes(ctx, &meter{}, mf.OCIConfig, maxOCIConfig)
	if err != nil {
		return err
	}
	labels, err := tartfmt.ParseOCIConfig(oci)
	if err != nil {
		return err
	}
	if labels[image.LabelKernelDigest] == "" && labels[image.LabelInitrdDigest] == "" {
		return nil
	}
	raw, bootDigest, err := r.from.manifest(ctx, bootTag(digest))
	if err != nil {
		return err
	}
	var bm bootManifest
	if err := json.Unmarshal(raw, &bm); err != nil {
		return fmt.Errorf("cannot read %s: %w", bootTag(digest), err)
	}
	for _, d := range append(bm.Layers, bm.Config) {
		if err := errors.Join(image.CheckDigest(d.Digest), checkSize(d)); err != nil {
			return err
		}
	}
	if err := r.blobs(ctx, append(bm.Layers, bm.Config), done); err != nil {
		return err
	}
	return r.to.putManifest(ctx, bootTag(digest), bootDigest, raw)
}

func checkSize(d tartfmt.Descriptor) error {
	if d.Size < 0 || d.Size > maxBootFile {
		return fmt.Errorf("blob %s has the size %d", d.Digest, d.Size)
	}
	return nil
}

// blobs brings each of these blobs to the target.
func (r *replica) blobs(ctx context.Context, list []tartfmt.Descriptor, done *Copied) error {
	unique := map[string]bool{}
	var todo []tartfmt.Descriptor
	var total int64
	for _, d := range list {
		if !unique[d.Digest] {
			unique[d.Digest] = true
			todo = append(todo, d)
			total += d.Size
		}
	}
	r.m.begin(PhaseCopy, total)
	defer r.m.end()
	var counts counts
	err := each(ctx, r.to.opt.Parallel, todo, func(ctx context.Context, d tartfmt.Descriptor) error {
		sent, err := r.blob(ctx, d)
		if err != nil {
			return fmt.Errorf("blob %s: %w", d.Digest, err)
		}
		r.m.add(d.Size)
		counts.add(sent, d.Size)
		return nil
	})
	done.Sent, done.Bytes, done.Present = done.Sent+counts.sent, done.Bytes+counts.bytes, done.Present+counts.present
	return err
}

// blob brings one blob to the target and says whether it passed through here.
func (r *replica) blob(ctx context.Context, d tartfmt.Descriptor) (sent bool, err error) {
	found, err := r.to.has(ctx, d.Digest)
	if err != nil || found {
		return false, err
	}
	if r.link {
		mounted, err := r.to.mount(ctx, d.Digest, r.from.ref.Name())
		if err != nil || mounted {
			return false, err
		}
	}
	if !r.move {
		return false, errors.New("the registry does not link blobs between repositories")
	}
	return true, r.to.retry(ctx, "upload", func(ctx context.Context) error {
		return r.to.uploadOnce(ctx, blobSource{d.Digest, d.Size, func() (io.ReadCloser, error) {
			return blobReader{r.from.stream(ctx, d)}, nil
		}})
	})
}

// blobReader is a stream as the body of a request.
type blobReader struct{ *stream }

// Close drops the connection to the source.
func (b blobReader) Close() error {
	b.stream.Close()
	return nil
}

// counts are what a copy did so far.
type counts struct {
	mu            sync.Mutex
	sent, present int
	bytes         int64
}

func (c *counts) add(sent bool, size int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !sent {
		c.present++
		return
	}
	c.sent++
	c.bytes += size
}
