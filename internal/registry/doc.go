// Package registry is the OCI registry that Tasuki brings along: the server of
// the CNCF distribution project, embedded, on a directory of this machine.
//
// A registry holds repositories; a repository holds blobs, which are named by
// the digest of their bytes, and manifests, which name blobs and can be tagged.
// What is stored survives a restart; an upload that was cut leaves only a
// temporary file, never a blob.
//
// So far the server speaks plain HTTP and asks nobody who they are, so it
// belongs on a loopback address. Options.Protect is the seam for users.
package registry
