package console

import (
	"fmt"
	"net/http"
	"slices"

	"github.com/mirego/tasuki/internal/agent"
	"github.com/mirego/tasuki/internal/api"
)

// question asks whether something shall be done.
type question struct {
	Verb string // "drain" or "resume"
	Pool string // empty: the host
	Busy int    // runners that are at work there
	Idle int    // runners that wait there
}

// confirmPage asks before the host or a pool is drained or resumed.
func (c *Console) confirmPage(w http.ResponseWriter, r *http.Request) error {
	q := question{Verb: r.URL.Path[1:], Pool: r.URL.Query().Get("pool")}
	s := c.opt.Status()
	if q.Pool != "" && !slices.ContainsFunc(s.Pools, func(p api.Pool) bool { return p.Name == q.Pool }) {
		return fmt.Errorf("cannot find pool %q: %w", clip(q.Pool, 60), agent.ErrNoPool)
	}
	for _, p := range s.Pools {
		if q.Pool == "" || q.Pool == p.Name {
			q.Busy, q.Idle = q.Busy+p.Busy, q.Idle+p.Idle
		}
	}
	title := map[string]string{"drain": "Drain", "resume": "Resume"}[q.Verb] + " "
	if q.Pool == "" {
		title += "this host"
	} else {
		title += "pool " + q.Pool
	}
	return c.show(w, r, http.StatusOK, "confirm", page{Title: title + "?", Here: "now", Body: q})
}

// act drains or resumes.
func (c *Console) act(w http.ResponseWriter, r *http.Request) error {
	pool := r.PostFormValue("pool")
	do := c.opt.Host.Drain
	if r.URL.Path == "/resume" {
		do = c.opt.Host.Resume
	}
	if err := do(pool); err != nil {
		return err
	}
	c.log.Info("console was used", "action", r.URL.Path[1:], "pool", pool, "from", r.RemoteAddr)
	http.Redirect(w, r, "/", http.StatusSeeOther)
	return nil
}
