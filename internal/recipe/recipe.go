// Package recipe builds guest images.
//
// A Recipe says what a guest image begins with, its base, and which steps make
// it what it shall be. A build boots a guest of the base, runs the steps in it
// over a guest.Channel, powers it off and takes its disk. It works with every
// driver that is a vm.DiskKeeper.
//
// Steps are cached by content. The key of a step is the digest of the key
// before it (of a base, its own digest) and of everything that the step
// depends on: its text, the content of its files, the variables that it
// mentions. What the disk held after a step is kept under its key as a
// snapshot; a build begins at the last one that is there. Secrets do not count: a step
// that got another password is the same step.
//
// A build is three parts: prepare makes sure of the user; the steps follow; finish
// makes a guest image of the machine (its login, host key, network), removes
// the build's traces and powers off. Prepare is cached as a step is; finish is
// run for each image.
//
// Secrets reach a step in its environment, by way of the standard input of its
// launch: no command line, no file and no log of ours holds them, and where a
// step prints one, the log has "[redacted]" instead.
package recipe

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/mirego/tasuki/internal/base/secret"
	"github.com/mirego/tasuki/internal/image"
	"github.com/mirego/tasuki/internal/vm"
)

// Recipe is what to build, with all variables replaced.
type Recipe struct {
	Name string // a word for files, guests and people
	OS   string // image.OSLinux or image.OSDarwin
	Arch string // image.ArchAMD64 or image.ArchARM64
	Base Base
	// User is whom the image names as the one who logs in and runs the runner;
	// empty: the base's. Login is who logs in to the base; empty: the base's
	// user, or User.
	User, Login string
	// Password logs in where the base takes no key.
	Password secret.String
	Guest    Guest
	Env      map[string]string // of every step
	Vars     map[string]string // each step gets those that it mentions
	Secrets  map[string]secret.String
	Steps    []Step
	Labels   map[string]string // added to the image's
	Clean    Clean
}

// Base is what an image begins with: one of the three.
type Base struct {
	Image  string // a reference
	Disk   Download
	Debian *Debian
}

// Download is a file by URL, or path of this host, and checksum.
type Download struct {
	URL      string
	Checksum string // "sha256:HEX" or "sha512:HEX"
}

// Debian is a system made of Debian's packages.
type Debian struct {
	Release, Mirror string
	Packages        []string
}

// Guest is the machine that the build runs in.
type Guest struct {
	CPUs, MemoryMiB, DiskGB int
	Network                 vm.Network
}

// Clean says what of a machine's identity an image keeps.
type Clean struct {
	// HostKey: the image gets an SSH host key of its own, which its label
	// names. Otherwise each guest makes one when it boots, which nobody can
	// tell from a forged one.
	HostKey bool
}

// Step is one part of the work. Its copies come first, then its script or its
// runner.
type Step struct {
	Name    string
	Place   string // where it stands in the recipe, "FILE:LINE"; may be empty
	Copies  []Copy
	Script  string // POSIX shell
	Runner  *Runner
	Env     map[string]string
	Secrets []string // names of the recipe's
	Root    bool
	Restart bool // the guest is started anew afterwards
	Timeout time.Duration
}

// Copy puts a file of this host into the guest.
type Copy struct {
	From, To string
	Mode     fs.FileMode // 0: as the file's
}

// Runner is a runner program to install.
type Runner struct {
	Kind    string // a value of image.LabelRunnerKind
	Archive Download
	Dir     string // in the guest
	Version string
	Warmup  bool // let the program load once, so that its files are in order
}

// Sources bring what a build begins with.
type Sources interface {
	// Image brings an image to this host, or finds it there.
	Image(ctx context.Context, ref string, progress func(done, total int64)) (image.Local, error)
	// Disk brings a cloud image and returns the path of its raw form.
	Disk(ctx context.Context, d Download, progress func(done, total int64)) (string, error)
	// File brings a verified file.
	File(ctx context.Context, d Download, progress func(done, total int64)) (string, error)
	// Debian makes a system of packages. Its digest says what it was made of.
	Debian(ctx context.Context, d Debian, progress func(done float64, doing string)) (image.Local, error)
}

// Seed is what a cloud image is told on its first boot.
type Seed struct {
	Instance, Hostname, User, Key string
}

// Sentinels of builds.
var (
	// ErrRecipe: the recipe cannot be built here as it is.
	ErrRecipe = errors.New("the recipe cannot be built here")
	// ErrStep: a step failed.
	ErrStep = errors.New("a step failed")
)

// StepError says which step failed and what it said last.
type StepError struct {
	Step  string
	Place string   // as the step's
	Last  []string // lines of its output
	Cause error
}

// Error names the step; the last lines are for who shows them.
func (e *StepError) Error() string {
	if e.Place == "" {
		return fmt.Sprintf("step %q failed: %v", e.Step, e.Cause)
	}
	return fmt.Sprintf("step %q (%s) failed: %v", e.Step, e.Place, e.Cause)
}

// Unwrap gives the cause, and ErrStep.
func (e *StepError) Unwrap() []error { return []error{ErrStep, e.Cause} }

// Times that a recipe does not have to say.
const (
	DefaultTimeout = 30 * time.Minute
	defaultMemory  = 4096
)

func (r *Recipe) runner() *Runner {
	for i := range r.Steps {
		if r.Steps[i].Runner != nil {
			return r.Steps[i].Runner
		}
	}
	return nil
}

// check refuses what a driver cannot do, before anything is fetched.
func (r *Recipe) check(caps vm.Capabilities) error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("cannot build %q: "+format+": %w", append(append([]any{r.Name}, args...), ErrRecipe)...)
	}
	switch {
	case r.OS != caps.GuestOS:
		return bad("it makes a %s guest and driver %s runs %s guests; choose another driver with --driver", r.OS, caps.Driver, caps.GuestOS)
	case r.Arch != caps.GuestArch:
		return bad("it makes a guest for %s and %s runs guests for %s here; build on a machine of that architecture", r.Arch, caps.Driver, caps.GuestArch)
	case r.Base.Disk.URL != "" && caps.Driver == "tart":
		return bad("driver tart boots no cloud images, which need a NoCloud medium; begin with an image (from:)")
	case r.Base.Debian != nil && caps.Driver == "tart":
		return bad("driver tart boots no kernel of ours; begin with an image (from:)")
	case r.OS == image.OSDarwin && r.Base.Image == "":
		return bad("a macOS guest begins with an image; name one under from:")
	}
	return nil
}

func (s *Step) timeout() time.Duration { return cmp.Or(s.Timeout, DefaultTimeout) }
