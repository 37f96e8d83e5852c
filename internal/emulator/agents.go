package emulator

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// agent is a runner in the words of the legacy API. Field names compare without regard to case.
type agent struct {
	ID            int64          `json:"id"`
	Name          string         `json:"name"`
	Version       string         `json:"version"`
	OS            string         `json:"osDescription"`
	Ephemeral     bool           `json:"ephemeral"`
	DisableUpdate bool           `json:"disableUpdate"`
	Parallelism   int            `json:"maxParallelism"`
	Status        string         `json:"status,omitempty"`
	Labels        []any          `json:"labels"`
	Authorization agentAuth      `json:"authorization"`
	Properties    map[string]any `json:"properties,omitempty"`

	ScaleSetID int64     `json:"runnerScaleSetId"`
	GroupID    int64     `json:"runnerGroupId,omitempty"`
	GroupName  string    `json:"runnerGroupName,omitempty"`
	Created    time.Time `json:"createdOn,omitzero"`
	Enabled    bool      `json:"enabled"`
	Busy       bool      `json:"busy"`
}

type agentAuth struct {
	URL       string `json:"authorizationUrl,omitempty"`
	ClientID  string `json:"clientId,omitempty"`
	PublicKey struct {
		Exponent string `json:"exponent"`
		Modulus  string `json:"modulus"`
	} `json:"publicKey"`
}

// agent writes a runner. The lock is held.
func (e *Emulator) agent(r *runner) agent {
	out := agent{
		ID: r.id, Name: r.name, Version: r.version, OS: r.os, Ephemeral: r.ephemeral, DisableUpdate: true, Parallelism: 1,
		Status: e.rest(r).Status, Labels: []any{}, GroupID: r.group.id, GroupName: r.group.name, Created: r.created.UTC(),
		Enabled: true, Busy: r.busy(),
	}
	if r.set != nil {
		out.ScaleSetID = r.set.id
	}
	return out
}

func (e *Emulator) listAgents(w http.ResponseWriter, r *http.Request, s scope) {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := []agent{}
	for _, found := range e.registeredIn(s.is) {
		if name := r.FormValue("agentName"); name == "" || strings.EqualFold(name, found.name) {
			out = append(out, e.agent(found))
		}
	}
	writeJSON(w, http.StatusOK, map[string]any{"count": len(out), "value": out})
}

func (e *Emulator) getAgent(w http.ResponseWriter, r *http.Request, s scope) {
	e.mu.Lock()
	defer e.mu.Unlock()
	found := e.runnerAt(r, s)
	if found == nil {
		noAgent(w, r)
		return
	}
	writeJSON(w, http.StatusOK, e.agent(found))
}

func noAgent(w http.ResponseWriter, r *http.Request) {
	vssError(w, http.StatusNotFound, "TaskAgentNotFoundException", fmt.Sprintf("No runner found with identifier %s.", r.PathValue("id")))
}

// deleteAgent removes a runner. One that was there once is removed again without a word; one that never was
// is not found.
func (e *Emulator) deleteAgent(w http.ResponseWriter, r *http.Request, s scope) {
	id, _ := strconv.ParseInt(r.PathValue("id"), 10, 64)
	e.mu.Lock()
	defer e.mu.Unlock()
	switch found := e.runnerAt(r, s); {
	case found == nil && (id < 1 || id > e.lastID["runner"]):
		noAgent(w, r)
	case found == nil:
		w.WriteHeader(http.StatusNoContent)
	case found.busy():
		vssError(w, http.StatusBadRequest, "TaskAgentJobStillRunningException",
			fmt.Sprintf("The runner %s is currently running a job.", found.name))
	default:
		e.remove(found, deleted)
		w.WriteHeader(http.StatusNoContent)
	}
}

// postAgent is the V1 way to register; PUT replaces the runner of that name.
func (e *Emulator) postAgent(w http.ResponseWriter, r *http.Request, s scope) {
	var in agent
	if !readJSON(w, r, &in) {
		return
	}
	pool, _ := strconv.ParseInt(r.PathValue("pool"), 10, 64)
	found, status, why := e.register(registration{
		name: in.Name, version: in.Version, os: in.OS, scope: s, group: pool, labels: anyLabels(in.Labels),
		ephemeral: in.Ephemeral, modulus: in.Authorization.PublicKey.Modulus, exponent: in.Authorization.PublicKey.Exponent,
		replace: r.Method == http.MethodPut,
	}, e.baseFor(r))
	if found == nil {
		kind := "TaskAgentNotFoundException"
		if status == http.StatusConflict {
			kind = "TaskAgentExistsException"
		}
		vssError(w, status, kind, why)
		return
	}
	in.ID = found.id
	in.Authorization.URL, in.Authorization.ClientID = found.tokenURL, found.clientID
	in.Properties = map[string]any{
		"RequireFipsCryptography": map[string]any{"$type": "System.Boolean", "$value": true},
	}
	writeJSON(w, http.StatusOK, in)
}
