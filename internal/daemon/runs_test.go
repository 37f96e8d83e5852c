package daemon_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mirego/tasuki/internal/api"
	"github.com/mirego/tasuki/internal/client"
	"github.com/mirego/tasuki/internal/daemon"
	"github.com/mirego/tasuki/internal/event"
)

// past is a history that only remembers what it was asked.
type past struct{ asked []api.RunQuery }

func (p *past) Runs(_ context.Context, q api.RunQuery) ([]api.Run, error) {
	p.asked = append(p.asked, q)
	return []api.Run{{Runner: "a"}}, nil
}

func (p *past) Stats(_ context.Context, q api.RunQuery) (api.RunStats, error) {
	p.asked = append(p.asked, q)
	return api.RunStats{Runs: 7}, nil
}

func TestQueriesReachTheHistory(t *testing.T) {
	p := &past{}
	c := serve(t, daemon.Options{Agent: &host{}, Events: &event.Bus{}, Runs: p})
	at := time.Date(2026, 3, 4, 5, 6, 7, 8000000, time.UTC)
	full := api.RunQuery{Runner: "r", Pool: "a b&c", Conclusion: "success", Repository: "o/r", Failed: true, Jobs: true, Since: at, Until: at.Add(time.Hour), Limit: 5}
	runs, err := c.Runs(t.Context(), full)
	if err != nil || len(runs) != 1 || runs[0].Runner != "a" {
		t.Errorf("%+v, %v", runs, err)
	}
	stats, err := c.Stats(t.Context(), api.RunQuery{})
	if err != nil || stats.Runs != 7 {
		t.Errorf("%+v, %v", stats, err)
	}
	if diff := cmp.Diff([]api.RunQuery{full, {}}, p.asked); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if _, err := c.Runs(t.Context(), api.RunQuery{Limit: 10001}); err == nil || !strings.Contains(err.Error(), `cannot read limit "10001"`) {
		t.Errorf("a limit beyond all bounds: %v", err)
	}
}

func TestAnAgentWithoutHistorySaysSo(t *testing.T) {
	c := serve(t, daemon.Options{Agent: &host{}, Events: &event.Bus{}})
	_, err := c.Runs(t.Context(), api.RunQuery{})
	if refused, ok := errors.AsType[*client.Error](err); !ok || refused.Status != 501 || !strings.Contains(refused.Message, "keeps no history") {
		t.Errorf("got %v", err)
	}
}

func TestAStatusIsCompleted(t *testing.T) {
	c := serve(t, daemon.Options{Agent: &host{}, Events: &event.Bus{}, Complete: func(s *api.Status) { s.Problems = append(s.Problems, "history: no room") }})
	s, err := c.Status(t.Context())
	if err != nil || len(s.Problems) != 1 {
		t.Errorf("%+v, %v", s, err)
	}
}
