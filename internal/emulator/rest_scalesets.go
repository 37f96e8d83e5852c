package emulator

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// restSet is a scale set in the service's words. Field names compare without regard to case.
type restSet struct {
	ID         int64          `json:"id"`
	Name       string         `json:"name"`
	GroupID    int64          `json:"runnerGroupId"`
	GroupName  string         `json:"runnerGroupName"`
	Labels     []setLabel     `json:"labels"`
	Setting    setSetting     `json:"runnerSetting"`
	Created    time.Time      `json:"createdOn"`
	JITURL     string         `json:"runnerJitConfigUrl"`
	GetJobsURL string         `json:"getAcquirableJobsUrl"`
	AcquireURL string         `json:"acquireJobsUrl"`
	Status     string         `json:"status"`
	Enabled    bool           `json:"enabled"`
	Statistics *SetStatistics `json:"statistics"`
}

type setLabel struct {
	ID   int64  `json:"id"`
	Type string `json:"type"`
	Name string `json:"name"`
}

type setSetting struct {
	Ephemeral     bool  `json:"ephemeral"`
	Elastic       bool  `json:"isElastic"`
	DisableUpdate *bool `json:"disableUpdate,omitempty"`
}

// restSet writes a set as the service does. The lock is held.
func (e *Emulator) restSet(s *scaleSet, base string) restSet {
	figures, path := e.told(s), fmt.Sprintf("%s/tenant/_apis/runtime/runnerscalesets/%d/", base, s.id)
	out := restSet{
		ID: s.id, Name: s.name, GroupID: s.group.id, GroupName: s.group.name, Labels: []setLabel{},
		Setting: setSetting{Ephemeral: true, Elastic: true, DisableUpdate: &s.frozen}, Created: s.created.UTC(),
		JITURL: path + "generatejitconfig", GetJobsURL: path + "acquirablejobs", AcquireURL: path + "acquirejobs",
		Status: "offline", Enabled: true, Statistics: &figures,
	}
	frozen := s.frozen
	out.Setting.DisableUpdate = &frozen // it is encoded without the lock
	if s.live(time.Now(), e.opts.ScaleSets.SessionTimeout) {
		out.Status = "online"
	}
	for i, l := range s.labels {
		out.Labels = append(out.Labels, setLabel{int64(i + 1), "system", l.name})
	}
	return out
}

// asSetUser answers requests of a manager about one scale set of its scope.
func (e *Emulator) asSetUser(h func(http.ResponseWriter, *http.Request, *scaleSet)) http.HandlerFunc {
	return e.asManager(func(w http.ResponseWriter, r *http.Request, in scope) {
		id, _ := strconv.ParseInt(r.PathValue("set"), 10, 64)
		e.mu.Lock()
		s := e.sets[id]
		e.mu.Unlock()
		if s == nil || !s.scope.is(in) {
			runtimeError(w, http.StatusNotFound, "RunnerScaleSetNotFoundException",
				fmt.Sprintf("No runner scale set found with identifier %s.", r.PathValue("set")))
			return
		}
		h(w, r, s)
	})
}

// marked begins a reply with a byte order mark, which some of the service's have.
func marked(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) { h(&markedWriter{ResponseWriter: w}, r) }
}

func (e *Emulator) listSets(w http.ResponseWriter, r *http.Request, in scope) {
	base, name := e.baseFor(r), r.FormValue("name")
	groupID, _ := strconv.ParseInt(r.FormValue("runnerGroupId"), 10, 64)
	out := []restSet{}
	e.mu.Lock()
	for _, s := range e.setsIn(in.is) {
		if (name == "" || strings.EqualFold(name, s.name)) && (groupID == 0 || groupID == s.group.id) {
			out = append(out, e.restSet(s, base))
		}
	}
	e.mu.Unlock()
	writeJSON(w, http.StatusOK, map[string]any{"count": len(out), "value": out})
}

func (e *Emulator) getSet(w http.ResponseWriter, r *http.Request, s *scaleSet) {
	base := e.baseFor(r)
	e.mu.Lock()
	out := e.restSet(s, base)
	e.mu.Unlock()
	writeJSON(w, http.StatusOK, out)
}

