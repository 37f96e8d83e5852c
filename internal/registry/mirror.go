package registry

import (
	"context"
	"crypto/subtle"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/distribution/distribution/v3/configuration"

	"github.com/mirego/tasuki/internal/base/secret"
	"github.com/mirego/tasuki/internal/image"
)

// mirrorPrefix begins the repositories that are another registry's.
const mirrorPrefix = "mirror"

const (
	// probeTimeout bounds looking whether an upstream answers.
	probeTimeout = 10 * time.Second
	// probeEvery is the least time between two looks at one that did not.
	probeEvery = 30 * time.Second
	// passTimeout bounds passing one blob through.
	passTimeout = 2 * time.Hour
)

// Mirror is another registry that is pulled through this one.
type Mirror struct {
	// Name is its word in paths: images are at HOST/mirror/NAME/REPOSITORY.
	// Empty: the upstream's host.
	Name string
	// Upstream is its address: a host, with a port if need be, or a URL.
	Upstream string
	// Username and Password log in there; empty means anonymous.
	Username string
	Password secret.String
	// Keep is how long an image stays that nobody pulls; 0 means 30 days.
	Keep time.Duration
}

// resolve returns the mirror's word in paths and the URL of its upstream.
func (m Mirror) resolve() (name, base string, err error) {
	base = m.Upstream
	if !strings.Contains(base, "://") {
		if base == "docker.io" {
			base = "registry-1.docker.io"
		}
		base = "https://" + base
	}
	u, err := url.Parse(base)
	if err != nil || u.Host == "" || (u.Scheme != "https" && u.Scheme != "http") || strings.Trim(u.Path, "/") != "" {
		return "", "", fmt.Errorf("mirror %q: its upstream is a host, such as ghcr.io, or a URL without a path", m.Upstream)
	}
	name = m.Name
	if name == "" {
		name = strings.NewReplacer(":", "-", "[", "", "]", "").Replace(strings.ToLower(strings.TrimPrefix(m.Upstream, u.Scheme+"://")))
		name = strings.Trim(name, "/")
	}
	if _, err := image.Parse("localhost/" + name); err != nil || strings.Contains(name, "/") {
		return "", "", fmt.Errorf("mirror %q: %q cannot be a word of a repository's name; give it another name", m.Upstream, name)
	}
	return name, u.Scheme + "://" + u.Host, nil
}

// mirror is a depot that is filled from an upstream. The library's instance
// for it can only be made while the upstream answers; until then, and after a
// restart while it is down, a plain instance serves what is kept.
type mirror struct {
	depot
	opt  Mirror
	name string
	base string
	s    *Server

	mu     sync.Mutex
	kept   app
	live   app       // nil until the upstream has answered once
	next   time.Time // when the upstream is looked at again
	client *http.Client
}

// app is what the library's App is to us.
type app interface {
	http.Handler
	Shutdown() error
}

func (s *Server) newMirror(opt Mirror) (*mirror, error) {
	name, base, err := opt.resolve()
	if err != nil {
		return nil, err
	}
	if opt.Keep == 0 {
		opt.Keep = 30 * 24 * time.Hour
	}
	dir := filepath.Join(s.dir, "mirrors", name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	kept, err := newApp(s.id, appConfig(dir, true, s.access))
	if err != nil {
		return nil, err
	}
	return &mirror{
		depot: depot{dir: dir}, opt: opt, name: name, base: base, s: s, kept: kept,
		client: &http.Client{Timeout: probeTimeout, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
	}, nil
}

func (m *mirror) close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.live != nil {
		if err := m.live.Shutdown(); err != nil {
			return err
		}
	}
	return m.kept.Shutdown()
}

// handler is the instance to serve with now.
func (m *mirror) handler(ctx context.Context) http.Handler {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.live != nil {
		return m.live
	}
	if time.Now().Before(m.next) {
		return m.kept
	}
	err := m.connect(ctx)
	if err != nil {
		m.next = time.Now().Add(probeEvery)
		m.s.log.Warn("upstream does not answer; its mirror serves what it has", "mirror", m.name, "upstream", m.base, "err", err)
		return m.kept
	}
	return m.live
}

// connect makes the instance that asks the upstream. Making it asks the
// upstream without a deadline, so we ask first.
func (m *mirror) connect(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, m.base+"/v2/", nil)
	if err != nil {
		return err
	}
	resp, err := m.client.Do(req)
	if err != nil {
		return err
	}
	_ = resp.Body.Close()
	if resp.StatusCode >= http.StatusInternalServerError {
		return fmt.Errorf("it answered %s", resp.Status)
	}
	conf := appConfig(m.dir, false, m.s.access)
	never, pass := time.Duration(0), passTimeout // our collector decides what is kept
	conf.Proxy = configuration.Proxy{
		RemoteURL: m.base, Username: m.opt.Username, Password: m.opt.Password.Reveal(), TTL: &never, CacheWriteTimeout: &pass,
	}
	live, err := newApp(m.s.id, conf)
	if err != nil {
		return err
	}
	m.live = live
	return nil
}

// serveMirror serves /v2/mirror/NAME/…, of which rest is what comes after "mirror/".
func (s *Server) serveMirror(w http.ResponseWriter, r *http.Request, rest string) {
	name, path, _ := strings.Cut(rest, "/")
	m := s.mirrors[name]
	if m == nil {
		writeError(w, http.StatusNotFound, "NAME_UNKNOWN", "this registry has no mirror called %q; images of your own go to a name that does not begin with %s/", name, mirrorPrefix)
		return
	}
	if writes(r) {
		writeError(w, http.StatusMethodNotAllowed, "UNSUPPORTED", "%s/%s is a mirror of %s, which can only be pulled from", mirrorPrefix, name, m.base)
		return
	}
	// A pull through a mirror writes to it.
	leave, ok := s.admit(w, r, &m.depot)
	if !ok {
		return
	}
	defer leave()
	if free, err := s.free(s.dir); err == nil && free < spareDisk {
		s.log.Warn("mirror serves what it has: the disk is full", "mirror", name, "free", free)
		m.serve(w, r, path, m.kept)
		return
	}
	m.serve(w, r, path, m.handler(r.Context()))
}

func (m *mirror) serve(w http.ResponseWriter, r *http.Request, path string, app http.Handler) {
	prefix := mirrorPrefix + "/" + m.name + "/"
	if rec, ok := w.(*recorder); ok {
		rec.onHeader = func(h http.Header) {
			if link := h.Get("Link"); link != "" { // the next page of tags
				h.Set("Link", strings.Replace(link, "/v2/", "/v2/"+prefix, 1))
			}
		}
	}
	inner := r.Clone(r.Context())
	inner.URL.Path, inner.URL.RawPath = "/v2/"+path, ""
	inner.RequestURI = inner.URL.RequestURI()
	app.ServeHTTP(w, inner)
	if rt := parseRoute(inner.URL.Path); rt.kind == kindManifest && status(w) == http.StatusOK {
		m.touch(rt.repository, filepath.Join("_manifests", "revisions"), w.Header().Get("Docker-Content-Digest"), time.Now())
	}
}

// sameSecret compares in constant time; an empty secret is no secret.
func sameSecret(given string, want secret.String) bool {
	return !want.Empty() && subtle.ConstantTimeCompare([]byte(given), []byte(want.Reveal())) == 1
}
