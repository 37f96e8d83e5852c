package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mirego/tasuki/internal/image"
	"github.com/mirego/tasuki/internal/image/sparse"
	"github.com/mirego/tasuki/internal/image/tartfmt"
)

// Usage returns the images that can be used, as List does, with what they take
// and who needs them.
func (s *Store) Usage() ([]image.Stored, error) {
	list, listErr := s.List()
	tags, err := s.tags()
	if err != nil {
		return nil, err
	}
	usage := make([]image.Stored, 0, len(list))
	contents := make([]map[string]int64, len(list))
	owners := map[string]int{}
	for i, img := range list {
		contents[i] = content(img)
		for digest := range contents[i] {
			owners[digest]++
		}
		usage = append(usage, s.stored(img, tags[img.Digest]))
	}
	for i := range usage {
		for digest, size := range contents[i] {
			if owners[digest] > 1 {
				usage[i].Shared += size
			}
		}
	}
	return usage, listErr
}

func (s *Store) stored(img image.Local, tags []image.Ref) image.Stored {
	st := image.Stored{Local: img, Tags: tags, InUse: inUse(img.Dir)}
	if info, err := os.Stat(img.Dir); err == nil {
		st.LastUsed = info.ModTime()
	}
	entries, _ := os.ReadDir(img.Dir)
	for _, e := range entries {
		if info, err := e.Info(); err == nil {
			st.Size += sparse.Allocated(info)
		}
	}
	return st
}

// content is what the image's disk holds: the digests of its chunks that are
// not zeros, with their lengths. It is empty where the manifest cannot be read.
func content(img image.Local) map[string]int64 {
	out := map[string]int64{}
	mf, err := Manifest(img)
	if err != nil {
		return out
	}
	var zeros tartfmt.Zeros
	for _, ch := range mf.Chunks {
		if ch.RawDigest != "" && !zeros.Chunk(ch) {
			out[ch.RawDigest] = ch.RawSize
		}
	}
	return out
}

// Manifest reads the manifest of an image of this host.
func Manifest(img image.Local) (*tartfmt.Manifest, error) {
	b, err := os.ReadFile(filepath.Join(img.Dir, FileManifest))
	if err != nil {
		return nil, fmt.Errorf("cannot read the manifest of image %s: %w", img.Digest, err)
	}
	mf, err := tartfmt.Parse(b)
	if err != nil {
		return nil, fmt.Errorf("cannot read the manifest of image %s: %w", img.Digest, err)
	}
	return mf, nil
}

// inUse reports whether any process holds the image in dir. It asks for the
// lock for a moment, which Hold waits out.
func inUse(dir string) bool {
	lock, err := lockDir(dir, unix.LOCK_EX)
	if err != nil {
		return errors.Is(err, unix.EWOULDBLOCK)
	}
	_ = lock.Close()
	return false
}

// Touch notes that the image is used now, as a hold does. It is no error if it is
// not there.
func (s *Store) Touch(digest string) {
	if dir, err := s.path(digest); err == nil {
		touch(dir)
	}
}

// touch notes that the image is used now. Its directory's time is the record:
// nothing else changes it, and losing it only changes an order.
func touch(dir string) {
	now := time.Now()
	_ = os.Chtimes(dir, now, now)
}

// tags returns what every remembered tag meant last, by digest.
func (s *Store) tags() (map[string][]image.Ref, error) {
	entries, err := os.ReadDir(filepath.Join(s.dir, dirRefs))
	if err != nil {
		return nil, fmt.Errorf("cannot list images: %w", err)
	}
	out := map[string][]image.Ref{}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(s.dir, dirRefs, e.Name()))
		if err != nil {
			continue // forgotten meanwhile
		}
		var r refRecord
		if json.Unmarshal(b, &r) == nil && !r.Ref.IsZero() {
			out[r.Digest] = append(out[r.Digest], r.Ref)
		}
	}
	for _, refs := range out {
		slices.SortFunc(refs, func(a, b image.Ref) int { return strings.Compare(a.String(), b.String()) })
	}
	return out, nil
}

// shortest is how few digits of a digest Lookup takes.
const shortest = 6

// Find returns the image that a person means, as Lookup reads it.
func (s *Store) Find(name string) (image.Local, error) {
	digest, err := s.Lookup(name)
	if err != nil {
		return image.Local{}, err
	}
	return s.Get(digest)
}

// Lookup returns the digest that a person means: the digest itself, the first
// digits of one that is here, or a reference as it was last resolved here. The
// error wraps ErrNotFound if there is none, and says so if several begin that
// way. Unlike Find it takes images that are damaged, to remove them.
func (s *Store) Lookup(name string) (digest string, err error) {
	if image.CheckDigest(name) == nil {
		return name, nil
	}
	if ref, err := image.Parse(name); err == nil {
		return s.Resolve(ref)
	}
	digits := strings.TrimPrefix(name, "sha256:")
	if len(digits) < shortest || strings.Trim(digits, "0123456789abcdef") != "" {
		return "", fmt.Errorf("%w: %q is neither a reference nor the first %d or more digits of a digest", ErrNotFound, name, shortest)
	}
	found, err := filepath.Glob(filepath.Join(s.dir, dirPrefix+digits+"*"))
	switch {
	case err != nil:
		return "", fmt.Errorf("cannot find image %q: %w", name, err)
	case len(found) == 0:
		return "", fmt.Errorf("%w: no digest begins with %q", ErrNotFound, digits)
	case len(found) > 1:
		return "", fmt.Errorf("cannot find image %q: %d digests begin so; write more digits", name, len(found))
	}
	return "sha256:" + strings.TrimPrefix(filepath.Base(found[0]), dirPrefix), nil
}
