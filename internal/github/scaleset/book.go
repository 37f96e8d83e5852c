package scaleset

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/actions/scaleset"

	"github.com/mirego/tasuki/internal/base/atomicfile"
	"github.com/mirego/tasuki/internal/runner"
)

// The rules by which the book agrees with what it cannot see:
//
//   - A job that was assigned and that no runner took is wanted for lapse: GitHub
//     takes it back after 5 min and tells of it under another job id, if it
//     does. After that it counts no more.
//   - Statistics that count more assigned jobs than the book knows are believed,
//     each surplus job for lapse from when it was first told. If a job starts that
//     we never heard of, they were right, and the rest is believed anew.
//     Statistics that count fewer change nothing.
//   - A runner that GitHub lists as busy, and of whose job no message told, has
//     taken the oldest waiting job, until a message says which.
//   - A job whose runner GitHub lists no more is over, message or not.
//   - After jobs were assigned in vain one runner at a time is wanted all the
//     same, for up to a day: GitHub assigns a job no more than three times, and then gives
//     it to whichever runner of the set comes. That ends when such a runner was
//     seen without a job for idleEnough.
//
// So figures that stay too high for days cost one round of idle runners, and
// figures that are 0 while jobs are assigned cost nothing.
const (
	// lapse is longer than GitHub waits for a runner. Source: ARC#4602, 5 min.
	lapse = 6 * time.Minute
	// owedMost is how long GitHub keeps a job in the queue. Source: docs.github.com,
	// "Actions limits".
	owedMost = 24 * time.Hour
	// unserved is how long a job that nobody started waits at least before GitHub
	// takes it back; one that ends before was cancelled by a person.
	unserved = 270 * time.Second
	// idleEnough is how long after its registration a runner that has no job shows
	// that none waits.
	idleEnough = 3 * time.Minute
	// listed is how long after its registration a runner may be missing from a
	// list that was asked for earlier.
	listed = 2 * time.Minute
	// longest is GitHub's bound on a job on runners of one's own. Source:
	// docs.github.com, "Actions limits": 5 days.
	longest = 5 * 24 * time.Hour
	// maxDone bounds the remembered ids of jobs that are over, and maxPast what
	// runners did.
	maxDone = 500
	maxPast = 1000
)

// book is what is known of a pool's scale sets.
type book struct {
	Pool         string        `json:"pool"`
	Installation string        `json:"installation"`
	Sets         []*generation `json:"sets"` // the first serves, the others drain
}

// generation is one scale set at GitHub: a pool has another one when its labels
// change.
type generation struct {
	ID    int    `json:"id,omitempty"`   // 0: not there yet
	Name  string `json:"name,omitempty"` // at GitHub
	Base  string `json:"base"`           // as configured
	Group string `json:"group,omitempty"`
	// Labels are those that it was, or will be, made with.
	Labels []string `json:"labels"`
	URL    string   `json:"url"` // of its GitHub
	Scope  string   `json:"scope"`
	// Making is written down before the set is made, Made after: only such a
	// set is ever deleted.
	Making   bool      `json:"making,omitempty"`
	Made     bool      `json:"made,omitempty"`
	Draining time.Time `json:"draining,omitzero"`
	// Cursor is the last message that was dealt with, Acknowledged the last one
	// that GitHub knows to be.
	Cursor       int64                 `json:"cursor,omitempty"`
	Acknowledged int64                 `json:"acknowledged,omitempty"`
	Jobs         map[string]*job       `json:"jobs,omitempty"` // by job id
	Done         []string              `json:"done,omitempty"` // ids of jobs that are over, newest last
	Runners      map[string]registered `json:"runners,omitempty"`
	// Heard: the session was ours once. Without it the set may be another host's.
	Heard bool `json:"heard,omitempty"`
	// Owed is since when jobs may wait at GitHub that were assigned in vain.
	Owed time.Time `json:"owed,omitzero"`

	surplus   []time.Time // assigned jobs of the statistics that we do not know
	holder    string      // who else holds the session
	known     bool        // it was asked whose the session is, and it is ours
	dropping  bool        // it is being deleted
	figures   figures     // the last statistics
	told      time.Time   // when they came
	interrupt func()      // ends a poll that waits
}

