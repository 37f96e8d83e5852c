package console

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/mirego/tasuki/internal/agent"
	"github.com/mirego/tasuki/internal/api"
	"github.com/mirego/tasuki/internal/runner"
)

// run is what the page of one run shows.
type run struct {
	api.Run
	Live  bool
	Since time.Time // when it entered its state
	Way   string    // how its guest was reached
	Steps []stepRow
	Cut   bool     // the wait for a job is drawn shorter than it was
	Next  *api.Run // the slot's next runner
}

// stepRow is one of the ten steps of the loop.
type stepRow struct {
	Number int
	Name   string
	Bars   []bar
	Took   float64 // seconds
	Start  time.Time
	Open   bool
	Notes  []string // the states of the step, where there are several
}

// bar is a stay in a state, in thousandths of the width.
type bar struct {
	X, W  float64
	Class string // a phase, or "failed"
	Text  string
	Cut   bool
}

// one finds a run: what the agent says of one that goes on, else the history.
func (c *Console) one(ctx context.Context, name string) (run, error) {
	var out run
	if c.opt.Runs != nil {
		list, err := c.opt.Runs.Runs(ctx, api.RunQuery{Runner: name, Limit: 1})
		if err != nil {
			return out, err
		}
		if len(list) == 1 {
			out.Run = list[0]
		}
	}
	s := c.opt.Status()
	if i := slices.IndexFunc(s.Runners, func(r api.Runner) bool { return r.Name == name }); i >= 0 {
		out.live(s.Runners[i], s.Host, c.opt.Feed.slotOf())
	}
	if out.Runner == "" {
		return out, fmt.Errorf("cannot find runner %q: %w", clip(name, 80), agent.ErrNoRunner)
	}
	out.draw(time.Now())
	if err := c.following(ctx, &out); err != nil {
		return out, err
	}
	return out, nil
}

// live takes over what the agent knows, which the history hears a little later.
func (r *run) live(from api.Runner, host string, slots map[string]int) {
	if r.Runner == "" {
		r.Slot = -1
	}
	if slot, seated := slots[from.Name]; seated {
		r.Slot = slot
	}
	r.Live, r.Since, r.Way = from.State != runner.Gone, from.Since, from.Way
	r.Runner, r.Host, r.Pool, r.State = from.Name, host, from.Pool, from.State
	r.Created, r.Failed, r.Failure, r.Run.Steps = from.Created, from.Failed, from.Failure, from.Steps
	if r.Failed && r.Failure == "" {
		r.Failure = from.Reason
	}
	r.Job.Learn(from.Job)
}

// draw lays the visited states out as ten steps. A wait for a job that would
// leave the rest no room is drawn shorter.
func (r *run) draw(now time.Time) {
	end := func(v runner.Visit) time.Time {
		if v.End.IsZero() && v.State != runner.Gone {
			return now
		}
		return later(v.End, v.Start)
	}
	var idle, rest time.Duration
	for _, v := range r.Run.Steps {
		if v.State == runner.Idle {
			idle += end(v).Sub(v.Start)
		} else {
			rest += end(v).Sub(v.Start)
		}
	}
	squeeze := 1.0
	if idle > 2*rest && rest > 0 {
		squeeze, r.Cut = float64(rest)/float64(idle), true
	}
	whole := float64(rest) + squeeze*float64(idle)
	r.Steps = make([]stepRow, len(runner.StepNames))
	for i, name := range runner.StepNames {
		r.Steps[i] = stepRow{Number: i + 1, Name: name}
	}
	x := 0.0
	for _, v := range r.Run.Steps {
		took, factor := end(v).Sub(v.Start), 1.0
		if v.State == runner.Idle {
			factor = squeeze
		}
		w := 0.0
		if whole > 0 {
			w = 1000 * factor * float64(took) / whole
		}
		if n := v.State.Step(); n >= 1 && n <= len(r.Steps) {
			r.Steps[n-1].add(r, v, took, bar{X: x, W: w, Cut: factor < 1})
		}
		x += w
	}
}

// add puts a stay into its step.
func (s *stepRow) add(r *run, v runner.Visit, took time.Duration, b bar) {
	if v.State == runner.Gone {
		return
	}
	last := v == r.Run.Steps[len(r.Run.Steps)-1]
	b.Class, b.Text = string(phaseOf(v.State)), fmt.Sprintf("%s, %s", v.State, seconds(took.Seconds()))
	if v.State == runner.Busy && badConclusion(r.Job.Conclusion) {
		b.Class = "failed"
	}
	// A bar that is too thin to see stands for a step that was made.
	b.W = max(b.W, 3)
	b.X = min(b.X, 1000-b.W)
	if s.Start.IsZero() {
		s.Start = v.Start
	}
	s.Took += took.Seconds()
	s.Open = v.End.IsZero() && last
	s.Bars = append(s.Bars, b)
	s.Notes = append(s.Notes, b.Text)
}

// nextWithin is how long after a run the slot's next runner still belongs to it.
const nextWithin = 10 * time.Minute

// following finds the slot's next runner, which is the tenth step.
func (c *Console) following(ctx context.Context, r *run) error {
	i := slices.IndexFunc(r.Run.Steps, func(v runner.Visit) bool { return v.State == runner.Deleting })
	if c.opt.Runs == nil || i < 0 || r.Slot < 0 {
		return nil
	}
	freed := r.Run.Steps[i].Start
	list, err := c.opt.Runs.Runs(ctx, api.RunQuery{Since: freed, Until: freed.Add(nextWithin), Limit: 500})
	if err != nil {
		return err
	}
	for _, other := range slices.Backward(list) { // the earliest first
		if other.Slot == r.Slot && other.Runner != r.Runner && !other.Created.Before(freed.Add(-time.Second)) {
			r.Next = &other
			again := &r.Steps[len(r.Steps)-1]
			again.Took, again.Start = max(0, other.Created.Sub(freed).Seconds()), freed
			break
		}
	}
	return nil
}

func (c *Console) runPage(w http.ResponseWriter, r *http.Request) error {
	out, err := c.one(r.Context(), r.PathValue("name"))
	if err != nil {
		return err
	}
	p := page{Title: shortName(out.Runner), Here: "runs", Body: out}
	if out.Job.Name != "" {
		p.Title = out.Job.Name
	}
	if out.Live {
		p.Live = "/live?page=run&name=" + url.QueryEscape(out.Runner)
	}
	return c.show(w, r, http.StatusOK, "run", p)
}

// runParts are the parts of a run's page that a stream keeps up to date.
var runParts = []string{"facts", "waterfall"}

// runView renders what of a run's page changes.
func (c *Console) runView(name string) view {
	return func(ctx context.Context) (map[string]string, error) {
		out, err := c.one(ctx, name)
		if err != nil {
			return nil, err
		}
		return c.parts(runParts, out)
	}
}
