package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/mirego/tasuki/internal/base/backoff"
	"github.com/mirego/tasuki/internal/event"
	"github.com/mirego/tasuki/internal/guest"
	"github.com/mirego/tasuki/internal/image"
	"github.com/mirego/tasuki/internal/runner"
)

const (
	// lostAfter is how long GitHub may not list a runner before we believe it.
	lostAfter = 10 * time.Second
	// lostBusyAfter is the same for a busy one, whose end we may still hear of.
	lostBusyAfter = 2 * time.Minute
	// offlineAfter is how long GitHub may see a runner that waits as offline.
	offlineAfter = 5 * time.Minute
	// provenAfter is how long a runner waits for jobs before its pool counts as well.
	provenAfter = 30 * time.Second
	// mostRegistrations bounds how often one guest registers.
	mostRegistrations = 3
	hookTimeout       = 5 * time.Minute
	jobLookup         = 30 * time.Second
)

// register waits until GitHub lists the runner as online, or until its program
// says that a job came even before we saw that.
func (k *keeper) register(ctx context.Context) (runner.State, string, error) {
	k.follow()
	pace := backoff.Policy{First: 250 * time.Millisecond, Most: 10 * time.Second}
	ask := time.NewTimer(time.Second)
	defer ask.Stop()
	for n := 1; ; {
		select {
		case <-ctx.Done():
			return "", "", fmt.Errorf("%w; %s", context.Cause(ctx), k.lastWords())
		case heard := <-k.follower.news:
			if heard.exit != nil {
				k.ended = heard.exit
				return "", "", k.ends("before it registered")
			}
			if to, reason, err := k.signal(ctx, heard.Signal); to != "" || err != nil {
				return to, reason, err
			}
			if heard.Kind == guest.Listening {
				n = 1
				ask.Reset(0)
			}
		case <-k.changed:
			if k.learn(ctx) {
				return runner.Busy, tookJob, nil
			}
		case <-ask.C:
			call, cancel := context.WithTimeoutCause(ctx, observeTimeout, errNoAnswer)
			online, busy, err := k.askGitHub(call)
			cancel()
			switch {
			case err != nil:
				k.a.log.Debug("cannot ask GitHub for a runner", "runner", k.name, "err", err)
			case busy:
				return runner.Busy, "", nil
			case online:
				return runner.Idle, "", nil
			}
			ask.Reset(pace.Delay(n, nil))
			n++
		}
	}
}

// exitDeprecated is the exit status of an official runner of a version that
// GitHub gives no jobs to. Source: actions/runner, Constants.cs.
const exitDeprecated = 7

// ends says what the runner program's end, which came too early, means.
func (k *keeper) ends(when string) error {
	switch code := k.ended.Code; {
	case code == exitDeprecated && k.program().Kind == image.RunnerOfficial:
		return k.refusedVersion()
	case code == guest.SetupFailed && k.rec.ByToken:
		return fmt.Errorf("the runner program could not register itself; %s", k.lastWords())
	default:
		return fmt.Errorf("the runner program ended with status %d %s; %s", code, when, k.lastWords())
	}
}

// lastWords says what the runner program wrote last, for a person who wonders
// why it is not at work.
func (k *keeper) lastWords() string {
	if t := k.follower.troubled(); t != "" {
		return "the guest cannot be read: " + t
	}
	const most = 300
	path := k.a.LogPath(k.name)
	last, err := lastLine(path)
	if err != nil {
		return "its log cannot be read: " + err.Error()
	}
	if last == "" {
		return "it wrote nothing"
	}
	return fmt.Sprintf("it wrote last: %q (whole: %s)", last[:min(len(last), most)], path)
}

// proven tells the pool that its runners work: one has a job, or waits for one
// long enough not to be ending at once again and again.
func (k *keeper) proven() {
	k.a.mu.Lock()
	defer k.a.mu.Unlock()
	if p := k.a.poolNamed(k.rec.Pool); p != nil {
		p.succeeded()
		k.a.proved(p, k.rec.Image)
	}
}

