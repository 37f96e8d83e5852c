// Package sparse reads and writes files with holes.
//
// A hole is a range of a file that was never written: it reads as zeros and
// takes no space. A data range is what is not a hole. File systems know both
// in units of a block, 4 KiB nearly everywhere; where one cannot tell, a whole
// file counts as data, which is never wrong, only slower and larger.
package sparse

import (
	"bytes"
	"errors"
	"io"
	"os"
	"syscall"
)

// BlockSize is the granularity in bytes at which zeros are left out.
const BlockSize = 4096

// NextData returns the first data range [start, end) at or after off, in bytes.
// Behind the last data both are the file's size. It moves f's offset.
func NextData(f *os.File, off int64) (start, end int64, err error) {
	info, err := f.Stat()
	if err != nil {
		return 0, 0, err
	}
	size := info.Size()
	if off >= size {
		return size, size, nil
	}
	start, err = f.Seek(off, seekData)
	switch {
	case errors.Is(err, syscall.ENXIO): // no data behind off
		return size, size, nil
	case errors.Is(err, syscall.EINVAL), errors.Is(err, syscall.ENOTSUP): // no notion of holes
		return off, size, nil
	case err != nil:
		return 0, 0, err
	}
	end, err = f.Seek(start, seekHole)
	if err != nil {
		return 0, 0, err
	}
	return start, min(end, size), nil
}

// WriteAt writes p at off but leaves out whole blocks of zeros, so that holes
// stay holes. What is left out must read as zeros already: a new file that was
// truncated to its size does, and a range given to Clear.
func WriteAt(w io.WriterAt, p []byte, off int64) error {
	flushed := 0 // p[:flushed] is written or left out
	for i := 0; i < len(p); {
		n := min(len(p)-i, BlockSize-int((off+int64(i))%BlockSize))
		if IsZero(p[i : i+n]) {
			if err := writeRun(w, p[flushed:i], off+int64(flushed)); err != nil {
				return err
			}
			flushed = i + n
		}
		i += n
	}
	return writeRun(w, p[flushed:], off+int64(flushed))
}

func writeRun(w io.WriterAt, p []byte, off int64) error {
	if len(p) == 0 {
		return nil
	}
	_, err := w.WriteAt(p, off)
	return err
}

var zeros [64 << 10]byte

// IsZero reports whether p holds nothing but zeros.
func IsZero(p []byte) bool {
	for len(p) > len(zeros) {
		if !bytes.Equal(p[:len(zeros)], zeros[:]) {
			return false
		}
		p = p[len(zeros):]
	}
	return bytes.Equal(p, zeros[:len(p)])
}

// Clear makes n bytes from off read as zeros: a hole where the file system can
// make one, written zeros where it cannot.
func Clear(f *os.File, off, n int64) error {
	if n <= 0 {
		return nil
	}
	if err := punch(f, off, n); err == nil {
		return nil
	}
	for n > 0 {
		k := min(n, int64(len(zeros)))
		if _, err := f.WriteAt(zeros[:k], off); err != nil {
			return err
		}
		off, n = off+k, n-k
	}
	return nil
}

// Allocated is the space in bytes that the file takes on its file system.
func Allocated(info os.FileInfo) int64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return int64(st.Blocks) * 512
	}
	return info.Size()
}
