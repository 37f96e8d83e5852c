package registry

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/mirego/tasuki/internal/base/secret"
)

const (
	// dialTimeout bounds reaching an upstream, and its handshake.
	dialTimeout = 10 * time.Second
	// answerTimeout bounds waiting for the head of its answer.
	answerTimeout = 30 * time.Second
	// downPause is how long an upstream that could not be reached is left alone.
	downPause = 30 * time.Second
	// longestPause is the most that an upstream can have itself left alone for.
	longestPause = 15 * time.Minute
	// passwordAge is how long a password is used before its source is asked again.
	passwordAge = 5 * time.Minute
	// mostRepositories is how many logins are remembered; each is one
	// repository's.
	mostRepositories = 1000
)

// upstreamScheme is that of the addresses which the library's mirrors ask. The
// library takes no transport for them, and so no authority and no deadline: it
// uses http.DefaultTransport, which sends this scheme to us.
const upstreamScheme = "tasuki-upstream"

// registerUpstream makes our scheme known to http.DefaultTransport, which there
// is one of in the process.
var registerUpstream = sync.OnceValue(func() error {
	t, ok := http.DefaultTransport.(*http.Transport)
	if !ok {
		return fmt.Errorf("http.DefaultTransport is a %T: mirrors cannot ask their upstreams", http.DefaultTransport)
	}
	t.RegisterProtocol(upstreamScheme, toUpstream{})
	return nil
})

type mirrorKey struct{}

// toUpstream sends a request of the library to the upstream of the mirror
// whose request it belongs to.
type toUpstream struct{}

func (toUpstream) RoundTrip(r *http.Request) (*http.Response, error) {
	m, ok := r.Context().Value(mirrorKey{}).(*mirror)
	if !ok || strings.TrimSuffix(r.URL.Path, "/") == "/v2" {
		// The library wants to know how to log in. We do that.
		return &http.Response{
			Status: "200 OK", StatusCode: http.StatusOK, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
			Header: http.Header{}, Body: http.NoBody, Request: r,
		}, nil
	}
	rec, _ := r.Context().Value(recorderKey{}).(*recorder)
	resp, err := m.up.ask(r)
	if rec != nil {
		rec.trouble.Store(m.up.trouble(r.Context(), resp, err))
	}
	return resp, err
}

// trouble is why an upstream gave nothing. Clients hear of it if the mirror has
// nothing of its own to give either.
type trouble struct {
	status int
	code   string
	after  time.Duration // when to come again; 0 if that is unknown
	text   string
}

// answer tells a client.
func (t *trouble) answer(w http.ResponseWriter) {
	for _, key := range []string{"Etag", "Docker-Content-Digest", "Cache-Control"} {
		w.Header().Del(key) // of what it would have got
	}
	if t.after > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int((t.after+time.Second-1)/time.Second)))
	}
	writeError(w, t.status, t.code, "%s", t.text)
}

// upstream is the registry that a mirror shows. Its methods may be called from
// several goroutines.
type upstream struct {
	base  *url.URL
	reg   name.Registry
	inner *http.Transport
	login *account
	log   *slog.Logger

	mu     sync.Mutex
	repos  map[string]*http.Client // logged in, by repository
	until  time.Time               // it is left alone until then
	reason string                  // and why
	busy   bool                    // because it asked for that
}

func newUpstream(base string, opt Mirror, log *slog.Logger) (*upstream, error) {
	u, err := url.Parse(base)
	if err != nil {
		return nil, err
	}
	var opts []name.Option
	if u.Scheme == "http" {
		opts = append(opts, name.Insecure)
	}
	reg, err := name.NewRegistry(u.Host, opts...)
	if err != nil {
		return nil, fmt.Errorf("mirror %q: %w", opt.Upstream, err)
	}
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.DisableCompression = true // blobs must arrive as they are
	t.ResponseHeaderTimeout = answerTimeout
	t.TLSHandshakeTimeout = dialTimeout
	t.MaxIdleConnsPerHost = 16
	if opt.Roots != nil {
		t.TLSClientConfig = &tls.Config{RootCAs: opt.Roots, MinVersion: tls.VersionTLS12}
	}
	return &upstream{
		base: u, reg: reg, inner: t, log: log, repos: map[string]*http.Client{},
		login: &account{username: opt.Username, password: opt.Password},
	}, nil
}

