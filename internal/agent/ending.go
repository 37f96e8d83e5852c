package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/mirego/tasuki/internal/base/backoff"
	"github.com/mirego/tasuki/internal/guest"
	"github.com/mirego/tasuki/internal/runner"
	"github.com/mirego/tasuki/internal/vm"
)

const (
	settleTime  = 5 * time.Second // GitHub may call a runner busy just after its job
	wordTime    = 5 * time.Second // for a listener's word on a job that has just ended
	lingerMost  = 25 * time.Hour  // GitHub itself forgets an ephemeral runner after a day
	callTimeout = 2 * time.Minute // for one call of an ending state
	// lingerPatience is how long an agent that ends waits for GitHub to forget a runner.
	lingerPatience = time.Minute
)

// errNoAnswer: GitHub was asked and said nothing.
var errNoAnswer = fmt.Errorf("GitHub did not answer within %v", observeTimeout)

// errUnsure: GitHub lists no runner of the name now, and may in a moment.
var errUnsure = errors.New("GitHub may still register what was asked for")

var lingerPace = backoff.Policy{First: 5 * time.Second, Most: 10 * time.Minute}

// leave takes the runner away from GitHub, before its guest is touched. If
// GitHub says that it executes a job, and it may be so, it stays; so it does
// when its program says that. A guest that may be at work is not cut because
// GitHub cannot be asked: an outage costs a slot for its time, and no job.
func (k *keeper) leave(ctx context.Context) (runner.State, string, error) {
	cause := k.rec.Reason
	if k.strange && k.alive(ctx) && k.hears(ctx, settleTime) {
		return k.backToWork("its program says that it executes a job")
	}
	for n := 1; k.rec.Asked && !k.rec.Left; n++ {
		err := k.unregister(ctx)
		if err == nil || errors.Is(err, errUnsure) {
			break
		}
		alive, busy := k.alive(ctx), errors.Is(err, runner.ErrBusy)
		if busy && alive {
			return k.backToWork("GitHub says that it executes a job")
		}
		if time.Since(k.entered) > k.leavePatience(busy, alive, err) {
			break // the guest goes; the registration is asked for again later
		}
		k.explain(fmt.Sprintf("%s; cannot leave GitHub yet: %v", cause, err))
		if k.hears(ctx, retryPace.Delay(n, nil)) {
			return k.backToWork("its program says that it executes a job")
		}
		if ctx.Err() != nil {
			break
		}
	}
	if k.pool.Spec.HoldAfterFailure > 0 {
		k.lookUpJob()
	}
	if k.release() {
		return runner.Held, cause, nil
	}
	return runner.Stopping, cause, nil
}

// leavePatience is how long a leaving runner's guest waits for GitHub, after
// this error.
func (k *keeper) leavePatience(busy, alive bool, err error) time.Duration {
	switch {
	case busy:
		return settleTime
	case !alive:
		return 0 // nothing is at work there: a slot is not kept for a question
	case alive && !errors.Is(err, runner.ErrDenied):
		return k.pool.Spec.Deadline(runner.Busy) // by then, any job that it took is over
	}
	return k.pool.Spec.Deadline(runner.Leaving)
}

// hears listens to the runner program for a while and says whether it has a
// job that may go on.
func (k *keeper) hears(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	var words <-chan news
	if k.ended == nil && !k.mayCut && k.rec.Up && !k.rec.Last(runner.Launching).IsZero() {
		k.follow()
		words = k.follower.news
	}
	for {
		select {
		case <-ctx.Done():
			return false
		case <-timer.C:
			return false
		case heard := <-words:
			if heard.exit != nil {
				k.ended, words = heard.exit, nil
			} else if heard.Kind == guest.JobStarted {
				return true
			}
		}
	}
}

// backToWork takes back a stop or a failure of a runner that is at work.
func (k *keeper) backToWork(why string) (runner.State, string, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.stopped, k.rec.Failed, k.rec.Failure = "", false, ""
	return runner.Busy, why, nil
}

