package demoview

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/mirego/tasuki/internal/event"
	"github.com/mirego/tasuki/internal/runner"
)

const (
	// frame is the pace of the live block.
	frame = 125 * time.Millisecond
	// plainPace is how often a task says how far it is where there is no bar.
	plainPace = 10 * time.Second
)

// Options say where to show and how.
type Options struct {
	Out io.Writer
	// Terminal says that Out redraws; Width then asks for its columns, 0 where
	// they are not known.
	Terminal bool
	Width    func() int
	Color    bool
	ASCII    bool
	Now      func() time.Time // nil: time.Now
	// Trim begins the name of every runner and is not shown.
	Trim string
}

// View is what a person sees. Its methods may be called at the same time. It
// is an event.Sink. After Close it writes nothing but Report.
type View struct {
	opt   Options
	marks marks
	start time.Time
	stop  chan struct{}
	ended chan struct{}

	mu      sync.Mutex
	closed  bool
	drawn   int      // lines of the live block on the screen
	pending []string // lines to go above it
	tasks   []*Task
	runners []*line // in the order in which they began
	jobs    []Job
	waits   string // what the pool waits for
	said    string // and what was last said of it
}

// line is one runner.
type line struct {
	rec   runner.Record
	ended bool
}

// New returns a View that draws until Close.
func New(opt Options) *View {
	if opt.Now == nil {
		opt.Now = time.Now
	}
	v := &View{opt: opt, marks: unicodeMarks, start: opt.Now(), stop: make(chan struct{}), ended: make(chan struct{})}
	if opt.ASCII {
		v.marks = asciiMarks
	}
	if !opt.Terminal {
		close(v.ended)
		return v
	}
	go v.loop()
	return v
}

func (v *View) loop() {
	defer close(v.ended)
	tick := time.NewTicker(frame)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			v.mu.Lock()
			v.draw()
			v.mu.Unlock()
		case <-v.stop:
			return
		}
	}
}

// Close takes the live block away. What is said afterwards comes as plain lines.
func (v *View) Close() {
	v.mu.Lock()
	if v.closed {
		v.mu.Unlock()
		return
	}
	v.closed = true
	close(v.stop)
	v.mu.Unlock()
	<-v.ended
	v.mu.Lock()
	defer v.mu.Unlock()
	v.tasks, v.jobs = nil, nil
	v.draw()
	v.opt.Terminal = false
}

// Say writes a line that stays.
func (v *View) Say(format string, args ...any) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.say(fmt.Sprintf(format, args...))
}

// say writes at once where nothing is redrawn. The lock is held.
func (v *View) say(text string) {
	if !v.opt.Terminal {
		fmt.Fprintln(v.opt.Out, text)
		return
	}
	v.pending = append(v.pending, text)
}

// note writes one transition where there are no live lines. The lock is held.
func (v *View) note(what, text string) {
	v.say(fmt.Sprintf("%s  %s %s", v.clock(), pad(what, 16), text))
}

// clock is the time since the beginning.
func (v *View) clock() string {
	d := v.opt.Now().Sub(v.start)
	return v.paint(dim, fmt.Sprintf("%3d:%04.1f", int(d.Minutes()), (d%time.Minute).Seconds()))
}

func (v *View) paint(color, text string) string {
	if !v.opt.Color || color == "" || text == "" {
		return text
	}
	return "\x1b[" + color + "m" + text + "\x1b[0m"
}

// draw replaces the live block, in one write so that it does not flicker. The
// lock is held.
func (v *View) draw() {
	if !v.opt.Terminal {
		return
	}
	live := v.block()
	if v.drawn == 0 && len(live) == 0 && len(v.pending) == 0 {
		return
	}
	var b strings.Builder
	if v.drawn > 0 {
		fmt.Fprintf(&b, "\x1b[%dA", v.drawn)
	}
	b.WriteString("\r\x1b[J")
	for _, text := range slices.Concat(v.pending, live) {
		b.WriteString(text + "\n")
	}
	v.pending, v.drawn = nil, len(live)
	_, _ = io.WriteString(v.opt.Out, b.String())
}

// Emit implements event.Sink.
func (v *View) Emit(e event.Event) {
	v.mu.Lock()
	defer v.mu.Unlock()
	switch e.Kind {
	case event.RunnerMoved, event.RunnerJob:
		if e.Record != nil {
			v.moved(e)
		}
	case event.PoolWaits:
		// Before the first runner it waits for the image, which was just told.
		if v.said != e.Reason && !v.opt.Terminal && !v.closed && len(v.runners) > 0 {
			v.said = e.Reason
			v.note("pool", "waits: "+plain(e.Reason))
		}
		v.waits = e.Reason
	case event.PoolReady:
		v.waits = ""
	case event.ImageFailed:
		v.note("image", v.paint(red, "failed: "+plain(e.Reason)))
	case event.OrphanRemoved:
		v.note(v.short(e.Runner), "removed: "+plain(e.Reason))
	}
}

func (v *View) moved(e event.Event) {
	rec := *e.Record
	rec.Steps = slices.Clone(rec.Steps)
	i := slices.IndexFunc(v.runners, func(l *line) bool { return l.rec.Name == rec.Name })
	if i < 0 {
		i = len(v.runners)
		v.runners = append(v.runners, &line{})
	}
	l := v.runners[i]
	newlyFailed := rec.Failed && !l.rec.Failed
	l.rec, l.ended = rec, rec.State == runner.Gone
	if v.closed {
		return
	}
	if newlyFailed {
		v.note(v.short(rec.Name), v.paint(red, "gave up: "+plain(rec.Failure)))
	}
	if !v.opt.Terminal && e.Kind == event.RunnerMoved {
		v.note(v.short(rec.Name), fmt.Sprintf("%2d/10 %s %s", rec.State.Step(), pad(string(rec.State), 11), v.doing(rec)))
	}
}

func (v *View) short(name string) string { return strings.TrimPrefix(name, v.opt.Trim) }

// Records returns every runner that was seen, in the order in which they began.
func (v *View) Records() []runner.Record {
	v.mu.Lock()
	defer v.mu.Unlock()
	var all []runner.Record
	for _, l := range v.runners {
		all = append(all, l.rec)
	}
	return all
}