func (u *upstream) close() { u.inner.CloseIdleConnections() }

// errPaused says that the upstream is left alone for now.
var errPaused = errors.New("the upstream is left alone for a while")

// ask sends a request of the library to the upstream.
func (u *upstream) ask(r *http.Request) (*http.Response, error) {
	u.mu.Lock()
	paused := time.Now().Before(u.until)
	u.mu.Unlock()
	if paused {
		return nil, errPaused
	}
	repository := parseRoute(r.URL.Path).repository
	for {
		client, kept, err := u.client(r.Context(), repository)
		var resp *http.Response
		if err == nil {
			resp, err = u.send(client, r)
		}
		if answered(resp, err) != http.StatusUnauthorized {
			return resp, err
		}
		u.forget(repository)
		if !kept {
			return resp, err
		}
		if resp != nil {
			_ = resp.Body.Close() // the login was of earlier: once more with a new one
		}
	}
}

// answered is the status of an answer, or of the one that refused a login; 0
// if there was none.
func answered(resp *http.Response, err error) int {
	if refused, ok := errors.AsType[*transport.Error](err); ok {
		return refused.StatusCode
	}
	if resp != nil {
		return resp.StatusCode
	}
	return 0
}

// client is logged in for a repository; kept says that it was before.
func (u *upstream) client(ctx context.Context, repository string) (_ *http.Client, kept bool, err error) {
	u.mu.Lock()
	c := u.repos[repository]
	u.mu.Unlock()
	if c != nil {
		return c, true, nil
	}
	rt, err := transport.NewWithContext(ctx, u.reg, u.login.authenticator(), u, []string{"repository:" + repository + ":" + transport.PullScope})
	if err != nil {
		return nil, false, err
	}
	c = &http.Client{Transport: rt}
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.repos) >= mostRepositories {
		clear(u.repos)
	}
	u.repos[repository] = c
	return c, false, nil
}

func (u *upstream) forget(repository string) {
	u.login.forget()
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.repos, repository)
}

// send asks, and gives up once the answer does not move on.
func (u *upstream) send(client *http.Client, r *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(r.Context())
	out := r.Clone(ctx)
	out.URL.Scheme, out.URL.Host, out.Host, out.RequestURI = u.base.Scheme, u.base.Host, "", ""
	resp, err := client.Do(out)
	if err != nil {
		cancel(nil)
		return nil, err
	}
	stalled := fmt.Errorf("%s sent nothing for %s", u.base.Host, stallTimeout)
	resp.Body = &watchedBody{ReadCloser: resp.Body, end: cancel, timer: time.AfterFunc(stallTimeout, func() { cancel(stalled) })}
	return resp, nil
}

// watchedBody ends its request when nothing came for too long.
type watchedBody struct {
	io.ReadCloser
	end   context.CancelCauseFunc
	timer *time.Timer
}

func (b *watchedBody) Read(p []byte) (int, error) {
	b.timer.Reset(stallTimeout)
	return b.ReadCloser.Read(p)
}

func (b *watchedBody) Close() error {
	b.timer.Stop()
	b.end(nil)
	return b.ReadCloser.Close()
}

// RoundTrip sees every exchange with the upstream and with who gives out its
// tokens. It notes when they want to be left alone, and refuses to leave TLS.
func (u *upstream) RoundTrip(r *http.Request) (*http.Response, error) {
	if u.base.Scheme == "https" && r.URL.Scheme != "https" {
		return nil, fmt.Errorf("%s is to be asked over TLS, and would lead to %s://%s", u.base.Host, r.URL.Scheme, r.URL.Host)
	}
	resp, err := u.inner.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode == http.StatusServiceUnavailable {
		if after := retryAfter(resp.Header, time.Now()); after > 0 {
			u.pause(min(after, longestPause), true, resp.Status)
		}
	}
	return resp, nil
}

