package console

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/mirego/tasuki/internal/agent"
	"github.com/mirego/tasuki/internal/api"
	"github.com/mirego/tasuki/internal/base/backoff"
	"github.com/mirego/tasuki/internal/vm"
)

const (
	// logTail is how much of a log a page begins with; the rest is a file.
	logTail = 256 << 10
	// logChunk is how much of it a message carries at most.
	logChunk = 32 << 10
	// logPace is how often a log is looked at.
	logPace = 200 * time.Millisecond
	// fileTimeout is how long a reader may take over a whole log.
	fileTimeout = 10 * time.Minute
)

// logOf returns the path of a runner's log: its program's, or its guest's
// console.
func (c *Console) logOf(r *http.Request) (path string, err error) {
	name := r.PathValue("name")
	if vm.CheckName(name) != nil {
		return "", fmt.Errorf("cannot find runner %q: %w", clip(name, 80), agent.ErrNoRunner)
	}
	switch of := r.URL.Query().Get("of"); of {
	case "", "program":
		return c.opt.Host.LogPath(name), nil
	case "console":
		return c.opt.Host.ConsolePath(name), nil
	default:
		return "", fmt.Errorf("there is no log %q: %w", clip(of, 20), errBad)
	}
}

// logFile serves a whole log.
func (c *Console) logFile(w http.ResponseWriter, r *http.Request) error {
	path, err := c.logOf(r)
	if err != nil {
		return err
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("nothing is kept of it (any more): %w", fs.ErrNotExist)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(fileTimeout))
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = io.Copy(w, f) // an error is the reader's going away
	return nil
}

// logStream follows a log from its end, until the runner is gone. Where it is
// is the message's id, so that a reader that comes back misses nothing.
func (c *Console) logStream(w http.ResponseWriter, r *http.Request) error {
	path, err := c.logOf(r)
	if err != nil {
		return err
	}
	at := int64(-1)
	last := r.Header.Get("Last-Event-ID")
	if last == "" {
		last = r.URL.Query().Get("last")
	}
	if n, err := strconv.ParseInt(last, 10, 64); err == nil && n >= 0 {
		at = n
	}
	s, err := c.openStream(w)
	if err != nil {
		return err
	}
	defer c.streams.Add(-1)
	l := logReader{path: path, at: at}
	defer l.close()
	for {
		gone := !c.known(r.PathValue("name")) // before the last look: what is written then is all
		if !c.gate.goesOn(sessionOf(r), time.Now()) {
			_ = s.send("over", "", "the session has ended")
			return nil
		}
		more, err := l.send(s, gone)
		if err != nil {
			return nil
		}
		if more {
			continue
		}
		if gone {
			_ = s.send("end", "", l.file != nil)
			return nil
		}
		if s.beat() != nil || backoff.Sleep(r.Context(), logPace) != nil {
			return nil
		}
	}
}

func (c *Console) known(name string) bool {
	return slices.ContainsFunc(c.opt.Status().Runners, func(r api.Runner) bool { return r.Name == name })
}

// logReader reads a log that grows, or is not there yet.
type logReader struct {
	path string
	file *os.File
	at   int64 // -1: where a page begins
}

func (l *logReader) close() {
	if l.file != nil {
		_ = l.file.Close()
	}
}

// send sends what there is, in whole lines unless it is the end of all; true:
// there may be more.
func (l *logReader) send(s *stream, last bool) (more bool, err error) {
	if l.file == nil {
		if l.file, err = os.Open(l.path); err != nil {
			l.file = nil
			return false, nil // not there yet
		}
	}
	if l.at < 0 {
		if err := l.begin(s); err != nil {
			return false, err
		}
	}
	buf := make([]byte, logChunk)
	n, err := l.file.ReadAt(buf, l.at)
	if err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	whole := wholeLines(buf[:n], last || n == len(buf))
	if len(whole) == 0 {
		return false, nil
	}
	l.at += int64(len(whole))
	return true, s.send("log", strconv.FormatInt(l.at, 10), plain(whole))
}

// begin finds where a page begins, and says if that is not the log's beginning.
func (l *logReader) begin(s *stream) error {
	info, err := l.file.Stat()
	if err != nil {
		return err
	}
	l.at = max(0, info.Size()-logTail)
	if l.at == 0 {
		return nil
	}
	buf := make([]byte, logChunk)
	n, _ := l.file.ReadAt(buf, l.at)
	if i := bytes.IndexByte(buf[:n], '\n'); i >= 0 {
		l.at += int64(i) + 1
	}
	return s.send("cut", "", l.at)
}

// wholeLines returns the part of b that ends with a line; all of it, up to a
// whole character, if it must be.
func wholeLines(b []byte, must bool) []byte {
	if i := bytes.LastIndexByte(b, '\n'); i >= 0 {
		return b[:i+1]
	}
	if !must {
		return nil
	}
	for cut := len(b); cut > 0 && cut > len(b)-utf8.UTFMax; cut-- {
		if r, _ := utf8.DecodeLastRune(b[:cut]); r != utf8.RuneError {
			return b[:cut]
		}
	}
	return b
}

// escapes are what a terminal obeys: colours, cursor movements, titles.
var escapes = regexp.MustCompile("\x1b(?:\\[[0-9;?]*[ -/]*[@-~]|\\][^\x07\x1b]*(?:\x07|\x1b\\\\)|[@-Z\\\\-_])")

// plain is a text without what a terminal obeys.
func plain(b []byte) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return r
		case r < ' ' || r >= 0x7f && r < 0xa0:
			return -1
		}
		return r
	}, escapes.ReplaceAllString(string(b), ""))
}
