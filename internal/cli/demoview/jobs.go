package demoview

import (
	"cmp"
	"fmt"
	"time"
)

// Job is one job as GitHub has it.
type Job struct {
	ID         int64
	Name       string
	Run        string // the workflow
	Status     string // pending, queued, in_progress, completed
	Conclusion string // success, failure, cancelled, skipped
	Reason     string // why it ended so, where its steps do not tell
	Runner     string
	Queued     time.Time
	Started    time.Time
	Completed  time.Time
	Steps      []Step
	LogFile    string // where the whole log is; "" if it is not kept
}

// Step is one step of a job.
type Step struct {
	Name       string
	Conclusion string
	Took       time.Duration
	Log        string
}

// Wait is how long the job waited from queued to started.
func (j Job) Wait() time.Duration {
	if j.Started.IsZero() || j.Queued.IsZero() {
		return 0
	}
	return j.Started.Sub(j.Queued)
}

// SetJobs tells the view how the jobs are now, and it says what has changed.
func (v *View) SetJobs(jobs []Job) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.closed {
		return
	}
	before := map[int64]Job{}
	for _, j := range v.jobs {
		before[j.ID] = j
	}
	v.jobs = jobs
	for _, j := range jobs {
		old := before[j.ID]
		if old.Status == j.Status {
			continue
		}
		if !j.Started.IsZero() && old.Started.IsZero() {
			v.note("job", fmt.Sprintf("%s started on %s, %s after it was queued", quoted(j.Name), v.short(j.Runner), seconds(j.Wait())))
		}
		if j.Status == "completed" {
			v.note("job", v.jobEnded(j))
		}
	}
}

func (v *View) jobEnded(j Job) string {
	text := fmt.Sprintf("%s %s", quoted(j.Name), v.conclusion(j.Conclusion))
	if !j.Started.IsZero() {
		text += fmt.Sprintf(" after %s", seconds(j.Completed.Sub(j.Started)))
	}
	if j.Reason != "" {
		text += ": " + plain(j.Reason)
	}
	return text
}

// conclusion paints GitHub's word.
func (v *View) conclusion(word string) string {
	switch word {
	case "success":
		return v.paint(green, word)
	case "skipped", "":
		return v.paint(dim, cmp.Or(word, "not ended"))
	case "cancelled":
		return v.paint(yellow, word)
	}
	return v.paint(red, word)
}

func (v *View) mark(conclusion string) string {
	switch conclusion {
	case "success":
		return v.paint(green, v.marks.good)
	case "skipped", "":
		return v.paint(dim, v.marks.none)
	}
	return v.paint(red, v.marks.bad)
}
