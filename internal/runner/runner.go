// Package runner is the life of one runner: its states, the allowed
// transitions, the deadlines, and the record of it that we keep.
//
// A runner is one registration at GitHub that executes at most one job, in one
// guest that carries the same name. Its life is a walk through States, which
// are the ten steps of the run loop seen from the agent; a Record is what we
// wrote down of it, so that a restart knows what we meant.
package runner

import (
	"cmp"
	"errors"
	"slices"
	"time"

	"github.com/mirego/tasuki/internal/base/secret"
)

// Sentinels of the GitHub side.
var (
	// ErrBusy: GitHub says that the runner executes a job and must stay (422).
	ErrBusy = errors.New("the runner executes a job")
	// ErrExists: a runner of this name is registered already (409).
	ErrExists = errors.New("a runner of this name is registered already")
	// ErrDenied: GitHub refuses our credential or its rights (401, 403, 404 on
	// a scope). Trying again at once is useless.
	ErrDenied = errors.New("GitHub refuses us")
)

// Registration is what we ask GitHub for.
type Registration struct {
	Name       string
	Group      string // runner group by name; empty: the default one
	Labels     []string
	WorkFolder string // empty: "_work"
	Way        Way
}

// Way is how a runner gets its registration.
type Way string

// The ways. The empty one is ByEither.
const (
	ByEither Way = "auto"  // ByJIT, or ByToken where GitHub has no such thing
	ByJIT    Way = "jit"   // GitHub registers it and gives a just-in-time configuration
	ByToken  Way = "token" // its program registers it with a registration token
)

// Credential lets one runner program register and take one job.
type Credential struct {
	ID int64 // of the runner at GitHub; 0 where only registering makes one
	// Env is what the runner program gets in its environment.
	Env map[string]secret.String
	// Setup, if not nil, is what the program registers itself with first.
	Setup *Setup
}

// IsZero says whether there is no credential.
func (c Credential) IsZero() bool { return c.Env == nil && c.Setup == nil }

// Setup is what a runner program registers itself with.
type Setup struct {
	URL        string // of the repository, organisation or enterprise
	Token      secret.String
	Name       string
	Labels     []string // all of them
	Group      string   // by name; empty: the default one
	WorkFolder string   // empty: "_work"
}

// Remote is a runner as GitHub lists it.
type Remote struct {
	ID      int64
	Name    string
	Online  bool
	Busy    bool
	Labels  []string
	Version string // of the runner program; empty until it first connected
}

// Job is what we know of the job that a runner took.
type Job struct {
	ID         int64     `json:"id,omitempty"`
	Name       string    `json:"name,omitempty"`
	Repository string    `json:"repository,omitempty"` // "owner/name"
	Workflow   string    `json:"workflow,omitempty"`
	RunID      int64     `json:"run_id,omitempty"`
	URL        string    `json:"url,omitempty"`
	Conclusion string    `json:"conclusion,omitempty"` // GitHub's word; empty while unknown
	Queued     time.Time `json:"queued,omitzero"`
	Started    time.Time `json:"started,omitzero"`
	Completed  time.Time `json:"completed,omitzero"`
}

// Learn takes over what another source says of the job; what it does not say
// stays.
func (j *Job) Learn(from Job) {
	*j = Job{
		ID: cmp.Or(from.ID, j.ID), Name: cmp.Or(from.Name, j.Name), Repository: cmp.Or(from.Repository, j.Repository),
		Workflow: cmp.Or(from.Workflow, j.Workflow), RunID: cmp.Or(from.RunID, j.RunID), URL: cmp.Or(from.URL, j.URL),
		Conclusion: cmp.Or(from.Conclusion, j.Conclusion),
		Queued:     cmp.Or(from.Queued, j.Queued), Started: cmp.Or(from.Started, j.Started), Completed: cmp.Or(from.Completed, j.Completed),
	}
}

