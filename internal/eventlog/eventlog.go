// Package eventlog keeps a host's events as files: JSON lines, rotated.
//
// The newest file is events.jsonl; when it grows beyond its bound it becomes
// events.jsonl.1, that one events.jsonl.2 and so on, and the oldest is deleted.
// One line is one event.Event, its time in UTC whatever the machine's zone.
// The files have mode 0600: an event names repositories and jobs.
//
// The log is a reader of events, not what the host relies upon (that is the
// journal): a full disk costs events, which are counted, and never a runner.
package eventlog

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	"github.com/mirego/tasuki/internal/event"
)

// The defaults of Options.
const (
	DefaultMaxBytes = 10 << 20
	DefaultMaxFiles = 10
)

const (
	fileName = "events.jsonl"
	// queued is how many events may wait for the disk before one is lost.
	queued = 4096
)

// Options say how much is kept. The zero value is ready.
type Options struct {
	MaxBytes int64        // of one file; 0: DefaultMaxBytes
	MaxFiles int          // with the newest; 0: DefaultMaxFiles
	Log      *slog.Logger // nil: slog.Default
}

// Log is an event.Sink that appends to the files. Emit never waits for the
// disk; what it took is written by one goroutine, which Close ends. One
// process at a time may write to a folder.
type Log struct {
	dir  string
	opt  Options
	done chan struct{} // closed when the writer has ended

	mu     sync.Mutex // guards queue against Close, and lost
	queue  chan event.Event
	closed bool
	lost   int64

	// Of the writer's goroutine alone.
	file    *os.File
	size    int64
	failing bool
	missed  int64 // since the trouble began
}

// Open makes the folder if it is missing and begins to take events. A line
// that a crash tore is ended, so that it spoils no other.
func Open(dir string, opt Options) (*Log, error) {
	if opt.MaxBytes <= 0 {
		opt.MaxBytes = DefaultMaxBytes
	}
	if opt.MaxFiles <= 0 {
		opt.MaxFiles = DefaultMaxFiles
	}
	if opt.Log == nil {
		opt.Log = slog.Default()
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("cannot open event log: %w", err)
	}
	l := &Log{dir: dir, opt: opt, done: make(chan struct{}), queue: make(chan event.Event, queued)}
	if err := l.openFile(); err != nil {
		return nil, err
	}
	go l.write()
	return l, nil
}

// Emit implements event.Sink.
func (l *Log) Emit(e event.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		l.lost++
		return
	}
	select {
	case l.queue <- e:
	default:
		l.lost++
	}
}

// Lost returns how many events were not written since Open.
func (l *Log) Lost() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lost
}

// Close writes what was taken and closes the file.
func (l *Log) Close() error {
	l.mu.Lock()
	if !l.closed {
		l.closed = true
		close(l.queue)
	}
	l.mu.Unlock()
	<-l.done
	if l.file == nil {
		return nil
	}
	err := l.file.Close()
	l.file = nil
	if err != nil {
		return fmt.Errorf("cannot close event log: %w", err)
	}
	return nil
}

func (l *Log) write() {
	defer close(l.done)
	for e := range l.queue {
		l.account(l.append(e))
	}
}

// account says once that events are lost, and once that they no longer are.
func (l *Log) account(err error) {
	switch {
	case err != nil:
		l.mu.Lock()
		l.lost++
		l.mu.Unlock()
		l.missed++
		if !l.failing {
			l.failing = true
			l.opt.Log.Error("event log is not written", "err", err)
		}
	case l.failing:
		l.failing = false
		l.opt.Log.Info("event log is written again", "lost", l.missed)
		l.missed = 0
	}
}

func (l *Log) append(e event.Event) error {
	e.Time = e.Time.UTC()
	line, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("cannot write event %q: %w", e.Kind, err)
	}
	line = append(line, '\n')
	if l.file == nil {
		if err := l.openFile(); err != nil {
			return err
		}
	}
	if l.size > 0 && l.size+int64(len(line)) > l.opt.MaxBytes {
		if err := l.rotate(); err != nil {
			return err
		}
	}
	n, err := l.file.Write(line)
	l.size += int64(n)
	if err != nil {
		// Opening it again ends the line that was written in part.
		_ = l.file.Close()
		l.file = nil
		return fmt.Errorf("cannot write event: %w", err)
	}
	return nil
}

func (l *Log) openFile() error {
	path := filepath.Join(l.dir, fileName)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("cannot open event log: %w", err)
	}
	size, err := endLine(f)
	if err != nil {
		_ = f.Close()
		return fmt.Errorf("cannot open event log %q: %w", path, err)
	}
	l.file, l.size = f, size
	return nil
}

// endLine ends a torn last line and returns the file's size.
func endLine(f *os.File) (int64, error) {
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil || size == 0 {
		return size, err
	}
	var last [1]byte
	if _, err := f.ReadAt(last[:], size-1); err != nil {
		return size, err
	}
	if bytes.Equal(last[:], []byte{'\n'}) {
		return size, nil
	}
	n, err := f.Write([]byte{'\n'})
	return size + int64(n), err
}

// rotate moves each file one number on and begins a new one.
func (l *Log) rotate() error {
	if err := l.file.Close(); err != nil {
		l.opt.Log.Warn("event log file did not close", "err", err)
	}
	l.file = nil
	for n := l.opt.MaxFiles - 1; n >= 1; n-- {
		err := os.Rename(numbered(l.dir, n-1), numbered(l.dir, n))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("cannot rotate event log: %w", err)
		}
	}
	if l.opt.MaxFiles == 1 {
		if err := os.Remove(numbered(l.dir, 0)); err != nil {
			return fmt.Errorf("cannot rotate event log: %w", err)
		}
	}
	l.dropBeyond()
	return l.openFile()
}

// dropBeyond deletes the files of a time when more were kept.
func (l *Log) dropBeyond() {
	for n := l.opt.MaxFiles; ; n++ {
		if os.Remove(numbered(l.dir, n)) != nil {
			return
		}
	}
}

// numbered returns the path of the nth file, 0 being the newest.
func numbered(dir string, n int) string {
	path := filepath.Join(dir, fileName)
	if n == 0 {
		return path
	}
	return fmt.Sprintf("%s.%d", path, n)
}
