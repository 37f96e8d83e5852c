package emulator

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
)

// draftLife is how long the code of a manifest can be converted. Source: docs.github.com, "Registering a GitHub
// App from a manifest".
const draftLife = time.Hour

// longest name of an App.
const maxAppName = 34

// appDraft is an App that somebody agreed to make, until its code is converted.
type appDraft struct {
	manifest manifest
	owner    string
	made     time.Time
}

// manifest is what a new App shall be.
type manifest struct {
	Name        string            `json:"name"`
	URL         string            `json:"url"`
	Redirect    string            `json:"redirect_url"`
	Public      bool              `json:"public"`
	Permissions map[string]string `json:"default_permissions"`
	Events      []string          `json:"default_events"`
	Hook        *struct {
		URL string `json:"url"`
	} `json:"hook_attributes"`
}

// wrong says why GitHub refuses a manifest, in its words as far as they are known; nothing if it does not.
func (m manifest) wrong() string {
	redirect, err := url.Parse(m.Redirect)
	switch {
	case m.URL == "" || m.Hook != nil && m.Hook.URL == "": // a webhook without an address is refused with the same words
		return `Error: "url" wasn't supplied.`
	case len(m.Name) > maxAppName:
		return fmt.Sprintf("Name is too long (maximum is %d characters)", maxAppName)
	case err != nil || redirect.Host == "" || redirect.Scheme != "http" && redirect.Scheme != "https":
		return "Error: redirect_url must be a valid URL"
	}
	for name, level := range m.Permissions {
		if !slices.Contains([]string{"read", "write", "admin"}, level) {
			return fmt.Sprintf("Error: default_permissions %s: %q is no access level", name, level)
		}
	}
	return ""
}

// postManifest takes the form that a person's browser sends to make an App. GitHub shows a page to agree on;
// here everybody agrees, and is sent back with a code at once.
func (e *Emulator) postManifest(w http.ResponseWriter, r *http.Request) {
	owner := cmp.Or(r.PathValue("owner"), e.admin())
	if !strings.EqualFold(owner, e.admin()) && !strings.EqualFold(owner, e.owner()) {
		githubError(w, http.StatusNotFound, "Not Found")
		return
	}
	var m manifest
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	problem := ""
	if err := json.Unmarshal([]byte(r.PostFormValue("manifest")), &m); err != nil {
		problem = "Error: the manifest is no JSON"
	} else {
		problem = m.wrong()
	}
	if problem == "" {
		if _, taken := e.appWhere(func(a *registeredApp) bool { return a.slug == slugOf(m.Name) }); taken || slugOf(m.Name) == "" {
			problem = "Name has already been taken"
		}
	}
	if problem != "" {
		writePage(w, http.StatusUnprocessableEntity, manifestRefused, problem)
		return
	}
	code := fmt.Sprintf("%x", randomBytes(20))
	e.mu.Lock()
	e.drafts[code] = &appDraft{manifest: m, owner: owner, made: time.Now()}
	e.mu.Unlock()
	back, _ := url.Parse(m.Redirect)
	q := back.Query()
	q.Set("code", code)
	if state := r.URL.Query().Get("state"); state != "" {
		q.Set("state", state)
	}
	back.RawQuery = q.Encode()
	http.Redirect(w, r, back.String(), http.StatusFound)
}

// postConversion makes the App of a code, once, and tells its key, never again.
func (e *Emulator) postConversion(w http.ResponseWriter, r *http.Request) {
	code := r.PathValue("code")
	e.mu.Lock()
	draft := e.drafts[code]
	delete(e.drafts, code)
	e.mu.Unlock()
	if draft == nil || time.Since(draft.made) >= draftLife {
		githubError(w, http.StatusNotFound, "Not Found")
		return
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil { // the size is a constant
		panic(err)
	}
	m := draft.manifest
	permissions := map[string]string{"metadata": "read"}
	for name, level := range m.Permissions {
		permissions[name] = level
	}
	e.mu.Lock()
	a := &registeredApp{
		App:  &App{ID: 100 + e.next("app"), ClientID: "Iv23" + newGUID()[:8], PublicKey: &key.PublicKey, Permissions: permissions},
		slug: slugOf(m.Name), name: m.Name, owner: draft.owner, public: m.Public,
	}
	e.addApp(a)
	e.mu.Unlock()
	e.log.Info("App made", "app", a.name, "id", a.id(), "owner", a.owner)
	out := a.shown(e.baseFor(r))
	out["pem"] = string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}))
	out["client_secret"] = fmt.Sprintf("%x", randomBytes(20))
	out["webhook_secret"] = nil
	writeJSON(w, http.StatusCreated, out)
}

var notInSlug = regexp.MustCompile(`[^a-z0-9]+`)

func slugOf(name string) string {
	return strings.Trim(notInSlug.ReplaceAllString(strings.ToLower(name), "-"), "-")
}

// getInstallPage is what a person sees who is about to install an App.
func (e *Emulator) getInstallPage(w http.ResponseWriter, r *http.Request) {
	a, ok := e.appWhere(func(a *registeredApp) bool { return a.slug == r.PathValue("slug") })
	if !ok {
		githubError(w, http.StatusNotFound, "Not Found")
		return
	}
	writePage(w, http.StatusOK, installPage, a.name)
}

// postInstallPage installs an App: for the account that the form names, else for the owner of the repository. A
// private App can only be installed for its own owner.
func (e *Emulator) postInstallPage(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	account := cmp.Or(r.PostFormValue("account"), e.owner())
	e.mu.Lock()
	i := slices.IndexFunc(e.apps, func(a *registeredApp) bool { return a.slug == r.PathValue("slug") })
	allowed := i >= 0 && (e.apps[i].public || strings.EqualFold(e.apps[i].owner, account))
	if allowed && !e.apps[i].installedFor(account) {
		e.install(e.apps[i], account)
	}
	e.mu.Unlock()
	if !allowed {
		githubError(w, http.StatusNotFound, "Not Found")
		return
	}
	e.log.Info("App installed", "app", r.PathValue("slug"), "account", account)
	writePage(w, http.StatusOK, installedPage, account)
}

// The pages that people see.
var (
	manifestRefused = htmlPage("Invalid GitHub App configuration", `<p>{{.}}</p>`)
	installPage     = htmlPage("Install", `<form method="post"><button>Install {{.}}</button></form>`)
	installedPage   = htmlPage("Installed", `<p>Installed for {{.}}. You can close this page.</p>`)
)

func htmlPage(title, body string) *template.Template {
	return template.Must(template.New(title).Parse("<!doctype html><meta charset=utf-8><title>" + title + "</title><h1>" + title + "</h1>" + body))
}

func writePage(w http.ResponseWriter, status int, t *template.Template, data any) {
	var b bytes.Buffer
	if err := t.Execute(&b, data); err != nil { // a text into a template of ours
		panic(err)
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	w.Write(b.Bytes())
}
