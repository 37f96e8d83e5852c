package image

import (
	"cmp"
	"errors"
	"slices"
	"time"
)

// ErrDamaged says that an image on this host is not what its digest says.
var ErrDamaged = errors.New("image is damaged")

// Stored is an image of this host with what it costs and who needs it.
type Stored struct {
	Local
	// Tags are the references that meant this image when their registry was
	// last asked, sorted.
	Tags []Ref `json:"tags,omitempty"`
	// Size is the space in bytes that its files take, holes left out.
	Size int64 `json:"size"`
	// Shared is how many bytes of its disk's content another image of this
	// host has too. Where the file system can clone, they take space once.
	Shared int64 `json:"shared"`
	// LastUsed is when it was last held, or else when it came here.
	LastUsed time.Time `json:"lastUsed"`
	// InUse says that a process holds it right now.
	InUse bool `json:"inUse"`
}

// Retention says which images of a host stay, and how much space there has to
// be. Images that it does not name go when the space is needed, the least
// recently used first.
type Retention struct {
	// Named are the digests that pools name.
	Named []string
	// Previous are those that they named before, to go back to.
	Previous []string
	// InUse are those that guests are clones of, running or not. An image that
	// is held counts as in use without being listed.
	InUse []string
	// Floor is how many bytes must be free.
	Floor int64
}

// Keeps reports whether the image stays, whatever the space.
func (r Retention) Keeps(img Stored) bool {
	return img.InUse || slices.Contains(r.Named, img.Digest) ||
		slices.Contains(r.Previous, img.Digest) || slices.Contains(r.InUse, img.Digest)
}

// Excess decides which images are to be removed, in this order, when so many
// bytes are free. It takes no more than are needed, by what their sizes say; if
// even that is too little it returns all that may go.
func (r Retention) Excess(images []Stored, free int64) []Stored {
	var may []Stored
	for _, img := range images {
		if !r.Keeps(img) {
			may = append(may, img)
		}
	}
	slices.SortFunc(may, func(a, b Stored) int {
		return cmp.Or(a.LastUsed.Compare(b.LastUsed), cmp.Compare(a.Digest, b.Digest))
	})
	for i, img := range may {
		if free >= r.Floor {
			return may[:i]
		}
		free += img.Size
	}
	return may
}
