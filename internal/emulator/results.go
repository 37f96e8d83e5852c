package emulator

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/mirego/tasuki/internal/emulator/workflow"
)

// Kinds of blobs, as they stand in signed addresses.
const (
	blobStepLog = "step"
	blobJobLog  = "job"
	blobSummary = "summary"
	blobDiag    = "diag"
)

// largest block of a log upload.
const maxBlock = 256 << 20

// stepUpdate is what a runner says about one of its steps.
type stepUpdate struct {
	ID        string `json:"external_id"`
	Number    int    `json:"number"`
	Name      string `json:"name"`
	Started   string `json:"started_at"`
	Completed string `json:"completed_at"`

	completed bool
	words     string // the conclusion in the API's words
}

// update takes over what a runner says about a step. The lock is held.
func (j *job) update(u stepUpdate) {
	s := j.step(u.ID)
	s.number = u.Number
	if u.Name != "" {
		s.name = u.Name
	}
	if t := parseTime(u.Started); !t.IsZero() {
		s.startedAt = t
		if s.status == "pending" {
			s.status = "in_progress"
		}
	}
	if t := parseTime(u.Completed); !t.IsZero() {
		s.completedAt = t
	}
	if u.completed || !s.completedAt.IsZero() {
		s.status = "completed"
		if u.words != "" {
			s.conclusion = u.words
		}
	}
	slices.SortStableFunc(j.steps, func(a, b *step) int { return a.number - b.number })
}

// step returns the step of that id; runners make steps of their own beside the workflow's.
func (j *job) step(id string) *step {
	if i := slices.IndexFunc(j.steps, func(s *step) bool { return strings.EqualFold(s.id, id) }); i >= 0 {
		return j.steps[i]
	}
	s := &step{id: id, number: len(j.steps) + 1, status: "pending"}
	j.steps = append(j.steps, s)
	return s
}

func parseTime(s string) time.Time {
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil || t.Year() <= 1 {
		return time.Time{}
	}
	return t
}

// postStepsUpdate takes the progress of steps. The runners number the states of a step differently, so
// the times decide; the conclusions are numbered alike.
func (e *Emulator) postStepsUpdate(w http.ResponseWriter, r *http.Request, j *job) {
	var in struct {
		Steps []struct {
			stepUpdate
			Conclusion int `json:"conclusion"`
		} `json:"steps"`
	}
	if !readJSON(w, r, &in) {
		return
	}
	words := map[int]string{2: workflow.Success, 3: workflow.Failure, 4: workflow.Cancelled, 7: workflow.Skipped}
	e.mu.Lock()
	defer e.mu.Unlock()
	if j.phase == running {
		for _, s := range in.Steps {
			s.stepUpdate.words = words[s.Conclusion]
			j.update(s.stepUpdate)
		}
		e.changed()
	}
	writeJSON(w, http.StatusOK, map[string]bool{"ok": true})
}

// signBlob answers with an address that a log can be put to for an hour.
func (e *Emulator) signBlob(kind, field string) func(http.ResponseWriter, *http.Request, *job) {
	return func(w http.ResponseWriter, r *http.Request, j *job) {
		var in struct {
			Step string `json:"step_backend_id"`
		}
		if !readJSON(w, r, &in) {
			return
		}
		path := "/blob/" + j.def.ID + "/" + kind
		if kind == blobStepLog || kind == blobSummary {
			path += "/" + in.Step
		}
		writeJSON(w, http.StatusOK, map[string]any{
			field:               e.signed(e.baseFor(r), path),
			"blob_storage_type": "BLOB_STORAGE_TYPE_AZURE",
			"soft_size_limit":   "1073741824",
		})
	}
}

// signed returns an address that carries its own permission. It has a query, for runners add to it.
func (e *Emulator) signed(base, path string) string {
	return base + path + "?sig=" + e.mint(kindBlob, path, time.Hour, nil)
}

func (e *Emulator) isSigned(w http.ResponseWriter, r *http.Request) bool {
	if e.subject(r.URL.Query().Get("sig"), kindBlob) != r.URL.Path {
		w.WriteHeader(http.StatusForbidden)
		return false
	}
	return true
}

func (e *Emulator) postMetadata(w http.ResponseWriter, r *http.Request, _ *job) {
	var ignored map[string]any
	if readJSON(w, r, &ignored) {
		writeJSON(w, http.StatusOK, map[string]bool{"ok": true})
	}
}

// putBlob takes a log as Azure's blob storage does: whole, or created empty and appended to.
func (e *Emulator) putBlob(w http.ResponseWriter, r *http.Request) {
	if !e.isSigned(w, r) {
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBlock))
	if err != nil {
		http.Error(w, fmt.Sprintf("cannot read the block: %v", err), http.StatusBadRequest)
		return
	}
	q := r.URL.Query()
	e.mu.Lock()
	defer e.mu.Unlock()
	j := e.jobs[r.PathValue("job")]
	l := &textLog{} // diagnostics are taken and dropped
	switch {
	case j == nil:
		w.WriteHeader(http.StatusNotFound)
		return
	case r.PathValue("kind") == blobStepLog && !strings.EqualFold(r.PathValue("step"), j.def.ID):
		l = &j.step(r.PathValue("step")).log
	case r.PathValue("kind") == blobStepLog:
		l = &j.setup
	case r.PathValue("kind") == blobJobLog:
		l = &j.log
	case r.PathValue("kind") == blobSummary:
		l = &j.step(r.PathValue("step")).summary
	}
	if q.Get("comp") == "appendblock" {
		l.blob = append(l.blob, body...)
		l.sealed = l.sealed || q.Get("seal") == "true" || strings.EqualFold(r.Header.Get("x-ms-blob-sealed"), "true")
	} else {
		l.blob = body
		l.sealed = r.Header.Get("x-ms-blob-type") != "AppendBlob"
	}
	e.changed()
	w.Header().Set("ETag", `"`+newGUID()+`"`)
	w.Header().Set("x-ms-request-id", newGUID())
	w.Header().Set("x-ms-version", "2025-11-05")
	w.WriteHeader(http.StatusCreated)
}

// getBlob serves a job's log at the address that the REST API redirects to.
func (e *Emulator) getBlob(w http.ResponseWriter, r *http.Request) {
	if !e.isSigned(w, r) {
		return
	}
	text, ok := e.JobLog(r.PathValue("job"))
	if !ok || r.PathValue("kind") != blobJobLog {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	io.WriteString(w, text)
}
