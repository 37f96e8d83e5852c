package cli

import (
	"fmt"
	"io"
	"log/slog"
	"os"

	"golang.org/x/term"
	"gopkg.in/natefinch/lumberjack.v2"
)

// logger writes text for a person at a terminal and JSON for a program.
func (a *app) logger() (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(a.logLevel)); err != nil {
		return nil, withHint(fmt.Errorf("unknown log level %q", a.logLevel), "choose debug, info, warn or error")
	}
	opt := &slog.HandlerOptions{Level: level}
	if terminal(a.stderr) {
		return slog.New(slog.NewTextHandler(a.stderr, opt)), nil
	}
	return slog.New(slog.NewJSONHandler(a.stderr, opt)), nil
}

// logTo lets the log go to a file, which is rotated; nowhere else if the path
// is empty. Call what it returns at the end.
func (a *app) logTo(path string) (end func()) {
	if path == "" {
		return func() {}
	}
	before, file := a.stderr, &lumberjack.Logger{Filename: path, MaxSize: 20, MaxBackups: 5}
	a.stderr = file
	return func() { a.stderr = before; _ = file.Close() }
}

// terminal says whether w is one.
func terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// width returns the columns of the terminal w, 0 if it is none.
func width(w io.Writer) int {
	f, ok := w.(*os.File)
	if !ok {
		return 0
	}
	columns, _, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return 0
	}
	return columns
}

// colours says whether w shows them and its user wants them.
// Source: no-color.org.
func colours(w io.Writer) bool {
	return terminal(w) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
}
