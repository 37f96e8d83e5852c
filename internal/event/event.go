// Package event is what happened: one typed event per transition.
//
// Events are the one record of a host. The log file, the history, the metrics
// and every live view are readers of them. An event is a value, carries no
// secret, and survives JSON; its time is in UTC.
package event

import (
	"sync"
	"time"

	"github.com/mirego/tasuki/internal/runner"
	"github.com/mirego/tasuki/internal/wait"
)

// Kind says what an event is about.
type Kind string

// The kinds of events.
const (
	RunnerMoved Kind = "runner.moved" // a runner entered a state
	RunnerJob   Kind = "runner.job"   // more is known of a runner's job
	// RunnerDeprecated: GitHub gives no jobs to the version of a runner's program.
	RunnerDeprecated Kind = "runner.deprecated"
	PoolWaits        Kind = "pool.waits"     // a pool wants a runner and must wait; Reason says for what
	PoolReady        Kind = "pool.ready"     // and no longer
	ImagePulling     Kind = "image.pulling"  // an image is on its way; Done and Total count its bytes
	ImageReady       Kind = "image.ready"    // a pool's image is on the host
	ImageFailed      Kind = "image.failed"   // and could not be brought
	ImageTried       Kind = "image.tried"    // the first runner is made from a newer image
	ImageProven      Kind = "image.proven"   // and works: the others follow
	ImageRejected    Kind = "image.rejected" // and failed, again: the pool stays on the one before
	ImagePruned      Kind = "image.pruned"   // an image that nobody needs was removed; Done is what it took
	OrphanRemoved    Kind = "orphan.removed" // something of ours that nobody needed was taken away
	HostStarted      Kind = "host.started"
	HostDraining     Kind = "host.draining"
	HostResumed      Kind = "host.resumed"
	HostReloaded     Kind = "host.reloaded" // a changed configuration was taken over
	HostStopped      Kind = "host.stopped"
	SlotsLeaked      Kind = "slots.leaked"   // the hypervisor counts guests that are no more; Total says how many
	SlotsBack        Kind = "slots.back"     // and no longer
	HostRebooting    Kind = "host.rebooting" // the agent told its host to reboot
)

// Event is one thing that happened.
type Event struct {
	Time   time.Time    `json:"time"`
	Kind   Kind         `json:"kind"`
	Host   string       `json:"host,omitempty"`
	Pool   string       `json:"pool,omitempty"`
	Runner string       `json:"runner,omitempty"`
	From   runner.State `json:"from,omitempty"`
	To     runner.State `json:"to,omitempty"`
	// Took is how long the runner was in From, in seconds.
	Took   float64    `json:"took,omitempty"`
	Reason string     `json:"reason,omitempty"`
	Code   wait.Code  `json:"code,omitempty"`   // of a pool.waits: the kind of its Reason
	Failed bool       `json:"failed,omitempty"` // something did not go as it should
	Job    runner.Job `json:"job,omitzero"`
	Image  string     `json:"image,omitempty"`
	Done   int64      `json:"done,omitempty"`  // bytes
	Total  int64      `json:"total,omitempty"` // bytes
	// Reused is how much of Done did not travel, in bytes.
	Reused int64 `json:"reused,omitempty"`
	// Record is the whole runner as it is after the event, for readers in this
	// process.
	Record *runner.Record `json:"-"`
}

// Sink takes events. Emit does not block and may be called at the same time.
type Sink interface {
	Emit(Event)
}

// Discard is a Sink for those who do not care.
var Discard Sink = discard{}

type discard struct{}

func (discard) Emit(Event) {}

// Bus hands each event to its sinks in order, and to subscribers. The zero
// value is ready. Add sinks before the first Emit.
type Bus struct {
	Sinks []Sink

	mu   sync.Mutex
	subs map[chan Event]struct{}
}

// Emit implements Sink. The sinks are called one event at a time, in the order
// of the events.
func (b *Bus) Emit(e Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, s := range b.Sinks {
		s.Emit(e)
	}
	for ch := range b.subs {
		select {
		case ch <- e:
		default: // a reader that does not keep up is cut off: it reads the file
			delete(b.subs, ch)
			close(ch)
		}
	}
}

// Subscribe returns the events from now on, and a function that ends them. The
// channel holds some hundred events; it is closed when its reader falls behind.
func (b *Bus) Subscribe() (<-chan Event, func()) {
	ch := make(chan Event, 512)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.subs == nil {
		b.subs = map[chan Event]struct{}{}
	}
	b.subs[ch] = struct{}{}
	return ch, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		if _, there := b.subs[ch]; there {
			delete(b.subs, ch)
			close(ch)
		}
	}
}
