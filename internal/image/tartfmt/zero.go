package tartfmt

import (
	"crypto/sha256"
	"fmt"
	"sync"
)

// knownZeros are the digests of runs of zeros that chunks commonly have: ours,
// tart's since July 2024, and tart's before it.
var knownZeros = map[int64]string{
	16 << 20:    "sha256:080acf35a507ac9849cfcba47dc2ad83e01b75663a516279c8b9d243b719643e",
	512 << 20:   "sha256:9acca8e8c22201155389f65abbf6bc9723edc7384ead80503839f49dcc56d767",
	500_000_000: "sha256:38f7c0648553d81ad9402ebdd1b275a0029644c5b7eef7c963dfa7db9ef0ba23",
}

// Zeros knows the digest of n zero bytes for any n, and so which chunks need
// not be fetched. Its zero value is ready; it may be used by several goroutines.
type Zeros struct {
	mu    sync.Mutex
	known map[int64]string
}

// Bounds on the hashing that a manifest can make us do: it names the lengths.
const (
	maxHashedZeros   = 1 << 30
	maxHashedLengths = 8
)

// Digest is the digest of n zero bytes. Lengths outside the common ones are
// hashed once, at about a gigabyte a second. It is "" for lengths above 1 GiB
// and once too many lengths were asked for, which no real image does.
func (z *Zeros) Digest(n int64) string {
	if d, ok := knownZeros[n]; ok {
		return d
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	if d, ok := z.known[n]; ok {
		return d
	}
	if n > maxHashedZeros || len(z.known) >= maxHashedLengths {
		return ""
	}
	h := sha256.New()
	var zeros [64 << 10]byte
	for left := n; left > 0; {
		k := min(left, int64(len(zeros)))
		h.Write(zeros[:k])
		left -= k
	}
	d := fmt.Sprintf("sha256:%x", h.Sum(nil))
	if z.known == nil {
		z.known = map[int64]string{}
	}
	z.known[n] = d
	return d
}

// Chunk reports whether the chunk's raw content is zeros, from what the
// manifest says about it. A blob that is larger than zeros compress to is not
// worth the hashing.
func (z *Zeros) Chunk(c Chunk) bool {
	const leastRatio = 100 // LZ4 shrinks zeros about 240 times
	return c.RawDigest != "" && c.Size <= c.RawSize/leastRatio+64 && c.RawDigest == z.Digest(c.RawSize)
}
