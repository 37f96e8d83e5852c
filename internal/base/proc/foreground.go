package proc

import (
	"errors"
	"os"
	"os/exec"
)

// Foreground runs a program on our own terminal, in our own process group, and
// returns its exit status: for programs that a person talks to. Stdin, Stdout
// and Stderr of c are not looked at; it cannot be ended but by its user.
func Foreground(c Cmd) (status int, err error) {
	path, err := Look(c.Path)
	if err != nil {
		return 0, err
	}
	cmd := exec.Command(path, c.Args...)
	cmd.Dir = c.Dir
	if len(c.Env) > 0 {
		cmd.Env = append(os.Environ(), c.Env...)
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	err = cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		if exit.ExitCode() < 0 {
			return 0, exitError(c.Path, exit.ProcessState, nil)
		}
		return exit.ExitCode(), nil
	}
	return 0, err
}
