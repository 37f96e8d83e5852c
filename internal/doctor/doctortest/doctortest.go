// Package doctortest plays machines that were written down, for tests of what
// looks at machines.
//
// A machine is a txtar archive. Each of its files is an answer, named by the
// question: "$ pmset -g" is what a program printed, with "exit N", "missing" or
// "hangs" as its first line where it did not end well; "stat PATH" is a file's
// mode and owner, or "missing"; "file PATH" its content; "space" the free
// bytes; "clones" is "yes", or why files share no blocks.
package doctortest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/mirego/tasuki/internal/doctor"
)

// Recorded is a machine that was written down: what each program printed, what
// each file is. Later archives win over earlier ones.
type Recorded struct {
	t       testing.TB
	answers map[string]string
}

// Load reads archives. A question that none of them answers fails the test.
func Load(t testing.TB, archives ...string) Recorded {
	t.Helper()
	r := Recorded{t, map[string]string{}}
	for _, path := range archives {
		a, err := txtar.ParseFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range a.Files {
			r.answers[f.Name] = string(f.Data)
		}
	}
	return r
}

// Run implements doctor.Machine.
func (r Recorded) Run(ctx context.Context, program string, args ...string) (doctor.Output, error) {
	question := "$ " + strings.Join(append([]string{program}, args...), " ")
	text, ok := r.answers[question]
	status := 0
	switch first, rest, _ := strings.Cut(text, "\n"); {
	case !ok:
		r.t.Errorf("the machine was not asked when it was recorded: %s", question)
		return doctor.Output{}, errors.New("not recorded")
	case first == "missing":
		return doctor.Output{}, doctor.ErrMissing
	case first == "hangs":
		<-ctx.Done()
		return doctor.Output{}, ctx.Err()
	case strings.HasPrefix(first, "exit "):
		text = rest
		if _, err := fmt.Sscanf(first, "exit %d", &status); err != nil {
			r.t.Fatal(err)
		}
	}
	return doctor.Output{Text: text, Status: status}, nil
}

// Stat implements doctor.Machine.
func (r Recorded) Stat(path string) (f doctor.File, err error) {
	text, ok := r.answers["stat "+path]
	if !ok || text == "missing\n" {
		return f, fs.ErrNotExist
	}
	var mode uint32
	_, err = fmt.Sscanf(text, "%o %d", &mode, &f.UID)
	f.Mode = fs.FileMode(mode & 0o777)
	if mode&0o4000 != 0 {
		f.Mode |= fs.ModeSetuid
	}
	return f, err
}

// ReadFile implements doctor.Machine.
func (r Recorded) ReadFile(path string) (string, error) {
	text, ok := r.answers["file "+path]
	if !ok {
		return "", fs.ErrNotExist
	}
	return text, nil
}

// Space implements doctor.Machine.
func (r Recorded) Space(string) (n int64, err error) {
	_, err = fmt.Sscan(r.answers["space"], &n)
	return n, err
}

// Clones implements doctor.Machine.
func (r Recorded) Clones(string) error {
	if text := strings.TrimSpace(r.answers["clones"]); text != "yes" {
		return errors.New(text)
	}
	return nil
}
