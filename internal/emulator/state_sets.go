package emulator

import (
	"slices"
	"time"
)

// ScaleSetState is one runner scale set.
type ScaleSetState struct {
	ID         int64         `json:"id"`
	Name       string        `json:"name"`
	Scope      string        `json:"scope"`
	Group      string        `json:"group"`
	Labels     []string      `json:"labels"`
	Owner      string        `json:"owner,omitempty"`    // of its session
	Listening  bool          `json:"listening"`          // the session is in use
	Capacity   *int          `json:"capacity,omitempty"` // announced in this session
	Statistics SetStatistics `json:"statistics"`         // what is true, not what a fault makes of it
	Unread     int           `json:"unread"`             // messages that were not acknowledged
	Jobs       []SetJobState `json:"jobs"`               // that it holds, oldest first
	Created    time.Time     `json:"created"`
}

// SetJobState is a job that a scale set holds.
type SetJobState struct {
	ID       int64     `json:"id"`
	JobID    string    `json:"job_id"` // its name in the set's messages
	RunID    int64     `json:"run_id"`
	Name     string    `json:"name"`
	Status   string    `json:"status"`
	Assigned time.Time `json:"assigned"`
	Runner   string    `json:"runner,omitempty"`
}

// scaleSetStates lists all sets by id. The lock is held.
func (e *Emulator) scaleSetStates() []ScaleSetState {
	out := []ScaleSetState{}
	now := time.Now()
	for _, s := range e.setsIn(func(scope) bool { return true }) {
		state := ScaleSetState{
			ID: s.id, Name: s.name, Scope: s.scope.path(), Group: s.group.name, Labels: []string{},
			Listening: s.live(now, e.opts.ScaleSets.SessionTimeout), Statistics: e.statistics(s),
			Unread: len(s.sent), Jobs: []SetJobState{}, Created: s.created,
		}
		for _, l := range s.labels {
			state.Labels = append(state.Labels, l.name)
		}
		if s.session != nil {
			state.Owner = s.session.owner
		}
		if n := s.capacity; s.announced {
			state.Capacity = &n
		}
		var jobs []*job
		for j := range s.jobs {
			jobs = append(jobs, j)
		}
		slices.SortFunc(jobs, byAge)
		for _, j := range jobs {
			held := SetJobState{
				ID: j.id, JobID: j.claim.jobID, RunID: j.run.id, Name: j.def.Name, Status: j.status(), Assigned: j.claim.assignedAt,
			}
			if j.runner != nil {
				held.Runner = j.runner.name
			}
			state.Jobs = append(state.Jobs, held)
		}
		out = append(out, state)
	}
	return out
}
