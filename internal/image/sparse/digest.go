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

// ReadError says that the source of a copy, and not its target, failed.
type ReadError struct{ Err error }

func (e *ReadError) Error() string { return e.Err.Error() }

// Unwrap returns what the source said.
func (e *ReadError) Unwrap() error { return e.Err }

// Digest is the sha256 of n bytes from off, as "sha256:hex". A file that is
// shorter is an error.
func Digest(r io.ReaderAt, off, n int64) (string, error) {
	sum := sha256.New()
	if err := pieces(r, off, n, func(p []byte, _ int64) error {
		_, err := sum.Write(p)
		return err
	}); err != nil {
		return "", err
	}
	return fmt.Sprintf("sha256:%x", sum.Sum(nil)), nil
}

// Scan is Digest, and how many of the bytes are in blocks that are not all zeros.
func Scan(r io.ReaderAt, off, n int64) (digest string, data int64, err error) {
	sum := sha256.New()
	err = pieces(r, off, n, func(p []byte, _ int64) error {
		data += DataSize(p)
		_, err := sum.Write(p)
		return err
	})
	return fmt.Sprintf("sha256:%x", sum.Sum(nil)), data, err
}

// Copy copies n bytes between two places in two files, leaves out zeros as
// WriteAt does, and returns the digest of what it read.
func Copy(dst io.WriterAt, dstOff int64, src io.ReaderAt, srcOff, n int64) (digest string, err error) {
	sum := sha256.New()
	if err := pieces(src, srcOff, n, func(p []byte, at int64) error {
		_, _ = sum.Write(p) // never fails
		return WriteAt(dst, p, dstOff+at)
	}); err != nil {
		return "", err
	}
	return fmt.Sprintf("sha256:%x", sum.Sum(nil)), nil
}

// pieces reads n bytes from off and gives them on with their distance from off.
func pieces(r io.ReaderAt, off, n int64, give func(p []byte, at int64) error) error {
	buf := buffers.Get().(*[copySize]byte)
	defer buffers.Put(buf)
	for at := int64(0); at < n; {
		p := buf[:min(n-at, copySize)]
		if err := readFull(r, p, off+at); err != nil {
			return &ReadError{err}
		}
		if err := give(p, at); err != nil {
			return err
		}
		at += int64(len(p))
	}
	return nil
}

// DataSize is how many of p's bytes are in blocks that are not all zeros.
func DataSize(p []byte) int64 {
	var data int64
	for len(p) > 0 {
		block := p[:min(len(p), BlockSize)]
		if !IsZero(block) {
			data += int64(len(block))
		}
		p = p[len(block):]
	}
	return data
}

// readFull fills p from off.
func readFull(r io.ReaderAt, p []byte, off int64) error {
	n, err := r.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == nil || err == io.EOF { //nolint:errorlint // io.ReaderAt returns the value itself
		err = io.ErrUnexpectedEOF
	}
	return err
}