// unregister removes the registration, by id or else by name. Each question to
// GitHub has a deadline of its own.
func (k *keeper) unregister(ctx context.Context) error {
	ask, cancel := context.WithTimeoutCause(ctx, observeTimeout, errNoAnswer)
	defer cancel()
	id := k.rec.RemoteID
	if k.strange {
		k.a.log.Warn("cannot remove a registration: no pool has its scope any more", "runner", k.name, "scope", k.rec.Scope)
		id = 0
	} else if id == 0 {
		r, there, err := k.findRemote(ask)
		if err != nil {
			return explained(err, context.Cause(ask))
		}
		if there {
			id = r.ID
		} else if time.Since(k.mayRegisterUntil()) < k.a.opt.LostReply {
			return errUnsure
		}
	}
	if id != 0 {
		if err := k.pool.GitHub.Remove(ask, id); err != nil {
			return explained(err, context.Cause(ask))
		}
	}
	if !k.note(ctx, func(r *runner.Record) { r.Left = true }) {
		return errAgentEnds
	}
	return nil
}

// mayRegisterUntil is when the registration that was asked for could come at the
// latest, but for a late reply.
func (k *keeper) mayRegisterUntil() time.Time {
	if !k.rec.ByToken || k.rec.Last(runner.Launching).IsZero() {
		return k.rec.Last(runner.Requesting)
	}
	if s := k.rec.State; s == runner.Deleting || s == runner.Lingering {
		return k.rec.Last(runner.Stopping)
	}
	return time.Now() // its program may still do it
}

// alive says whether the runner program may still be at work.
func (k *keeper) alive(ctx context.Context) bool {
	if k.ended != nil || k.mayCut || !k.rec.Up {
		return false
	}
	guests, err := k.pool.Driver.List(ctx)
	if err != nil {
		return true // not known to be dead
	}
	for _, g := range guests {
		if g.Name == k.name {
			return g.State == vm.Running
		}
	}
	return false
}

// lookUpJob finds out what became of the job, and holds the guest of a failed
// one if the pool wants that. Nobody waits for a slot meanwhile, unless the pool
// holds guests.
func (k *keeper) lookUpJob() {
	ctx, cancel := context.WithTimeout(k.a.life, jobLookup)
	defer cancel()
	k.learn(ctx)
	if k.rec.Job.Started.IsZero() {
		return
	}
	k.awaitWord(ctx)
	if k.rec.Job.Conclusion == "" {
		job, found, err := k.pool.GitHub.Job(ctx, k.name, k.rec.Created)
		if err != nil {
			k.a.log.Info("cannot look up the job of a runner", "runner", k.name, "err", err)
		}
		if err != nil || !found {
			return
		}
		k.noteJob(ctx, func(j *runner.Job) { j.Learn(job) })
	}
	if hold := k.pool.Spec.HoldAfterFailure; hold > 0 && k.rec.Job.Conclusion == "failure" && k.rec.State == runner.Leaving {
		k.setHold(time.Now().Add(hold))
	}
}

// awaitWord waits a moment for the listener, if there is one, to say how the job
// ended: that costs no call.
func (k *keeper) awaitWord(ctx context.Context) {
	if _, ok := k.pool.Demand.(Listener); !ok {
		return
	}
	timer := time.NewTimer(wordTime)
	defer timer.Stop()
	for k.rec.Job.Conclusion == "" {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
			return
		case <-k.changed:
			k.learn(ctx)
		}
	}
}

// hold keeps the guest for a person until its time is over or it is released.
func (k *keeper) hold(ctx context.Context) (runner.State, string, error) {
	cause := k.rec.Reason
	for {
		wait := time.Until(k.holdUntil())
		if wait <= 0 && !k.release() {
			return runner.Stopping, "held long enough", nil
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return runner.Stopping, fmt.Sprintf("%s; held no longer: %v", cause, context.Cause(ctx)), nil
		case <-k.changed:
		case <-timer.C:
		}
		timer.Stop()
	}
}

func (k *keeper) holdUntil() time.Time {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.rec.HoldUntil
}

// setHold says until when the guest is held. It reports false, and changes
// nothing, where it is too late for that.
func (k *keeper) setHold(until time.Time) bool {
	k.mu.Lock()
	s := k.rec.State
	late := s == runner.Stopping || s == runner.Deleting || s == runner.Lingering || s == runner.Gone || k.released
	if !late || until.IsZero() {
		k.rec.HoldUntil = until
	}
	k.mu.Unlock()
	k.nudge()
	return !late || until.IsZero()
}

