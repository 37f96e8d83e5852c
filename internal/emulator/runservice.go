package emulator

import (
	"net/http"
	"strings"
	"time"

	"github.com/mirego/tasuki/internal/emulator/workflow"
)

const runSource = "actions-run-service"

// postAcquire hands an offered job to its runner: from here on it runs. Asking again gives the same job,
// since the first reply may have been lost.
func (e *Emulator) postAcquire(w http.ResponseWriter, r *http.Request, found *runner) {
	var in struct {
		Message string `json:"jobMessageId"`
		OS      string `json:"runnerOS"`
	}
	if !readJSON(w, r, &in) {
		return
	}
	base := e.baseFor(r)
	e.mu.Lock()
	defer e.mu.Unlock()
	j := found.job
	if j == nil || j.requestGUID != in.Message {
		serviceError(w, http.StatusNotFound, runSource, "JobNotFound", "the job assignment is invalid: it is not this runner's any more")
		return
	}
	m, err := e.jobMessage(j, base)
	if err != nil {
		e.conclude(j, workflow.Failure, err.Error(), nil)
		serviceError(w, http.StatusUnprocessableEntity, runSource, "JobUnprocessable", err.Error())
		return
	}
	if j.phase == offered {
		now := time.Now()
		j.phase, j.acknowledged, j.startedAt, j.lockedUntil = running, true, now, now.Add(e.opts.LockDuration)
		if os := osName(in.OS); os != "" {
			found.os = os
		}
		e.log.Info("job started", "job", j.def.Name, "runner", found.name)
		if s := j.claim.set; s != nil {
			e.tell(s, jobStarted, j)
		}
		e.changed()
	}
	writeJSON(w, http.StatusOK, m)
}

// identified are the ids that renewals and completions repeat beside the token.
type identified struct {
	Plan string `json:"planId"`
	Job  string `json:"jobId"`
}

func (i identified) mean(j *job) bool {
	return (i.Plan == "" || i.Plan == j.run.planID) && (i.Job == "" || i.Job == j.def.ID)
}

func (e *Emulator) postRenew(w http.ResponseWriter, r *http.Request, j *job) {
	var in identified
	if !readJSON(w, r, &in) {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if j.phase != running || !in.mean(j) {
		serviceError(w, http.StatusNotFound, runSource, "JobNotFound", "the job is not running")
		return
	}
	j.lockedUntil = time.Now().Add(e.opts.LockDuration)
	if s := j.runner.session; s != nil {
		s.lastSeen = time.Now()
	}
	e.setAlarm()
	writeJSON(w, http.StatusOK, map[string]string{"lockedUntil": j.lockedUntil.UTC().Format(time.RFC3339Nano)})
}

// postComplete takes the conclusion of a job. A second one for the same job is answered alike and ignored.
func (e *Emulator) postComplete(w http.ResponseWriter, r *http.Request, j *job) {
	var in struct {
		identified
		Conclusion  string `json:"conclusion"`
		Outputs     map[string]struct{ Value string }
		StepResults []struct {
			stepUpdate
			Status     string `json:"status"`
			Conclusion string `json:"conclusion"`
		} `json:"stepResults"`
		Annotations []struct {
			Level   any    `json:"level"`
			Message string `json:"message"`
		} `json:"annotations"`
	}
	if !readJSON(w, r, &in) {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if j.reported && in.mean(j) {
		w.WriteHeader(http.StatusOK)
		return
	}
	if j.phase != running || !in.mean(j) {
		serviceError(w, http.StatusNotFound, runSource, "JobNotFound", "the job is not running")
		return
	}
	for _, s := range in.StepResults {
		s.stepUpdate.completed = true
		s.stepUpdate.words = completion(s.Conclusion)
		if s.Conclusion == "" {
			continue
		}
		j.update(s.stepUpdate)
	}
	for _, a := range in.Annotations {
		j.annotations = append(j.annotations, Annotation{annotationLevel(a.Level), a.Message})
	}
	outputs := map[string]string{}
	for k, v := range in.Outputs {
		outputs[k] = v.Value
	}
	conclusion, reason := completion(in.Conclusion), ""
	if conclusion == workflow.Failure {
		j.blame()
	}
	if conclusion == workflow.Cancelled {
		reason = j.cancelWhy
	}
	j.reported = true
	e.conclude(j, conclusion, reason, outputs)
	w.WriteHeader(http.StatusOK)
}

// blame marks the step that made a job fail where its runner named none: github-act-runner v0.13.0 reports
// the last step that ran as succeeded, and only its log tells. The lock is held.
func (j *job) blame() {
	var last *step
	for _, s := range j.steps {
		if s.conclusion == workflow.Failure {
			return
		}
		if s.conclusion == workflow.Success {
			last = s
		}
	}
	if last != nil && strings.Contains(last.log.String(), "##[error]") {
		last.conclusion = workflow.Failure
	}
}

// annotationLevel reads a level, a word or the number of the enumeration.
func annotationLevel(v any) string {
	names := []string{"unknown", "notice", "warning", "failure"}
	switch l := v.(type) {
	case string:
		return l
	case float64:
		if i := int(l); i >= 0 && i < len(names) {
			return names[i]
		}
	}
	return names[0]
}