// figures are a set's statistics; of no statistics at all, zero.
type figures = scaleset.RunnerScaleSetStatistic

// registered is a runner of ours.
type registered struct {
	ID int64     `json:"id"`
	At time.Time `json:"at"`
}

// job is one that is assigned to the set, or runs.
type job struct {
	Name       string    `json:"name,omitempty"`
	Repository string    `json:"repository,omitempty"`
	Workflow   string    `json:"workflow,omitempty"`
	RunID      int64     `json:"run_id,omitempty"`
	Queued     time.Time `json:"queued,omitzero"`
	Heard      time.Time `json:"heard"`
	// Runner took it; Sure: a message said so.
	Runner  string    `json:"runner,omitempty"`
	Sure    bool      `json:"sure,omitempty"`
	Started time.Time `json:"started,omitzero"`
}

func newGeneration() *generation {
	return &generation{Jobs: map[string]*job{}, Runners: map[string]registered{}, interrupt: func() {}}
}

// reset forgets a set that is at GitHub no more.
func (g *generation) reset() {
	fresh := newGeneration()
	fresh.Base, fresh.Group, fresh.Labels, fresh.URL, fresh.Scope = g.Base, g.Group, g.Labels, g.URL, g.Scope
	fresh.Draining, fresh.interrupt = g.Draining, g.interrupt
	*g = *fresh
}

// readBook reads a file; one that is not there is an empty book.
func readBook(path string) (*book, error) {
	b := &book{}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return b, nil
	}
	if err == nil {
		err = json.Unmarshal(data, b)
	}
	if err != nil {
		if _, ok := errors.AsType[*fs.PathError](err); !ok {
			err = errors.Join(errDamaged, err)
		}
		return nil, fmt.Errorf("cannot read the scale set's book %q: %w: remove the file, and the set is found again by its name", path, err)
	}
	b.Sets = slices.DeleteFunc(b.Sets, func(g *generation) bool { return g == nil })
	for _, g := range b.Sets {
		fresh := newGeneration()
		g.interrupt = fresh.interrupt
		if g.Jobs == nil {
			g.Jobs = fresh.Jobs
		}
		if g.Runners == nil {
			g.Runners = fresh.Runners
		}
		maps.DeleteFunc(g.Jobs, func(_ string, j *job) bool { return j == nil })
	}
	return b, nil
}

var errDamaged = errors.New("it is damaged")

// clamp puts times that lie ahead, because the clock was set back, to now.
func (b *book) clamp(now time.Time) {
	past := func(t *time.Time) {
		if t.After(now) {
			*t = now.UTC()
		}
	}
	for _, g := range b.Sets {
		past(&g.Draining)
		past(&g.Owed)
		for _, j := range g.Jobs {
			past(&j.Heard)
			past(&j.Started)
		}
		for name, r := range g.Runners {
			past(&r.At)
			g.Runners[name] = r
		}
	}
}

// save writes the book; it is durable when save returns.
func (s *Set) save() error {
	s.saving.Lock()
	defer s.saving.Unlock()
	s.mu.Lock()
	data, err := json.MarshalIndent(s.book, "", " ")
	s.mu.Unlock()
	if err == nil {
		err = os.MkdirAll(filepath.Dir(s.opt.File), 0o700)
	}
	if err == nil {
		err = atomicfile.Write(s.opt.File, data, 0o600)
	}
	if err != nil {
		return fmt.Errorf("cannot keep the scale set's book: %w", err)
	}
	return nil
}

// news is what a message told of a runner.
type news struct {
	runner string
	job    runner.Job
	over   bool
}

