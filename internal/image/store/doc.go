// Package store keeps the images of this host in a directory:
//
//	sha256-HEX/          one image, named by the digest of its manifest
//	    image.json       what Get returns; written last
//	    manifest.json    the manifest, byte for byte
//	    disk.img         the raw, sparse disk
//	    config.json, oci-config.json, nvram.bin, kernel, initrd
//	partial/sha256-HEX/  an image that is still being brought here
//	refs/NAME.json       what a tag meant when it was last asked
//	trash/               what is being deleted
//
// An image appears by one rename of a finished, synced directory, so it is
// whole or not there, whenever the power fails. Its files are read-only, and an
// image whose disk was written to all the same is refused.
//
// A directory's own modification time is when the image was last used: Prune
// takes the images that nobody needs in that order, and Verify reads one whole.
//
// A hold keeps an image from being removed, a partial is open to one transfer
// at a time; both are flock(2) locks on the directories themselves. They
// work between processes, and a process that dies loses its own.
package store

// Names of the files in an image's directory.
const (
	FileManifest  = "manifest.json"
	FileOCIConfig = "oci-config.json"
	FileConfig    = "config.json"
	FileDisk      = "disk.img"
	FileNVRAM     = "nvram.bin"
	FileKernel    = "kernel"
	FileInitrd    = "initrd"
	// FileJournal is a partial's alone: what of it is there.
	FileJournal = "journal"
	fileRecord  = "image.json"
)
