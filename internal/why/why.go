// Package why says why a job or a pool waits.
//
// Facts are what was seen: at GitHub of the job, on this host of its pools and
// runners. An Answer is what follows: one reason with a code for programs, a
// line for people, what else they may want to know, and what to do about it. The
// functions are pure: whoever asks brings the facts, and says what could not be
// seen.
//
// A job is looked at in the order in which it is held up: it may be over, or
// wait for people; no pool may have its labels, register where it is, or be
// admitted by a runner group; and the pools that could take it may themselves
// wait.
package why

import (
	"time"

	"github.com/mirego/tasuki/internal/api"
	"github.com/mirego/tasuki/internal/runner"
	"github.com/mirego/tasuki/internal/wait"
)

// Reason is why something waits, for programs. Codes are added, never changed.
type Reason string

// Reasons of jobs.
const (
	Ended      Reason = "ended"       // the job is over
	RunEnded   Reason = "run-ended"   // it is queued, and its run is over
	Running    Reason = "running"     // a runner executes it
	Approval   Reason = "approval"    // it waits for people, or for another run
	Hosted     Reason = "hosted"      // it asks for GitHub's own runners
	Labels     Reason = "labels"      // no pool has all its labels
	Scope      Reason = "scope"       // the pools that have register elsewhere
	Group      Reason = "group"       // their runner groups do not admit its repository
	NotOffered Reason = "not-offered" // runners wait for it, and GitHub has not given it to one
)

// Reasons of pools, and of jobs that wait for one.
const (
	Ready      Reason = "ready"                 // the pool has all the runners it wants
	Starting   Reason = "starting"              // a runner is on its way
	NoSlot            = Reason(wait.NoSlot)     // all slots of the host are taken
	Most              = Reason(wait.Most)       // the pool has as many runners as it may
	Yielded           = Reason(wait.Yielded)    // it gave its slot to a job of another pool
	NoImage           = Reason(wait.NoImage)    // its image is not on the host
	Pulling           = Reason(wait.Pulling)    // and is on its way
	Draining   Reason = "draining"              // the pool or the host takes no new runners
	NoCapacity Reason = "no-capacity"           // the pool wants no runner, or the host has no slot
	SetHeld           = Reason(wait.SetHeld)    // another host listens to its scale set
	Limited           = Reason(wait.Limited)    // GitHub wants to be left alone
	Denied            = Reason(wait.Denied)     // GitHub refuses our credential
	Deprecated        = Reason(wait.Deprecated) // GitHub gives no jobs to this version of the runner
	Failing           = Reason(wait.Failing)    // its runners fail before they have a job
	NoAgent    Reason = "no-agent"              // nobody keeps runners on this host
	Waiting           = Reason(wait.Other)      // for something that has no code here
)

// Job is a job as GitHub tells it.
type Job struct {
	ID         int64
	RunID      int64
	Name       string
	Repository string // "owner/name"
	URL        string
	Status     string // queued, in_progress, completed, waiting, requested, pending
	Conclusion string
	Labels     []string // of its runs-on
	Runner     string   // that has taken it
	Created    time.Time
	Started    time.Time
	Completed  time.Time
}

// Run is a run of a workflow; the zero Run was not looked at.
type Run struct {
	ID         int64
	Status     string // as a job's
	Conclusion string
}

// Pool is a pool of this host.
type Pool struct {
	Name   string
	Scope  string   // "owner/repository", "organisation" or "enterprises/name"
	Group  string   // runner group; empty: the default one
	Labels []string // that its runners have
	// Refused says why its runner group does not admit the job's repository;
	// empty: it does, or that could not be seen.
	Refused string
	Page    string // where the group is changed
}

// Pull is how far an image is on its way.
type Pull struct {
	Done, Total int64 // bytes
	At          time.Time
}

// Host is what is known of this host.
type Host struct {
	// Status is what its agent says; nil: there is none, and Absent says why.
	Status *api.Status
	Absent string
	Pulls  map[string]Pull // the newest, by pool
}

// Facts are what is known of a job that somebody asks for.
type Facts struct {
	Now   time.Time
	Job   Job
	Run   Run
	Pools []Pool // in the configuration's order
	Host  Host
	// Others are runners that GitHub lists in the job's reach and that are not
	// of this host.
	Others []runner.Remote
	// Unseen is what could not be looked at, each with its cause.
	Unseen []string
}

// Answer is why something waits.
type Answer struct {
	Subject string   `json:"subject"` // the job or pool
	Reason  Reason   `json:"reason"`
	Text    string   `json:"text"`              // one line
	Details []string `json:"details,omitempty"` // a line each
	Mend    string   `json:"mend,omitempty"`    // what to do about it
	Page    string   `json:"page,omitempty"`    // where
	// Waits says whether something waits at all.
	Waits bool `json:"waits"`
}