// askGitHub returns how GitHub sees the runner now.
func (k *keeper) askGitHub(ctx context.Context) (online, busy bool, err error) {
	if k.rec.RemoteID == 0 {
		r, there, err := k.findRemote(ctx)
		if err != nil || !there {
			return false, false, err
		}
		if !k.note(ctx, func(rec *runner.Record) { rec.RemoteID = r.ID }) {
			return false, false, errAgentEnds
		}
		return r.Online, r.Busy, nil
	}
	r, there, err := k.pool.GitHub.Runner(ctx, k.rec.RemoteID)
	return there && r.Online, there && r.Busy, err
}

// findRemote looks the runner up by its name.
func (k *keeper) findRemote(ctx context.Context) (runner.Remote, bool, error) {
	all, err := k.pool.GitHub.Runners(ctx)
	if err != nil {
		return runner.Remote{}, false, err
	}
	for _, r := range all {
		if r.Name == k.name {
			return r, true, nil
		}
	}
	return runner.Remote{}, false, nil
}

// signal takes in a line of the runner program while no job runs yet.
func (k *keeper) signal(ctx context.Context, s guest.Signal) (runner.State, string, error) {
	switch s.Kind {
	case guest.JobStarted, guest.JobFinished:
		if !k.note(ctx, func(r *runner.Record) { r.Job.Name = s.Job }) {
			return "", "", errAgentEnds
		}
		return runner.Busy, s.Job, nil
	case guest.Deprecated:
		return "", "", k.refusedVersion()
	case guest.RegistrationGone:
		return k.again(ctx, "GitHub has forgotten the registration")
	}
	return "", "", nil
}

// again registers anew in the same, still unused guest.
func (k *keeper) again(ctx context.Context, why string) (runner.State, string, error) {
	if k.rec.Tries+1 >= mostRegistrations {
		return "", "", fmt.Errorf("%s, for the %dth time", why, k.rec.Tries+1)
	}
	k.unfollow()
	if err := k.dial(ctx); err != nil {
		return "", "", err
	}
	if err := guest.Stop(ctx, k.channel); err != nil {
		return "", "", fmt.Errorf("cannot stop the runner program: %w", err)
	}
	if err := guest.Reset(ctx, k.channel); err != nil {
		return "", "", fmt.Errorf("cannot reset the runner program: %w", err)
	}
	if err := restartLog(k.a.LogPath(k.name)); err != nil {
		return "", "", err
	}
	if !k.note(ctx, func(r *runner.Record) { r.Tries++ }) {
		return "", "", errAgentEnds
	}
	return runner.Requesting, why, nil
}

// idle waits for a job.
func (k *keeper) idle(ctx context.Context) (runner.State, string, error) {
	k.follow()
	check, proven := time.NewTimer(0), time.NewTimer(provenAfter)
	defer check.Stop()
	defer proven.Stop()
	for {
		select {
		case <-ctx.Done():
			var old deadlinePassed
			if errors.As(context.Cause(ctx), &old) {
				return runner.Leaving, fmt.Sprintf("waited %v for a job; a fresh guest takes its place", old.after), nil
			}
			return "", "", context.Cause(ctx)
		case heard := <-k.follower.news:
			if heard.exit != nil {
				k.ended = heard.exit
				if heard.exit.Code != 0 {
					return "", "", k.ends("before it had a job")
				}
				// It may have executed a job whose line we could not read; if that was at
				// once, the next runner waits a little.
				if k.knownFor() < provenAfter {
					k.a.pausePool(k.rec.Pool, "the runner program ended at once, with status 0")
				}
				return runner.Leaving, fmt.Sprintf("the runner program ended with status %d", heard.exit.Code), nil
			}
			if to, reason, err := k.signal(ctx, heard.Signal); to != "" || err != nil {
				return to, reason, err
			}
		case <-proven.C:
			k.proven()
		case <-k.changed:
			if k.learn(ctx) {
				return runner.Busy, tookJob, nil
			}
			check.Reset(0)
		case <-check.C:
			if to, reason, err := k.checkIdle(ctx, check); to != "" || err != nil {
				return to, reason, err
			}
		}
	}
}

