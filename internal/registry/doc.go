// Package registry is the OCI registry that Tasuki brings along: the server of
// the CNCF distribution project, embedded, on a directory of this machine.
//
// A registry holds repositories; a repository holds blobs, which are named by
// the digest of their bytes, and manifests, which name blobs and can be tagged.
// What is stored survives a restart; an upload that was cut leaves only a
// temporary file, never a blob.
//
// A depot is one storage root with one instance of the library on it. The
// server has one that takes pushes, and one for each mirror: a mirror shows
// another registry (its upstream) below /v2/mirror/NAME/ and keeps what passes
// through it. The layout of the directory:
//
//	docker/            the depot for pushes, in the library's own layout
//	mirrors/NAME/      the depot of a mirror
//	users              who may do what (Users)
//	tls/               the generated authority and certificate (Authority)
//	lock               held by the one process that writes here (Lock)
//	admin.sock         where the running server takes orders (Admin)
//
// Collecting garbage deletes what no tag leads to (Policy says what that
// means). The library's own collector must not run beside pushes. Ours lets
// every push that is under way finish, makes new ones wait, and lets pulls go
// on. It deletes names before what they name, so that it can be
// killed at any point.
package registry
