// Package journal is what this host meant: one small file per live runner,
// written before its outside effects are caused.
//
// The journal stores a runner.Record as NAME.json, mode 0600, in one folder. A
// record that Put has returned for survives kill -9 and a power loss; a reader
// sees the old record or the new one and nothing between. A file that is no
// record of ours (torn by a bad disk, written by hand, of a state that this
// version does not know) is renamed to NAME.json.bad and reported: it neither
// stops the host nor disappears.
package journal

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/mirego/tasuki/internal/base/atomicfile"
	"github.com/mirego/tasuki/internal/runner"
	"github.com/mirego/tasuki/internal/vm"
)

const (
	ending    = ".json"
	badEnding = ".bad"
	// maxRecord bounds what is read of one file, in bytes. A record is a few
	// kilobytes.
	maxRecord = 1 << 20
)

// Journal is the folder of records. Its methods may be called at the same
// time; two processes must not share a folder.
type Journal struct {
	// Log is told of files that were set aside; nil means slog.Default. Set it
	// before the first call of a method.
	Log *slog.Logger

	dir string
	mu  sync.Mutex // one change, or one reading, of the folder at a time
}

// Open makes the folder if it is missing and sweeps what a crash left of
// half-written records.
func Open(dir string) (*Journal, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("cannot open journal: %w", err)
	}
	if err := atomicfile.Sweep(dir); err != nil {
		return nil, fmt.Errorf("cannot open journal %q: %w", dir, err)
	}
	return &Journal{dir: dir}, nil
}

// Put writes a record down. It is durable when Put returns without an error;
// with one, the earlier record of that name still stands.
func (j *Journal) Put(r runner.Record) error {
	if err := vm.CheckName(r.Name); err != nil {
		return fmt.Errorf("cannot write journal: %w", err)
	}
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("cannot write journal of runner %q: %w", r.Name, err)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := atomicfile.Write(j.path(r.Name), append(data, '\n'), 0o600); err != nil {
		return fmt.Errorf("cannot write journal of runner %q: %w", r.Name, err)
	}
	return nil
}

// Delete forgets a runner, durably. One that is not there is no error.
func (j *Journal) Delete(name string) error {
	if err := vm.CheckName(name); err != nil {
		return fmt.Errorf("cannot delete from journal: %w", err)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := atomicfile.Remove(j.path(name)); err != nil {
		return fmt.Errorf("cannot delete runner %q from journal: %w", name, err)
	}
	return nil
}

// All returns every record, by name. Files that are none are set aside and
// reported to Log. An error means that the folder, or a file in it, could not
// be read at all: then the journal says nothing about what is ours.
func (j *Journal) All() ([]runner.Record, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	entries, err := os.ReadDir(j.dir)
	if err != nil {
		return nil, fmt.Errorf("cannot read journal: %w", err)
	}
	var all []runner.Record
	for _, e := range entries {
		if e.IsDir() || strings.HasSuffix(e.Name(), badEnding) {
			continue
		}
		r, err := j.read(e)
		var unusable *unusableError
		switch {
		case errors.As(err, &unusable):
			if err := j.setAside(e.Name(), unusable); err != nil {
				return nil, err
			}
		case err != nil:
			return nil, fmt.Errorf("cannot read journal: %w", err)
		default:
			all = append(all, r)
		}
	}
	slices.SortFunc(all, func(a, b runner.Record) int { return strings.Compare(a.Name, b.Name) })
	return all, nil
}

func (j *Journal) path(name string) string { return filepath.Join(j.dir, name+ending) }

// unusableError says why the content of a file is no record, as opposed to a
// disk that could not be read.
type unusableError struct{ why string }

func (e *unusableError) Error() string { return e.why }

func unusable(format string, args ...any) error {
	return &unusableError{fmt.Sprintf(format, args...)}
}

func (j *Journal) read(e fs.DirEntry) (runner.Record, error) {
	name, ok := strings.CutSuffix(e.Name(), ending)
	if !ok || !e.Type().IsRegular() {
		return runner.Record{}, unusable("it is not a file named RUNNER%s", ending)
	}
	info, err := e.Info()
	if err != nil {
		return runner.Record{}, err
	}
	if info.Size() > maxRecord {
		return runner.Record{}, unusable("it holds %d bytes, no record is so long", info.Size())
	}
	data, err := os.ReadFile(filepath.Join(j.dir, e.Name()))
	if err != nil {
		return runner.Record{}, err
	}
	return decode(name, data)
}

// decode takes fields that it does not know for those of a newer version and
// ignores them; a state that it does not know it cannot act on.
func decode(name string, data []byte) (runner.Record, error) {
	var r runner.Record
	switch err := json.Unmarshal(data, &r); {
	case len(bytes.Trim(data, "\x00 \n")) == 0:
		return r, unusable("it is empty")
	case err != nil:
		return r, unusable("it is torn or no JSON: %v", err)
	case r.Name != name:
		return r, unusable("it is the record of runner %q", r.Name)
	case vm.CheckName(name) != nil:
		return r, unusable("%q is no runner's name", name)
	case !r.State.Known():
		return r, unusable("the state %q is not known to this version", r.State)
	}
	return r, nil
}

// setAside renames a file so that it is never read again and never lost: the
// bad file of an earlier time keeps its name.
func (j *Journal) setAside(name string, why error) error {
	from := filepath.Join(j.dir, name)
	to := from + badEnding
	for n := 2; ; n++ {
		if _, err := os.Lstat(to); errors.Is(err, fs.ErrNotExist) {
			break
		}
		to = fmt.Sprintf("%s.%d%s", from, n, badEnding)
	}
	if err := os.Rename(from, to); err != nil {
		return fmt.Errorf("cannot set journal file %q aside (%w): %w", from, why, err)
	}
	if err := atomicfile.SyncDir(j.dir); err != nil {
		return fmt.Errorf("cannot set journal file %q aside: %w", from, err)
	}
	j.log().Warn("journal file set aside", "file", to, "err", why)
	return nil
}

func (j *Journal) log() *slog.Logger {
	if j.Log == nil {
		return slog.Default()
	}
	return j.Log
}
