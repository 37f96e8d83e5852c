package daemon

import (
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/mirego/tasuki/internal/api"
	"github.com/mirego/tasuki/internal/vm"
)

// maxRuns bounds an answer of GET /v1/runs.
const maxRuns = 10000

func (s *Server) runs(w http.ResponseWriter, r *http.Request) error {
	q, err := s.runQuery(r)
	if err != nil {
		return err
	}
	runs, err := s.opt.Runs.Runs(r.Context(), q)
	if err != nil {
		return err
	}
	return answer(w, runs)
}

func (s *Server) stats(w http.ResponseWriter, r *http.Request) error {
	q, err := s.runQuery(r)
	if err != nil {
		return err
	}
	stats, err := s.opt.Runs.Stats(r.Context(), q)
	if err != nil {
		return err
	}
	return answer(w, stats)
}

func (s *Server) runQuery(r *http.Request) (q api.RunQuery, err error) {
	if s.opt.Runs == nil {
		return q, fmt.Errorf("cannot tell of runs: this agent keeps no history: %w", vm.ErrUnsupported)
	}
	v := r.URL.Query()
	q.Runner, q.Pool, q.Conclusion, q.Repository = v.Get("runner"), v.Get("pool"), v.Get("conclusion"), v.Get("repository")
	if q.Failed, err = flag(r, "failed"); err != nil {
		return q, err
	}
	if q.Jobs, err = flag(r, "jobs"); err != nil {
		return q, err
	}
	for name, at := range map[string]*time.Time{"since": &q.Since, "until": &q.Until} {
		if text := v.Get(name); text != "" {
			if *at, err = time.Parse(time.RFC3339, text); err != nil {
				return q, fmt.Errorf("cannot read %s %q: write it as 2006-01-02T15:04:05Z: %w", name, text, errBad)
			}
		}
	}
	if text := v.Get("limit"); text != "" {
		if q.Limit, err = strconv.Atoi(text); err != nil || q.Limit < 1 || q.Limit > maxRuns {
			return q, fmt.Errorf("cannot read limit %q: write a number from 1 to %d: %w", text, maxRuns, errBad)
		}
	}
	return q, nil
}