// retryAfter reads when a server wants to be asked again, in seconds or as a
// date (RFC 9110, section 10.2.3); 0 if it does not say.
func retryAfter(h http.Header, now time.Time) time.Duration {
	v := h.Get("Retry-After")
	if n, err := strconv.Atoi(v); err == nil && n > 0 {
		return time.Duration(min(n, int(longestPause/time.Second))) * time.Second
	}
	if at, err := http.ParseTime(v); err == nil {
		return max(at.Sub(now), 0)
	}
	return 0
}

// pause leaves the upstream alone for a while.
func (u *upstream) pause(d time.Duration, busy bool, reason string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	until := time.Now().Add(d)
	if until.Before(u.until) {
		return
	}
	u.until, u.busy, u.reason = until, busy, reason
	u.log.Warn("upstream does not answer; its mirror serves what it has", "upstream", u.base.Host, "err", reason, "again", d.Round(time.Second))
}

// paused says for how long the upstream is left alone still.
func (u *upstream) paused() (left time.Duration, busy bool, reason string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return time.Until(u.until), u.busy, u.reason
}

// trouble says what is wrong with an answer; nil if nothing is, or if the
// upstream just has not got what was asked for.
func (u *upstream) trouble(ctx context.Context, resp *http.Response, err error) *trouble {
	code := answered(resp, err)
	if code == 0 && !errors.Is(err, errPaused) && ctx.Err() == nil {
		reason := err.Error()
		if asked, ok := errors.AsType[*url.Error](err); ok {
			reason = asked.Err.Error() // others will hear it who asked for something else
		}
		if _, unknown := errors.AsType[x509.UnknownAuthorityError](err); unknown {
			reason += "; name its authority in the mirror's configuration: ca"
		}
		u.pause(downPause, false, reason)
	}
	left, busy, reason := u.paused()
	switch {
	case err == nil && code < http.StatusBadRequest, code == http.StatusNotFound:
		return nil
	case code == http.StatusUnauthorized || code == http.StatusForbidden:
		who := "without a login"
		if u.login.username != "" {
			who = fmt.Sprintf("to its user %q", u.login.username)
		}
		return &trouble{http.StatusForbidden, "DENIED", 0, fmt.Sprintf("%s refuses this %s; the mirror's configuration says who logs in there", u.base.Host, who)}
	case code == http.StatusTooManyRequests, busy && left > 0:
		return &trouble{http.StatusTooManyRequests, "TOOMANYREQUESTS", max(left, time.Second), u.base.Host + " wants to be left alone for a while"}
	case left > 0:
		// Without Retry-After: it is down, not busy, and nobody shall wait for it.
		return &trouble{http.StatusServiceUnavailable, "UNAVAILABLE", 0, fmt.Sprintf("%s does not answer, and this is not kept here: %s", u.base.Host, reason)}
	case code >= http.StatusInternalServerError:
		return &trouble{http.StatusBadGateway, "UNAVAILABLE", 0, fmt.Sprintf("%s answered %d, and this is not kept here", u.base.Host, code)}
	case err != nil && ctx.Err() == nil:
		return &trouble{http.StatusServiceUnavailable, "UNAVAILABLE", 0, u.base.Host + " did not answer, and this is not kept here"}
	}
	return nil
}

// account logs in at an upstream.
type account struct {
	username string
	password func(context.Context) (secret.String, error)

	mu   sync.Mutex
	last secret.String
	at   time.Time
}

func (a *account) authenticator() authn.Authenticator {
	if a.username == "" {
		return authn.Anonymous
	}
	return a
}

// Authorization implements authn.Authenticator.
func (a *account) Authorization() (*authn.AuthConfig, error) {
	return a.AuthorizationContext(context.Background())
}

// AuthorizationContext implements authn.ContextAuthenticator. Passwords that
// come from a command last for hours only: the source is asked again.
func (a *account) AuthorizationContext(ctx context.Context) (*authn.AuthConfig, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if time.Since(a.at) > passwordAge {
		password, err := a.password(ctx)
		if err != nil {
			return nil, fmt.Errorf("cannot log in as %q: %w", a.username, err)
		}
		a.last, a.at = password, time.Now()
	}
	return &authn.AuthConfig{Username: a.username, Password: a.last.Reveal()}, nil
}

// forget has the source asked for the next login.
func (a *account) forget() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.at = time.Time{}
}
