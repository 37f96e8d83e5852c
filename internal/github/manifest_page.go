package github

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"html/template"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

// appPage is the page on this machine that a person's browser begins and ends at.
type appPage struct {
	host     string // that requests must name: other names are somebody else's trick
	entry    string // the path of the form, which nobody guesses
	state    string // what GitHub sends back, to tell our form from another's
	target   string // of the form
	manifest string
	codes    chan string

	mu   sync.Mutex
	used bool // the state was taken
}

// Make serves the page on l, which listens on a loopback address, tells its
// address by show, and returns the App once a person has agreed to it at GitHub.
// The page is gone after one use, after 10 min, or when ctx ends. It closes l.
func (n NewApp) Make(ctx context.Context, l net.Listener, show func(address string)) (MadeApp, error) {
	defer l.Close()
	s, err := parseScope(n.Scope)
	switch {
	case err != nil:
		return MadeApp{}, err
	case s.enterprise():
		return MadeApp{}, fmt.Errorf("cannot make an App for %s: GitHub lets no App manage the runners of an enterprise; use a classic token with manage_runners:enterprise", s.name)
	case n.Name == "" || len(n.Name) > maxAppName:
		return MadeApp{}, fmt.Errorf("cannot make an App named %q: its name must have 1 to %d letters", n.Name, maxAppName)
	}
	p := &appPage{host: l.Addr().String(), entry: "/" + rand.Text(), state: rand.Text(), codes: make(chan string, 1)}
	p.target = n.target(p.state)
	if p.manifest, err = n.manifest(s, "http://"+p.host+"/made"); err != nil {
		return MadeApp{}, err
	}
	code, err := p.await(ctx, l, show)
	if err != nil {
		return MadeApp{}, err
	}
	return n.convert(ctx, code)
}

// await serves the page until it was used.
func (p *appPage) await(ctx context.Context, l net.Listener, show func(address string)) (string, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, pageLife, fmt.Errorf("nobody came back from GitHub within %s", pageLife))
	defer cancel()
	srv := &http.Server{
		Handler: p, ReadHeaderTimeout: 10 * time.Second,
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug),
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	show("http://" + p.host + p.entry)
	var code string
	var err error
	select {
	case code = <-p.codes:
	case <-ctx.Done():
		err = fmt.Errorf("cannot make the App: %w", context.Cause(ctx))
	case err = <-served:
		return "", fmt.Errorf("cannot serve the page for the App: %w", err)
	}
	// The last page is still on its way to the browser.
	grace, end := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
	defer end()
	if srv.Shutdown(grace) != nil {
		err = errors.Join(err, srv.Close())
	}
	<-served
	return code, err
}

// ServeHTTP shows the form, and takes the code back.
func (p *appPage) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'")
	q := r.URL.Query()
	switch {
	case r.Host != p.host:
		http.Error(w, "this page is "+p.host, http.StatusMisdirectedRequest)
	case r.Method != http.MethodGet:
		http.Error(w, "only GET", http.StatusMethodNotAllowed)
	case same(r.URL.Path, p.entry):
		p.write(w, formPage)
	case r.URL.Path != "/made":
		http.NotFound(w, r)
	case !same(q.Get("state"), p.state) || q.Get("code") == "":
		http.Error(w, "this is not the answer to the form of this page", http.StatusForbidden)
	case !p.take(q.Get("code")):
		http.Error(w, "this was used before", http.StatusGone)
	default:
		p.write(w, madePage)
	}
}

// take hands the code over, the first time.
func (p *appPage) take(code string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.used {
		return false
	}
	p.used = true
	p.codes <- code
	return true
}

func (p *appPage) write(w http.ResponseWriter, t *template.Template) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	// An error is the browser's going away.
	_ = t.Execute(w, map[string]string{"Target": p.target, "Manifest": p.manifest})
}

const pageHead = `<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<style>body{font:16px/1.5 system-ui,sans-serif;max-width:34em;margin:15vh auto;padding:0 1em}
button{font:inherit;padding:.5em 1em}</style>`

var (
	formPage = template.Must(template.New("form").Parse(pageHead + `<title>Tasuki: a GitHub App</title>
<h1>A GitHub App for your runners</h1>
<p>GitHub will show you its name and what it may do, and ask you to agree. Then you come back to this machine.</p>
<form method="post" action="{{.Target}}"><input type="hidden" name="manifest" value="{{.Manifest}}"><button autofocus>Go to GitHub</button></form></html>`))
	madePage = template.Must(template.New("made").Parse(pageHead + `<title>Tasuki: a GitHub App</title>
<h1>Back from GitHub</h1><p>Go back to the terminal: it says what is next.</p></html>`))
)
