package emulator

import (
	"crypto/subtle"
	"net/http"
	"strings"
)

const notAccessible = "Resource not accessible by integration"

// refusal says with which status and words a request is refused for its credential; 0 if it is good.
func (e *Emulator) refusal(r *http.Request) (int, string) {
	token, want := bearer(r), e.opts.Token.Reveal()
	admin := strings.HasPrefix(r.URL.Path, adminPrefix)
	app, account, ok := e.ofInstallation(token)
	switch {
	case want == "" && (admin || e.opts.App == nil && !ok):
		return 0, ""
	case want != "" && subtle.ConstantTimeCompare([]byte(token), []byte(want)) == 1:
		if s := scopeNeeded(r); !admin && s != "" && e.opts.Scopes != nil && !hasScope(e.opts.Scopes, s) {
			return http.StatusForbidden, "Must have admin rights to Repository."
		}
		return 0, ""
	}
	if !ok || admin {
		return http.StatusUnauthorized, "Bad credentials"
	}
	kind, rest, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	owner, _, _ := strings.Cut(rest, "/")
	switch {
	case kind == "enterprises" || kind == "user":
		return http.StatusForbidden, notAccessible
	case (kind == "orgs" || kind == "repos") && !strings.EqualFold(owner, account):
		return http.StatusNotFound, "Not Found"
	}
	if name, level := permissionNeeded(r); name != "" {
		if has := app.permissions()[name]; has != "write" && (has != "read" || level != "read") {
			return http.StatusForbidden, notAccessible
		}
	}
	return 0, ""
}

// scopeNeeded is the scope that a classic token needs for a request.
func scopeNeeded(r *http.Request) string {
	switch kind, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/"); kind {
	case "orgs":
		return "admin:org"
	case "repos":
		return "repo"
	case "enterprises":
		return "manage_runners:enterprise"
	}
	return ""
}

func hasScope(scopes []string, want string) bool {
	for _, s := range scopes {
		if s == want || s == "admin:enterprise" && want == "manage_runners:enterprise" {
			return true
		}
	}
	return false
}

// permissionNeeded is the permission that an App needs for a request, and at which level.
func permissionNeeded(r *http.Request) (name, level string) {
	level = "write"
	if r.Method == http.MethodGet {
		level = "read"
	}
	path := r.URL.Path
	runners := strings.Contains(path, "/actions/runner")
	switch {
	case strings.HasPrefix(path, "/orgs/") && runners:
		return "organization_self_hosted_runners", level
	case strings.HasPrefix(path, "/repos/") && runners:
		return "administration", level
	case strings.HasPrefix(path, "/repos/") && strings.Contains(path, "/actions/"):
		return "actions", level
	}
	return "", ""
}

// asAdmin answers requests that carry a credential that may do it, if any is needed.
func (e *Emulator) asAdmin(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if e.opts.Scopes != nil {
			w.Header().Set("X-OAuth-Scopes", strings.Join(e.opts.Scopes, ", "))
		}
		if status, why := e.refusal(r); status != 0 {
			githubError(w, status, why)
			return
		}
		h(w, r)
	}
}

// asRegistrar also lets those in who registered just now: by registration token or management token.
func (e *Emulator) asRegistrar(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		_, granted := e.granted(bearer(r))
		if granted || e.subject(bearer(r), kindManagement) != "" {
			h(w, r)
			return
		}
		e.asAdmin(h)(w, r)
	}
}

// getUser says whose token it is.
func (e *Emulator) getUser(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, map[string]any{"login": e.admin(), "id": 2, "type": "User"})
}

// admin is the one person that there is.
func (e *Emulator) admin() string { return e.owner() + "-admin" }

// getAccount says, to everybody, whether an account is a person or an organization.
func (e *Emulator) getAccount(w http.ResponseWriter, r *http.Request) {
	switch name := r.PathValue("owner"); {
	case strings.EqualFold(name, e.owner()):
		writeJSON(w, http.StatusOK, map[string]any{"login": e.owner(), "id": 1, "type": "Organization"})
	case strings.EqualFold(name, e.admin()):
		writeJSON(w, http.StatusOK, map[string]any{"login": e.admin(), "id": 2, "type": "User"})
	default:
		githubError(w, http.StatusNotFound, "Not Found")
	}
}

func (e *Emulator) getOrganization(w http.ResponseWriter, _ *http.Request, s scope) {
	writeJSON(w, http.StatusOK, map[string]any{"login": s.name, "id": 1, "type": "Organization"})
}

func (e *Emulator) getRepository(w http.ResponseWriter, r *http.Request, _ scope) {
	_, name, _ := strings.Cut(e.opts.Repository, "/")
	visibility := "private"
	if e.opts.Public {
		visibility = "public"
	}
	writeJSON(w, http.StatusOK, map[string]any{
		"id": 1, "name": name, "full_name": e.opts.Repository, "private": !e.opts.Public, "visibility": visibility,
		"default_branch": "main", "html_url": e.baseFor(r) + "/" + e.opts.Repository,
		"owner":       map[string]any{"login": e.owner(), "id": 1, "type": "Organization"},
		"permissions": map[string]bool{"admin": true, "push": true, "pull": true},
	})
}
