package transfer

import (
	"errors"
	"os"
	"sync"

	"github.com/mirego/tasuki/internal/image/sparse"
	"github.com/mirego/tasuki/internal/image/store"
	"github.com/mirego/tasuki/internal/image/tartfmt"
)

// place is where a local image has the content of a chunk.
type place struct {
	path string
	off  int64
}

// donors are the images of this host that have content of one that is pulled.
type donors struct {
	places map[contentKey][]place

	mu      sync.Mutex
	files   map[string]*os.File
	sharing int // whether the file system can clone ranges: yes 1, no -1, not known 0
}

type contentKey struct {
	digest string
	size   int64
}

// mostPlaces is how many places of one content are kept: enough to find the
// one in the image that is most alike.
const mostPlaces = 8

// findDonors looks through the local images for content that the manifest
// names. Content is known by its own digest: how it was compressed does not matter.
func findDonors(s *store.Store, mf *tartfmt.Manifest) *donors {
	d := &donors{places: map[contentKey][]place{}, files: map[string]*os.File{}}
	wanted := map[contentKey]bool{}
	for _, ch := range mf.Chunks {
		if ch.RawDigest != "" {
			wanted[contentKey{ch.RawDigest, ch.RawSize}] = true
		}
	}
	local, _ := s.List() // those that cannot be read are of no use
	for _, img := range local {
		have, err := store.Manifest(img)
		if err != nil || have.DiskSize() != img.DiskSize {
			continue
		}
		for _, ch := range have.Chunks {
			k := contentKey{ch.RawDigest, ch.RawSize}
			if wanted[k] && len(d.places[k]) < mostPlaces {
				d.places[k] = append(d.places[k], place{img.Disk, ch.Offset})
			}
		}
	}
	return d
}

// find returns a place that has the chunk's content, or the zero place.
func (d *donors) find(ch tartfmt.Chunk) place {
	if places := d.places[contentKey{ch.RawDigest, ch.RawSize}]; len(places) > 0 {
		return places[0]
	}
	return place{}
}

// mostAlike returns the local disk that has most of the manifest's content at
// the same offsets, and the indexes of those chunks; "" if none has any.
func (d *donors) mostAlike(mf *tartfmt.Manifest) (path string, same map[int]bool) {
	var zeros tartfmt.Zeros
	bytes, indexes := map[string]int64{}, map[string]map[int]bool{}
	for i, ch := range mf.Chunks {
		if zeros.Chunk(ch) {
			continue
		}
		for _, at := range d.places[contentKey{ch.RawDigest, ch.RawSize}] {
			if at.off != ch.Offset {
				continue
			}
			if indexes[at.path] == nil {
				indexes[at.path] = map[int]bool{}
			}
			indexes[at.path][i] = true
			bytes[at.path] += ch.RawSize
		}
	}
	for p, n := range bytes {
		if path == "" || n > bytes[path] || (n == bytes[path] && p < path) {
			path = p
		}
	}
	return path, indexes[path]
}

// shares reports whether a job takes no space, because its content can be
// cloned.
func (d *donors) shares(j *job) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return j.donor.path != "" && d.sharing > 0
}

// bring makes the chunk's place in disk hold what the donor has, and reports
// whether that is the chunk's content. Where it is not, the place may hold anything.
func (d *donors) bring(disk *os.File, ch tartfmt.Chunk, from place) (bool, error) {
	src, err := d.open(from.path)
	if err != nil {
		return false, nil //nolint:nilerr // removed meanwhile: the chunk is fetched
	}
	got := ""
	if d.cloned(disk, ch, src, from.off) {
		got, err = sparse.Digest(disk, ch.Offset, ch.RawSize)
	} else {
		if err := sparse.Clear(disk, ch.Offset, ch.RawSize); err != nil { // a clone may have failed half-way
			return false, err
		}
		// Reading once to hash and to write is cheaper than copy_file_range(2)
		// and reading the copy.
		got, err = sparse.Copy(disk, ch.Offset, src, from.off, ch.RawSize)
	}
	if _, unreadable := errors.AsType[*sparse.ReadError](err); unreadable {
		return false, nil
	}
	return got == ch.RawDigest, err
}

// cloned tries to share the space of a range.
func (d *donors) cloned(disk *os.File, ch tartfmt.Chunk, src *os.File, off int64) bool {
	d.mu.Lock()
	never := d.sharing < 0
	d.mu.Unlock()
	if never || ch.Offset%sparse.BlockSize != 0 || off%sparse.BlockSize != 0 || ch.RawSize%sparse.BlockSize != 0 {
		return false
	}
	if sparse.CloneRange(disk, ch.Offset, src, off, ch.RawSize) == nil {
		return true
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.sharing = -1
	return false
}

// probe finds out whether ranges can be cloned, with the first block of a disk
// that is a clone of the file at path already.
func (d *donors) probe(disk *os.File, path string) {
	src, err := d.open(path)
	if err != nil {
		return
	}
	d.sharing = -1
	if sparse.CloneRange(disk, 0, src, 0, sparse.BlockSize) == nil {
		d.sharing = 1
	}
}

func (d *donors) open(path string) (*os.File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if f := d.files[path]; f != nil {
		return f, nil
	}
	f, err := os.Open(path)
	if err == nil {
		d.files[path] = f
	}
	return f, err
}

func (d *donors) close() {
	for _, f := range d.files {
		_ = f.Close()
	}
}
