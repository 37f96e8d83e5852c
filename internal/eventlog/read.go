package eventlog

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"slices"
	"time"

	"github.com/mirego/tasuki/internal/event"
)

// maxLine bounds one line, in bytes; a longer one is reported and skipped.
const maxLine = 1 << 20

// Read returns the events that are not older than since, oldest first, in the
// order in which they were written. A line that is no event is yielded as an
// error, and the reading goes on. It may be called while a Log writes; it ends
// where the files end. A folder without files has no events.
func Read(dir string, since time.Time) iter.Seq2[event.Event, error] {
	return func(yield func(event.Event, error) bool) {
		files, err := openAll(dir)
		defer func() {
			for _, f := range files {
				_ = f.Close()
			}
		}()
		if err != nil {
			yield(event.Event{}, fmt.Errorf("cannot read event log: %w", err))
			return
		}
		for i := len(files) - 1; i >= 0; i-- {
			if !readFile(files[i], since, yield) {
				return
			}
		}
	}
}

// openAll opens the newest file first: one that moves meanwhile is met again
// under a higher number, and is the same file; none is missed.
func openAll(dir string) ([]*os.File, error) {
	var files []*os.File
	var infos []fs.FileInfo
	for n := 0; ; n++ {
		f, err := os.Open(numbered(dir, n))
		if errors.Is(err, fs.ErrNotExist) {
			if n == 0 {
				continue // between two files, or before the first
			}
			if _, err := os.Lstat(numbered(dir, n+1)); err == nil {
				continue // a rotation has moved one and not yet the next
			}
			return files, nil
		}
		if err != nil {
			return files, err
		}
		info, err := f.Stat()
		if err != nil {
			_ = f.Close()
			return files, err
		}
		same := func(known fs.FileInfo) bool { return os.SameFile(known, info) }
		if i := slices.IndexFunc(infos, same); i >= 0 {
			// What was opened in between came with later rotations: it is newer.
			for _, extra := range append(files[i+1:], f) {
				_ = extra.Close()
			}
			files, infos = files[:i+1], infos[:i+1]
			continue
		}
		files, infos = append(files, f), append(infos, info)
	}
}

// readFile reports whether the reader wants more.
func readFile(f *os.File, since time.Time, yield func(event.Event, error) bool) bool {
	r := bufio.NewReaderSize(f, 64<<10)
	for number := 1; ; number++ {
		line, err := readLine(r)
		if errors.Is(err, io.EOF) && len(line) == 0 {
			return true
		}
		var e event.Event
		switch {
		case errors.Is(err, errTooLong):
		case err != nil && !errors.Is(err, io.EOF):
			return yield(e, fmt.Errorf("cannot read event log: %w", err))
		default:
			err = json.Unmarshal(line, &e)
		}
		if err != nil {
			if !yield(event.Event{}, fmt.Errorf("cannot read event at %s:%d: %w", f.Name(), number, err)) {
				return false
			}
			continue
		}
		e.Time = e.Time.UTC()
		if !e.Time.Before(since) && !yield(e, nil) {
			return false
		}
	}
}

var errTooLong = fmt.Errorf("the line is longer than %d bytes", maxLine)

// readLine returns the next line with its end, or what there is of it and io.EOF.
func readLine(r *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		if len(line)+len(part) <= maxLine {
			line = append(line, part...)
		} else {
			line = append(line[:0:0], make([]byte, maxLine+1)...)
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		if len(line) > maxLine {
			return nil, errTooLong
		}
		return line, err
	}
}
