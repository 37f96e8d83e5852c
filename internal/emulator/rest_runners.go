package emulator

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// grant is what a registration or remove token allows.
type grant struct {
	scope   scope
	expires time.Time
}

type restLabel struct {
	ID   int64  `json:"id"`
	Name string `json:"name"`
	Type string `json:"type"`
}

type restRunner struct {
	ID        int64       `json:"id"`
	Name      string      `json:"name"`
	OS        string      `json:"os"`
	Status    string      `json:"status"`
	Busy      bool        `json:"busy"`
	Ephemeral bool        `json:"ephemeral"`
	Version   *string     `json:"version"`
	GroupID   int64       `json:"runner_group_id"`
	Labels    []restLabel `json:"labels"`
}

// rest writes a runner as the REST API does. The lock is held.
func (e *Emulator) rest(r *runner) restRunner {
	out := restRunner{
		ID: r.id, Name: r.name, OS: r.os, Status: "offline", Busy: r.busy(),
		Ephemeral: r.ephemeral, GroupID: r.group.id, Labels: []restLabel{},
	}
	if out.OS == "" {
		out.OS = "unknown"
	}
	out.Version = unless(r.version, "") // a copy: it is encoded without the lock
	if r.online(time.Now(), e.opts.OfflineAfter) {
		out.Status = "online"
	}
	for i, l := range r.labels {
		out.Labels = append(out.Labels, restLabel{int64(i + 1), l.name, l.kind})
	}
	return out
}

// scoped finds out which repository, organization or enterprise a path is about.
func (e *Emulator) scoped(h func(http.ResponseWriter, *http.Request, scope)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		kind, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
		s := scope{kind, r.PathValue("owner")}
		if kind == "repos" {
			s.name += "/" + r.PathValue("repo")
		}
		if !s.covers(e.opts.Repository) {
			githubError(w, http.StatusNotFound, "Not Found")
			return
		}
		h(w, r, s)
	}
}

// scopeOf reads the address that a runner is configured with, https://HOST/octo/demo.
func (e *Emulator) scopeOf(address string) (scope, bool) {
	_, rest, ok := strings.Cut(address, "://")
	_, path, _ := strings.Cut(rest, "/")
	parts := strings.Split(strings.Trim(path, "/"), "/")
	var s scope
	switch {
	case !ok || parts[0] == "" || len(parts) > 2:
		return scope{}, false
	case len(parts) == 1:
		s = scope{"orgs", parts[0]}
	case strings.EqualFold(parts[0], "enterprises"):
		s = scope{"enterprises", parts[1]}
	default:
		s = scope{"repos", parts[0] + "/" + parts[1]}
	}
	return s, s.covers(e.opts.Repository)
}

func (e *Emulator) granted(token string) (scope, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	g, ok := e.grants[token]
	return g.scope, ok && time.Now().Before(g.expires)
}

// postToken makes a registration or remove token; they differ in name only.
func (e *Emulator) postToken(w http.ResponseWriter, _ *http.Request, s scope) {
	token := fmt.Sprintf("A%X", randomBytes(14))
	expires := time.Now().Add(time.Hour)
	e.mu.Lock()
	for t, g := range e.grants {
		if time.Now().After(g.expires) {
			delete(e.grants, t)
		}
	}
	e.grants[token] = grant{s, expires}
	e.mu.Unlock()
	writeJSON(w, http.StatusCreated, map[string]any{"token": token, "expires_at": expires.Format(time.RFC3339)})
}

func (e *Emulator) listRunners(w http.ResponseWriter, r *http.Request, s scope) {
	name := r.FormValue("name")
	e.mu.Lock()
	all := []restRunner{}
	for _, found := range e.registeredIn(s.is) {
		if name == "" || strings.EqualFold(found.name, name) {
			all = append(all, e.rest(found))
		}
	}
	e.mu.Unlock()
	page := e.page(w, r, len(all))
	writeJSON(w, http.StatusOK, map[string]any{"total_count": len(all), "runners": all[page.from:page.to]})
}

type pageRange struct{ from, to int }

