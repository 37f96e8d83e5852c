package emulator

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/mirego/tasuki/internal/emulator/workflow"
)

// message is one thing that the broker tells a runner.
type message struct {
	ID   int64  `json:"messageId"`
	Type string `json:"messageType"`
	Body string `json:"body"` // JSON as text
}

// resendCancel is after how long a runner that polls on is told again that its job is cancelled.
const resendCancel = time.Minute

func (e *Emulator) postSession(w http.ResponseWriter, r *http.Request, found *runner) {
	var in struct {
		OwnerName string `json:"ownerName"`
		Agent     struct {
			Version string `json:"version"`
			OS      string `json:"osDescription"`
		} `json:"agent"`
	}
	if !readJSON(w, r, &in) {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if found.gone != registered {
		serviceError(w, http.StatusNotFound, brokerSource, "RunnerNotFound",
			"TaskAgentNotFoundException: the runner's registration was not found")
		return
	}
	if e.tooOld(w, in.Agent.Version) {
		return
	}
	if s := found.session; s != nil && s.polls > 0 {
		serviceError(w, http.StatusConflict, brokerSource, "TaskAgentSessionConflict",
			fmt.Sprintf("TaskAgentSessionConflictException: the runner %s already has an active session", found.name))
		return
	}
	found.session = &session{id: newGUID(), runner: found, lastSeen: time.Now()}
	if found.os == "" {
		found.os = osName(in.Agent.OS)
	}
	if found.version == "" {
		found.version = in.Agent.Version
	}
	e.log.Info("runner connected", "runner", found.name)
	e.changed()
	writeJSON(w, http.StatusOK, map[string]any{
		"sessionId": found.session.id, "ownerName": in.OwnerName, "useFipsEncryption": false,
		"agent": map[string]any{"id": found.id, "name": found.name, "ephemeral": found.ephemeral},
	})
}

func osName(s string) string {
	switch s = strings.ToLower(s); {
	case strings.Contains(s, "darwin"), strings.Contains(s, "macos"), strings.Contains(s, "osx"):
		return "macOS"
	case strings.Contains(s, "windows"):
		return "Windows"
	case strings.Contains(s, "linux"):
		return "Linux"
	}
	return ""
}

// getMessage holds the poll until there is something to say.
func (e *Emulator) getMessage(w http.ResponseWriter, r *http.Request, found *runner) {
	if e.tooOld(w, r.FormValue("runnerVersion")) {
		return
	}
	s, turn := e.startPoll(r, found)
	if s == nil {
		serviceError(w, http.StatusNotFound, brokerSource, "RunnerSessionInvalid",
			"TaskAgentSessionExpiredException: the session is not the runner's")
		return
	}
	defer e.endPoll(s)
	busy := strings.EqualFold(r.FormValue("status"), "Busy")
	base := e.baseFor(r)
	var m *message
	expired, fatal := false, false
	e.await(r.Context(), e.opts.PollHold, func() bool {
		if r.Context().Err() != nil || s.turn != turn {
			return true
		}
		expired, fatal = found.session != s, found.gone == deleted
		if expired || fatal {
			return true
		}
		m = e.message(s, busy, base)
		return m != nil
	})
	switch {
	case fatal:
		serviceError(w, http.StatusNotFound, brokerSource, "RunnerNotFound",
			"TaskAgentNotFoundException: the runner's registration was not found")
	case expired:
		serviceError(w, http.StatusNotFound, brokerSource, "RunnerSessionInvalid",
			"TaskAgentSessionExpiredException: the session has expired")
	case m == nil:
		w.WriteHeader(http.StatusAccepted)
	default:
		writeJSON(w, http.StatusOK, m)
	}
}

func (e *Emulator) startPoll(r *http.Request, found *runner) (*session, int64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := found.session
	if s == nil || s.id != r.FormValue("sessionId") {
		return nil, 0
	}
	if v := r.FormValue("runnerVersion"); v != "" {
		found.version = v
	}
	if v := osName(r.FormValue("os")); v != "" {
		found.os = v
	}
	was := found.online(time.Now(), e.opts.OfflineAfter)
	s.polls++
	s.turn++
	if !was || s.polls > 1 { // an older poll of the session ends now
		e.changed()
	}
	return s, s.turn
}

func (e *Emulator) endPoll(s *session) {
	e.mu.Lock()
	defer e.mu.Unlock()
	s.polls--
	s.lastSeen = time.Now()
	e.setAlarm()
}

// message returns what the session is to be told now, or nil. An offer is repeated on each poll until it
// is acknowledged. A Busy poll is never offered a job: the runner would accept and lose it. The lock is held.
func (e *Emulator) message(s *session, busy bool, base string) *message {
	r := s.runner
	j := r.job
	switch {
	case j != nil && j.phase == running:
		if j.cancelAt.IsZero() || time.Since(j.cancelSent) < resendCancel {
			return nil
		}
		j.cancelSent = time.Now()
		return s.say("JobCancellation", map[string]string{"jobId": j.def.ID, "timeout": dotnetSpan(e.opts.CancelGrace)})
	case busy || r.gone != registered || j != nil && j.acknowledged:
		return nil
	case j == nil:
		if j = e.offer(r); j == nil {
			return nil
		}
	}
	return s.say("RunnerJobRequest", map[string]any{
		"id": j.requestGUID, "runner_request_id": j.requestGUID, "should_acknowledge": true,
		"run_service_url": base + "/run/", "billing_owner_id": "1",
	})
}

func (s *session) say(kind string, body any) *message {
	b, err := json.Marshal(body)
	if err != nil { // texts and booleans only
		panic(err)
	}
	s.messageID++
	return &message{s.messageID, kind, string(b)}
}

// dotnetSpan writes a duration as .NET does: 00:05:00.
func dotnetSpan(d time.Duration) string {
	n := int(d.Seconds())
	return fmt.Sprintf("%02d:%02d:%02d", n/3600, n/60%60, n%60)
}

func (e *Emulator) postAcknowledge(w http.ResponseWriter, r *http.Request, found *runner) {
	var in struct {
		Request string `json:"runnerRequestId"`
	}
	if !readJSON(w, r, &in) {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	j := found.job
	if j == nil || j.requestGUID != in.Request {
		serviceError(w, http.StatusNotFound, brokerSource, "AcknowledgeJobNotFound", "the job is not offered any more")
		return
	}
	j.acknowledged = true
	w.WriteHeader(http.StatusOK)
}

// deleteSession ends the session of the runner that asks.
func (e *Emulator) deleteSession(w http.ResponseWriter, _ *http.Request, found *runner) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.closeSession(found)
	w.WriteHeader(http.StatusNoContent)
}

// closeSession takes the runner offline; a job that it was only offered goes back. The lock is held.
func (e *Emulator) closeSession(r *runner) {
	if r.session == nil {
		return
	}
	r.session = nil
	if r.job != nil && r.job.phase == offered {
		e.requeue(r.job)
	}
	e.changed()
}

// completion maps the runner's words for a conclusion to those of the API; unknown ones are failures.
func completion(s string) string {
	switch strings.ToLower(s) {
	case "succeeded", "succeededwithissues", "success":
		return workflow.Success
	case "canceled", "cancelled":
		return workflow.Cancelled
	case "skipped":
		return workflow.Skipped
	}
	return workflow.Failure
}
