package emulator

import (
	"fmt"

	"github.com/mirego/tasuki/internal/emulator/workflow"
)

// ForceCancel cancels a run and concludes its running jobs at once, whatever their runners do: those that
// execute one are gone then. A run that is completed is no error.
func (e *Emulator) ForceCancel(runID int64) error {
	const why = "the run was cancelled by force"
	e.mu.Lock()
	defer e.mu.Unlock()
	r := e.runByID(runID)
	if r == nil {
		return fmt.Errorf("cannot cancel run %d: no such run", runID)
	}
	if !r.completed.IsZero() {
		return nil
	}
	for _, def := range r.wf.Cancel() {
		e.cancelJob(e.jobs[def.ID], why)
	}
	for _, j := range r.jobs {
		if j.phase == running {
			e.conclude(j, workflow.Cancelled, why, nil)
		}
	}
	e.advance(r)
	return nil
}
