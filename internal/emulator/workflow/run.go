package workflow

import (
	"fmt"
	"slices"

	"github.com/mirego/tasuki/internal/emulator/workflow/expr"
)

// Run is one run of a workflow. It is not safe for concurrent use: its owner holds a lock, over the Jobs too.
//
// Its owner calls Next at the begin and after each Conclude and Cancel, hands what it returns to runners, and
// Concludes every job that Next has returned exactly once, until the run is Done.
type Run struct {
	w         *Workflow
	c         Context
	contexts  *expr.Object // github, inputs, vars
	groups    []*group     // in the file's order
	cancelled bool
}

// group is the jobs of one definition.
type group struct {
	def         *jobDef
	jobs        []*Job // one that stands for all until the definition is expanded
	expanded    bool
	failFast    bool
	maxParallel int
}

// NewRun starts one run of the workflow. It fails where the inputs are not those of on.workflow_dispatch.
func (w *Workflow) NewRun(c Context) (*Run, error) {
	c = c.withDefaults()
	inputs, payload := &expr.Object{}, &expr.Object{}
	if c.EventName == "workflow_dispatch" {
		var err error
		if inputs, payload, err = w.dispatch(c.Inputs); err != nil {
			return nil, err
		}
	} else if len(c.Inputs) > 0 {
		return nil, fmt.Errorf("cannot take inputs: event %q has none, workflow_dispatch does", c.EventName)
	}
	r := &Run{w: w, c: c, contexts: expr.NewObject(
		"github", w.githubContext(c, eventPayload(c, payload)),
		"inputs", inputs,
		"vars", expr.FromGo(c.Vars),
	)}
	for _, d := range w.jobs {
		g := &group{def: d}
		g.jobs = []*Job{r.newJob(d, r.placeholderName(d))}
		r.groups = append(r.groups, g)
	}
	return r, nil
}

func (r *Run) newJob(d *jobDef, name string) *Job {
	return &Job{ID: r.c.NewID(), Key: d.key, Name: name, Needs: slices.Clone(d.needs), State: Pending, run: r, def: d}
}

// placeholderName names a job before what it needs is done: with its expressions where they cannot be
// evaluated yet, as GitHub shows it.
func (r *Run) placeholderName(d *jobDef) string {
	if d.name == nil {
		return d.key
	}
	if v, err := d.name.eval(expr.Scope{Contexts: r.contexts}); err == nil && !d.name.uses("matrix", "needs", "strategy") {
		return expr.String(v)
	}
	return d.name.written()
}

// Next returns the jobs that became ready since the last call: what they need is concluded, their `if` is
// true, and max-parallel admits them. Jobs whose `if` is false it concludes as skipped, and jobs whose
// expressions fail as failed, with the Reason.
func (r *Run) Next() []*Job {
	for again := true; again; {
		again = false
		for _, g := range r.groups {
			if !g.expanded && r.needsDone(g.def) {
				r.expand(g)
				again = true
			}
		}
	}
	var ready []*Job
	for _, g := range r.groups {
		if !g.expanded {
			continue
		}
		running := count(g.jobs, Queued)
		for _, j := range g.jobs {
			if j.State == Pending && running < g.maxParallel {
				j.queue()
				ready = append(ready, j)
				running++
			}
		}
	}
	return ready
}

func count(jobs []*Job, s State) int {
	n := 0
	for _, j := range jobs {
		if j.State == s {
			n++
		}
	}
	return n
}

func (r *Run) needsDone(d *jobDef) bool {
	for _, need := range d.needs {
		if g := r.group(need); g != nil && !g.done() {
			return false
		}
	}
	return true
}

func (r *Run) group(key string) *group {
	for _, g := range r.groups {
		if g.def.key == key {
			return g
		}
	}
	return nil
}

func (g *group) done() bool { return count(g.jobs, Completed) == len(g.jobs) }

// expand decides about a definition whose needs are done, and makes its jobs.
func (r *Run) expand(g *group) {
	g.expanded = true
	wanted, err := r.wanted(g.def)
	switch {
	case err != nil:
		g.jobs[0].conclude(Failure, err.Error())
		return
	case !wanted && r.cancelled:
		g.jobs[0].conclude(Cancelled, "the run was cancelled")
		return
	case !wanted:
		g.jobs[0].conclude(Skipped, r.whySkipped(g.def))
		return
	}
	if err := r.makeJobs(g); err != nil {
		g.jobs = g.jobs[:1]
		g.jobs[0].conclude(Failure, err.Error())
		return
	}
	var failed []*Job
	for _, j := range g.jobs {
		if err := j.evaluate(); err != nil {
			j.conclude(Failure, err.Error())
			failed = append(failed, j)
		}
	}
	for _, j := range failed {
		r.failFast(g, j)
	}
}

func (r *Run) whySkipped(d *jobDef) string {
	if d.cond == nil || !d.cond.CallsStatus() {
		for _, key := range d.ancestors {
			if result := r.group(key).result(); result != Success {
				return fmt.Sprintf("job %q, which it needs, was concluded as %s", key, result)
			}
		}
	}
	return fmt.Sprintf("its if is false: %s", d.cond.Source())
}

