package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/mirego/tasuki/internal/base/proc"
	"github.com/mirego/tasuki/internal/image/sparse"
)

// ErrMissing: the machine has no such program.
var ErrMissing = errors.New("not installed")

// Machine is all that checks see of a machine. Tests play recorded ones.
type Machine interface {
	// Run runs a program to its end. An error means that it is not there
	// (ErrMissing) or did not end; a status other than 0 is none.
	Run(ctx context.Context, program string, args ...string) (Output, error)
	// Stat says what a file is; fs.ErrNotExist if it is not.
	Stat(path string) (File, error)
	// ReadFile returns the content of a file.
	ReadFile(path string) (string, error)
	// Space returns the free bytes of the disk below the nearest folder of path
	// that exists.
	Space(path string) (free int64, err error)
	// Clones says whether files below the nearest folder of path that exists
	// share their blocks when they are copied; nil if they do.
	Clones(path string) error
}

// Output is what a program printed and how it ended.
type Output struct {
	Text   string // standard output, then standard error
	Status int
}

// File is what a check may know of a file.
type File struct {
	Mode fs.FileMode
	UID  int
}

// Here is the machine that we run on.
type Here struct{}

// Run implements Machine. The program gets no input and speaks English.
func (Here) Run(ctx context.Context, program string, args ...string) (Output, error) {
	res, err := proc.Run(ctx, proc.Cmd{Path: program, Args: args, Env: []string{"LC_ALL=C"}})
	out := Output{Text: string(res.Stdout) + string(res.Stderr), Status: res.Code}
	if errors.Is(err, proc.ErrNotInstalled) {
		return Output{}, fmt.Errorf("%q: %w", program, ErrMissing)
	}
	if _, ended := errors.AsType[*proc.ExitError](err); ended {
		err = nil
	}
	return out, err
}

// Stat implements Machine.
func (Here) Stat(path string) (File, error) {
	info, err := os.Stat(path)
	if err != nil {
		return File{}, err
	}
	f := File{Mode: info.Mode()}
	if sys, ok := info.Sys().(*syscall.Stat_t); ok {
		f.UID = int(sys.Uid)
	}
	return f, nil
}

// ReadFile implements Machine.
func (Here) ReadFile(path string) (string, error) {
	b, err := os.ReadFile(path)
	return string(b), err
}

// Space implements Machine.
func (Here) Space(path string) (int64, error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(existing(path), &s); err != nil {
		return 0, err
	}
	return int64(s.Bavail) * int64(s.Bsize), nil
}

// Clones implements Machine by a trial.
func (Here) Clones(path string) error {
	dir, err := os.MkdirTemp(existing(path), ".tasuki-doctor-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if err := os.WriteFile(dir+"/a", make([]byte, 1<<16), 0o600); err != nil {
		return err
	}
	return sparse.CloneFile(dir+"/b", dir+"/a")
}

// existing returns path, or the nearest folder above it that exists.
func existing(path string) string {
	for {
		if _, err := os.Stat(path); err == nil || path == filepath.Dir(path) {
			return path
		}
		path = filepath.Dir(path)
	}
}
