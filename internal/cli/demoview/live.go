package demoview

import (
	"fmt"
	"strings"
	"time"

	"github.com/mirego/tasuki/internal/runner"
)

// doings are the states in words for newcomers.
var doings = map[runner.State]string{
	runner.Preparing:   "takes the newest image",
	runner.Requesting:  "asks GitHub for a credential for one job",
	runner.Cloning:     "clones the disk and starts the virtual machine",
	runner.Connecting:  "the guest boots",
	runner.Launching:   "launches the runner program in the guest",
	runner.Registering: "the runner program connects to GitHub",
	runner.Idle:        "waits for a job",
	runner.Leaving:     "leaves GitHub",
	runner.Held:        "is kept for a person to look at",
	runner.Stopping:    "cuts the guest's power",
	runner.Deleting:    "deletes the guest's disk",
	runner.Lingering:   "waits until GitHub has forgotten it",
	runner.Gone:        "nothing of it is left",
}

func (v *View) doing(rec runner.Record) string {
	if rec.State != runner.Busy {
		return doings[rec.State]
	}
	if rec.Job.Name != "" {
		return "executes " + quoted(rec.Job.Name)
	}
	for _, j := range v.jobs {
		if j.Runner == rec.Name {
			return "executes " + quoted(j.Name)
		}
	}
	return "executes a job"
}

func quoted(name string) string { return `"` + plain(name) + `"` }

// block is the live block. The lock is held.
func (v *View) block() []string {
	var out []string
	for _, t := range v.tasks {
		out = append(out, v.taskLine(t))
	}
	now := v.opt.Now()
	live := 0
	for _, l := range v.runners {
		if l.ended || v.closed {
			continue
		}
		live++
		text := fmt.Sprintf("  %s %2d/10  %s %s", pad(v.short(l.rec.Name), 16), l.rec.State.Step(), pad(string(l.rec.State), 11), pad(seconds(now.Sub(l.rec.Since)), 9))
		text = cut(text+"  "+v.doing(l.rec), v.columns())
		out = append(out, v.paint(stateColor(l.rec.State), text))
	}
	if len(v.jobs) > 0 {
		out = append(out, v.paint(bold, cut("  "+v.jobsLine(live), v.columns())))
	}
	return out
}

func stateColor(s runner.State) string {
	switch {
	case s == runner.Busy:
		return green
	case s == runner.Idle:
		return cyan
	case s.Ending():
		return dim
	}
	return yellow
}

func (v *View) columns() int {
	if v.opt.Width == nil {
		return 0
	}
	return max(0, v.opt.Width()-1)
}

func (v *View) jobsLine(live int) string {
	var waiting, running, done int
	for _, j := range v.jobs {
		switch j.Status {
		case "in_progress":
			running++
		case "completed":
			done++
		default:
			waiting++
		}
	}
	text := fmt.Sprintf("jobs: %d running, %d waiting, %d of %d done   runners: %d   %s",
		running, waiting, done, len(v.jobs), live, strings.TrimSpace(seconds(v.opt.Now().Sub(v.start))))
	if v.waits != "" && waiting > 0 {
		text += "   waits: " + plain(v.waits)
	}
	return text
}

// Task is one thing that takes a while, with a bar where its size is known.
type Task struct {
	v           *View
	name, doing string
	begun, said time.Time
	done, total int64
	parts       bool // done and total are no bytes but thousandths
}

// Task begins a task; end it with Done or Fail. Where there is no live line, it
// is its end, and what it says meanwhile, that is shown.
func (v *View) Task(name, doing string) *Task {
	v.mu.Lock()
	defer v.mu.Unlock()
	now := v.opt.Now()
	t := &Task{v: v, name: name, doing: doing, begun: now, said: now}
	v.tasks = append(v.tasks, t)
	return t
}

// Doing says what the task is at now.
func (t *Task) Doing(text string) {
	t.v.mu.Lock()
	defer t.v.mu.Unlock()
	if text == t.doing {
		return
	}
	t.doing, t.done, t.total = text, 0, 0
	if !t.v.opt.Terminal {
		t.v.note(t.name, text)
	}
}

// Progress says how far it is, in bytes; a total of 0 is not known.
func (t *Task) Progress(done, total int64) {
	t.v.mu.Lock()
	defer t.v.mu.Unlock()
	t.done, t.total, t.parts = done, total, false
	if now := t.v.opt.Now(); !t.v.opt.Terminal && now.Sub(t.said) >= plainPace && total > 0 {
		t.said = now
		t.v.note(t.name, fmt.Sprintf("%d %% of %s", 100*done/total, bytes(total)))
	}
}

// Part says what the task is at and how far, from 0 to 1, where that is no
// matter of bytes.
func (t *Task) Part(done float64, doing string) {
	t.v.mu.Lock()
	defer t.v.mu.Unlock()
	news := doing != t.doing
	t.doing, t.done, t.total, t.parts = doing, int64(1000*done), 1000, true
	if now := t.v.opt.Now(); !t.v.opt.Terminal && (news || now.Sub(t.said) >= plainPace) {
		t.said = now
		t.v.note(t.name, fmt.Sprintf("%3.0f %%  %s", 100*done, doing))
	}
}

// Done ends the task well and says what came of it.
func (t *Task) Done(format string, args ...any) {
	t.end(green, t.v.marks.good, fmt.Sprintf(format, args...))
}

// Fail ends the task.
func (t *Task) Fail() { t.end(red, t.v.marks.bad, t.doing) }

func (t *Task) end(color, mark, text string) {
	v := t.v
	v.mu.Lock()
	defer v.mu.Unlock()
	for i, other := range v.tasks {
		if other == t {
			v.tasks = append(v.tasks[:i], v.tasks[i+1:]...)
			break
		}
	}
	v.say(fmt.Sprintf("  %s %s %s  %s", v.paint(color, mark), pad(t.name, 10), text, v.paint(dim, seconds(v.opt.Now().Sub(t.begun)))))
}

const (
	barWidth    = 24
	narrowWidth = 12 // where there are fewer than 100 columns
)

func (v *View) taskLine(t *Task) string {
	now := v.opt.Now()
	took := now.Sub(t.begun)
	head := fmt.Sprintf("  %s %s ", spinner(took, v.opt.ASCII), pad(t.name, 10))
	if t.total <= 0 {
		return cut(fmt.Sprintf("%s%s  %s", head, seconds(took), t.doing), v.columns())
	}
	part := min(1, float64(t.done)/float64(t.total))
	width := barWidth
	if columns := v.columns(); columns > 0 && columns < 99 {
		width = narrowWidth
	}
	full := int(part * float64(width))
	bar := strings.Repeat(v.marks.bar, full) + strings.Repeat(v.marks.gap, width-full)
	amount := fmt.Sprintf("  %s of %s", bytes(t.done), bytes(t.total))
	if t.parts {
		amount = ""
	}
	return cut(fmt.Sprintf("%s%s %3.0f %%%s  %s  %s", head, bar, 100*part, amount, seconds(took), t.doing), v.columns())
}

func spinner(took time.Duration, ascii bool) string {
	signs := []rune("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏")
	if ascii {
		signs = []rune(`|/-\`)
	}
	return string(signs[int(took/frame)%len(signs)])
}