// checkIdle compares what GitHub said last with a runner that waits.
func (k *keeper) checkIdle(ctx context.Context, check *time.Timer) (runner.State, string, error) {
	k.mu.Lock()
	view := k.remote
	k.mu.Unlock()
	if view.at.Before(k.entered) {
		return "", "", nil
	}
	if view.there && view.Busy {
		return runner.Busy, "", nil
	}
	since, most := view.missing, lostAfter // a job that just ended is no longer listed either
	if view.there {
		since, most = view.offline, offlineAfter
	}
	if since.IsZero() {
		return "", "", nil
	}
	if wait := most - time.Since(since); wait > 0 {
		check.Reset(wait)
		return "", "", nil
	}
	ask, cancel := context.WithTimeoutCause(ctx, observeTimeout, errNoAnswer)
	defer cancel()
	now, there, err := k.pool.GitHub.Runner(ask, k.rec.RemoteID)
	switch {
	case err != nil, there != view.there, there && (now.Online || now.Busy):
		return "", "", nil // asked again at the next listing
	case there:
		return "", "", fmt.Errorf("GitHub has seen it offline for %v; %s", time.Since(since).Round(time.Second), k.lastWords())
	}
	return k.again(ctx, "GitHub no longer lists the runner")
}

// busy waits until the runner program has ended, and so its job.
func (k *keeper) busy(ctx context.Context) (runner.State, string, error) {
	k.proven()
	k.follow()
	k.noteStart(ctx)
	check := time.NewTicker(lostBusyAfter / 4)
	defer check.Stop()
	for {
		select {
		case <-ctx.Done():
			return "", "", k.lostJob(context.Cause(ctx))
		case heard := <-k.follower.news:
			if heard.exit != nil {
				k.ended = heard.exit
				k.afterJob(ctx)
				return runner.Leaving, "its job is over", nil
			}
			if (heard.Kind == guest.JobStarted || heard.Kind == guest.JobFinished) && k.rec.Job.Name == "" {
				k.noteJob(ctx, func(j *runner.Job) { j.Name = heard.Job })
			}
		case <-k.changed:
			k.learn(ctx)
		case <-check.C:
			k.mu.Lock()
			missing, at := k.remote.missing, k.remote.at
			k.mu.Unlock()
			// Two lists at least: they are far apart where there are many hosts, and
			// one that is taken while runners go may lack another.
			if !missing.IsZero() && at.Sub(missing) > lostBusyAfter {
				return runner.Leaving, "GitHub no longer lists the runner: its job is over", nil
			}
		}
	}
}

// tookJob is why a runner is busy of whose job a listener heard.
const tookJob = "GitHub says that it has taken a job"

// learn writes down what a listener said of the job, if it said anything.
func (k *keeper) learn(ctx context.Context) bool {
	job, has := k.word()
	if has {
		k.noteJob(ctx, func(j *runner.Job) { j.Learn(job) })
	}
	return has
}

func (k *keeper) noteStart(ctx context.Context) {
	if k.rec.Job.Started.IsZero() {
		k.noteJob(ctx, func(j *runner.Job) { j.Started = time.Now().UTC() })
	}
}

// noteJob writes down what became known of the job, and tells the world.
func (k *keeper) noteJob(ctx context.Context, change func(*runner.Job)) {
	if k.note(ctx, func(r *runner.Record) { change(&r.Job) }) {
		rec := k.record()
		k.a.emit(event.Event{Kind: event.RunnerJob, Pool: rec.Pool, Runner: k.name, Job: rec.Job, Record: &rec})
	}
}

func (k *keeper) lostJob(cause error) error {
	var late deadlinePassed
	if errors.As(cause, &late) {
		return fmt.Errorf("the job took longer than the pool allows (max_job_time: %v)", late.after)
	}
	return cause
}

// afterJob runs the pool's hook in the guest while it is still there. Its
// failure is told and changes nothing: the job is over.
func (k *keeper) afterJob(ctx context.Context) {
	if k.pool.Spec.AfterJob == "" {
		return
	}
	ctx, cancel := context.WithTimeoutCause(ctx, hookTimeout, fmt.Errorf("hook after_job did not end within %v", hookTimeout))
	defer cancel()
	err := k.dial(ctx)
	if err == nil {
		err = k.hook(ctx, "after_job", k.pool.Spec.AfterJob)
	}
	if err != nil {
		k.a.log.Warn("hook failed", "runner", k.name, "pool", k.rec.Pool, "err", err)
	}
}
