package sparse

import (
	"errors"
	"os"
)

// lseek(2) of macOS: the two have swapped numbers there.
const (
	seekHole = 3
	seekData = 4
)

// punch is not there: F_PUNCHHOLE takes whole file-system blocks only, and
// Clear serves the rare retry of a chunk.
func punch(*os.File, int64, int64) error { return errors.ErrUnsupported }
