package cli

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/mirego/tasuki/internal/config"
	"github.com/mirego/tasuki/internal/console"
	"github.com/mirego/tasuki/internal/daemon"
	"github.com/mirego/tasuki/internal/event"
	"github.com/mirego/tasuki/internal/eventlog"
)

func newHostGroup(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "host",
		Short: "Keep runners on this machine",
	}
	cmd.AddCommand(newHostRun(a), newHostSetup(a))
	return cmd
}

func newHostRun(a *app) *cobra.Command {
	var file, logFile string
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Keep the configured runners until SIGTERM",
		Long: "Keep the configured runners until SIGTERM or SIGINT: then no new ones are started, busy ones may finish\n" +
			"for host.drain_timeout, and the agent ends; a second signal ends it at once. Guests outlive the agent in\n" +
			"any case, and the next one adopts them. SIGHUP takes a changed configuration over.",
		Example: "  tasuki host run --config /etc/tasuki/host.yaml",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			defer a.logTo(logFile)()
			log, err := a.logger()
			if err != nil {
				return err
			}
			return a.runHost(cmd.Context(), a.configFile([]string{file}), log)
		},
	}
	cmd.Flags().StringVarP(&file, "config", "c", "", "configuration `file` (default config.yaml in --home)")
	cmd.Flags().StringVar(&logFile, "log-file", "", "write the log to this `file` instead of standard error; it is rotated at 20 MB, five are kept")
	return cmd
}

// loadHost reads the file; --home wins over its host.home.
func (a *app) loadHost(file string) (*config.Config, error) {
	cfg, err := config.Load(file)
	if err == nil && a.homeGiven {
		cfg.Host.Home = a.home
	}
	return cfg, err
}

func (a *app) runHost(ctx context.Context, file string, log *slog.Logger) (err error) {
	// From here on signals are ours, so that none ends us half wired.
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(signals)

	cfg, err := a.loadHost(file)
	if err != nil {
		return err
	}
	for _, w := range cfg.Warnings() {
		log.Warn("the configuration may hurt", "warning", w.Error())
	}
	claim, err := daemon.Take(cfg.Host.Home)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, claim.Release()) }()
	feed := new(console.Feed)
	h, err := newHost(ctx, cfg, log, feed)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.Close()) }()
	socket, err := claim.Listen()
	if err != nil {
		return err
	}
	web, err := h.console(cfg, feed, log)
	if err != nil {
		return err
	}
	reload := reloader(h, log, func() (*config.Config, error) { return a.loadHost(file) })
	server := daemon.New(daemon.Options{
		Agent: h.agent, Events: h.bus, Reload: reload, Log: log,
		Metrics: h.watch.metrics.Handler(), Complete: h.watch.complete, Runs: h.watch.runs(),
		Console: web.Link,
		Past: func(since time.Time) iter.Seq2[event.Event, error] {
			return eventlog.Read(eventsDir(cfg.Host.Home), since)
		},
	})
	log.Info("agent starts", "host", cfg.Host.Name, "home", cfg.Host.Home, "version", versionName(), "pid", os.Getpid())

	life, end := context.WithCancelCause(ctx)
	defer end(nil)
	var work sync.WaitGroup
	var agentErr, serverErr error
	work.Go(func() { agentErr = h.agent.Run(life); end(errors.New("the agent has ended")) })
	work.Go(func() {
		if serverErr = server.Run(life, socket); serverErr != nil {
			end(serverErr)
		}
	})
	work.Go(func() { h.watch.run(life) })
	work.Go(func() { web.Run(life) })
	watchSignals(life, signals, log, h.agent.Shutdown, end, reload)
	work.Wait()
	log.Info("agent ended", "err", errors.Join(agentErr, serverErr))
	return errors.Join(agentErr, serverErr)
}

// watchSignals acts on signals until life ends.
func watchSignals(life context.Context, signals <-chan os.Signal, log *slog.Logger, drain func(), end context.CancelCauseFunc, reload func(context.Context) error) {
	stopping := false
	for {
		select {
		case <-life.Done():
			return
		case s := <-signals:
			switch {
			case s == syscall.SIGHUP:
				// What it has to say is in the log.
				_ = reload(life)
			case stopping:
				log.Info("agent stops now; guests go on", "signal", s.String())
				end(fmt.Errorf("a second signal: %s", s))
			default:
				stopping = true
				log.Info("agent drains; send the signal again to stop now", "signal", s.String())
				drain()
			}
		}
	}
}

// reloader returns a function that takes a changed configuration over, one call
// at a time. A configuration with mistakes changes nothing.
func reloader(h *host, log *slog.Logger, load func() (*config.Config, error)) func(context.Context) error {
	var mu sync.Mutex
	return func(ctx context.Context) error {
		mu.Lock()
		defer mu.Unlock()
		cfg, err := load()
		if err == nil {
			err = h.reconfigure(ctx, cfg)
		}
		if err != nil {
			log.Error("configuration not taken over; the one before stays in force", "err", err)
			return err
		}
		log.Info("configuration taken over", "file", cfg.File())
		return nil
	}
}
