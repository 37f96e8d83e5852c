package emulator

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/mirego/tasuki/internal/emulator/workflow"
)

// phase is how far a job is, seen from the service.
type phase int

const (
	pending phase = iota // waits for the jobs it needs
	queued               // waits for a runner
	offered              // sent to a runner that has not acquired it yet
	running              // acquired; renewed from now on
	done
)

// run is one execution of a workflow.
type run struct {
	id, number  int64
	planID      string
	file, title string
	sha, ref    string
	wf          *workflow.Run
	tree        workflow.Tree
	archive     *archive
	jobs        []*job
	created     time.Time
	completed   time.Time
}

// job is one job of a run.
type job struct {
	id          int64
	run         *run
	def         *workflow.Job
	timelineID  string
	requestGUID string // names the offer
	requestID   int64

	phase        phase
	runner       *runner
	acknowledged bool
	requeued     int
	created      time.Time
	queuedAt     time.Time
	offeredAt    time.Time
	startedAt    time.Time
	completedAt  time.Time
	lockedUntil  time.Time

	cancelAt   time.Time // when cancellation was asked for
	cancelSent time.Time // when the runner was last told
	cancelWhy  string

	claim claim // what scale sets have to do with it

	conclusion  string
	reason      string
	reported    bool // by its runner, not by a deadline
	outputs     map[string]string
	annotations []Annotation
	steps       []*step
	log         textLog // the whole job's, uploaded at its end
	setup       textLog // what precedes the first step: one runner sends it as a step under the job's own id
}

// step is one step of a job as its runner reports it.
type step struct {
	id          string
	number      int
	name        string
	status      string // pending, in_progress, completed
	conclusion  string
	startedAt   time.Time
	completedAt time.Time
	log         textLog
	summary     textLog
}

// Submit queues a run of the workflow. tree is the directory that actions/checkout brings; empty stands
// for the one that the workflow file lies in.
func (e *Emulator) Submit(w *workflow.Workflow, tree string) (runID int64, err error) {
	return e.submit(w, tree, e.baseFor(nil))
}

func (e *Emulator) submit(w *workflow.Workflow, tree, base string) (int64, error) {
	r := &run{planID: newGUID(), file: w.File, title: w.Name, created: time.Now(), tree: w.Tree(), archive: &archive{}}
	if tree != "" {
		var err error
		if r.tree, err = treeAt(tree, w.Tree().Depth); err != nil {
			return 0, fmt.Errorf("cannot start workflow %q: %w", w.File, err)
		}
	}
	if err := r.findHead(); err != nil {
		return 0, fmt.Errorf("cannot start workflow %q: %w", w.File, err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	r.id, r.number = 1000+e.next("run"), e.lastID["run"]
	owner, _, _ := strings.Cut(e.opts.Repository, "/")
	wf, err := w.NewRun(workflow.Context{
		Repository: e.opts.Repository, RepositoryOwner: owner,
		Ref: r.ref, SHA: r.sha, Actor: owner, EventName: "push",
		ServerURL: base, APIURL: base + "/api/v3", GraphQLURL: base + "/api/graphql",
		RunID: r.id, RunNumber: r.number, RunAttempt: 1,
		Secrets: e.opts.Secrets, Vars: e.opts.Vars,
		Event: map[string]any{"ref": r.ref},
	})
	if err != nil {
		return 0, fmt.Errorf("cannot start workflow %q: %w", w.File, err)
	}
	r.wf = wf
	e.runs = append(e.runs, r)
	e.log.Info("run queued", "run", r.id, "workflow", w.File)
	e.advance(r)
	return r.id, nil
}

// headTime is how long git may take to say which commit a tree is at.
const headTime = 10 * time.Second

// findHead takes the run's commit from its tree; a tree without one gets a commit made up.
func (r *run) findHead() error {
	ctx, cancel := context.WithTimeout(context.Background(), headTime)
	defer cancel()
	sha, ref, err := r.tree.Head(ctx)
	r.sha, r.ref = cmp.Or(sha, fmt.Sprintf("%x", randomBytes(20))), cmp.Or(ref, "refs/heads/main")
	return err
}

// treeAt is the tree in a folder; depth is how much history the workflow checks out.
func treeAt(dir string, depth int) (workflow.Tree, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return workflow.Tree{}, err
	}
	if info, err := os.Stat(abs); err != nil || !info.IsDir() {
		return workflow.Tree{}, fmt.Errorf("the tree %q is no folder", dir)
	}
	_, err = os.Lstat(filepath.Join(abs, ".git"))
	return workflow.Tree{Dir: abs, Git: err == nil, Depth: depth}, nil
}

// Cancel asks for the cancellation of a run: jobs that wait are cancelled at once, jobs that run are told.
func (e *Emulator) Cancel(runID int64) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	r := e.runByID(runID)
	if r == nil {
		return fmt.Errorf("cannot cancel run %d: no such run", runID)
	}
	if !r.completed.IsZero() {
		return fmt.Errorf("cannot cancel run %d: it is completed", runID)
	}
	for _, def := range r.wf.Cancel() {
		e.cancelJob(e.jobs[def.ID], "the run was cancelled")
	}
	e.advance(r)
	return nil
}

