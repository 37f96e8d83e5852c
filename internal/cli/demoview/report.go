package demoview

import (
	"fmt"
	"strings"
	"time"

	"github.com/mirego/tasuki/internal/base/human"
	"github.com/mirego/tasuki/internal/runner"
)

const (
	// stepLines bounds what is shown of a step's log, failedLines of one that
	// did not succeed.
	stepLines   = 16
	failedLines = 80
	// longest bounds a line of a log where there is no terminal's width.
	longest = 200
	// roomForJob is how many columns of the runners' table its last one wants.
	roomForJob = 12
)

// Left is one kind of thing that a demo must not leave behind.
type Left struct {
	What string // "virtual machine", "disk"
	// Found are those that are there; Err says that nobody could look.
	Found []string
	Err   error
}

// Report is what came of a demo.
type Report struct {
	Jobs    []Job
	Runners []runner.Record
	Left    []Left
}

// Report writes the end of the story.
func (v *View) Report(r Report) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.reportJobs(r.Jobs)
	v.reportRunners(r.Runners, r.Jobs)
	v.reportLeft(r.Left)
}

func (v *View) reportJobs(jobs []Job) {
	run := ""
	for _, j := range jobs {
		if j.Run != run {
			run = j.Run
			v.say("\n" + v.paint(bold, "Jobs of "+run))
		}
		facts := []string{v.conclusion(j.Conclusion)}
		if !j.Started.IsZero() {
			facts = append(facts,
				fmt.Sprintf("queued %s started %s", v.marks.arrow, seconds(j.Wait())),
				"ran "+seconds(j.Completed.Sub(j.Started)), "on "+v.short(j.Runner))
		}
		if j.Reason != "" {
			facts = append(facts, plain(j.Reason))
		}
		head := fmt.Sprintf("  %s %s", v.mark(j.Conclusion), v.paint(bold, pad(plain(j.Name), 24)))
		v.say("\n" + v.joined(head, "    ", strings.Join(facts, ", ")))
		for _, s := range j.Steps {
			v.reportStep(j, s)
		}
	}
}

func (v *View) reportStep(j Job, s Step) {
	v.say(fmt.Sprintf("      %s %s %s", v.mark(s.Conclusion), pad(plain(s.Name), 52), v.paint(dim, seconds(s.Took))))
	most := stepLines
	if s.Conclusion != "success" && s.Conclusion != "skipped" {
		most = failedLines
	}
	head, tail, left := bound(logLines(s.Log), most)
	rule := "          " + v.paint(dim, v.marks.rule) + " "
	columns := longest
	if v.columns() > 40 {
		columns = v.columns() - 12
	}
	for _, line := range head {
		v.say(rule + v.logLine(cut(line, columns)))
	}
	if left > 0 {
		v.say(rule + v.paint(dim, fmt.Sprintf("%s %s left out; the whole log: %s", v.marks.dots, human.Count(left, "line"), j.LogFile)))
	}
	for _, line := range tail {
		v.say(rule + v.logLine(cut(line, columns)))
	}
}

// logLine paints the lines that a runner marks.
func (v *View) logLine(line string) string {
	for mark, color := range map[string]string{"##[error]": red, "##[warning]": yellow, "##[notice]": cyan} {
		if text, ok := strings.CutPrefix(line, mark); ok {
			return v.paint(color, text)
		}
	}
	return line
}

// joined sets a text beside another, or below it, indented, where the terminal
// is too narrow for both.
func (v *View) joined(left, indent, right string) string {
	line := left + "  " + right
	if columns := v.columns(); columns > 0 && len([]rune(escapes.ReplaceAllString(line, ""))) > columns {
		return left + "\n" + indent + right
	}
	return line
}

