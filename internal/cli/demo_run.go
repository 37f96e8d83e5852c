package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/mirego/tasuki/internal/agent"
	"github.com/mirego/tasuki/internal/base/secret"
	"github.com/mirego/tasuki/internal/cli/demoview"
	"github.com/mirego/tasuki/internal/daemon"
	"github.com/mirego/tasuki/internal/emulator/workflow"
	"github.com/mirego/tasuki/internal/eventlog"
	"github.com/mirego/tasuki/internal/github"
	"github.com/mirego/tasuki/internal/image"
	"github.com/mirego/tasuki/internal/pool"
	"github.com/mirego/tasuki/internal/runner"
)

// oneImage is the agent's Images of a demo: it was brought before.
type oneImage struct{ image.Local }

// Image implements agent.Images.
func (i oneImage) Image(context.Context, string, func(image.Progress)) (image.Local, error) {
	return i.Local, nil
}

// newAgent makes the host agent with its one pool.
func (d *demo) newAgent() (*agent.Agent, error) {
	gh, err := github.New(github.Options{
		URL: "http://" + d.address, Scope: "octo/demo", Log: d.log,
		Token: func(context.Context) (secret.String, error) { return d.token, nil },
	})
	if err != nil {
		return nil, err
	}
	if err := d.openNetwork(); err != nil {
		return nil, err
	}
	boot, register := 3*time.Minute, 90*time.Second
	if d.onTart() || d.host.driver.Capabilities().Accel == "tcg" {
		boot, register = 2*boot, 2*register // a busy machine emulates slowly
	}
	spec := pool.Spec{
		Name: "demo", Image: d.image.Ref.String(), Driver: d.flags.driver, Scope: "octo/demo", Labels: append([]string{"demo"}, d.flags.labels...),
		MemoryMiB: 1024, Standby: d.flags.slots, MaxJob: d.flags.timeout, WorkFolder: "_work",
		Deadlines: map[runner.State]time.Duration{runner.Connecting: boot, runner.Registering: register},
		Network:   d.network(),
	}
	p := agent.Pool{
		Spec: spec, Driver: d.host.driver, Dialer: d.host.dialer, GitHub: gh, Images: oneImage{d.image}, Demand: &d.demand,
	}
	if d.flags.scaleSet {
		if err := d.throughSet(&p, gh); err != nil {
			return nil, err
		}
	}
	return agent.New(agent.Options{
		Host: "demo", Installation: d.installation, Version: versionName(), Home: d.home, Slots: d.flags.slots,
		DrainTimeout: demoSettle, Tick: 500 * time.Millisecond, Resync: 5 * time.Second,
		Pools:   []agent.Pool{p},
		Journal: d.host.journal, Events: &d.events, Log: d.log, NewKey: d.host.newKey,
	})
}

// runJobs queues the workflows and returns when all their jobs have ended and
// the last runner is gone, or with an error.
func (d *demo) runJobs(ctx, serve context.Context, claim *daemon.Claim) (err error) {
	events, err := eventlog.Open(d.path("events"), eventlog.Options{Log: d.log})
	if err != nil {
		return err
	}
	defer events.Close()
	d.events.Sinks = append(d.events.Sinks, events, d.view)
	if d.agent, err = d.newAgent(); err != nil {
		return err
	}
	socket, err := claim.Listen()
	if err != nil {
		return err
	}
	d.serve(serve, func(ctx context.Context) error {
		return daemon.New(daemon.Options{Agent: d.agent, Events: &d.events, Log: d.log}).Run(ctx, socket)
	})

	watch, unwatch := d.github.Watch()
	defer unwatch()
	for _, w := range d.workflows {
		if _, err := d.github.Submit(w, ""); err != nil {
			return err
		}
	}
	state := d.github.State()
	d.demand.set(untaken(state))
	d.view.SetJobs(viewJobs(state))

	life, end := context.WithCancelCause(ctx)
	ended := make(chan struct{})
	var agentErr error
	go func() {
		defer close(ended)
		agentErr = d.agent.Run(life)
	}()
	if err = d.follow(ctx, watch, ended); err == nil {
		err = d.settle(ctx, ended)
	}
	end(err)
	<-ended
	return errors.Join(err, agentErr)
}

