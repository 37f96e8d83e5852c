// Package transfer moves images between a registry and this host.
//
// A push cuts a raw disk into chunks, compresses those that are not zeros, and
// uploads what the registry does not have. A pull fetches chunks in parallel,
// decodes each straight to its place in a sparse disk, and verifies it: a
// chunk counts only when its blob has the digest and decodes to the length
// that the manifest states, and the manifest has the digest that was asked for.
//
// A layer travels only if its content is nowhere at hand. A pull takes content
// that another image of this host has, at whatever place in its disk, from there:
// cloned where the file system can, else copied, and hashed in any case, so a
// damaged donor costs a fetch and nothing else. A push hashes the disk and
// takes over the layers of the image that it was made from, and of the one
// that has the tag, without compressing them; Copy and Tag move manifests as they
// are, so a digest means the same image everywhere.
//
// What fails on the way (a cut connection, a 429 or 5xx answer, a corrupted
// blob) is tried again, after a pause that grows and that honours Retry-After. A pull
// that ends early leaves its chunks and a journal of them in the store's
// partial; the next pull of the digest checks those and fetches the rest.
// Pulls of one digest at the same time, in any process, are one transfer.
//
// Images that boot by kernel and initrd carry the two in a boot artifact: an OCI
// artifact of its own beside the image, tagged sha256-HEX.boot after the
// image's digest. A tag can be moved, so the image's labels hold the digests of
// both files and a pull takes nothing else.
package transfer