// release decides whether the guest is held: from then on a hold comes too late.
func (k *keeper) release() (held bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	held = k.died == "" && time.Now().Before(k.rec.HoldUntil)
	k.released = !held
	return held
}

// writeHold writes a hold down, from any goroutine: the record as it is, and
// never one that is not written yet or no more.
func (k *keeper) writeHold() error {
	k.writing.Lock()
	defer k.writing.Unlock()
	rec := k.record()
	if rec.State == "" || rec.State == runner.Gone {
		return nil
	}
	return k.a.opt.Journal.Put(rec)
}

// powerOff cuts the guest's power, so that its slot is free. It asks nobody
// in the guest: the disk is thrown away.
func (k *keeper) powerOff(ctx context.Context) (runner.State, string, error) {
	cause := k.rec.Reason
	k.follower.stop()
	k.hangUp()
	k.keepConsole(ctx)
	off := k.pool.Driver.Destroy
	if d, ok := k.pool.Driver.(vm.PowerOffer); ok {
		off = d.PowerOff
	}
	if err := k.insist(ctx, "cannot shut the guest down", off); err != nil {
		return "", "", err
	}
	return runner.Deleting, cause, nil
}

// remove deletes what is left of the guest.
func (k *keeper) remove(ctx context.Context) (runner.State, string, error) {
	cause := k.rec.Reason
	k.keepConsole(ctx) // with what it wrote as its power went
	if err := k.insist(ctx, "cannot delete the guest's disk", k.pool.Driver.Destroy); err != nil {
		return "", "", err
	}
	if err := k.a.removeKeys(k.name); err != nil {
		k.a.log.Warn("cannot delete a login key", "runner", k.name, "err", err)
	}
	k.lookUpJob()
	if k.rec.Asked && !k.rec.Left {
		return runner.Lingering, cause, nil
	}
	return runner.Gone, cause, nil
}

// linger tries to take the registration away until GitHub has done so.
func (k *keeper) linger(ctx context.Context) (runner.State, string, error) {
	cause, ends := k.rec.Reason, k.a.ending
	for n := 1; ; n++ {
		asked := time.Now()
		err := k.unregister(ctx)
		if err == nil {
			return runner.Gone, cause, nil
		}
		k.explain(fmt.Sprintf("cannot take the registration away: %v", err))
		if time.Since(k.rec.Since) > lingerMost {
			return runner.Gone, "GitHub forgets it by itself", nil
		}
		k.mu.Lock()
		k.tried = asked
		k.mu.Unlock()
		k.a.poke()
		pause := lingerPace.Delay(n, nil)
		if errors.Is(err, errUnsure) {
			pause = time.Until(k.mayRegisterUntil().Add(k.a.opt.LostReply)) // then it is sure
		}
		again := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			again.Stop()
			return "", "", context.Cause(ctx)
		case <-ends: // the agent's end has begun: one last try
			ends = nil
		case <-again.C:
		}
		again.Stop()
	}
}

// insist repeats a call to the driver until it succeeds, each try with a
// deadline of its own. It never gives up, and says why it is still at it.
func (k *keeper) insist(ctx context.Context, what string, call func(context.Context, string) error) error {
	for n := 1; ; n++ {
		try, cancel := context.WithTimeoutCause(ctx, callTimeout, fmt.Errorf("no answer within %v", callTimeout))
		err := call(try, k.name)
		err = explained(err, context.Cause(try))
		cancel()
		if err == nil {
			return nil
		}
		k.explain(fmt.Sprintf("%s: %v", what, err))
		k.a.log.Warn(what, "runner", k.name, "err", err)
		if err := backoff.Sleep(ctx, retryPace.Delay(n, nil)); err != nil {
			return err
		}
	}
}

// explain changes the reason that people see, without a transition.
func (k *keeper) explain(reason string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.rec.Reason = reason
}

// restartLog begins a new log for a new program in the same guest; the old
// one stays beside it.
func restartLog(path string) error {
	if err := os.Rename(path, path+".1"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot put the runner's log aside: %w", err)
	}
	return nil
}
