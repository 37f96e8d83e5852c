package emulator

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// HeaderCapacity is where a listener says how many jobs its scale set may hold in all.
const HeaderCapacity = "X-ScaleSetMaxCapacity"

// postSetSession opens the one session of a set.
func (e *Emulator) postSetSession(w http.ResponseWriter, r *http.Request, s *scaleSet) {
	var in struct {
		Owner string `json:"ownerName"`
	}
	if !readJSON(w, r, &in) {
		return
	}
	base, now := askedAt(r), time.Now()
	e.mu.Lock()
	defer e.mu.Unlock()
	if s.live(now, e.opts.ScaleSets.SessionTimeout) {
		runtimeError(w, http.StatusConflict, "RunnerScaleSetSessionConflictException",
			fmt.Sprintf("The runner scale set %s already has an active session for owner %s.", s.name, s.session.owner))
		return
	}
	s.session = &setSession{id: newGUID(), owner: in.Owner, lastSeen: now}
	s.connected, s.announced, s.base = now, false, base
	e.log.Info("session opened", "scale_set", s.name, "owner", in.Owner)
	e.changed()
	writeJSON(w, http.StatusOK, e.restSession(s, base))
}

// restSession writes the set's session with a new token. The lock is held.
func (e *Emulator) restSession(s *scaleSet, base string) map[string]any {
	return map[string]any{
		"sessionId": s.session.id, "ownerName": s.session.owner, "runnerScaleSet": e.restSet(s, base),
		"messageQueueUrl":         fmt.Sprintf("%s/queue/%d?session=%s", base, s.id, s.session.id),
		"messageQueueAccessToken": e.mint(kindQueue, s.session.id, e.opts.ScaleSets.QueueTokenLife, nil),
		"statistics":              e.told(s),
	}
}

func (e *Emulator) patchSetSession(w http.ResponseWriter, r *http.Request, s *scaleSet) {
	base := askedAt(r)
	e.mu.Lock()
	defer e.mu.Unlock()
	if s.session == nil || s.session.id != r.PathValue("id") {
		runtimeError(w, http.StatusNotFound, "RunnerAdminException", "runner referenced a session ID that doesn't exist in redis")
		return
	}
	s.session.lastSeen, s.connected = time.Now(), time.Now()
	writeJSON(w, http.StatusOK, e.restSession(s, base))
}

func (e *Emulator) deleteSetSession(w http.ResponseWriter, r *http.Request, s *scaleSet) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if s.session == nil || s.session.id != r.PathValue("id") {
		runtimeError(w, http.StatusBadRequest, "RunnerScaleSetSessionExpiredException", "The session of the runner scale set has expired.")
		return
	}
	s.connected = time.Now()
	e.evict(s)
	w.WriteHeader(http.StatusNoContent)
}

// asListener answers requests that carry the queue token of the set's session.
func (e *Emulator) asListener(h func(http.ResponseWriter, *http.Request, *scaleSet, *setSession)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		id, _ := strconv.ParseInt(r.PathValue("set"), 10, 64)
		owner := e.subject(bearer(r), kindQueue)
		e.mu.Lock()
		s := e.sets[id]
		var open *setSession
		if s != nil && s.session != nil && s.session.id == owner {
			open = s.session
		}
		e.mu.Unlock()
		if open == nil {
			unauthorized(w)
			return
		}
		h(w, r, s, open)
	}
}

// getSetMessage holds the poll until there is a message.
func (e *Emulator) getSetMessage(w http.ResponseWriter, r *http.Request, s *scaleSet, open *setSession) {
	capacity := 1 << 30
	if text := r.Header.Get(HeaderCapacity); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 0 {
			http.Error(w, fmt.Sprintf("%s must be a number that is not negative, not %q", HeaderCapacity, text), http.StatusBadRequest)
			return
		}
		capacity = n
	}
	after, _ := strconv.ParseInt(r.FormValue("lastMessageId"), 10, 64)
	turn := e.startSetPoll(s, open, capacity)
	defer e.endSetPoll(s, open)
	var m *setMessage
	expired := false
	e.await(r.Context(), e.opts.PollHold, func() bool {
		if r.Context().Err() != nil || open.turn != turn {
			return true
		}
		if expired = s.session != open; expired {
			return true
		}
		m = e.setMessage(s, after)
		return m != nil
	})
	switch {
	case expired:
		unauthorized(w)
	case m == nil:
		w.WriteHeader(http.StatusAccepted)
	default:
		writeJSON(w, http.StatusOK, m)
	}
}

func (e *Emulator) startSetPoll(s *scaleSet, open *setSession, capacity int) int64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	news := !s.announced || s.capacity != capacity || !s.live(time.Now(), e.opts.ScaleSets.SessionTimeout) || open.polls > 0
	open.polls++
	open.turn++
	if s.session == open {
		s.capacity, s.announced = capacity, true
	}
	if news { // jobs may be assigned; an older poll of the session ends
		e.changed()
	}
	return open.turn
}

func (e *Emulator) endSetPoll(s *scaleSet, open *setSession) {
	e.mu.Lock()
	defer e.mu.Unlock()
	open.polls--
	open.lastSeen = time.Now()
	if s.session == open {
		s.connected = open.lastSeen
	}
	e.setAlarm()
}

func (e *Emulator) deleteSetMessage(w http.ResponseWriter, r *http.Request, s *scaleSet, _ *setSession) {
	id, _ := strconv.ParseInt(r.PathValue("message"), 10, 64)
	e.mu.Lock()
	s.acknowledge(id)
	e.changed()
	e.mu.Unlock()
	w.WriteHeader(http.StatusNoContent)
}

// postAcquireJobs assigns available jobs to the set; those that went elsewhere are left out of the answer.
// A number that is 0, as ZeroIDs makes them, stands for the oldest job.
func (e *Emulator) postAcquireJobs(w http.ResponseWriter, r *http.Request, s *scaleSet, _ *setSession) {
	var ids []int64
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody)).Decode(&ids); err != nil {
		runtimeError(w, http.StatusBadRequest, "RunnerScaleSetInvalidException", "The body is no list of numbers.")
		return
	}
	out := []int64{}
	e.mu.Lock()
	for _, id := range ids {
		if e.acquire(s, id) {
			out = append(out, id)
		}
	}
	e.changed()
	e.mu.Unlock()
	writeJSON(w, http.StatusOK, map[string]any{"count": len(out), "value": out})
}

// acquire assigns the available job of that number; asking again for one that the set holds is no error.
// The lock is held.
func (e *Emulator) acquire(s *scaleSet, id int64) bool {
	var found *job
	for j := range s.offered {
		if j.claim.requestID == id && j.phase == queued && (found == nil || byAge(j, found) < 0) {
			found = j
		}
	}
	if found == nil {
		for j := range s.jobs {
			if id != 0 && j.claim.requestID == id {
				return true
			}
		}
		return false
	}
	found.claim.acquired = true
	e.give(s, found)
	return true
}

// listAcquirable lists what the set was offered and did not acquire.
func (e *Emulator) listAcquirable(w http.ResponseWriter, _ *http.Request, s *scaleSet) {
	out := []setEvent{}
	e.mu.Lock()
	for _, j := range e.unassigned() {
		if _, ok := s.offered[j]; ok {
			out = append(out, e.event(s, jobAvailable, j))
		}
	}
	e.mu.Unlock()
	if len(out) == 0 {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	writeJSON(w, http.StatusOK, map[string]any{"count": len(out), "value": out})
}
