package sparse

import (
	"os"

	"golang.org/x/sys/unix"
)

// lseek(2).
const (
	seekData = unix.SEEK_DATA
	seekHole = unix.SEEK_HOLE
)

func punch(f *os.File, off, n int64) error {
	return unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
}
