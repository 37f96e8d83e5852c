package emulator

import (
	"bytes"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// State is everything at one moment, ready for JSON. Nothing in it is shared with the emulator.
type State struct {
	Time    time.Time     `json:"time"`
	Runs    []RunState    `json:"runs"`
	Runners []RunnerState `json:"runners"` // registrations; those that ended are gone

	ScaleSets []ScaleSetState `json:"scale_sets"`
}

// RunState is one run of a workflow.
type RunState struct {
	ID         int64      `json:"id"`
	Number     int64      `json:"number"`
	Name       string     `json:"name"`
	File       string     `json:"file"`
	Status     string     `json:"status"`     // queued, in_progress, completed
	Conclusion string     `json:"conclusion"` // success, failure, cancelled; empty until completed
	Created    time.Time  `json:"created"`
	Completed  time.Time  `json:"completed,omitzero"`
	Jobs       []JobState `json:"jobs"`
}

// JobState is one job of a run.
type JobState struct {
	ID          int64             `json:"id"`
	GUID        string            `json:"guid"`
	RunID       int64             `json:"run_id"`
	Key         string            `json:"key"` // its key under jobs:
	Name        string            `json:"name"`
	Labels      []string          `json:"labels"`
	Group       string            `json:"group,omitempty"`
	Needs       []string          `json:"needs,omitempty"`
	Status      string            `json:"status"`            // pending, queued, in_progress, completed
	Conclusion  string            `json:"conclusion"`        // success, failure, cancelled, skipped
	Waiting     string            `json:"waiting,omitempty"` // why it waits, for people
	Reason      string            `json:"reason,omitempty"`  // why it ended as it did, where the runner did not say
	Requeued    int               `json:"requeued,omitempty"`
	ScaleSet    string            `json:"scale_set,omitempty"` // that it is assigned to
	Lapses      int               `json:"lapses,omitempty"`    // assignments that no runner came for
	Created     time.Time         `json:"created"`
	Queued      time.Time         `json:"queued,omitzero"`
	Started     time.Time         `json:"started,omitzero"` // acquired by a runner
	Completed   time.Time         `json:"completed,omitzero"`
	LockedUntil time.Time         `json:"locked_until,omitzero"`
	RunnerID    int64             `json:"runner_id,omitempty"`
	RunnerName  string            `json:"runner_name,omitempty"`
	Outputs     map[string]string `json:"outputs,omitempty"`
	Annotations []Annotation      `json:"annotations,omitempty"`
	Steps       []StepState       `json:"steps"`
}

// StepState is one step as its runner reports it; before that, as the workflow names it.
type StepState struct {
	ID         string    `json:"id"`
	Number     int       `json:"number"`
	Name       string    `json:"name"`
	Status     string    `json:"status"` // pending, in_progress, completed
	Conclusion string    `json:"conclusion"`
	Started    time.Time `json:"started,omitzero"`
	Completed  time.Time `json:"completed,omitzero"`
	Log        string    `json:"log,omitempty"` // the uploaded log; the live lines until there is one
	Summary    string    `json:"summary,omitempty"`
}

// Annotation is a remark that a runner made on a job.
type Annotation struct {
	Level   string `json:"level"`
	Message string `json:"message"`
}

// RunnerState is one registration.
type RunnerState struct {
	ID        int64     `json:"id"`
	Name      string    `json:"name"`
	Scope     string    `json:"scope"` // octo/demo, octo, enterprises/big
	Group     string    `json:"group"`
	ScaleSet  string    `json:"scale_set,omitempty"`
	Labels    []string  `json:"labels"`
	Ephemeral bool      `json:"ephemeral"`
	Online    bool      `json:"online"`
	Busy      bool      `json:"busy"`
	Job       string    `json:"job,omitempty"`
	OS        string    `json:"os,omitempty"`
	Version   string    `json:"version,omitempty"`
	Created   time.Time `json:"created"`
}

// State returns everything, step logs included.
func (e *Emulator) State() State { return e.state(true) }

// RunState returns one run with its logs; false if there is none of that id.
func (e *Emulator) RunState(runID int64) (RunState, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	r := e.runByID(runID)
	if r == nil {
		return RunState{}, false
	}
	return e.runState(r, true), true
}

func (e *Emulator) state(logs bool) State {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := State{Time: time.Now(), Runs: []RunState{}, Runners: []RunnerState{}}
	for _, r := range e.runs {
		s.Runs = append(s.Runs, e.runState(r, logs))
	}
	for _, r := range e.registeredIn(func(scope) bool { return true }) {
		state := RunnerState{
			ID: r.id, Name: r.name, Scope: r.scope.path(), Group: r.group.name, Ephemeral: r.ephemeral,
			Online: r.online(s.Time, e.opts.OfflineAfter), Busy: r.busy(), OS: r.os, Version: r.version, Created: r.created,
		}
		for _, l := range r.labels {
			state.Labels = append(state.Labels, l.name)
		}
		if r.job != nil {
			state.Job = r.job.def.Name
		}
		if r.set != nil {
			state.ScaleSet = r.set.name
		}
		s.Runners = append(s.Runners, state)
	}
	s.ScaleSets = e.scaleSetStates()
	return s
}

func (e *Emulator) runState(r *run, logs bool) RunState {
	s := RunState{
		ID: r.id, Number: r.number, Name: r.title, File: r.file, Status: r.status(),
		Created: r.created, Completed: r.completed, Jobs: []JobState{},
	}
	if s.Status == "completed" {
		s.Conclusion = r.wf.Conclusion()
	}
	for _, j := range r.jobs {
		s.Jobs = append(s.Jobs, e.jobState(j, logs))
	}
	return s
}

func (r *run) status() string {
	if !r.completed.IsZero() {
		return "completed"
	}
	if slices.ContainsFunc(r.jobs, func(j *job) bool { return !j.startedAt.IsZero() }) {
		return "in_progress"
	}
	return "queued"
}

func (e *Emulator) jobState(j *job, logs bool) JobState {
	s := JobState{
		ID: j.id, GUID: j.def.ID, RunID: j.run.id, Key: j.def.Key, Name: j.def.Name,
		Labels: slices.Clone(j.def.RunsOn.Labels), Group: j.def.RunsOn.Group, Needs: slices.Clone(j.def.Needs),
		Status: j.status(), Conclusion: j.conclusion, Reason: j.reason, Requeued: j.requeued, Lapses: j.claim.lapses,
		Created: j.created, Queued: j.queuedAt, Started: j.startedAt, Completed: j.completedAt,
		Outputs: maps.Clone(j.outputs), Annotations: slices.Clone(j.annotations), Steps: []StepState{}, Waiting: e.waiting(j),
	}
	if j.claim.set != nil {
		s.ScaleSet = j.claim.set.name
	}
	if j.phase == running {
		s.LockedUntil = j.lockedUntil
	}
	if j.runner != nil && (j.phase == running || j.phase == done) {
		s.RunnerID, s.RunnerName = j.runner.id, j.runner.name
	}
	for _, p := range j.steps {
		step := StepState{
			ID: p.id, Number: p.number, Name: p.name, Status: p.status, Conclusion: p.conclusion,
			Started: p.startedAt, Completed: p.completedAt,
		}
		if logs {
			step.Log, step.Summary = p.log.String(), p.summary.String()
		}
		s.Steps = append(s.Steps, step)
	}
	return s
}

func (j *job) status() string {
	switch j.phase {
	case pending:
		return "pending"
	case queued, offered:
		return "queued"
	case running:
		return "in_progress"
	}
	return "completed"
}

// waiting says why a job has not started. The lock is held.
func (e *Emulator) waiting(j *job) string {
	switch j.phase {
	case pending:
		if len(j.def.Needs) > 0 {
			return "for the jobs it needs: " + strings.Join(j.def.Needs, ", ")
		}
		return "for other jobs of its matrix (max-parallel)"
	case offered:
		return fmt.Sprintf("for runner %s to pick it up", j.runner.name)
	case queued:
	default:
		return ""
	}
	if why := e.waitingForSet(j); j.claim.set != nil || e.stuck(j) || why != "" && !e.hasPlainRunners() {
		return why
	}
	var busy, offline, misfits []string
	for _, r := range e.registeredIn(func(scope) bool { return true }) {
		switch why := e.misfit(r, j); {
		case why != "":
			misfits = append(misfits, r.name+": "+why)
		case r.job != nil:
			busy = append(busy, r.name)
		default:
			offline = append(offline, r.name)
		}
	}
	want := fmt.Sprintf("[%s]", strings.Join(j.def.RunsOn.Labels, ", "))
	switch {
	case len(offline) > 0:
		return fmt.Sprintf("for a runner with %s: not listening yet: %s", want, strings.Join(offline, ", "))
	case len(busy) > 0:
		return fmt.Sprintf("for a runner with %s: busy: %s", want, strings.Join(busy, ", "))
	case len(misfits) > 0:
		return fmt.Sprintf("for a runner with %s: none of those registered fits (%s)", want, strings.Join(misfits, "; "))
	}
	return fmt.Sprintf("for a runner with %s: none is registered", want)
}

// JobLog returns a job's log as text: the one that its runner uploaded, else those of its steps one after
// the other. The id is the job's number or GUID; false if there is none.
func (e *Emulator) JobLog(id string) (string, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	j := e.jobByID(id)
	if j == nil {
		return "", false
	}
	if text := j.log.String(); j.log.sealed && text != "" {
		return text, true
	}
	var b strings.Builder
	b.WriteString(j.setup.String())
	for _, s := range j.steps {
		b.WriteString(s.log.String())
	}
	return b.String(), true
}

func (e *Emulator) jobByID(id string) *job {
	if j := e.jobs[id]; j != nil {
		return j
	}
	n, err := strconv.ParseInt(id, 10, 64)
	if err != nil {
		return nil
	}
	for _, j := range e.jobs {
		if j.id == n {
			return j
		}
	}
	return nil
}

// textLog is a log in the making: blocks that were uploaded, and lines that came live before them.
type textLog struct {
	blob   []byte
	sealed bool
	live   bytes.Buffer
}

// String returns what is known: the upload once it is whole or longer than the live lines.
func (l *textLog) String() string {
	if l.sealed || len(l.blob) >= l.live.Len() {
		return string(l.blob)
	}
	return l.live.String()
}

var timestamp = regexp.MustCompile(`(?m)^\x{FEFF}?\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{7}Z `)

// TrimTimestamps takes the time that uploaded logs carry from the beginning of each line.
func TrimTimestamps(log string) string { return timestamp.ReplaceAllLiteralString(log, "") }
