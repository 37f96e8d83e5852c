package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/mirego/tasuki/internal/base/problem"
	"github.com/mirego/tasuki/internal/base/proc"
	"github.com/mirego/tasuki/internal/client"
	"github.com/mirego/tasuki/internal/daemon"
	"github.com/mirego/tasuki/internal/github"
	"github.com/mirego/tasuki/internal/runner"
)

// The exit statuses.
const (
	exitWell    = 0
	exitNo      = 1 // a job failed, or the answer is no
	exitTrouble = 2 // ours, or the user's
)

// errNo ends a command whose answer is no; what there is to say was said.
var errNo = errors.New("no")

// errorTable maps errors to exit statuses and hints. The first row that fits
// counts; an error that fits none is trouble without a hint.
var errorTable = []struct {
	err  error
	code int
	hint string
}{
	{errNo, exitNo, ""},
	{client.ErrNoAgent, exitTrouble, "start one with tasuki host run --config FILE, or name its folder with --home"},
	{daemon.ErrRunning, exitTrouble, "stop it first, or give this one another host.home; tasuki status shows what it does"},
	{daemon.ErrSocketPath, exitTrouble, "choose a shorter folder: host.home in the configuration, or --home"},
	{github.ErrNoJob, exitTrouble, "tasuki github check says what the credential may do"},
	{runner.ErrDenied, exitTrouble, "tasuki github check says what is wrong, and what to do"},
	{proc.ErrNotInstalled, exitTrouble, ""},
	{fs.ErrPermission, exitTrouble, "run it as the user who owns the file, or give that user the right"},
}

// hinted is an error with what to do about it.
type hinted struct {
	err  error
	hint string
}

func (h *hinted) Error() string { return h.err.Error() }
func (h *hinted) Unwrap() error { return h.err }

// withHint adds what to do about an error: a command to type, if there is one.
func withHint(err error, hint string) error {
	if err == nil {
		return nil
	}
	return &hinted{err, hint}
}

// exitStatus carries the status of a program that we ran for the user.
type exitStatus int

func (e exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// exit tells the user of an error and returns the exit status.
func (a *app) exit(err error) int {
	if err == nil {
		return exitWell
	}
	if status, ok := errors.AsType[exitStatus](err); ok {
		return int(status)
	}
	if errors.Is(err, errNo) {
		return exitNo
	}
	code, hint := exitTrouble, ""
	for _, row := range errorTable {
		if errors.Is(err, row.err) {
			code, hint = row.code, row.hint
			break
		}
	}
	if h, ok := errors.AsType[*hinted](err); ok {
		hint = h.hint
	} else if e, ok := errors.AsType[*client.Error](err); ok {
		hint = e.Hint
	}
	a.complain(err, hint)
	return code
}

// complain writes an error and its hint. Problems in a file speak for
// themselves: each is a line that begins with its place.
func (a *app) complain(err error, hint string) {
	if problems := problemLines(err); problems != "" {
		fmt.Fprintln(a.stderr, problems)
	} else {
		fmt.Fprintf(a.stderr, "tasuki: %s\n", strings.ReplaceAll(err.Error(), "\n", "\n        "))
	}
	if hint != "" {
		fmt.Fprintf(a.stderr, "hint: %s\n", hint)
	}
}

func problemLines(err error) string {
	if ps, ok := errors.AsType[problem.List](err); ok {
		return ps.Error()
	}
	return ""
}

// ended says whether err is only that the user ended the command.
func ended(ctx context.Context, err error) bool {
	return err != nil && ctx.Err() != nil
}
