package image

import (
	"errors"
	"time"
)

// Sentinels of every store and transfer of images. Test for them with errors.Is.
var (
	// ErrNotFound says that this host does not have the image.
	ErrNotFound = errors.New("image not found on this host")
	// ErrNotInRegistry says that the registry does not have the image.
	ErrNotInRegistry = errors.New("image not found in the registry")
	// ErrNoSpace says that an image does not fit on this host.
	ErrNoSpace = errors.New("not enough space for the image")
	// ErrInUse says that a guest or a transfer still needs the image.
	ErrInUse = errors.New("image is in use")
)

// Local is an immutable image on this host. All paths are absolute and lie in
// Dir; nothing may write to them. It stays valid for as long as the store does
// not remove it, which a hold prevents.
type Local struct {
	// Ref is the reference that it was pulled or built under.
	Ref Ref `json:"ref,omitzero"`
	// Digest is the digest of the manifest: "sha256:hex".
	Digest string `json:"digest"`
	// Dir is the image's directory, images/sha256-HEX.
	Dir string `json:"dir"`
	// Disk is the path of the raw, sparse disk.
	Disk string `json:"disk"`
	// NVRAM, Kernel and Initrd are paths, or "" where the image has none.
	NVRAM  string `json:"nvram,omitempty"`
	Kernel string `json:"kernel,omitempty"`
	Initrd string `json:"initrd,omitempty"`
	// ConfigFile is the path of the tart VM configuration, or "".
	ConfigFile string `json:"configFile,omitempty"`
	// DiskSize is the apparent size of the disk in bytes.
	DiskSize int64 `json:"diskSize"`
	// Labels are those of the image's OCI configuration; never nil.
	Labels map[string]string `json:"labels"`
	// Arrived is when it came to this host; zero: that is not known.
	Arrived time.Time `json:"arrived,omitzero"`
}

// Progress is how far an image is on its way to this host, in bytes.
type Progress struct {
	Done, Total int64
	// Reused is how much of Done did not travel: this host had it.
	Reused int64
}

// Source is what a builder hands over to be pushed.
type Source struct {
	// Disk is the path of a raw disk; its holes are kept.
	Disk string
	// NVRAM, Kernel and Initrd are paths, or "" where the image has none.
	NVRAM, Kernel, Initrd string
	// Base is the image of this host that Disk was made from, or the zero Local.
	// What did not change keeps its layers.
	Base Local
	// Labels go to the image's OCI configuration.
	Labels map[string]string
	// ConfigJSON is the tart VM configuration (config.json) to carry as it is.
	// Empty means: make one from the labels.
	ConfigJSON []byte
}