func (e *Emulator) postSet(w http.ResponseWriter, r *http.Request, in scope) {
	var body restSet
	if !readJSON(w, r, &body) {
		return
	}
	if body.GroupID == 0 {
		body.GroupID = 1
	}
	g, ok := e.groupByID(body.GroupID)
	switch {
	case body.Name == "":
		runtimeError(w, http.StatusBadRequest, "RunnerScaleSetInvalidException", "A runner scale set needs a name.")
		return
	case !ok:
		runtimeError(w, http.StatusNotFound, "RunnerGroupNotFoundException", fmt.Sprintf("No runner group found with identifier %d.", body.GroupID))
		return
	}
	var names []string
	for _, l := range body.Labels {
		names = append(names, l.Name)
	}
	if len(names) == 0 {
		names = []string{body.Name}
	}
	base, now := e.baseFor(r), time.Now()
	e.mu.Lock()
	if e.setNamed(in, g.id, body.Name) != nil {
		e.mu.Unlock()
		runtimeError(w, http.StatusBadRequest, "RunnerScaleSetExistsException",
			fmt.Sprintf("A runner scale set with the name %s already exists in runner group %s.", body.Name, g.name))
		return
	}
	s := &scaleSet{
		id: e.next("scaleSet"), name: body.Name, scope: in, group: g, labels: makeLabels(names, "read-only"), created: now,
		base: base, connected: now, jobs: map[*job]struct{}{}, offered: map[*job]time.Time{},
	}
	if d := body.Setting.DisableUpdate; d != nil {
		s.frozen = *d
	}
	e.sets[s.id] = s
	e.log.Info("scale set created", "scale_set", s.name, "id", s.id)
	e.changed()
	out := e.restSet(s, base)
	e.mu.Unlock()
	writeJSON(w, http.StatusOK, out)
}

// patchSet changes the name, the group and the setting. Labels stay as they were made.
func (e *Emulator) patchSet(w http.ResponseWriter, r *http.Request, s *scaleSet) {
	var body restSet
	if !readJSON(w, r, &body) {
		return
	}
	base := e.baseFor(r)
	e.mu.Lock()
	defer e.mu.Unlock()
	name, g := s.name, s.group
	if body.Name != "" {
		name = body.Name
	}
	if body.GroupID != 0 {
		var ok bool
		if g, ok = e.groupByID(body.GroupID); !ok {
			runtimeError(w, http.StatusNotFound, "RunnerGroupNotFoundException", fmt.Sprintf("No runner group found with identifier %d.", body.GroupID))
			return
		}
	}
	if other := e.setNamed(s.scope, g.id, name); other != nil && other != s {
		runtimeError(w, http.StatusBadRequest, "RunnerScaleSetExistsException",
			fmt.Sprintf("A runner scale set with the name %s already exists in runner group %s.", name, g.name))
		return
	}
	s.name, s.group = name, g
	if d := body.Setting.DisableUpdate; d != nil {
		s.frozen = *d
	}
	e.changed()
	writeJSON(w, http.StatusOK, e.restSet(s, base))
}

func (e *Emulator) deleteSet(w http.ResponseWriter, _ *http.Request, s *scaleSet) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for j := range s.jobs {
		if j.phase == running {
			vssError(w, http.StatusBadRequest, "TaskAgentJobStillRunningException",
				fmt.Sprintf("The runner scale set %s has runners that are running jobs.", s.name))
			return
		}
	}
	e.log.Info("scale set deleted", "scale_set", s.name)
	e.dropSet(s)
	w.WriteHeader(http.StatusNoContent)
}

// findGroups finds a runner group by its name.
func (e *Emulator) findGroups(w http.ResponseWriter, r *http.Request, _ scope) {
	name, out := r.FormValue("groupName"), []map[string]any{}
	for _, g := range e.groups() {
		if name == "" || strings.EqualFold(name, g.name) {
			out = append(out, map[string]any{"id": g.id, "name": g.name, "size": 0, "isDefaultGroup": g.id == 1})
		}
	}
	writeJSON(w, http.StatusOK, map[string]any{"count": len(out), "value": out})
}

// postSetJIT registers a runner of the set.
func (e *Emulator) postSetJIT(w http.ResponseWriter, r *http.Request, s *scaleSet) {
	var in struct{ Name, WorkFolder string }
	if !readJSON(w, r, &in) {
		return
	}
	if in.Name == "" {
		runtimeError(w, http.StatusBadRequest, "RunnerScaleSetInvalidException", "A runner needs a name.")
		return
	}
	key, err := e.keys.get()
	if err != nil {
		runtimeError(w, http.StatusInternalServerError, "RunnerScaleSetServiceException", err.Error())
		return
	}
	base := e.baseFor(r)
	found := &runner{
		name: in.Name, scope: s.scope, ephemeral: true, workFolder: in.WorkFolder,
		key: &key.PublicKey, tokenURL: base + "/oauth/token", set: s,
	}
	if found.workFolder == "" {
		found.workFolder = "_work"
	}
	e.mu.Lock()
	if e.named(s.scope, in.Name) != nil {
		e.mu.Unlock()
		vssError(w, http.StatusConflict, "TaskAgentExistsException", fmt.Sprintf("A runner with the name %s already exists.", in.Name))
		return
	}
	found.group, found.labels = s.group, s.labels
	e.admit(found)
	out, config := e.agent(found), jitConfig(found, key, base)
	e.mu.Unlock()
	writeJSON(w, http.StatusOK, map[string]any{"runner": out, "encodedJITConfig": config})
}
