package emulator

import (
	"io"
	"net/http"
	"path/filepath"
	"strconv"
	"time"

	"github.com/mirego/tasuki/internal/emulator/workflow"
)

// longest ?wait= that is granted.
const maxWait = 5 * time.Minute

func waitOf(r *http.Request) time.Duration {
	d, err := time.ParseDuration(r.FormValue("wait"))
	if err != nil {
		return 0
	}
	return min(d, maxWait)
}

func (e *Emulator) getState(w http.ResponseWriter, r *http.Request) {
	if d := waitOf(r); d > 0 {
		e.mu.Lock()
		before := e.wake
		e.mu.Unlock()
		e.await(r.Context(), d, func() bool { return e.wake != before })
	}
	writeJSON(w, http.StatusOK, e.state(r.FormValue("logs") != "0"))
}

func (e *Emulator) postWorkflow(w http.ResponseWriter, r *http.Request) {
	var in struct{ Path, Name, Contents, Tree string }
	if !readJSON(w, r, &in) {
		return
	}
	var wf *workflow.Workflow
	var err error
	switch {
	case (in.Path != "" || in.Tree != "") && e.opts.Token.Empty():
		// Guests reach this port, and a workflow can show what its tree holds.
		githubError(w, http.StatusForbidden, "path and tree name files of the emulator's machine: they need an emulator with a token; send contents")
		return
	case in.Path != "" && !filepath.IsAbs(in.Path):
		githubError(w, http.StatusUnprocessableEntity, "path must be absolute: "+in.Path)
		return
	case in.Path != "":
		wf, err = workflow.Load(in.Path)
	default:
		if in.Name == "" {
			in.Name = "workflow.yml"
		}
		wf, err = workflow.Parse(in.Name, []byte(in.Contents))
	}
	if err != nil {
		githubError(w, http.StatusUnprocessableEntity, err.Error())
		return
	}
	id, err := e.submit(wf, in.Tree, e.baseFor(r))
	if err != nil {
		githubError(w, http.StatusUnprocessableEntity, err.Error())
		return
	}
	writeJSON(w, http.StatusCreated, map[string]int64{"run_id": id})
}

func (e *Emulator) getRunState(w http.ResponseWriter, r *http.Request) {
	id, _ := strconv.ParseInt(r.PathValue("id"), 10, 64)
	if d := waitOf(r); d > 0 {
		e.await(r.Context(), d, func() bool {
			found := e.runByID(id)
			return found == nil || !found.completed.IsZero()
		})
	}
	state, ok := e.RunState(id)
	if !ok {
		githubError(w, http.StatusNotFound, "Not Found")
		return
	}
	writeJSON(w, http.StatusOK, state)
}

func (e *Emulator) postCancel(w http.ResponseWriter, r *http.Request) { e.cancelRun(w, r, scope{}) }

func (e *Emulator) getJobLog(w http.ResponseWriter, r *http.Request) {
	text, ok := e.JobLog(r.PathValue("id"))
	if !ok {
		githubError(w, http.StatusNotFound, "Not Found")
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	io.WriteString(w, text)
}

func (e *Emulator) putFaults(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		githubError(w, http.StatusBadRequest, err.Error())
		return
	}
	faults, err := ParseFaults("faults", body)
	if err != nil {
		githubError(w, http.StatusUnprocessableEntity, err.Error())
		return
	}
	e.SetFaults(faults)
	w.WriteHeader(http.StatusNoContent)
}
