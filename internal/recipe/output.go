package recipe

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/mirego/tasuki/internal/base/secret"
	"github.com/mirego/tasuki/internal/guest"
)

const (
	lastLines = 15
	// shortestSecret is the shortest value that is looked for in output:
	// replacing each "1" would hide more than it protects.
	shortestSecret = 4
)

// output takes what steps print: to the view and the log, line by line, with
// secrets replaced. Several may write at the same time.
type output struct {
	view   io.Writer
	file   *os.File
	redact *strings.Replacer

	mu   sync.Mutex
	log  *bufio.Writer
	last []string
}

func newOutput(path string, view io.Writer, secrets map[string]secret.String) (*output, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("cannot write the log of the build: %w", err)
	}
	var pairs []string
	for _, s := range secrets {
		for line := range strings.Lines(s.Reveal()) {
			if line = strings.TrimSpace(line); len(line) >= shortestSecret {
				pairs = append(pairs, line, "[redacted]")
			}
		}
	}
	return &output{view: view, file: f, redact: strings.NewReplacer(pairs...), log: bufio.NewWriter(f)}, nil
}

// begin forgets the lines of the step before.
func (o *output) begin(name string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.last = nil
	fmt.Fprintf(o.log, "== %s\n", name)
}

func (o *output) line(s string) {
	s = o.redact.Replace(s)
	o.mu.Lock()
	defer o.mu.Unlock()
	fmt.Fprintln(o.log, s) // its error stays with the writer: close returns it
	fmt.Fprintln(o.view, s)
	o.last = append(o.last, s)
	o.last = o.last[max(0, len(o.last)-lastLines):]
}

// tail is what the step printed last.
func (o *output) tail() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return append([]string(nil), o.last...)
}

// stream is a writer for one stream of a step.
func (o *output) stream() *guest.Lines { return guest.NewLines(o.line) }

func (o *output) close() error { return errors.Join(o.log.Flush(), o.file.Close()) }
