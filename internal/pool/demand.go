package pool

import (
	"fmt"
	"time"
)

// Demand is what is asked of a pool now.
type Demand struct {
	// Jobs are those that GitHub gave to the pool and that no runner has taken
	// yet: since when each of them waits, the oldest first. GitHub takes such a
	// job back after about five minutes.
	Jobs []time.Time
	// Warm is how many runners wait beyond those for Jobs, work or no work.
	Warm int
	// Headroom is how many more wait where slots would be unused else. They give
	// way to whoever needs the slot.
	Headroom int
	// Why says for a person where the numbers come from: "standby: 2".
	Why string
}

// Runners is how many runners shall wait for a job or be on their way,
// Headroom not counted.
func (d Demand) Runners() int { return len(d.Jobs) + d.Warm }

func (d Demand) why() string {
	if d.Why != "" {
		return d.Why
	}
	return fmt.Sprintf("jobs: %d, warm: %d", len(d.Jobs), d.Warm)
}