// WaitRun returns the run once it is completed, or the cause of ctx's end.
func (e *Emulator) WaitRun(ctx context.Context, runID int64) (RunState, error) {
	known := true
	finished := e.await(ctx, 1<<62, func() bool {
		r := e.runByID(runID)
		known = r != nil
		return !known || !r.completed.IsZero()
	})
	if !known {
		return RunState{}, fmt.Errorf("cannot wait for run %d: no such run", runID)
	}
	state, _ := e.RunState(runID)
	if !finished {
		return state, fmt.Errorf("cannot wait longer for run %d: %w", runID, context.Cause(ctx))
	}
	return state, nil
}

func (e *Emulator) runByID(id int64) *run {
	i := slices.IndexFunc(e.runs, func(r *run) bool { return r.id == id })
	if i < 0 {
		return nil
	}
	return e.runs[i]
}

// advance takes over what the workflow says about its jobs by now. The lock is held.
func (e *Emulator) advance(r *run) {
	ready := r.wf.Next()
	r.jobs = r.jobs[:0]
	for _, def := range r.wf.Jobs() {
		j := e.jobs[def.ID]
		if j == nil {
			j = &job{id: 5000 + e.next("job"), run: r, def: def, timelineID: newGUID(), created: time.Now()}
			e.jobs[def.ID] = j
			e.active[j] = struct{}{}
		}
		r.jobs = append(r.jobs, j)
		if def.State == workflow.Completed && j.phase == pending {
			e.finish(j, def.Conclusion, def.Reason)
		}
	}
	for _, def := range ready {
		if j := e.jobs[def.ID]; j.phase == pending {
			j.phase, j.queuedAt = queued, time.Now()
			for i, s := range def.Steps {
				j.steps = append(j.steps, &step{id: s.ID, number: i + 1, name: s.Name, status: "pending"})
			}
			e.log.Info("job queued", "job", def.Name, "run", r.id)
			e.trap(j)
		}
	}
	if r.completed.IsZero() && r.wf.Done() {
		r.completed = time.Now()
		e.log.Info("run completed", "run", r.id, "conclusion", r.wf.Conclusion())
	}
	e.changed()
}

// finish writes down how a job ended and frees its runner. The lock is held.
func (e *Emulator) finish(j *job, conclusion, reason string) {
	j.phase, j.conclusion, j.reason, j.completedAt = done, conclusion, reason, time.Now()
	delete(e.active, j)
	for _, s := range j.steps {
		if s.status != "completed" && conclusion != workflow.Success {
			s.status, s.conclusion = "completed", workflow.Skipped
			if !s.startedAt.IsZero() {
				s.conclusion, s.completedAt = conclusion, j.completedAt
			}
		}
	}
	if r := j.runner; r != nil && r.job == j {
		r.job = nil
		if r.ephemeral {
			e.remove(r, served)
		}
	}
	e.settle(j)
	e.log.Info("job completed", "job", j.def.Name, "conclusion", conclusion, "reason", reason)
}