// reportRunners writes the table of the ten steps.
func (v *View) reportRunners(records []runner.Record, jobs []Job) {
	if len(records) == 0 {
		return
	}
	did := map[string]string{}
	for _, j := range jobs {
		if j.Runner != "" {
			did[j.Runner] = quoted(j.Name)
		}
	}
	names := 0
	for _, rec := range records {
		names = max(names, len([]rune(v.short(rec.Name))))
	}
	heads, widths := v.stepColumns(names)
	head := "  " + pad("", names)
	for i, name := range heads {
		head += fmt.Sprintf(" %*s", widths[i], name)
	}
	v.say("\n" + v.paint(bold, "Runners") + ", and how many seconds each of the ten steps took")
	if columns := v.columns(); columns == 0 || len(head)+roomForJob <= columns {
		head += "  did"
	}
	v.say("\n" + v.paint(dim, head))
	again := v.again(records)
	for i, rec := range records {
		row := "  " + pad(v.short(rec.Name), names)
		for step := 1; step < len(runner.StepNames); step++ {
			row += fmt.Sprintf(" %*.1f", widths[step-1], rec.Took(step, endOf(rec)).Seconds())
		}
		last := len(widths) - 1
		row += fmt.Sprintf(" %*s %*.1f", widths[last-1], again[i], widths[last], endOf(rec).Sub(rec.Created).Seconds())
		color, text := "", did[rec.Name]
		switch {
		case rec.Failed:
			color, text = red, "failed: "+plain(rec.Failure)
		case text == "":
			color, text = dim, "no job: "+plain(rec.Reason)
		}
		v.say(v.joined(row, pad("", names+4), v.paint(color, text)))
	}
	v.say("")
	for _, line := range []string{"guest: clone and start; channel: boot until SSH answers;", "job: waiting and working; again: from the free slot to the next runner"} {
		v.say(v.paint(dim, "  "+line))
	}
}

// stepColumns are the heads of the ten steps and of their sum, and how wide
// their columns are. Where the terminal is narrow, long heads are shortened.
func (v *View) stepColumns(names int) (heads []string, widths []int) {
	heads = append(runner.StepNames[:], "all")
	for _, limit := range []int{longest, 5} {
		sum := 2 + names
		widths = widths[:0]
		for i, name := range heads {
			heads[i] = name[:min(len(name), limit)]
			widths = append(widths, max(5, len(heads[i])))
			sum += 1 + widths[i]
		}
		if columns := v.columns(); columns == 0 || sum+roomForJob <= columns {
			break
		}
	}
	return heads, widths
}

// endOf is when nothing was left of a runner, or when we saw it last.
func endOf(rec runner.Record) time.Time {
	if n := len(rec.Steps); n > 0 {
		if end := rec.Steps[n-1].End; !end.IsZero() {
			return end
		}
		return rec.Steps[n-1].Start
	}
	return rec.Created
}

// again is, for each runner, how long its slot stayed free until another took
// it: each runner follows at most one other.
func (v *View) again(records []runner.Record) []string {
	out := make([]string, len(records))
	taken := make([]bool, len(records))
	for i, rec := range records {
		out[i] = v.marks.none
		free, ok := freed(rec)
		if !ok {
			continue
		}
		next := -1
		for k, other := range records {
			if !taken[k] && !other.Created.Before(free) && (next < 0 || other.Created.Before(records[next].Created)) {
				next = k
			}
		}
		if next >= 0 {
			taken[next] = true
			out[i] = fmt.Sprintf("%.1f", records[next].Created.Sub(free).Seconds())
		}
	}
	return out
}

// freed is when a runner gave its slot back.
func freed(rec runner.Record) (time.Time, bool) {
	for _, visit := range rec.Steps {
		if !visit.State.TakesSlot() {
			return visit.Start, true
		}
	}
	return time.Time{}, false
}

func (v *View) reportLeft(left []Left) {
	v.say("\n" + v.paint(bold, "Left behind"))
	for _, l := range left {
		switch {
		case l.Err != nil:
			v.say(fmt.Sprintf("  %s %s: nobody could look: %v", v.paint(red, v.marks.bad), l.What, l.Err))
		case len(l.Found) > 0:
			v.say(fmt.Sprintf("  %s %s: %s", v.paint(red, v.marks.bad), l.What, strings.Join(l.Found, ", ")))
		default:
			v.say(fmt.Sprintf("  %s no %s", v.paint(green, v.marks.good), l.What))
		}
	}
	v.say("")
}
