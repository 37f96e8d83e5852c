package cli

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/mirego/tasuki/internal/base/human"
	"github.com/mirego/tasuki/internal/image/transfer"
)

// plainEvery is how often progress is told where there is no terminal.
const plainEvery = 15 * time.Second

// transferView shows how far a transfer is: one line that is written over on a
// terminal, else a line now and then. Calls must not overlap.
type transferView struct {
	w       io.Writer
	bar     bool
	columns int
	now     func() time.Time

	phase   transfer.Phase
	started time.Time // of the phase
	told    time.Time
	base    int64 // of the phase: what was done when it began
	last    transfer.Progress
}

// transferView returns nil if nothing is to be shown.
func (a *app) transferView(quiet bool) *transferView {
	if quiet {
		return nil
	}
	return &transferView{w: a.stderr, bar: terminal(a.stderr) && colours(a.stderr), columns: width(a.stderr), now: time.Now}
}

var phaseWords = map[transfer.Phase]string{
	transfer.PhaseWait:   "waiting for another pull of it",
	transfer.PhaseCheck:  "checking what is here",
	transfer.PhasePull:   "pulling",
	transfer.PhaseFinish: "writing to disk",
	transfer.PhasePush:   "pushing",
	transfer.PhaseCopy:   "copying",
}

// progress takes one report.
func (v *transferView) progress(p transfer.Progress) {
	now := v.now()
	if p.Phase != v.phase {
		v.phase, v.started, v.told, v.base = p.Phase, now, now, p.Done
	}
	v.last = p
	if v.bar {
		fmt.Fprintf(v.w, "\r\x1b[K%s", v.line(p, now))
		return
	}
	if now.Sub(v.told) >= plainEvery {
		v.told = now
		fmt.Fprintln(v.w, v.line(p, now))
	}
}

// end leaves the terminal's line.
func (v *transferView) end() {
	if v != nil && v.bar && v.phase != "" {
		fmt.Fprint(v.w, "\r\x1b[K")
	}
}

// line is a report as people read it: how much, how fast, how much longer.
func (v *transferView) line(p transfer.Progress, now time.Time) string {
	word := phaseWords[p.Phase]
	if p.Total <= 0 {
		return word
	}
	share := float64(p.Done) / float64(p.Total)
	text := fmt.Sprintf("%s %3.0f %%  %s of %s", word, 100*share, human.Bytes(p.Done), human.Bytes(p.Total))
	if p.Reused > 0 {
		text += fmt.Sprintf(", %s not moved", human.Bytes(p.Reused))
	}
	// Rate and rest are told once there is something to reckon with.
	if took := now.Sub(v.started); took >= time.Second && p.Done > v.base {
		rate := float64(p.Done-v.base) / took.Seconds()
		text += fmt.Sprintf(", %s/s", human.Bytes(int64(rate)))
		if left := float64(p.Total-p.Done) / rate; left >= 1 {
			text += fmt.Sprintf(", %s left", human.Duration(time.Duration(left*float64(time.Second))))
		}
	}
	if v.bar && v.columns > len(text)+14 {
		text = bar(share, min(30, v.columns-len(text)-4)) + " " + text
	}
	if v.bar && v.columns > 0 && len(text) >= v.columns {
		text = text[:v.columns-1]
	}
	return text
}

func bar(share float64, columns int) string {
	full := min(max(int(share*float64(columns)), 0), columns)
	return "[" + strings.Repeat("#", full) + strings.Repeat(".", columns-full) + "]"
}
