// Package wait names what a pool waits for: a code for programs, with a sentence
// for people. Whoever finds the cause gives the code; nobody reads it out of
// the sentence.
package wait

// Code is why a pool has fewer runners than it wants, or hears of no jobs.
// Codes are public: they are added, never changed.
type Code string

// Codes.
const (
	NoSlot     Code = "no-slot"    // all slots of the host are taken
	Most       Code = "most"       // the pool has as many runners as it may
	Yielded    Code = "yielded"    // it gave its slot to a job of another pool
	NoImage    Code = "no-image"   // its image is not on the host
	Pulling    Code = "pulling"    // and is on its way
	SetHeld    Code = "set-held"   // another host listens to its scale set
	Limited    Code = "limited"    // GitHub wants to be left alone
	Denied     Code = "denied"     // GitHub refuses our credential
	Deprecated Code = "deprecated" // GitHub gives no jobs to this version of the runner
	Failing    Code = "failing"    // its runners fail before they have a job
	Other      Code = "waiting"    // for something that has no code here
)

// Reason is why a pool waits. The zero value: it does not.
type Reason struct {
	Code Code   `json:"code"`
	Text string `json:"text"` // one line
}

// None says that nothing is waited for.
func (r Reason) None() bool { return r == Reason{} }

func (r Reason) String() string { return r.Text }
