package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"

	"github.com/mirego/tasuki/internal/base/proc"
)

// runnerModule is what the demo's runner program is built from.
const runnerModule = "github.com/ChristopherHX/github-act-runner"

// findRunner returns the runner program for the guests: the one that the user
// named, one beside this program, or one built from the checkout that we are in.
func (d *demo) findRunner(ctx context.Context) (string, error) {
	if file := d.flags.runner; file != "" {
		return filepath.Abs(file) // the image's builder knows what it can take
	}
	if self, err := os.Executable(); err == nil {
		if self, err = filepath.EvalSymlinks(self); err == nil {
			beside := filepath.Join(filepath.Dir(self), runnerFile())
			if checkLinuxProgram(beside) == nil {
				return beside, nil
			}
		}
	}
	module, ok := demoModule()
	if !ok {
		return "", withHint(fmt.Errorf("cannot find the guests' runner program %q beside this one", runnerFile()),
			"run make demo in a checkout of Tasuki, or name the program with --runner")
	}
	return d.buildRunner(ctx, module)
}

func runnerFile() string { return "demorunner-linux-" + runtime.GOARCH }

// demoModule looks for tools/demorunner in this folder and those above.
func demoModule() (string, bool) {
	dir, err := os.Getwd()
	if err != nil {
		return "", false
	}
	for {
		module := filepath.Join(dir, "tools", "demorunner")
		if _, err := os.Stat(filepath.Join(module, "go.mod")); err == nil {
			return module, true
		}
		if dir == filepath.Dir(dir) {
			return "", false
		}
		dir = filepath.Dir(dir)
	}
}

// buildRunner builds the program as make build does; go's cache makes it quick
// when nothing has changed.
func (d *demo) buildRunner(ctx context.Context, module string) (string, error) {
	task := d.view.Task("runner", "builds the runner program for the guests with go build")
	out := d.path("bin", runnerFile())
	_, err := proc.Run(ctx, proc.Cmd{
		Path: "go", Dir: module, Env: []string{"CGO_ENABLED=0", "GOOS=linux", "GOARCH=" + runtime.GOARCH, "GOFLAGS=-mod=readonly"},
		Args: []string{"build", "-trimpath", "-ldflags", "-s -w", "-o", out, runnerModule},
	})
	if err != nil {
		task.Fail()
		if errors.Is(err, proc.ErrNotInstalled) {
			return "", withHint(err, "make demo installs Go and builds it")
		}
		return "", fmt.Errorf("cannot build the guests' runner program: %w", err)
	}
	task.Done("github-act-runner for the guests")
	return out, nil
}

// checkLinuxProgram refuses what cannot be an executable of a Linux guest.
func checkLinuxProgram(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return fmt.Errorf("cannot use the runner program: %w", err)
	}
	defer f.Close()
	var magic [4]byte
	if _, err := io.ReadFull(f, magic[:]); err != nil || string(magic[:]) != "\x7fELF" {
		return fmt.Errorf("cannot use %q as the runner program: it is no Linux executable", file)
	}
	return nil
}
