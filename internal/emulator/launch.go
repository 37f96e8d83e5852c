package emulator

import (
	"bytes"
	"context"
	"crypto/sha1"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/mirego/tasuki/internal/emulator/workflow"
)

// archive is a run's actions/checkout: made when the first job asks, the same for all its jobs.
type archive struct {
	once sync.Once
	body []byte
	err  error
}

// packTime is how long packing a tree may take.
const packTime = 5 * time.Minute

func (a *archive) get(ctx context.Context, tree workflow.Tree) ([]byte, error) {
	a.once.Do(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), packTime) // the others wait for it too
		defer cancel()
		var b bytes.Buffer
		a.err = workflow.CheckoutArchive(ctx, &b, tree)
		a.body = b.Bytes()
	})
	return a.body, a.err
}

// sha names the archive; runners cache actions under it, so it differs from run to run.
func (r *run) sha1(instance string) string {
	return fmt.Sprintf("%x", sha1.Sum([]byte(instance+r.planID)))
}

// postResolve says where the actions of a job lie. There is one: actions/checkout.
func (e *Emulator) postResolve(w http.ResponseWriter, r *http.Request, j *job) {
	var in struct {
		Actions []struct{ Action, Version, Path string } `json:"actions"`
	}
	if !readJSON(w, r, &in) {
		return
	}
	base := e.baseFor(r)
	out := map[string]any{}
	for _, a := range in.Actions {
		if !strings.EqualFold(a.Action, "actions/checkout") {
			githubError(w, http.StatusUnprocessableEntity,
				fmt.Sprintf("Unable to resolve action %s@%s: the emulator serves actions/checkout only", a.Action, a.Version))
			return
		}
		path := fmt.Sprintf("/launch/%d/", j.run.id)
		out[a.Action+"@"+a.Version] = map[string]string{
			"name": a.Action, "resolved_name": a.Action, "resolved_sha": j.run.sha1(e.instance), "version": a.Version,
			"tar_url": e.signed(base, path+"checkout.tar.gz"), "zip_url": e.signed(base, path+"checkout.zip"),
		}
	}
	writeJSON(w, http.StatusOK, map[string]any{"actions": out})
}

func (e *Emulator) getArchive(w http.ResponseWriter, r *http.Request) {
	if !e.isSigned(w, r) {
		return
	}
	id, _ := strconv.ParseInt(r.PathValue("run"), 10, 64)
	e.mu.Lock()
	found := e.runByID(id)
	e.mu.Unlock()
	if found == nil || r.PathValue("archive") != "checkout.tar.gz" {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	body, err := found.archive.get(r.Context(), found.tree)
	if err != nil {
		http.Error(w, fmt.Sprintf("cannot pack %q: %v", found.tree.Dir, err), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/gzip")
	w.Write(body)
}
