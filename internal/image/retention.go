package image

import (
	"cmp"
	"errors"
	"slices"
	"strings"
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
// recently used first. An image that is held stays without being named.
type Retention struct {
	// Needed are the digests of what stays, each with why, for people.
	Needed map[string]string
	// Floor is how many bytes must be free.
	Floor int64
}

// Need notes that an image stays, and why. Several reasons are kept, each once;
// an empty digest is none.
func (r *Retention) Need(digest, why string) {
	if digest == "" {
		return
	}
	if r.Needed == nil {
		r.Needed = map[string]string{}
	}
	switch old := r.Needed[digest]; {
	case old == "":
		r.Needed[digest] = why
	case !slices.Contains(strings.Split(old, "; "), why):
		r.Needed[digest] = old + "; " + why
	}
}

// Why says why an image stays whatever the space; empty: it may go.
func (r Retention) Why(img Stored) string {
	if why := r.Needed[img.Digest]; why != "" || !img.InUse {
		return why
	}
	return "a process holds it"
}

// Keeps reports whether the image stays, whatever the space.
func (r Retention) Keeps(img Stored) bool { return r.Why(img) != "" }

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

// Pruned is what a prune removed, or would remove.
type Pruned struct {
	// Images are those that went, in this order.
	Images []Stored `json:"images"`
	// Partials are digests of images that were never brought here to the end.
	Partials []string `json:"partials,omitempty"`
	// Freed is what that gave back, in bytes; of a dry run, what it takes now.
	Freed int64 `json:"freed"`
	// Free is what is free afterwards. It stays below the floor where all that
	// is left is needed.
	Free int64 `json:"free"`
}