// apply takes the jobs of a message over and returns what the agent should know.
func (g *generation) apply(m *message, web string, now time.Time) (all []news) {
	for _, j := range m.assigned {
		g.assigned(j.JobMessageBase, now)
	}
	for _, j := range m.started {
		if g.started(j, now) {
			all = append(all, news{j.RunnerName, words(j.JobMessageBase, web), false})
		}
	}
	for _, j := range m.completed {
		if by, ok := g.completed(j, now); ok {
			told := words(j.JobMessageBase, web)
			told.Conclusion, told.Completed = conclusion(j.Result), j.FinishTime.UTC()
			all = append(all, news{by, told, true})
		}
	}
	if m.statistics != nil {
		g.count(*m.statistics, now)
	}
	g.sweep(now)
	return all
}

func (g *generation) assigned(j scaleset.JobMessageBase, now time.Time) {
	if j.JobID == "" || g.Jobs[j.JobID] != nil || slices.Contains(g.Done, j.JobID) {
		return
	}
	g.Jobs[j.JobID] = &job{
		Name: j.JobDisplayName, Repository: repository(j), Workflow: workflow(j), RunID: j.WorkflowRunID,
		Queued: j.QueueTime.UTC(), Heard: now.UTC(),
	}
}

// started says whether it is news.
func (g *generation) started(m scaleset.JobStarted, now time.Time) bool {
	if m.JobID == "" || slices.Contains(g.Done, m.JobID) {
		return false
	}
	if g.Jobs[m.JobID] == nil {
		g.assigned(m.JobMessageBase, now)
		g.confirm(now)
	}
	j := g.Jobs[m.JobID]
	if j.Sure {
		return false
	}
	g.unbind(m.RunnerName)
	j.Runner, j.Sure, j.Started = m.RunnerName, true, cmp.Or(m.RunnerAssignTime, now).UTC()
	return m.RunnerName != ""
}

// completed returns the runner that had the job, false if none had, or if it is
// no news.
func (g *generation) completed(m scaleset.JobCompleted, now time.Time) (string, bool) {
	if m.JobID == "" || slices.Contains(g.Done, m.JobID) {
		return "", false
	}
	by := m.RunnerName
	if j := g.Jobs[m.JobID]; j != nil && j.Sure {
		by = cmp.Or(by, j.Runner)
	}
	if j := g.Jobs[m.JobID]; by == "" && j != nil && now.Sub(j.Heard) >= unserved {
		g.owe(now)
	}
	delete(g.Jobs, m.JobID)
	g.unbind(by)
	g.Done = append(g.Done, m.JobID)
	g.Done = g.Done[max(0, len(g.Done)-maxDone):]
	return by, by != ""
}

// unbind takes back a guess which job a runner took.
func (g *generation) unbind(by string) {
	for _, j := range g.Jobs {
		if by != "" && j.Runner == by && !j.Sure {
			j.Runner, j.Started = "", time.Time{}
		}
	}
}

// live says whether a job counts as the set's.
func (j *job) live(now time.Time) bool {
	if j.Runner != "" {
		return now.Sub(j.Started) < longest
	}
	return now.Sub(j.Heard) < lapse
}

// count takes statistics over.
func (g *generation) count(f figures, now time.Time) {
	g.figures, g.told = f, now
	known := 0
	for _, j := range g.Jobs {
		if j.live(now) {
			known++
		}
	}
	more := max(0, f.TotalAssignedJobs-known)
	for len(g.surplus) < more {
		g.surplus = append(g.surplus, now)
	}
	g.surplus = g.surplus[len(g.surplus)-more:]
}

// confirm: a job that only the statistics knew has started.
func (g *generation) confirm(now time.Time) {
	if len(g.surplus) == 0 {
		return
	}
	g.surplus = g.surplus[1:]
	for i := range g.surplus {
		g.surplus[i] = now
	}
}

// sweep forgets what counts no more.
func (g *generation) sweep(now time.Time) {
	for id, j := range g.Jobs {
		if !j.live(now) {
			if j.Runner == "" {
				g.owe(now)
			}
			delete(g.Jobs, id)
		}
	}
	if now.Sub(g.Owed) >= owedMost {
		g.Owed = time.Time{}
	}
}

// owe notes that a job was assigned in vain.
func (g *generation) owe(now time.Time) {
	if g.Owed.IsZero() {
		g.Owed = now.UTC()
	}
}