// conclude ends a job and lets the run go on. The lock is held.
func (e *Emulator) conclude(j *job, conclusion, reason string, outputs map[string]string) {
	if j.phase == done {
		return
	}
	j.outputs = outputs
	if j.phase != running && j.runner != nil { // offered only: the runner keeps its registration
		j.runner.job, j.runner = nil, nil
	}
	e.finish(j, conclusion, reason)
	for _, def := range j.run.wf.Conclude(j.def.ID, conclusion, maps.Clone(outputs)) {
		e.cancelJob(e.jobs[def.ID], "another job of the matrix failed")
	}
	e.advance(j.run)
}

// cancelJob ends a job that waits, and tells the runner of one that runs. The lock is held.
func (e *Emulator) cancelJob(j *job, why string) {
	switch {
	case j == nil || j.phase == done || !j.cancelAt.IsZero():
	case j.phase == running:
		j.cancelAt, j.cancelWhy = time.Now(), why
		e.changed()
	default:
		e.conclude(j, workflow.Cancelled, why, nil)
	}
}

// deadline returns when something happens to the job by itself, and what. The lock is held.
func (e *Emulator) deadline(j *job) (time.Time, func()) {
	switch j.phase {
	case queued:
		at := j.queuedAt.Add(e.opts.QueueTimeout)
		if j.claim.set != nil && j.claim.lapseAt.Before(at) {
			return j.claim.lapseAt, func() { e.lapse(j) }
		}
		return at, func() {
			e.conclude(j, workflow.Failure, fmt.Sprintf("no runner took the job within %v", e.opts.QueueTimeout), nil)
		}
	case offered:
		return j.offeredAt.Add(e.opts.PickupTimeout), func() { e.requeue(j) }
	case running:
		at, what := j.lockedUntil, func() {
			const lost = "the self-hosted runner lost communication with the server"
			if j.cancelAt.IsZero() {
				e.conclude(j, workflow.Failure, lost, nil)
			} else {
				e.conclude(j, workflow.Cancelled, j.cancelWhy+"; "+lost, nil)
			}
		}
		if !j.cancelAt.IsZero() {
			if end := j.cancelAt.Add(e.opts.CancelGrace); end.Before(at) {
				at, what = end, func() {
					e.conclude(j, workflow.Cancelled, j.cancelWhy+"; the runner did not end it and it was abandoned", nil)
				}
			}
		} else if j.def.Timeout > 0 {
			if end := j.startedAt.Add(j.def.Timeout); end.Before(at) {
				at, what = end, func() {
					e.cancelJob(j, fmt.Sprintf("the job exceeded the maximum execution time of %v", j.def.Timeout))
				}
			}
		}
		return at, what
	}
	return time.Time{}, nil
}

// setAlarm arms the timer for the next deadline of any job or scale set, and for the next runner that goes
// offline or is collected. The lock is held.
func (e *Emulator) setAlarm() {
	var first time.Time
	sooner := func(at time.Time) {
		if !at.IsZero() && (first.IsZero() || at.Before(first)) {
			first = at
		}
	}
	for j := range e.active {
		at, _ := e.deadline(j)
		sooner(at)
	}
	now := time.Now()
	for _, r := range e.runners {
		if s := r.session; r.gone == registered && s != nil && s.polls == 0 && r.online(now, e.opts.OfflineAfter) {
			sooner(s.lastSeen.Add(e.opts.OfflineAfter))
		}
		sooner(e.collectAt(r))
	}
	sooner(e.setsDue())
	if e.alarm != nil {
		e.alarm.Stop()
	}
	if first.IsZero() || e.closed {
		return
	}
	wait := max(time.Until(first), 0)
	if e.alarm == nil {
		e.alarm = time.AfterFunc(wait, e.ring)
	} else {
		e.alarm.Reset(wait)
	}
}

// ring does what is due.
func (e *Emulator) ring() {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := time.Now()
	for _, j := range slices.Collect(maps.Keys(e.active)) {
		if at, act := e.deadline(j); act != nil && !at.After(now) {
			act()
		}
	}
	for _, r := range e.runners {
		if at := e.collectAt(r); !at.IsZero() && !at.After(now) {
			e.collect(r)
		}
	}
	e.ringSets(now)
	e.changed()
}
