package vm

import (
	"context"
	"errors"

	"github.com/mirego/tasuki/internal/image"
)

// ErrRunning: the guest runs, and must not for what was asked. Shut it down first.
var ErrRunning = errors.New("the guest runs")

// DiskKeeper is a driver that can keep what is on a guest's disk beyond the
// guest. Who builds images needs it.
type DiskKeeper interface {
	// Snapshot copies the guest's disk, as it is this moment, into the empty
	// folder dir. Guests of this driver can be created of what it returns, for
	// as long as the image that this guest was made of is where it was. A
	// running guest stands still meanwhile and then goes on; what its system
	// still keeps in memory is not in the copy. The labels are the caller's to
	// set. Errors: ErrNotFound; ErrRunning where this driver copies only disks of
	// guests that do not run.
	Snapshot(ctx context.Context, name, dir string) (image.Local, error)
	// Export writes the disk of a guest that does not run into the folder dir
	// as a raw, sparse file that depends on nothing else, with what else an
	// image of it must carry. The labels are the caller's to set. Errors:
	// ErrNotFound.
	Export(ctx context.Context, name, dir string) (image.Source, error)
}