// Record is what we wrote down about one runner.
type Record struct {
	Name    string    `json:"name"` // of the runner and of its guest
	Pool    string    `json:"pool"`
	Scope   string    `json:"scope"`  // where it registers
	Driver  string    `json:"driver"` // what runs its guest
	State   State     `json:"state"`
	Since   time.Time `json:"since"`            // when it entered State
	Reason  string    `json:"reason,omitempty"` // why it is there, for a person
	Created time.Time `json:"created"`
	// RemoteID is the runner's id at GitHub; 0: not known, find it by name.
	RemoteID int64 `json:"remote_id,omitempty"`
	// Asked says that a credential was asked for, so that GitHub may know the
	// name although we do not know the id.
	Asked bool `json:"asked,omitempty"`
	// ByToken says that the runner program registers by itself: GitHub may know
	// it as long as the guest runs, whatever it said before.
	ByToken bool `json:"by_token,omitempty"`
	// Left says that GitHub knows the runner no more.
	Left bool `json:"left,omitempty"`
	// Up says that a channel into the guest was open once.
	Up bool `json:"up,omitempty"`
	// Way is how the guest was reached, and why it is believed to be ours.
	Way string `json:"way,omitempty"`
	// User is who we are in the guest, HostKey the key that its SSH server shows:
	// what the image does not say was found out there.
	User    string `json:"user,omitempty"`
	HostKey string `json:"host_key,omitempty"`
	Image   string `json:"image,omitempty"` // digest
	// ImageLabels are the image's: an agent that adopts the runner needs them
	// to get into the guest.
	ImageLabels map[string]string `json:"image_labels,omitempty"`
	// RunnerVersion is that of the program in the guest, where it is not the one
	// that ImageLabels say.
	RunnerVersion string `json:"runner_version,omitempty"`
	Config        string `json:"config,omitempty"` // fingerprint of the pool's settings that it was made from
	// Tries counts registrations in this same guest beyond the first.
	Tries     int       `json:"tries,omitempty"`
	Job       Job       `json:"job,omitzero"`
	HoldUntil time.Time `json:"hold_until,omitzero"`
	// Failed says that the runner did not end as it should; Failure why.
	Failed  bool   `json:"failed,omitempty"`
	Failure string `json:"failure,omitempty"`
	// Steps are the visited states with their times, oldest first.
	Steps []Visit `json:"steps,omitempty"`
}

// Visit is one stay in a state.
type Visit struct {
	State State     `json:"state"`
	Start time.Time `json:"start"`
	End   time.Time `json:"end,omitzero"` // zero while it lasts
}

// Move enters a state at a time and keeps the visits. It reports false, and
// changes nothing, if the table does not allow the transition.
func (r *Record) Move(to State, reason string, now time.Time) bool {
	if !r.State.CanBecome(to) {
		return false
	}
	if n := len(r.Steps); n > 0 && r.Steps[n-1].End.IsZero() {
		r.Steps[n-1].End = now
	}
	r.State, r.Since, r.Reason = to, now, reason
	r.Steps = append(r.Steps, Visit{State: to, Start: now})
	return true
}

// Took returns how long the runner stayed in the states of one step, the
// unfinished visit counted up to now.
func (r *Record) Took(step int, now time.Time) time.Duration {
	var sum time.Duration
	for _, v := range r.Steps {
		if v.State.Step() != step {
			continue
		}
		end := v.End
		if end.IsZero() {
			end = now
		}
		sum += end.Sub(v.Start)
	}
	return sum
}

// Came returns the state that the runner was in before its present one; empty
// for the first.
func (r *Record) Came() State {
	if n := len(r.Steps); n > 1 {
		return r.Steps[n-2].State
	}
	return ""
}

// Last returns when the runner was in a state last: the end of its last visit,
// or its start if it lasts; zero if it never was there.
func (r *Record) Last(state State) time.Time {
	for _, v := range slices.Backward(r.Steps) {
		if v.State == state {
			if v.End.IsZero() {
				return v.Start
			}
			return v.End
		}
	}
	return time.Time{}
}