// page reads per_page and page, and writes the Link header that clients follow.
func (e *Emulator) page(w http.ResponseWriter, r *http.Request, total int) pageRange {
	per, err := strconv.Atoi(r.FormValue("per_page"))
	if err != nil || per < 1 {
		per = 30
	}
	per = min(per, 100)
	number, err := strconv.Atoi(r.FormValue("page"))
	if err != nil || number < 1 {
		number = 1
	}
	last := max((total+per-1)/per, 1)
	link := func(n int, rel string) string {
		q := r.URL.Query()
		q.Set("page", strconv.Itoa(n))
		return fmt.Sprintf("<%s/api/v3%s?%s>; rel=%q", e.baseFor(r), r.URL.Path, q.Encode(), rel)
	}
	var links []string
	if number > 1 {
		links = append(links, link(number-1, "prev"), link(1, "first"))
	}
	if number < last {
		links = append(links, link(number+1, "next"), link(last, "last"))
	}
	if len(links) > 0 {
		w.Header().Set("Link", strings.Join(links, ", "))
	}
	from := min((min(number, last+1)-1)*per, total)
	return pageRange{from, min(from+per, total)}
}

// runnerAt finds the runner that a path names in the scope, or nil. The lock is held.
func (e *Emulator) runnerAt(r *http.Request, s scope) *runner {
	id, err := strconv.ParseInt(r.PathValue("id"), 10, 64)
	found := e.runners[id]
	if err != nil || found == nil || found.gone != registered || !found.scope.is(s) {
		return nil
	}
	return found
}

func (e *Emulator) getRunner(w http.ResponseWriter, r *http.Request, s scope) {
	e.mu.Lock()
	found := e.runnerAt(r, s)
	var out restRunner
	if found != nil {
		out = e.rest(found)
	}
	e.mu.Unlock()
	if found == nil {
		githubError(w, http.StatusNotFound, "Not Found")
		return
	}
	writeJSON(w, http.StatusOK, out)
}

func (e *Emulator) deleteRunner(w http.ResponseWriter, r *http.Request, s scope) {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch found := e.runnerAt(r, s); {
	case found == nil:
		githubError(w, http.StatusNotFound, "Not Found")
	case found.busy():
		githubError(w, http.StatusUnprocessableEntity,
			fmt.Sprintf("Bad request - Runner %q is currently running a job and cannot be deleted.", found.name))
	default:
		e.remove(found, deleted)
		w.WriteHeader(http.StatusNoContent)
	}
}

type restGroup struct {
	ID         int64  `json:"id"`
	Name       string `json:"name"`
	Default    bool   `json:"default"`
	Visibility string `json:"visibility"`
	Hosted     bool   `json:"is_hosted"`
	Public     bool   `json:"allows_public_repositories"`
	Restricted bool   `json:"restricted_to_workflows"`
}

func (e *Emulator) restGroup(g group) restGroup {
	rule := e.opts.GroupRules[g.name]
	out := restGroup{ID: g.id, Name: g.name, Default: g.id == 1, Visibility: "all", Public: rule.AllowPublic}
	if rule.Closed {
		out.Visibility = "selected"
	}
	return out
}

// listGroupRepositories lists the repositories that a group whose visibility is selected admits: none.
func (e *Emulator) listGroupRepositories(w http.ResponseWriter, _ *http.Request, _ scope) {
	writeJSON(w, http.StatusOK, map[string]any{"total_count": 0, "repositories": []any{}})
}

func (e *Emulator) listGroups(w http.ResponseWriter, r *http.Request, _ scope) {
	out := []restGroup{}
	for _, g := range e.groups() {
		out = append(out, e.restGroup(g))
	}
	page := e.page(w, r, len(out))
	writeJSON(w, http.StatusOK, map[string]any{"total_count": len(out), "runner_groups": out[page.from:page.to]})
}

func (e *Emulator) getGroup(w http.ResponseWriter, r *http.Request, _ scope) {
	id, _ := strconv.ParseInt(r.PathValue("id"), 10, 64)
	g, ok := e.groupByID(id)
	if !ok {
		githubError(w, http.StatusNotFound, "Not Found")
		return
	}
	writeJSON(w, http.StatusOK, e.restGroup(g))
}

// makeLabels keeps the first of each name.
func makeLabels(names []string, kind string) []label {
	var out []label
	for _, n := range names {
		if !slices.ContainsFunc(out, func(l label) bool { return strings.EqualFold(l.name, n) }) {
			out = append(out, label{n, kind})
		}
	}
	return out
}
