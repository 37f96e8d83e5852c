// Package transfer moves images between a registry and this host.
//
// A push cuts a raw disk into chunks, compresses those that are not zeros, and
// uploads what the registry does not have. A pull fetches chunks in parallel,
// decodes each straight to its place in a sparse disk, and verifies it: a
// chunk counts only when its blob has the digest and decodes to the length
// that the manifest states, and the manifest has the digest that was asked for.
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
