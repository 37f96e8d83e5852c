package cli

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/mirego/tasuki/internal/api"
	"github.com/mirego/tasuki/internal/base/human"
	"github.com/mirego/tasuki/internal/runner"
)

// statusStyle says how a status is written.
type statusStyle struct {
	width  int // columns; 0: as many as it takes
	colour bool
}

// The colours mean: red needs you, yellow waits, green is at work.
const (
	red    = "31"
	yellow = "33"
	green  = "32"
	dim    = "2"
	bold   = "1"
)

func (s statusStyle) paint(code, text string) string {
	if !s.colour || text == "" || code == "" {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

// renderStatus writes a status for a person: what is wrong, then the pools,
// then the runners.
func renderStatus(s api.Status, style statusStyle) string {
	var b strings.Builder
	head := fmt.Sprintf("%s  %d of %s taken, up %s", style.paint(bold, s.Host), s.Taken, human.Count(s.Slots, "slot"), human.Duration(s.Now.Sub(s.Started)))
	if s.Leaked > 0 {
		head += "  " + style.paint(red, human.Count(s.Leaked, "slot")+" leaked")
	}
	switch {
	case s.Stopping:
		head += "  " + style.paint(yellow, "stopping: busy runners finish, then the agent ends")
	case s.Draining:
		head += "  " + style.paint(yellow, "draining: no new runners (tasuki resume)")
	}
	b.WriteString(head + "\n")
	for _, p := range s.Problems {
		b.WriteString(style.wrapped(cell{text: oneLine(p), colour: red}, "! "))
	}
	b.WriteByte('\n')
	b.WriteString(poolTable(s, style))
	if images := imageTable(s, style); images != "" {
		b.WriteString("\n" + images)
	}
	if len(s.Runners) > 0 {
		b.WriteByte('\n')
		b.WriteString(runnerTable(s, style))
	}
	if len(s.Releases) > 0 {
		b.WriteByte('\n')
		b.WriteString(releaseTable(s, style))
	}
	return b.String()
}

// releaseTable shows what the host keeps of the runner program.
func releaseTable(s api.Status, style statusStyle) string {
	rows := [][]cell{header("RUNNER PROGRAM", "RELEASE", "PUBLISHED", "NEWEST, SAYS GITHUB", "PROBLEM")}
	for _, r := range s.Releases {
		ago := func(at time.Time, never string) string {
			if at.IsZero() {
				return never
			}
			return human.Duration(s.Now.Sub(at)) + " ago"
		}
		rows = append(rows, []cell{
			{text: r.OS + " " + r.Arch}, {text: cmp.Or(r.Version, "none yet")}, {text: ago(r.Published, "-"), colour: dim},
			{text: ago(r.Checked, "not asked yet"), colour: dim}, {text: oneLine(r.Problem), colour: yellow},
		})
	}
	return style.table(rows)
}

// cell is one field of a table. The label stands before a last field that has
// to go to a line of its own.
type cell struct{ text, colour, label string }

func poolTable(s api.Status, style statusStyle) string {
	rows := [][]cell{header("POOL", "IDLE", "STARTING", "BUSY", "STANDBY", "WAITS FOR")}
	for _, p := range s.Pools {
		waits := cell{oneLine(p.Waits.Text), yellow, "waits for: "}
		if p.Draining {
			waits = cell{text: "draining (tasuki resume " + p.Name + ")", colour: yellow}
		}
		rows = append(rows, []cell{
			{text: p.Name, colour: bold}, number(p.Idle, ""), number(p.Starting, ""), number(p.Busy, green), number(p.Standby, ""), waits,
		})
	}
	return style.table(rows)
}

func number(n int, colour string) cell {
	if n == 0 {
		return cell{text: "-", colour: dim}
	}
	return cell{text: fmt.Sprint(n), colour: colour}
}

func header(words ...string) []cell {
	var out []cell
	for _, w := range words {
		out = append(out, cell{text: w, colour: dim})
	}
	return out
}

func runnerTable(s api.Status, style statusStyle) string {
	runners := slices.Clone(s.Runners)
	slices.SortStableFunc(runners, func(a, b api.Runner) int {
		return cmp.Or(cmp.Compare(urgency(a), urgency(b)), strings.Compare(a.Pool, b.Pool), a.Since.Compare(b.Since))
	})
	rows := [][]cell{header("RUNNER", "POOL", "STATE", "FOR", "JOB", "REASON")}
	for _, r := range runners {
		rows = append(rows, []cell{
			{text: r.Name}, {text: r.Pool}, {text: string(r.State), colour: stateColour(r)},
			{text: human.Duration(s.Now.Sub(r.Since)), colour: dim}, {text: cmp.Or(jobText(r.Job), "-")},
			{text: reasonText(r, s.Now), colour: reasonColour(r)},
		})
	}
	return style.table(rows)
}

// urgency puts first what went wrong, then what works, then the rest.
func urgency(r api.Runner) int {
	switch {
	case r.Failed:
		return 0
	case r.State == runner.Held:
		return 1
	case r.State == runner.Busy:
		return 2
	case r.State.Ending():
		return 4
	}
	return 3
}

func stateColour(r api.Runner) string {
	switch {
	case r.Failed:
		return red
	case r.State == runner.Busy:
		return green
	case r.State == runner.Held || r.State == runner.Lingering:
		return yellow
	}
	return ""
}

func reasonColour(r api.Runner) string {
	if r.Failed {
		return red
	}
	return dim
}

func jobText(j runner.Job) string {
	var parts []string
	for _, p := range []string{j.Repository, j.Workflow, j.Name} {
		if p != "" {
			parts = append(parts, oneLine(p))
		}
	}
	text := strings.Join(parts, " / ")
	if j.Conclusion != "" {
		text += " (" + j.Conclusion + ")"
	}
	return text
}

func reasonText(r api.Runner, now time.Time) string {
	text := r.Reason
	if r.Failed && r.Failure != "" {
		text = r.Failure
	}
	if r.State == runner.Held && r.Hold.After(now) {
		text = strings.TrimSuffix("for "+human.Duration(r.Hold.Sub(now))+" more; "+text, "; ")
	}
	if text == "" && (r.State == runner.Idle || r.State == runner.Busy) {
		text = r.Way
	}
	return oneLine(text)
}

// table aligns rows. The last column takes what width is left; where that is
// too little for one of its fields, they all go to lines of their own below.
func (s statusStyle) table(rows [][]cell) string {
	last := len(rows[0]) - 1
	widths, longest := make([]int, last), 0
	for _, row := range rows {
		for i := range last {
			widths[i] = max(widths[i], utf8.RuneCountInString(row[i].text))
		}
		longest = max(longest, utf8.RuneCountInString(row[last].text))
	}
	left := 0
	for _, w := range widths {
		left += w + 2
	}
	below := s.width > 0 && left+longest > s.width
	var b strings.Builder
	for n, row := range rows {
		tail := row[last]
		for i := range last {
			pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(row[i].text)+2)
			if i == last-1 && (below || tail.text == "") {
				pad = ""
			}
			b.WriteString(s.paint(row[i].colour, row[i].text) + pad)
		}
		if !below {
			b.WriteString(s.paint(tail.colour, tail.text))
		}
		b.WriteByte('\n')
		if below && n > 0 && tail.text != "" {
			b.WriteString(s.wrapped(tail, "  "))
		}
	}
	return b.String()
}

// wrapped writes a text into lines that fit, indented under its first.
func (s statusStyle) wrapped(c cell, indent string) string {
	var b strings.Builder
	line := indent + c.label
	for i, word := range strings.Fields(c.text) {
		if i > 0 && s.width > 0 && utf8.RuneCountInString(line)+utf8.RuneCountInString(word) >= s.width {
			b.WriteString(s.paint(c.colour, strings.TrimRight(line, " ")) + "\n")
			line = strings.Repeat(" ", len(indent)+2)
		}
		line += word + " "
	}
	b.WriteString(s.paint(c.colour, strings.TrimRight(line, " ")) + "\n")
	return b.String()
}

// oneLine makes text from elsewhere fit into a line and a terminal: without
// line ends and control characters.
func oneLine(text string) string {
	clean := strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case r < ' ' || r >= 0x7f && r < 0xa0:
			return -1
		}
		return r
	}, text)
	return strings.Join(strings.Fields(clean), " ")
}
