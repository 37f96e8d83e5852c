// Package image holds the words for guest images: what they are called, what
// identifies them, and what this host knows about the ones it has.
//
// An image is one OCI manifest in the tart format (package tartfmt): a VM
// configuration, a raw disk cut into compressed chunks, and the firmware's
// variables. A reference (Ref) names it in a registry: by tag, which may mean
// another image tomorrow, or by digest, which never does. The digest is the
// sha256 of the manifest's bytes and is the image's only identity on a host: a
// Local is the image of one digest, unpacked and immutable.
//
// Labels are the key-value pairs of the image's OCI configuration. Those under
// the org.tasuki prefix say how a guest of this image boots, who logs in, and
// which host key it presents.
//
// Images stay on a host for as long as somebody needs them, and after that for
// as long as there is space: Retention is that decision.
//
// The package stores nothing. Package store keeps images on disk, package
// transfer moves them between a store and a registry.
package image
