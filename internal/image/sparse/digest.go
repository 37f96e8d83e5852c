package sparse

import (
	"crypto/sha256"
	"fmt"
	"io"
	"sync"
)

// copySize is the length in bytes of the pieces that ranges are read in: large
// enough that calls cost nothing, small enough to stay in a processor's cache.
const copySize = 256 << 10

var buffers = sync.Pool{New: func() any { return new([copySize]byte) }}

// Digest is the sha256 of n bytes from off, as "sha256:hex". A file that is
// shorter is an error.
func Digest(r io.ReaderAt, off, n int64) (string, error) {
	sum := sha256.New()
	buf := buffers.Get().(*[copySize]byte)
	defer buffers.Put(buf)
	for n > 0 {
		p := buf[:min(n, copySize)]
		if _, err := readFull(r, p, off); err != nil {
			return "", err
		}
		_, _ = sum.Write(p) // never fails
		off, n = off+int64(len(p)), n-int64(len(p))
	}
	return fmt.Sprintf("sha256:%x", sum.Sum(nil)), nil
}

// readFull fills p from off.
func readFull(r io.ReaderAt, p []byte, off int64) (int, error) {
	n, err := r.ReadAt(p, off)
	if n == len(p) {
		return n, nil
	}
	if err == nil || err == io.EOF { //nolint:errorlint // io.ReaderAt returns the value itself
		err = io.ErrUnexpectedEOF
	}
	return n, err
}
