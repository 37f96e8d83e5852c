package guest

import (
	"context"
	"errors"
	"io"
	"io/fs"

	"github.com/mirego/tasuki/internal/base/secret"
)

// RunnerCommand is the kind of a program that is the executable "run" in its
// folder: a runner of tests, or one that speaks for itself. The kinds that
// images name are image.RunnerAct and image.RunnerOfficial.
const RunnerCommand = "command"

// ErrNotLaunched: no runner program was launched in this guest.
var ErrNotLaunched = errors.New("no runner program was launched in the guest")

// Program is the runner program of an image and what it is told.
type Program struct {
	Dir  string // its folder in the guest; "~/" is the home of the user
	Kind string // image.RunnerAct, image.RunnerOfficial or RunnerCommand
	// Env is added to the environment that the channel gives.
	Env map[string]string
	// Secrets too, the credential above all. They travel on the standard input
	// of the launch: no command line, no file and no log of ours holds them.
	Secrets map[string]secret.String
}

// Exit says how the program ended.
type Exit struct {
	Ended bool // false: it still runs, as far as we know
	Code  int  // its exit status, 128+n for signal n; -1 if nobody saw it end
}

// Launch starts the program detached under the supervisor.
func Launch(ctx context.Context, ch Channel, p Program) error { return errors.ErrUnsupported }

// Launched says whether a program was launched in this guest, ended or not.
func Launched(ctx context.Context, ch Channel) (bool, error) { return false, errors.ErrUnsupported }

// Follow copies the program's log from the byte offset to w until it ended.
func Follow(ctx context.Context, ch Channel, offset int64, w io.Writer) (Exit, error) {
	return Exit{}, errors.ErrUnsupported
}

// Put writes a file in the guest.
func Put(ctx context.Context, ch Channel, path string, mode fs.FileMode, r io.Reader) error {
	return errors.ErrUnsupported
}

// Stop ends a program that still runs (its registration is gone and it does
// not notice), so that Reset can forget it.
func Stop(ctx context.Context, ch Channel) error { return errors.ErrUnsupported }

// Reset forgets the ended program, so that another can be launched.
func Reset(ctx context.Context, ch Channel) error { return errors.ErrUnsupported }
