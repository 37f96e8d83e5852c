package workflow

import (
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/mirego/tasuki/internal/emulator/workflow/expr"
)

// defaultTimeout is how long a job may take that says nothing about it:
// https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-syntax#jobsjob_idtimeout-minutes
const defaultTimeout = 360 * time.Minute

// State says how far a job is.
type State string

// The states of a job, in their order.
const (
	Pending   State = "pending"   // waits for the jobs it needs, or for max-parallel
	Queued    State = "queued"    // handed out by Next: a runner may take it
	Completed State = "completed" // has a conclusion
)

// The conclusions of a job and of a run, in the words of GitHub's REST API.
const (
	Success   = "success"
	Failure   = "failure"
	Cancelled = "cancelled"
	Skipped   = "skipped"
)

// RunsOn says which runners may take a job: those that carry every label and, where Group is not
// empty, belong to that runner group. Labels compare without regard to case.
type RunsOn struct {
	Labels []string
	Group  string
}

// Job is one job of a run: one combination where the job has a matrix. The fields are for reading; the
// Run that made the job writes them, under the lock that its owner holds.
type Job struct {
	ID              string // GUID
	Key             string // its key under jobs:
	Name            string // as people see it: "test (linux, 22)"
	RunsOn          RunsOn
	Timeout         time.Duration
	ContinueOnError bool
	Needs           []string // keys of the jobs named by needs:

	State      State
	Conclusion string            // empty until State is Completed
	Reason     string            // why the workflow itself concluded the job: an `if` that was false, an expression that failed
	Outputs    map[string]string // as Conclude was told

	// Steps lists the job's steps as the message names them, so that a server can tie results to names.
	// It is empty until the job is queued.
	Steps []StepInfo

	run      *Run
	def      *jobDef
	matrix   *expr.Object // nil without one
	strategy *expr.Object
}

// StepInfo names one step of a job.
type StepInfo struct {
	ID   string // GUID: the id that the runner reports results under
	Name string // as people see it before expressions in it are evaluated
}

// makeJobs expands a definition into its jobs: one for each combination of its matrix.
func (r *Run) makeJobs(g *group) error {
	d := g.def
	scope := expr.Scope{Contexts: r.contexts.Clone()}
	scope.Contexts.Set("needs", r.needsContext(d))
	combinations := []*expr.Object{nil}
	if d.matrix != nil {
		v, err := d.matrix.eval(scope)
		if err == nil {
			combinations, err = expandMatrix(v)
		}
		if err != nil {
			return fmt.Errorf("strategy.matrix: %w", err)
		}
	}
	var err error
	if g.failFast, err = boolean(d.failFast, scope, true); err != nil {
		return fmt.Errorf("strategy.fail-fast: %w", err)
	}
	most, err := number(d.maxParallel, scope, float64(len(combinations)))
	if err == nil && most < 1 {
		err = fmt.Errorf("%v is less than 1", most)
	}
	if err != nil {
		return fmt.Errorf("strategy.max-parallel: %w", err)
	}
	g.maxParallel = int(min(most, maxMatrix))
	for i, matrix := range combinations {
		if i > 0 {
			g.jobs = append(g.jobs, r.newJob(d, g.jobs[0].Name))
		}
		j := g.jobs[i]
		j.matrix = matrix
		j.strategy = expr.NewObject(
			"fail-fast", g.failFast,
			"job-index", float64(i),
			"job-total", float64(len(combinations)),
			"max-parallel", float64(g.maxParallel),
		)
	}
	return nil
}

// scope is what the expressions about the job see.
func (j *Job) scope() expr.Scope {
	contexts := j.run.contexts.Clone()
	contexts.Set("needs", j.run.needsContext(j.def))
	contexts.Set("strategy", j.strategy)
	contexts.Set("matrix", &expr.Object{})
	if j.matrix != nil {
		contexts.Set("matrix", j.matrix)
	}
	return expr.Scope{Contexts: contexts}
}

// evaluate fills in what the definition says about the job.
func (j *Job) evaluate() error {
	d, scope := j.def, j.scope()
	var err error
	if j.Name, err = jobName(d, j.matrix, scope); err != nil {
		return fmt.Errorf("name: %w", err)
	}
	if j.ContinueOnError, err = boolean(d.continueOnError, scope, false); err != nil {
		return fmt.Errorf("continue-on-error: %w", err)
	}
	minutes, err := number(d.timeout, scope, defaultTimeout.Minutes())
	if err == nil && (minutes <= 0 || minutes > math.MaxInt32) {
		err = fmt.Errorf("%v is no time that a job could take", minutes)
	}
	if err != nil {
		return fmt.Errorf("timeout-minutes: %w", err)
	}
	j.Timeout = time.Duration(minutes * float64(time.Minute))
	if j.RunsOn, err = runsOn(d.runsOn, scope); err != nil {
		return fmt.Errorf("runs-on: %w", err)
	}
	return nil
}

// jobName adds the combination to a name that does not itself depend on anything.
func jobName(d *jobDef, matrix *expr.Object, scope expr.Scope) (string, error) {
	name := d.key
	if d.name != nil {
		v, err := d.name.eval(scope)
		if err != nil {
			return d.key, err
		}
		if text := expr.String(v); text != "" {
			name = text
		}
		if !d.name.static() {
			return name, nil
		}
	}
	if matrix == nil {
		return name, nil
	}
	return matrixName(name, matrix), nil
}

func runsOn(t *Token, scope expr.Scope) (RunsOn, error) {
	v, err := t.eval(scope)
	if err != nil {
		return RunsOn{}, err
	}
	var r RunsOn
	if o, ok := v.(*expr.Object); ok {
		group, _ := o.Get("group")
		r.Group = expr.String(group)
		v, _ = o.Get("labels")
	}
	switch v := v.(type) {
	case []any:
		for _, label := range v {
			r.Labels = append(r.Labels, expr.String(label))
		}
	case *expr.Object:
		return RunsOn{}, errors.New("labels are a mapping, not a text or a list of texts")
	case nil:
	default:
		r.Labels = []string{expr.String(v)}
	}
	if slices.Contains(r.Labels, "") || len(r.Labels) == 0 && r.Group == "" {
		return RunsOn{}, errors.New("it names no label or group, or an empty one")
	}
	return r, nil
}

func boolean(t *Token, scope expr.Scope, otherwise bool) (bool, error) {
	if t == nil {
		return otherwise, nil
	}
	v, err := t.eval(scope)
	if err != nil {
		return false, err
	}
	switch v := v.(type) {
	case bool:
		return v, nil
	case nil:
		return otherwise, nil
	}
	return false, fmt.Errorf("%s is neither true nor false", kindOf(v))
}

func number(t *Token, scope expr.Scope, otherwise float64) (float64, error) {
	if t == nil {
		return otherwise, nil
	}
	v, err := t.eval(scope)
	if err != nil {
		return 0, err
	}
	if v == nil {
		return otherwise, nil
	}
	f := expr.Number(v)
	if math.IsNaN(f) || v == "" {
		return 0, fmt.Errorf("%s is no number", kindOf(v))
	}
	return f, nil
}

func (j *Job) queue() {
	j.State = Queued
	for _, d := range j.def.steps {
		j.Steps = append(j.Steps, StepInfo{ID: j.run.c.NewID(), Name: d.name})
	}
}

func (j *Job) conclude(conclusion, reason string) {
	j.State, j.Conclusion, j.Reason = Completed, conclusion, reason
}

func (j *Job) outputNames() []string { return slices.Sorted(maps.Keys(j.Outputs)) }

// newGUID makes a random GUID.
func newGUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
