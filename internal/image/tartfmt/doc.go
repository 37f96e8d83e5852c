// Package tartfmt is the OCI image format of tart as a codec: manifests, the
// compressed chunks of a disk, and the VM's configuration. It moves no bytes
// over a network and opens no files.
//
// An image is one OCI image manifest. Its layers are, in this order: the VM
// configuration (config.json, not compressed), the disk as chunks in disk.v2
// form, and the firmware's variables (nvram.bin, not compressed). A chunk is a
// run of the raw disk, compressed on its own; two annotations give its raw
// length, of which the running sum is its place in the disk, and the sha256 of
// its raw content. The OCI configuration is a stub that carries labels.
//
// The compression is Apple's LZ4 framing: blocks of up to 64 KiB under their
// own little headers, where a block may refer back into the one before it.
//
// Readers of the format re-encode manifests, so Manifest.Encode writes exactly
// the bytes that tart's own encoder writes: sorted keys, no white space, and
// every slash escaped. A digest then survives being retagged by tart.
package tartfmt

// Media types.
const (
	MediaManifest   = "application/vnd.oci.image.manifest.v1+json"
	MediaOCIConfig  = "application/vnd.oci.image.config.v1+json"
	MediaConfig     = "application/vnd.cirruslabs.tart.config.v1"
	MediaDisk       = "application/vnd.cirruslabs.tart.disk.v2"
	MediaNVRAM      = "application/vnd.cirruslabs.tart.nvram.v1"
	mediaDiskV1     = "application/vnd.cirruslabs.tart.disk.v1"
	mediaDiskASIF   = "application/vnd.cirruslabs.tart.disk.asif.overlay.v1"
	annotationSpace = "org.cirruslabs.tart."
)

// Annotations, on the manifest or on disk layers.
const (
	// AnnotationDiskSize is the raw size of the disk in bytes (manifest).
	AnnotationDiskSize = annotationSpace + "uncompressed-disk-size"
	// AnnotationUploadTime is when the image was pushed, RFC 3339 (manifest).
	AnnotationUploadTime = annotationSpace + "upload-time"
	// AnnotationRawSize is the raw length of a chunk in bytes (disk layer).
	AnnotationRawSize = annotationSpace + "uncompressed-size"
	// AnnotationRawDigest is the digest of a chunk's raw content (disk layer).
	AnnotationRawDigest = annotationSpace + "uncompressed-content-digest"
)

// labelDiskFormat is the label of the OCI configuration that says how the disk
// file is laid out; ours are always raw.
const labelDiskFormat = annotationSpace + "disk.format"

// Limits that a manifest must keep to.
const (
	// MaxManifestSize is what registries and clients accept for a manifest.
	MaxManifestSize = 4 << 20
	// MaxLayers keeps a manifest that we write well under MaxManifestSize.
	MaxLayers = 10_000
	// MaxDiskSize is the largest disk that we read or write.
	MaxDiskSize = 64 << 40
)

// DefaultChunkSize is the raw length of the chunks that we write. Tart writes
// 512 MiB; every tart reads smaller ones, and an update then moves less.
const DefaultChunkSize = 16 << 20

// ChunkSize returns the raw length of chunks for a disk: want (DefaultChunkSize
// if zero), doubled until the manifest stays under MaxLayers.
func ChunkSize(diskSize, want int64) int64 {
	size := want
	if size <= 0 {
		size = DefaultChunkSize
	}
	for (diskSize+size-1)/size > MaxLayers-2 {
		size *= 2
	}
	return size
}
