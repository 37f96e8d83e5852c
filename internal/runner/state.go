package runner

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// State is where a runner is in its life. The empty State is before the first.
type State string

// The states of a runner, in the order of a good life.
const (
	Preparing   State = "preparing"   // decided and written down; takes the pool's image
	Requesting  State = "requesting"  // asks GitHub for a credential
	Cloning     State = "cloning"     // clones the image's disk and starts the guest
	Connecting  State = "connecting"  // the guest boots; we open a channel into it
	Launching   State = "launching"   // puts files, runs the hook, launches the runner program
	Registering State = "registering" // the program runs; GitHub does not list it as online yet
	Idle        State = "idle"        // GitHub lists it as online; it waits for a job
	Busy        State = "busy"        // it executes a job
	Leaving     State = "leaving"     // the runner's registration goes from GitHub
	Held        State = "held"        // kept for a person to look at
	Stopping    State = "stopping"    // the guest's power is cut
	Deleting    State = "deleting"    // the guest's disk is deleted
	Lingering   State = "lingering"   // nothing is left here; GitHub still lists it
	Gone        State = "gone"        // nothing of it is left anywhere
)

// StateInfo is one row of the transition table.
type StateInfo struct {
	State State
	// Step is the step of the run loop that the state belongs to, 1 to 10.
	Step int
	// Next are the states that may follow.
	Next []State
	// Deadline is the default bound on a stay; 0: none of its own.
	Deadline time.Duration
	// Guest says that a guest may exist, which takes one of the host's slots.
	Guest bool
}

// table is the life of a runner. Everything that fails before the end goes to
// Leaving, since GitHub comes first; Leaving goes back to Busy when GitHub says
// that the runner is at work and must stay. Requesting follows later states
// where the credential is of no more use: it was lost with the agent that held
// it, or GitHub has forgotten the registration; the guest is kept.
var table = []StateInfo{
	{Preparing, 1, []State{Requesting, Leaving}, time.Minute, true},
	{Requesting, 2, []State{Cloning, Launching, Leaving}, 2 * time.Minute, true},
	{Cloning, 3, []State{Connecting, Leaving}, 2 * time.Minute, true},
	{Connecting, 4, []State{Launching, Requesting, Leaving}, 5 * time.Minute, true},
	{Launching, 5, []State{Registering, Requesting, Leaving}, 2 * time.Minute, true},
	{Registering, 5, []State{Idle, Busy, Requesting, Leaving}, 3 * time.Minute, true},
	{Idle, 6, []State{Busy, Requesting, Leaving}, 24 * time.Hour, true},
	{Busy, 6, []State{Leaving}, 6 * time.Hour, true},
	{Leaving, 7, []State{Busy, Held, Stopping}, time.Minute, true},
	{Held, 7, []State{Stopping}, 0, true},
	{Stopping, 8, []State{Deleting}, time.Minute, true},
	{Deleting, 9, []State{Lingering, Gone}, 5 * time.Minute, false},
	{Lingering, 7, []State{Gone}, 0, false},
	{Gone, 10, nil, 0, false},
}

// StepNames are the ten steps of the run loop, for people. The index is the
// step's number less one.
var StepNames = [10]string{
	"image", "credential", "guest", "channel", "runner",
	"job", "leave", "shutdown", "delete", "again",
}

// Table returns the life of a runner, in the order of a good one.
func Table() []StateInfo { return slices.Clone(table) }

func (s State) info() StateInfo {
	for _, row := range table {
		if row.State == s {
			return row
		}
	}
	return StateInfo{State: s}
}

// Known says whether s is a state of the table.
func (s State) Known() bool { return s.info().Step != 0 }

// Step returns the step of the run loop that s belongs to, 1 to 10.
func (s State) Step() int { return s.info().Step }

// Deadline returns the default bound on a stay in s; 0 means none of its own.
func (s State) Deadline() time.Duration { return s.info().Deadline }

// TakesSlot says whether a runner in s may hold one of the host's slots.
func (s State) TakesSlot() bool { return s.info().Guest }

// CanBecome says whether the table lets to follow s.
func (s State) CanBecome(to State) bool {
	if s == "" {
		return to == Preparing
	}
	return slices.Contains(s.info().Next, to)
}

// OnItsWay says whether a runner in s will wait for a job before long.
func (s State) OnItsWay() bool {
	return slices.Contains([]State{Preparing, Requesting, Cloning, Connecting, Launching, Registering}, s)
}

// Ending says whether a runner in s will never take a job again.
func (s State) Ending() bool {
	return slices.Contains([]State{Leaving, Held, Stopping, Deleting, Lingering, Gone}, s)
}

// Diagram returns the transition table as a Mermaid state diagram; the
// documentation shows it and a test compares the two.
func Diagram() string {
	var b strings.Builder
	b.WriteString("stateDiagram-v2\n    [*] --> " + string(table[0].State) + "\n")
	for _, row := range table {
		for _, next := range row.Next {
			fmt.Fprintf(&b, "    %s --> %s\n", row.State, next)
		}
		if len(row.Next) == 0 {
			fmt.Fprintf(&b, "    %s --> [*]\n", row.State)
		}
	}
	return b.String()
}
