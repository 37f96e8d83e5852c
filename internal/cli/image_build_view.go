package cli

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

// buildView tells a person of a build, line by line. It implements recipe.View.
type buildView struct {
	w        io.Writer
	terminal bool

	mu      sync.Mutex
	part    []byte    // of a line of output
	bringTo string    // what is being fetched
	told    time.Time // when its progress was told last
}

func newBuildView(w io.Writer) *buildView { return &buildView{w: w, terminal: terminal(w)} }

func (v *buildView) say(format string, args ...any) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.line(fmt.Sprintf(format, args...))
}

// line writes a line, over a progress that stands there.
func (v *buildView) line(s string) {
	if v.terminal {
		s = "\r\x1b[K" + s
	}
	fmt.Fprintln(v.w, s)
}

// Progress is told so often, on a terminal and elsewhere.
const (
	bringOften  = 200 * time.Millisecond
	bringSeldom = 10 * time.Second
)

// Bring implements recipe.View.
func (v *buildView) Bring(what string, done, total int64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	often := bringSeldom
	if v.terminal {
		often = bringOften
	}
	if what == v.bringTo && time.Since(v.told) < often {
		return
	}
	v.bringTo, v.told = what, time.Now()
	s := "fetching " + what
	switch {
	case total == 100: // a builder that counts in parts of a hundred
		s = fmt.Sprintf("%s, %d %%", what, done)
	case total > 0:
		s += fmt.Sprintf(", %d %% of %.1f MB", done*100/total, float64(total)/1e6)
	}
	if v.terminal {
		fmt.Fprint(v.w, "\r\x1b[K"+s)
		return
	}
	fmt.Fprintln(v.w, s)
}

// Begin implements recipe.View.
func (v *buildView) Begin(name string) { v.say("==> %s", name) }

// End implements recipe.View.
func (v *buildView) End(name string, cached bool, took time.Duration, err error) {
	switch {
	case cached:
		v.say("==> %s: not changed", name)
	case err != nil:
		v.say("==> %s: failed after %v", name, took.Round(100*time.Millisecond))
	default:
		v.say("==> %s: done in %v", name, took.Round(100*time.Millisecond))
	}
}

// Write implements recipe.View: what steps print, indented. A guest wrote it, so
// what would steer the terminal is left out.
func (v *buildView) Write(p []byte) (int, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.part = append(v.part, p...)
	for {
		line, rest, ended := strings.Cut(string(v.part), "\n")
		if !ended {
			return len(p), nil
		}
		v.part = []byte(rest)
		if i := strings.LastIndexByte(strings.TrimSuffix(line, "\r"), '\r'); i >= 0 {
			line = line[i+1:] // a progress that wrote over itself
		}
		v.line("    " + strings.Map(steerless, line))
	}
}

func steerless(r rune) rune {
	if r != '\t' && (r < ' ' || r == 0x7f || r > 0x7f && r < 0xa0) {
		return -1
	}
	return r
}
