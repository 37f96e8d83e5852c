package api

import (
	"time"

	"github.com/mirego/tasuki/internal/runner"
)

// RunQuery says which runs are meant, in the query of GET /v1/runs and
// GET /v1/stats. The zero value means all.
type RunQuery struct {
	Runner     string // the one of that name
	Pool       string
	Conclusion string    // of the job
	Repository string    // "owner/name" of the job
	Failed     bool      // only those whose runner or job failed
	Jobs       bool      // only those that executed a job
	Since      time.Time // those that ended since then, or have not ended
	Until      time.Time // those that began before; zero: now
	Limit      int       // runs at most, the latest; 0: 100. Not for statistics
}

// Run is one runner of the past or the present, with the job that it executed.
type Run struct {
	Runner  string    `json:"runner"`
	Host    string    `json:"host"`
	Pool    string    `json:"pool"`
	Scope   string    `json:"scope"`
	Image   string    `json:"image,omitempty"` // digest
	Slot    int       `json:"slot"`            // from 0; -1: not known
	Created time.Time `json:"created"`
	Ended   time.Time `json:"ended,omitzero"` // zero: it has not
	// State is where it is, or was seen last.
	State   runner.State `json:"state"`
	Failed  bool         `json:"failed,omitempty"`
	Failure string       `json:"failure,omitempty"`
	Job     runner.Job   `json:"job,omitzero"`
	// Idle, Busy and Done are when it listened, began a job and was done with it.
	Idle time.Time `json:"idle,omitzero"`
	Busy time.Time `json:"busy,omitzero"`
	Done time.Time `json:"done,omitzero"`
	// Turnaround is from the end of the job before in its slot to its listening,
	// in seconds; 0: there was none.
	Turnaround float64        `json:"turnaround,omitempty"`
	Steps      []runner.Visit `json:"steps,omitempty"`
}

// RunStats is the answer of GET /v1/stats.
type RunStats struct {
	Since  time.Time `json:"since"`
	Until  time.Time `json:"until"`
	Runs   int       `json:"runs"`   // that ended
	Jobs   int       `json:"jobs"`   // that ended
	Failed int       `json:"failed"` // runners that did not end as they should
	// Queue is from queued to started, where GitHub told it.
	Queue      Spread `json:"queue"`
	Turnaround Spread `json:"turnaround"`
	Job        Spread `json:"job"`
	// Busy is the time of all slots with jobs, in seconds. Divided by the slots
	// and the time between Since and Until it is the host's utilisation.
	Busy        float64        `json:"busy"`
	Conclusions map[string]int `json:"conclusions"`
	// Failures counts the runners that failed by the state in which they did, and
	// why; the most frequent first.
	Failures []Failure `json:"failures"`
}

// Spread is how durations are spread, in seconds.
type Spread struct {
	Count int     `json:"count"`
	P50   float64 `json:"p50"`
	P90   float64 `json:"p90"`
	P95   float64 `json:"p95"`
	P99   float64 `json:"p99"`
	Max   float64 `json:"max"`
}

// Failure is a reason for which runners failed.
type Failure struct {
	Reason string `json:"reason"`
	Count  int    `json:"count"`
}
