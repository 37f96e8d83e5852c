package console

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// enterPath begins the path of a link; its token follows.
const enterPath = "/enter/"

// maxForm bounds the body of a request in bytes.
const maxForm = 16 << 10

// answerTimeout is how long a reader may take over an answer. Streams give
// themselves more.
const answerTimeout = time.Minute

// policy is what a browser may do with our pages: load our files and nothing
// else, run no script that stands in a page, and show them in no frame.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// stranger is what everybody reads who has no session, whatever they ask for.
const stranger = "There is no session, or it has ended.\nOpen the console on its host: tasuki console\n"

type sessionKey struct{}

// Handler returns the console with everything that guards it.
func (c *Console) Handler() http.Handler {
	mux := http.NewServeMux()
	for pattern, handle := range map[string]func(http.ResponseWriter, *http.Request) error{
		"GET /{$}":                 c.nowPage,
		"GET /runs":                c.runsPage,
		"GET /runs/{name}":         c.runPage,
		"GET /runs/{name}/log.txt": c.logFile,
		"GET /runs/{name}/log":     c.logStream,
		"GET /images":              c.imagesPage,
		"GET /live":                c.live,
		"GET /drain":               c.confirmPage,
		"GET /resume":              c.confirmPage,
		"POST /drain":              c.act,
		"POST /resume":             c.act,
		"POST /leave":              c.leave,
	} {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			if err := handle(w, r); err != nil {
				c.fail(w, r, err)
			}
		})
	}
	mux.Handle("GET /assets/", c.assets)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		c.fail(w, r, fmt.Errorf("there is no page %q: %w", clip(r.URL.Path, 80), errNowhere))
	})
	return c.guarded(mux)
}

// guarded lets through who has a session, and in who has a link.
func (c *Console) guarded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=(), payment=(), usb=()")
		h.Set("Cache-Control", "no-store")
		if !c.gate.knownHost(r.Host) {
			http.Error(w, "The console does not go by this name.\nA reverse proxy's name belongs into console.hosts of the configuration.", http.StatusMisdirectedRequest)
			return
		}
		if token, ok := strings.CutPrefix(r.URL.Path, enterPath); ok && r.Method == http.MethodGet && c.enter(w, r, token) {
			return
		}
		s := c.gate.enter(r, time.Now())
		if s == nil {
			http.Error(w, stranger, http.StatusUnauthorized)
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxForm)
		if r.Method != http.MethodGet && r.Method != http.MethodHead && !s.ours(r) {
			http.Error(w, "This did not come from a page of the console. Go back, load the page again and try once more.", http.StatusForbidden)
			return
		}
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(answerTimeout))
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), sessionKey{}, s)))
	})
}

// enter lets a browser in that follows a link; false: the link is not good. A
// browser that only looks ahead uses no link up.
func (c *Console) enter(w http.ResponseWriter, r *http.Request, token string) bool {
	if r.Header.Get("Sec-Purpose") != "" || r.Header.Get("Purpose") != "" {
		return false
	}
	id := c.gate.redeem(token, time.Now())
	if id == "" {
		return false
	}
	http.SetCookie(w, &http.Cookie{
		Name: c.gate.cookie, Value: id, Path: "/", HttpOnly: true, Secure: c.gate.secure(r.Host),
		SameSite: http.SameSiteStrictMode, MaxAge: int(SessionLife.Seconds()),
	})
	c.log.Info("console was entered", "from", r.RemoteAddr)
	// A page and no redirect: to a redirect that another site began, a browser
	// would not send the cookie.
	c.render(w, r, http.StatusOK, "entered", nil)
	return true
}

func sessionOf(r *http.Request) *session {
	s, _ := r.Context().Value(sessionKey{}).(*session)
	return s
}

// page is what every page shows around its own.
type page struct {
	Title string
	Here  string // the page's word in the navigation
	Host  string
	Theme string
	CSRF  string
	Asset string // prefix of the files' addresses
	Live  string // the stream that keeps the page up to date; empty: none
	Body  any
}

// show renders a page.
func (c *Console) show(w http.ResponseWriter, r *http.Request, status int, name string, p page) error {
	p.Host = c.opt.Status().Host
	p.CSRF = sessionOf(r).csrf
	p.Theme = themeOf(r)
	p.Asset = c.assets.prefix
	c.render(w, r, status, name, p)
	return nil
}

// render writes a template as a whole, or says that it cannot.
func (c *Console) render(w http.ResponseWriter, r *http.Request, status int, name string, data any) {
	var b bytes.Buffer
	if err := c.pages.ExecuteTemplate(&b, name, data); err != nil {
		c.log.Error("page cannot be written", "page", name, "err", err)
		http.Error(w, "This page cannot be shown: see the agent's log.", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(b.Bytes())
	}
}

// themeOf is what the switch was set to: "light", "dark", or "" for what the
// system wants.
func themeOf(r *http.Request) string {
	if k, err := r.Cookie("tasuki-theme"); err == nil && (k.Value == "light" || k.Value == "dark") {
		return k.Value
	}
	return ""
}

// leave ends the session.
func (c *Console) leave(w http.ResponseWriter, r *http.Request) error {
	c.gate.leave(sessionOf(r))
	http.SetCookie(w, &http.Cookie{Name: c.gate.cookie, Path: "/", MaxAge: -1, HttpOnly: true, SameSite: http.SameSiteStrictMode})
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = w.Write([]byte("The session has ended.\nOpen the console again on its host: tasuki console\n"))
	return nil
}
