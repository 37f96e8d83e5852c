package sparse

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// lseek(2) of macOS: the two have swapped numbers there.
const (
	seekHole = 3
	seekData = 4
)

// punch is not there: F_PUNCHHOLE takes whole file-system blocks only, and
// Clear serves the rare retry of a chunk.
func punch(*os.File, int64, int64) error { return errors.ErrUnsupported }

// CloneFile makes dst, which must not exist, a copy of src that shares its
// space until one of them is written to. Where the file system cannot do that
// it returns an error and leaves nothing.
func CloneFile(dst, src string) error {
	if err := unix.Clonefile(src, dst, unix.CLONE_NOFOLLOW); err != nil {
		return err
	}
	return os.Chmod(dst, 0o644) // images are read-only
}

// CloneRange is not there: APFS clones whole files.
func CloneRange(*os.File, int64, *os.File, int64, int64) error { return errors.ErrUnsupported }

// StartWriting does nothing: macOS has no call for it.
func StartWriting(*os.File, int64, int64) {}