// waiting returns since when each job waits for a runner.
func (g *generation) waiting(now time.Time) (since []time.Time) {
	for _, j := range g.Jobs {
		if j.Runner == "" && j.live(now) {
			since = append(since, j.Heard)
		}
	}
	for _, at := range g.surplus {
		if now.Sub(at) < lapse {
			since = append(since, at)
		}
	}
	if len(since) == 0 && g.Draining.IsZero() && !g.Owed.IsZero() && now.Sub(g.Owed) < owedMost {
		since = append(since, now) // it overtakes nobody: perhaps there is none
	}
	return since
}

// idle counts the runners that took no job yet, as far as we know.
func (g *generation) idle() int {
	n := len(g.Runners)
	for _, j := range g.Jobs {
		if _, ours := g.Runners[j.Runner]; ours {
			n--
		}
	}
	return n
}

// took says that a runner is busy: with the oldest job that waits, unless we
// know which.
func (g *generation) took(by string, now time.Time) bool {
	var oldest *job
	for _, j := range g.Jobs {
		if j.Runner == by {
			return false
		}
		if j.Runner == "" && j.live(now) && (oldest == nil || j.Heard.Before(oldest.Heard)) {
			oldest = j
		}
	}
	if oldest != nil {
		oldest.Runner, oldest.Started = by, now.UTC()
	}
	return oldest != nil
}

// gone says that GitHub lists a runner no more.
func (g *generation) gone(by string) bool {
	_, known := g.Runners[by]
	delete(g.Runners, by)
	for id, j := range g.Jobs {
		if j.Runner == by {
			delete(g.Jobs, id)
			known = true
		}
	}
	return known
}

// observe learns from a list of the scope's runners, and says whether that
// changed anything.
func (g *generation) observe(all []runner.Remote, asked time.Time) (changed bool) {
	there := map[string]bool{}
	for _, r := range all {
		there[r.Name] = true
		at, ours := g.Runners[r.Name]
		switch {
		case ours && r.Busy:
			changed = g.took(r.Name, asked) || changed
		case ours && r.Online && !g.Owed.IsZero() && asked.Sub(at.At) > idleEnough:
			g.Owed, changed = time.Time{}, true
		}
	}
	for id, j := range g.Jobs {
		if j.Runner != "" && !there[j.Runner] && !j.Started.IsZero() && asked.Sub(j.Started) > listed {
			delete(g.Jobs, id)
			changed = true
		}
	}
	for name, r := range g.Runners {
		if !there[name] && asked.Sub(r.At) > listed {
			changed = g.gone(name) || changed
		}
	}
	return changed
}

// words is a job as the agent knows it. Its number at GitHub is not told.
func words(j scaleset.JobMessageBase, web string) runner.Job {
	out := runner.Job{
		Name: j.JobDisplayName, Repository: repository(j), Workflow: workflow(j), RunID: j.WorkflowRunID,
		Queued: j.QueueTime.UTC(), Started: j.RunnerAssignTime.UTC(),
	}
	if out.RunID != 0 && out.Repository != "" {
		out.URL = fmt.Sprintf("%s/%s/actions/runs/%d", web, out.Repository, out.RunID)
	}
	return out
}

func repository(j scaleset.JobMessageBase) string {
	if j.OwnerName == "" || j.RepositoryName == "" {
		return j.RepositoryName
	}
	return j.OwnerName + "/" + j.RepositoryName
}

// workflow is the file's name: "ci.yml" of "o/r/.github/workflows/ci.yml@main".
func workflow(j scaleset.JobMessageBase) string {
	file, _, _ := strings.Cut(j.JobWorkflowRef, "@")
	return file[strings.LastIndexByte(file, '/')+1:]
}

// conclusion is a result in the words of GitHub's REST API.
func conclusion(result string) string {
	switch strings.ToLower(result) {
	case "succeeded":
		return "success"
	case "failed":
		return "failure"
	case "canceled", "cancelled":
		return "cancelled"
	}
	return strings.ToLower(result)
}
