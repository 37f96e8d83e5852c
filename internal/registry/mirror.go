package registry

import (
	"context"
	"crypto/subtle"
	"crypto/x509"
	"errors"
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

// passTimeout bounds passing one blob through.
const passTimeout = 2 * time.Hour

// Mirror is another registry that is pulled through this one.
type Mirror struct {
	// Name is its word in paths: images are at HOST/mirror/NAME/REPOSITORY.
	// Empty: the upstream's host.
	Name string
	// Upstream is its address: a host, with a port if need be, or a URL.
	Upstream string
	// Username logs in there, with the password that Password returns, which is
	// asked again every few minutes; an empty name is nobody.
	Username string
	Password func(context.Context) (secret.String, error)
	// Roots are the authorities that may have signed its certificate, and that
	// of who gives out its tokens; nil means the system's.
	Roots *x509.CertPool
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

// mirror is a depot that is filled from an upstream. While that does not
// answer, it serves what it has.
type mirror struct {
	depot
	opt  Mirror
	name string
	base string
	up   *upstream
	live app // passes through
	kept app // serves what is there, and writes nothing

	mu      sync.Mutex
	passing map[string]chan struct{} // blobs on their way, closed when they are here
}

// app is what the library's App is to us.
type app interface {
	http.Handler
	Shutdown() error
}

func (s *Server) newMirror(opt Mirror) (*mirror, error) {
	if err := registerUpstream(); err != nil {
		return nil, err
	}
	name, base, err := opt.resolve()
	if err != nil {
		return nil, err
	}
	if opt.Keep == 0 {
		opt.Keep = 30 * 24 * time.Hour
	}
	m := &mirror{depot: depot{dir: filepath.Join(s.dir, "mirrors", name)}, opt: opt, name: name, base: base, passing: map[string]chan struct{}{}}
	if err := os.MkdirAll(m.dir, 0o755); err != nil {
		return nil, err
	}
	if m.up, err = newUpstream(base, opt, s.log.With("mirror", name)); err != nil {
		return nil, err
	}
	if m.kept, err = newApp(s.id, appConfig(m.dir, true, s.access)); err != nil {
		return nil, err
	}
	conf := appConfig(m.dir, false, s.access)
	never, pass := time.Duration(0), passTimeout // our collector decides what is kept
	conf.Proxy = configuration.Proxy{RemoteURL: upstreamScheme + "://" + name, TTL: &never, CacheWriteTimeout: &pass}
	if m.live, err = newApp(s.id, conf); err != nil {
		return nil, errors.Join(err, m.kept.Shutdown())
	}
	return m, nil
}

func (m *mirror) close() error {
	m.up.close()
	return errors.Join(m.live.Shutdown(), m.kept.Shutdown())
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
		if rec, ok := w.(*recorder); ok {
			rec.trouble.Store(&trouble{http.StatusInsufficientStorage, "UNAVAILABLE", 0, "the registry's disk is full, and this is not kept here"})
		}
		m.serve(w, r, path, m.kept)
		return
	}
	if rt := parseRoute("/v2/" + path); rt.kind == kindBlob && r.Method == http.MethodGet {
		defer m.oneAtATime(r.Context(), rt.reference)()
	}
	m.serve(w, r, path, m.live)
}

// oneAtATime lets one client bring a blob here and those that ask meanwhile
// wait for it, as long as clients wait for the head of an answer: else a fleet
// that pulls one image fetches it once for each host.
func (m *mirror) oneAtATime(ctx context.Context, digest string) (done func()) {
	if _, err := os.Stat(filepath.Join(m.blobPath(digest), "data")); err == nil || m.blobPath(digest) == "" {
		return func() {}
	}
	m.mu.Lock()
	first := m.passing[digest]
	if first == nil {
		mine := make(chan struct{})
		m.passing[digest] = mine
		m.mu.Unlock()
		return func() {
			m.mu.Lock()
			delete(m.passing, digest)
			m.mu.Unlock()
			close(mine)
		}
	}
	m.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	select {
	case <-first:
	case <-ctx.Done():
	}
	return func() {}
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
	inner := r.Clone(context.WithValue(r.Context(), mirrorKey{}, m))
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
