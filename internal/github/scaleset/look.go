package scaleset

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/actions/scaleset"

	"github.com/mirego/tasuki/internal/base/atomicfile"
	"github.com/mirego/tasuki/internal/github"
	"github.com/mirego/tasuki/internal/runner"
)

// Figure is a scale set as GitHub tells of it.
type Figure struct {
	ID      int       `json:"id"`
	Name    string    `json:"name"`
	Group   string    `json:"group,omitempty"`
	Labels  []string  `json:"labels"`
	Waiting int       `json:"waiting"` // jobs that are assigned and do not run
	Running int       `json:"running"`
	Idle    int       `json:"idle"` // runners
	Busy    int       `json:"busy"`
	Created time.Time `json:"created,omitzero"`
}

func figureOf(set scaleset.RunnerScaleSet) Figure {
	f := Figure{ID: set.ID, Name: set.Name, Group: set.RunnerGroupName, Labels: labelsOf(set), Created: set.CreatedOn.UTC()}
	if st := set.Statistics; st != nil {
		f.Running, f.Idle, f.Busy = st.TotalRunningJobs, st.TotalIdleRunners, st.TotalBusyRunners
		f.Waiting = max(0, st.TotalAssignedJobs-st.TotalRunningJobs)
	}
	return f
}

// List returns every scale set of the scope, those of others too.
func (s *Service) List(ctx context.Context) ([]Figure, error) {
	sets, err := s.sets(ctx, 0, "")
	if err != nil {
		return nil, err
	}
	out := []Figure{}
	for _, set := range sets {
		out = append(out, figureOf(set))
	}
	return out, nil
}

// Delete deletes a set; one that is gone is no error. While its runners execute
// jobs it stays: runner.ErrBusy.
func (s *Service) Delete(ctx context.Context, id int) error { return s.remove(ctx, id) }

// Kept is a scale set that a book names.
type Kept struct {
	File, Pool string
	ID         int
	Name       string
	URL, Scope string
	Made       bool // by this installation: it may be deleted
	Draining   bool
}

// Read returns the scale sets of the books in a folder; one that is not there is
// empty.
func Read(dir string) (all []Kept, err error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		b, err := readBook(file)
		if err != nil {
			return nil, err
		}
		for _, g := range b.Sets {
			if g.ID != 0 {
				all = append(all, Kept{file, b.Pool, g.ID, g.Name, g.URL, g.Scope, g.Made, !g.Draining.IsZero()})
			}
		}
	}
	return all, nil
}

// Forget takes a set out of its book, which no agent may have open.
func Forget(k Kept) error {
	b, err := readBook(k.File)
	if err != nil {
		return err
	}
	b.Sets = slices.DeleteFunc(b.Sets, func(g *generation) bool { return g.ID == k.ID && g.URL == k.URL && g.Scope == k.Scope })
	if len(b.Sets) == 0 {
		return atomicfile.Remove(k.File)
	}
	data, err := json.MarshalIndent(b, "", " ")
	if err != nil {
		return err
	}
	return atomicfile.Write(k.File, data, 0o600)
}

// Trial says what Check shall look at.
type Trial struct {
	Kept   *Kept // as the book has it; nil: it is looked for by its name
	Name   string
	Group  string
	Labels []string // the pool's own
	// Installation and Host are ours. With both, the set's session is opened for
	// a moment, since only that shows whose it is.
	Installation, Host string
}

// Check says what GitHub knows of a pool's scale set.
func (s *Service) Check(ctx context.Context, t Trial) []github.Finding {
	const step = "scale set"
	one := func(v github.Verdict, text, mend string) []github.Finding {
		return []github.Finding{{Step: step, Verdict: v, Text: text, Mend: mend}}
	}
	f, found, err := s.find(ctx, t)
	switch {
	case errors.Is(err, runner.ErrDenied):
		return one(github.Wrong, err.Error(), "give the credential the permission that the message names")
	case err != nil:
		return one(github.Wrong, err.Error(), "")
	case !found:
		return one(github.OK, fmt.Sprintf("%s is not there yet: the agent makes it", t.Name), "")
	}
	text := fmt.Sprintf("%s (%d): labels %s; jobs: %d waiting, %d running; runners: %d idle, %d busy",
		f.Name, f.ID, strings.Join(f.Labels, ", "), f.Waiting, f.Running, f.Idle, f.Busy)
	var lacks []string
	for _, l := range t.Labels {
		if !slices.ContainsFunc(f.Labels, func(o string) bool { return strings.EqualFold(o, l) }) {
			lacks = append(lacks, l)
		}
	}
	if len(lacks) > 0 {
		return one(github.Warning, text+"; it lacks "+strings.Join(lacks, ", "), "labels of a set are fixed: the agent makes another one when it takes the configuration over")
	}
	out := one(github.OK, text, "")
	if t.Installation == "" || t.Host == "" {
		return out
	}
	return append(out, s.checkHolder(ctx, f, t))
}

func (s *Service) find(ctx context.Context, t Trial) (f Figure, found bool, err error) {
	group, err := s.group(ctx, t.Group)
	if err != nil {
		return f, false, err
	}
	if t.Kept != nil {
		set, err := s.set(ctx, t.Kept.ID)
		if statusOf(err) != http.StatusNotFound {
			return figureOf(set), err == nil, err
		}
	}
	sets, err := s.sets(ctx, group, t.Name)
	for _, set := range sets {
		if strings.EqualFold(set.Name, t.Name) {
			return figureOf(set), true, nil
		}
	}
	return f, false, err
}

// checkHolder says who listens.
func (s *Service) checkHolder(ctx context.Context, f Figure, t Trial) github.Finding {
	out := github.Finding{Step: "listener", Verdict: github.OK}
	open, err := s.open(ctx, f.ID, ownerPrefix+t.Installation+"-"+t.Host)
	if err == nil {
		out.Text = "nobody listens now"
		if err := s.close(context.WithoutCancel(ctx), open); err != nil {
			out.Verdict, out.Text = github.Warning, fmt.Sprintf("nobody listened; our own session, opened for this check, stays for a minute: %v", err)
		}
		return out
	}
	switch c := holderOf(err, t.Installation); {
	case c == nil:
		out.Verdict, out.Text = github.Warning, fmt.Sprintf("cannot see who listens: %v", err)
	case c.ours:
		out.Text = "this host listens"
	default:
		out.Verdict, out.Text = github.Wrong, who(c.owner)+" listens, and GitHub lets one host at a time"
		out.Mend = "give the pool a scaleset name of its own, or use standby for a pool that several hosts share"
	}
	return out
}