// follow watches the jobs until all have ended.
func (d *demo) follow(ctx context.Context, watch, ended <-chan struct{}) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		state := d.github.State()
		d.demand.set(untaken(state))
		d.view.SetJobs(viewJobs(state))
		if allDone(state) {
			return nil
		}
		if err := unservable(state, d.labels); err != nil {
			return err
		}
		if err := d.hopeless(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-ended:
			return errors.New("the agent ended before the jobs")
		case <-watch:
		case <-tick.C:
		}
	}
}

// hopeless says when so many runners failed that another will too.
func (d *demo) hopeless() error {
	count, last := 0, runner.Record{}
	for _, rec := range d.view.Records() {
		if rec.Failed && rec.Job.ID == 0 && !wasBusy(rec) {
			count, last = count+1, rec
		}
	}
	if count < demoFailures {
		return nil
	}
	return fmt.Errorf("%d runners failed before they had a job, the last: %s; its program's log, if it has one: %s",
		count, last.Failure, d.agent.LogPath(last.Name))
}

func wasBusy(rec runner.Record) bool {
	return slices.ContainsFunc(rec.Steps, func(v runner.Visit) bool { return v.State == runner.Busy })
}

// settle lets the last runners leave as they would on any day.
func (d *demo) settle(ctx context.Context, ended <-chan struct{}) error {
	d.demand.set(0)
	limit, cancel := context.WithTimeoutCause(ctx, demoSettle, fmt.Errorf("the last runners did not leave within %s", demoSettle))
	defer cancel()
	d.agent.Shutdown()
	select {
	case <-ended:
		return nil
	case <-limit.Done():
		return context.Cause(limit)
	}
}

// finish takes away what is still there, looks for what is left, and reports.
// The demo's own end does not shorten it; a minute does. Its error is about
// what could not be taken away.
func (d *demo) finish(ctx context.Context, jobsErr error) error {
	patient, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), demoPatience, fmt.Errorf("it took more than %s", demoPatience))
	defer cancel()
	interrupted := errors.Is(context.Cause(ctx), errInterrupted)
	if interrupted {
		d.view.Say("Stopping: every guest and registration is taken away. Ctrl-C again quits at once.")
	}
	jobs := viewJobs(d.github.State()) // as they were, not as taking away leaves them
	errs := []error{d.takeAway(patient, jobsErr)}
	look, cancel := context.WithTimeout(context.WithoutCancel(ctx), demoLook)
	defer cancel()
	report := demoview.Report{Left: d.left(look)}
	d.view.Close()
	if !interrupted {
		report.Runners = d.view.Records()
		report.Jobs = jobs
		if err := keepLogs(d.path("jobs"), report.Jobs); err != nil {
			d.log.Warn("logs not kept", "err", err)
		}
	}
	d.view.Report(report)
	for _, l := range report.Left {
		if l.Err != nil || len(l.Found) > 0 {
			errs = append(errs, fmt.Errorf("the demo left something behind: %s: %s", l.What, strings.Join(l.Found, ", ")))
		}
	}
	if jobsErr == nil {
		d.view.Say("%s", summary(report.Jobs, d.home))
	}
	return errors.Join(errs...)
}

// takeAway ends the jobs, then every guest and registration. GitHub would keep
// a runner that executes a job until its guest was silent for ten minutes.
func (d *demo) takeAway(ctx context.Context, jobsErr error) error {
	if jobsErr != nil {
		for _, run := range d.github.State().Runs {
			if err := d.github.ForceCancel(run.ID); err != nil {
				return err
			}
		}
	}
	if d.agent == nil {
		return nil
	}
	return d.agent.Teardown(ctx)
}

// summary is the last line of a demo that came to its end.
func summary(jobs []demoview.Job, home string) string {
	count := map[string]int{}
	for _, j := range jobs {
		count[j.Conclusion]++
	}
	var parts []string
	for _, c := range []string{workflow.Success, workflow.Failure, workflow.Cancelled, workflow.Skipped} {
		if count[c] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", count[c], c))
		}
	}
	return fmt.Sprintf("Jobs: %s. The cached image and the whole logs are in %s.", strings.Join(parts, ", "), home)
}