// wanted evaluates the `if` of a definition.
func (r *Run) wanted(d *jobDef) (bool, error) {
	scope := expr.Scope{Contexts: r.contexts.Clone(), Status: func(f string) bool { return r.status(d, f) }}
	scope.Contexts.Set("needs", r.needsContext(d))
	if d.cond == nil {
		return r.status(d, "success"), nil
	}
	if !d.cond.CallsStatus() && !r.status(d, "success") {
		return false, nil
	}
	v, err := d.cond.Eval(scope)
	if err != nil {
		return false, fmt.Errorf("if: %w", err)
	}
	return expr.Truthy(v), nil
}

// status answers a status function for a job. success and failure look at every ancestor, not only at what the
// job itself names: https://docs.github.com/en/actions/reference/workflows-and-actions/expressions#status-check-functions
func (r *Run) status(d *jobDef, function string) bool {
	result := func(key string) string { return r.group(key).result() }
	switch function {
	case "always":
		return true
	case "cancelled":
		return r.cancelled
	case "failure":
		return slices.ContainsFunc(d.ancestors, func(key string) bool { return result(key) == Failure })
	}
	return !r.cancelled && !slices.ContainsFunc(d.ancestors, func(key string) bool { return result(key) != Success })
}

// result is what needs.<job>.result says. A job with continue-on-error counts as a success when it fails.
func (g *group) result() string {
	results := map[string]bool{}
	for _, j := range g.jobs {
		c := j.Conclusion
		if c == Failure && j.ContinueOnError {
			c = Success
		}
		results[c] = true
	}
	for _, c := range []string{Failure, Cancelled, Success, Skipped} {
		if results[c] {
			return c
		}
	}
	return ""
}

// needsContext is the needs context of a job: only what it names itself.
func (r *Run) needsContext(d *jobDef) *expr.Object {
	needs := &expr.Object{}
	for _, key := range d.needs {
		g := r.group(key)
		if g == nil {
			continue
		}
		outputs := &expr.Object{}
		for _, j := range g.jobs { // of several jobs of a matrix, one that sets the output to something
			for _, name := range j.outputNames() {
				if before, _ := outputs.Get(name); !expr.Truthy(before) {
					outputs.Set(name, j.Outputs[name])
				}
			}
		}
		needs.Set(key, expr.NewObject("result", g.result(), "outputs", outputs))
	}
	return needs
}

// Conclude records what a job came to: success, failure, cancelled or skipped; any other word counts as
// failure. It returns the jobs that are to be cancelled because of it (fail-fast); they stay Queued until they
// are concluded in turn. Concluding a job again, or one that was not returned by Next, changes nothing.
func (r *Run) Conclude(jobID, conclusion string, outputs map[string]string) (cancel []*Job) {
	for _, g := range r.groups {
		for _, j := range g.jobs {
			if j.ID != jobID || j.State != Queued {
				continue
			}
			reason := ""
			if !slices.Contains([]string{Success, Failure, Cancelled, Skipped}, conclusion) {
				conclusion, reason = Failure, fmt.Sprintf("the runner concluded it as %q", conclusion)
			}
			j.Outputs = outputs
			j.conclude(conclusion, reason)
			return r.failFast(g, j)
		}
	}
	return nil
}

// failFast concludes the siblings of a failed job that have not begun and returns those that have.
func (r *Run) failFast(g *group, failed *Job) (cancel []*Job) {
	if failed.Conclusion != Failure || failed.ContinueOnError || !g.failFast {
		return nil
	}
	for _, j := range g.jobs {
		switch j.State {
		case Pending:
			j.conclude(Cancelled, fmt.Sprintf("fail-fast: job %q failed", failed.Name))
		case Queued:
			cancel = append(cancel, j)
		}
	}
	return cancel
}

// Cancel cancels the run and returns the jobs to cancel. As on GitHub, a job whose `if` is still true in a
// cancelled run, such as always(), goes on, and so does one that has yet to begin:
// https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-cancellation
func (r *Run) Cancel() (cancel []*Job) {
	r.cancelled = true
	for _, g := range r.groups {
		if !g.expanded {
			continue // Next decides
		}
		if wanted, err := r.wanted(g.def); wanted && err == nil {
			continue
		}
		for _, j := range g.jobs {
			switch j.State {
			case Pending:
				j.conclude(Cancelled, "the run was cancelled")
			case Queued:
				cancel = append(cancel, j)
			}
		}
	}
	return cancel
}

// Jobs returns every job known so far, in the file's order. A definition with a matrix has one job until what
// it needs is done; that job becomes the first of its jobs.
func (r *Run) Jobs() []*Job {
	var jobs []*Job
	for _, g := range r.groups {
		jobs = append(jobs, g.jobs...)
	}
	return jobs
}

// Done says whether every job has a conclusion.
func (r *Run) Done() bool {
	return !slices.ContainsFunc(r.groups, func(g *group) bool { return !g.done() })
}

// Conclusion returns what the run came to once it is Done, and an empty text before: cancelled after Cancel,
// else failure if a job failed that has no continue-on-error, else cancelled if a job was, else success; skipped if
// every job was.
func (r *Run) Conclusion() string {
	if !r.Done() {
		return ""
	}
	if r.cancelled {
		return Cancelled
	}
	results := map[string]bool{}
	for _, g := range r.groups {
		results[g.result()] = true
	}
	for _, c := range []string{Failure, Cancelled, Success} {
		if results[c] {
			return c
		}
	}
	return Skipped
}
