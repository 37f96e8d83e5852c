package sparse

import (
	"errors"
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

// CloneFile makes dst, which must not exist, a copy of src that shares its
// space until one of them is written to. Where the file system cannot do that
// it returns an error and leaves nothing.
func CloneFile(dst, src string) error {
	from, err := os.Open(src)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := os.OpenFile(dst, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	err = unix.IoctlFileClone(int(to.Fd()), int(from.Fd()))
	if err := errors.Join(err, to.Close()); err != nil {
		_ = os.Remove(dst)
		return err
	}
	return nil
}

// CloneRange makes n bytes of dst share the space of src's. It returns an error
// where the file system cannot do that, or where a border is not one of its
// blocks'; dst may then hold anything in that range.
func CloneRange(dst *os.File, dstOff int64, src *os.File, srcOff, n int64) error {
	return unix.IoctlFileCloneRange(int(dst.Fd()), &unix.FileCloneRange{
		Src_fd: int64(src.Fd()), Src_offset: uint64(srcOff), Src_length: uint64(n), Dest_offset: uint64(dstOff),
	})
}

// StartWriting asks the kernel to begin writing a range to the device, so that
// a later Sync finds little to do. It waits for nothing and promises nothing.
func StartWriting(f *os.File, off, n int64) {
	_ = unix.SyncFileRange(int(f.Fd()), off, n, unix.SYNC_FILE_RANGE_WRITE)
}
