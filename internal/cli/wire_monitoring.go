package cli

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/mirego/tasuki/internal/api"
	"github.com/mirego/tasuki/internal/config"
	"github.com/mirego/tasuki/internal/daemon"
	"github.com/mirego/tasuki/internal/event"
	"github.com/mirego/tasuki/internal/eventlog"
	"github.com/mirego/tasuki/internal/history"
	"github.com/mirego/tasuki/internal/metrics"
	"github.com/mirego/tasuki/internal/runner"
	"github.com/mirego/tasuki/internal/runnerdist"
)

// monitoring is what tells of a host: its metrics, its history, the releases
// of the runner program that it keeps, and what is wrong with them.
type monitoring struct {
	cfg      config.Config
	metrics  *metrics.Metrics
	history  *history.History // nil: it could not be opened
	releases *runnerdist.Cache
	log      *slog.Logger

	mu       sync.Mutex
	problems map[string]string // by source
}

// newMonitoring opens what is kept. A history that cannot be opened is a
// problem that people see; no runner depends on it.
func newMonitoring(cfg *config.Config, w *wiring, events *eventlog.Log) (*monitoring, error) {
	m := &monitoring{cfg: *cfg, log: w.log, problems: map[string]string{}}
	var err error
	m.releases, err = runnerdist.New(runnerdist.Options{
		Dir: filepath.Join(cfg.Host.Home, "runners"), Sources: w.gitHubs.sources,
		Every: time.Duration(cfg.Releases.Refresh), Log: w.log,
	})
	if err != nil {
		return nil, err
	}
	m.history, err = history.Open(filepath.Join(cfg.Host.Home, "history.db"), history.Options{
		Age: time.Duration(cfg.History.Age), Size: int64(cfg.History.Size), Log: w.log,
	})
	if err != nil {
		w.log.Error("no history is kept", "err", err)
		m.problem("history", err.Error())
	}
	m.metrics = metrics.New(metrics.Options{
		Version: versionName(), GoVersion: runtime.Version(), Quotas: w.gitHubs.quotas, Releases: m.releases.Status,
		Disk:   func() (metrics.Disk, error) { return diskOf(cfg.Host.Home) },
		Leaked: w.leaked,
		Lost: func() map[string]int64 {
			lost := map[string]int64{"log": events.Lost()}
			if m.history != nil {
				lost["history"] = m.history.Lost()
			}
			return lost
		},
	})
	w.gitHubs.tell(m.metrics.GitHubCall)
	return m, nil
}

// unchangeable refuses a configuration that differs in what is kept for the
// agent's whole life.
func (m *monitoring) unchangeable(cfg *config.Config) error {
	for _, f := range []struct {
		name string
		same bool
	}{
		{"metrics", reflect.DeepEqual(m.cfg.Metrics, cfg.Metrics)},
		{"history", m.cfg.History == cfg.History},
		{"console", reflect.DeepEqual(m.cfg.Console, cfg.Console)},
		{"runner_releases", m.cfg.Releases == cfg.Releases},
		{"logs", m.cfg.Logs == cfg.Logs},
	} {
		if !f.same {
			return withHint(fmt.Errorf("cannot change %s while the agent runs", f.name), "restart the agent; its guests go on meanwhile")
		}
	}
	return nil
}

// sinks are the readers of events.
func (m *monitoring) sinks() []event.Sink {
	if m.history == nil {
		return []event.Sink{m.metrics}
	}
	return []event.Sink{m.metrics, m.history}
}

// settle ends the runs that no runner of the journal goes on with.
func (m *monitoring) settle(ctx context.Context, live []runner.Record) {
	if m.history == nil {
		return
	}
	names := make([]string, 0, len(live))
	for _, r := range live {
		names = append(names, r.Name)
	}
	if err := m.history.Settle(ctx, names); err != nil {
		m.log.Warn("history is not settled", "err", err)
	}
}

// run does the work beside the agent until ctx ends.
func (m *monitoring) run(ctx context.Context) {
	var work sync.WaitGroup
	defer work.Wait()
	work.Go(func() { m.releases.Run(ctx) })
	if m.cfg.Metrics.Listen != "" {
		work.Go(func() {
			daemon.ServeMetrics(ctx, daemon.MetricsOptions{
				Listen: m.cfg.Metrics.Listen, Token: m.cfg.Metrics.Token.Read, Handler: m.metrics.Handler(),
				Problem: func(text string) { m.problem("metrics", text) }, Log: m.log,
			})
		})
	}
}

func (m *monitoring) close() error {
	if m.history == nil {
		return nil
	}
	return m.history.Close()
}

func (m *monitoring) problem(source, text string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if delete(m.problems, source); text != "" {
		m.problems[source] = text
	}
}

// complete adds to a status what the agent does not know.
func (m *monitoring) complete(s *api.Status) {
	s.Releases = m.releases.Status()
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, source := range slices.Sorted(maps.Keys(m.problems)) {
		s.Problems = append(s.Problems, source+": "+m.problems[source])
	}
}

// status is the agent's with all that belongs to it.
func (m *monitoring) status(of func() api.Status) func() api.Status {
	return func() api.Status {
		s := of()
		m.complete(&s)
		return s
	}
}

// runs is the history for the API; nil if there is none.
func (m *monitoring) runs() daemon.Runs {
	if m.history == nil {
		return nil
	}
	return m.history
}

// diskOf returns the size of a folder's file system and what we may write to it.
func diskOf(dir string) (metrics.Disk, error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return metrics.Disk{}, fmt.Errorf("cannot look at the disk of %q: %w", dir, err)
	}
	block := int64(s.Bsize)
	return metrics.Disk{Size: int64(s.Blocks) * block, Free: int64(s.Bavail) * block}, nil
}
