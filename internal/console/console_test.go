package console_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mirego/tasuki/internal/agent"
	"github.com/mirego/tasuki/internal/api"
	"github.com/mirego/tasuki/internal/console"
	"github.com/mirego/tasuki/internal/image"
	"github.com/mirego/tasuki/internal/runner"
)

// host is an agent that only remembers.
type host struct {
	dir string

	mu     sync.Mutex
	calls  []string
	status api.Status
	runs   []api.Run
}

func (h *host) did(what string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.calls = append(h.calls, what)
}

func (h *host) Drain(pool string) error {
	if pool == "none" {
		return agent.ErrNoPool
	}
	h.did("drain " + pool)
	return nil
}

func (h *host) Resume(pool string) error       { h.did("resume " + pool); return nil }
func (h *host) LogPath(name string) string     { return filepath.Join(h.dir, name+".log") }
func (h *host) ConsolePath(name string) string { return filepath.Join(h.dir, name+".console") }
func (h *host) set(change func(s *api.Status)) { h.mu.Lock(); defer h.mu.Unlock(); change(&h.status) }
func (h *host) wantCalls(t *testing.T, want ...string) {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	if strings.Join(h.calls, ",") != strings.Join(want, ",") {
		t.Errorf("calls: %q, want %q", h.calls, want)
	}
}

func (h *host) Status() api.Status {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.status
}

func (h *host) Runs(_ context.Context, q api.RunQuery) ([]api.Run, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := []api.Run{}
	for _, r := range h.runs {
		if (q.Runner == "" || q.Runner == r.Runner) && (q.Pool == "" || q.Pool == r.Pool) {
			out = append(out, r)
		}
	}
	return out, nil
}

func (h *host) Stats(_ context.Context, q api.RunQuery) (api.RunStats, error) {
	return api.RunStats{Since: q.Since, Until: q.Until, Conclusions: map[string]int{}}, nil
}

func (h *host) Series(context.Context, api.RunQuery, time.Duration) ([]api.RunStats, error) {
	return nil, nil
}

func newHost(t testing.TB) *host {
	now := time.Now().UTC()
	return &host{dir: t.TempDir(), status: api.Status{
		Host: "mini", Slots: 2, Taken: 1, Started: now.Add(-time.Hour), Now: now,
		Pools: []api.Pool{{Name: "ios", Scope: "octo", Busy: 1, Standby: 1}},
		Runners: []api.Runner{{Name: "tasuki-mini-abcdef-ios-aaaaaa", Pool: "ios", State: runner.Busy, Since: now, Created: now,
			Job:   runner.Job{Name: "build", Repository: "octo/app", Workflow: "CI"},
			Steps: []runner.Visit{{State: runner.Preparing, Start: now.Add(-time.Minute), End: now}, {State: runner.Busy, Start: now}}}},
	}}
}

// world is a console that is served.
type world struct {
	*console.Console
	t    testing.TB
	host *host
	feed *console.Feed
	root string // http://address
}

func serve(t testing.TB, h *host, change func(*console.Options)) *world {
	t.Helper()
	w := &world{t: t, host: h, feed: new(console.Feed)}
	opt := console.Options{
		Installation: "abcdef", Host: h, Status: h.Status, Feed: w.feed, Runs: h,
		Images: func(context.Context) ([]image.Stored, error) { return nil, nil },
	}
	if change != nil {
		change(&opt)
	}
	var err error
	if w.Console, err = console.New(opt); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var work sync.WaitGroup
	work.Go(func() { w.Run(ctx) })
	t.Cleanup(func() { stop(); work.Wait() })
	if opt.Listen != console.Off {
		w.root = "http://" + w.link().Address
	}
	return w
}

func (w *world) link() api.ConsoleLink {
	w.t.Helper()
	l, err := w.Link(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	return l
}

// browser is one that has no session yet.
func (w *world) browser() *http.Client {
	jar, err := cookiejar.New(nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return &http.Client{Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// inside is a browser with a session.
func (w *world) inside() *http.Client {
	w.t.Helper()
	b := w.browser()
	if status, body, _ := w.get(b, w.link().URL, nil); status != http.StatusOK || !strings.Contains(body, "url=/") {
		w.t.Fatalf("the link answered %d: %s", status, body)
	}
	return b
}

// get asks for an address, or a path of the console.
func (w *world) get(b *http.Client, address string, change func(*http.Request)) (int, string, http.Header) {
	w.t.Helper()
	return w.do(b, http.MethodGet, address, "", change)
}

func (w *world) do(b *http.Client, method, address, body string, change func(*http.Request)) (int, string, http.Header) {
	w.t.Helper()
	if strings.HasPrefix(address, "/") {
		address = w.root + address
	}
	req, err := http.NewRequestWithContext(w.t.Context(), method, address, strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if change != nil {
		change(req)
	}
	res, err := b.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return res.StatusCode, string(text), res.Header
}

// csrf is the word of a session's forms.
func (w *world) csrf(b *http.Client) string {
	w.t.Helper()
	_, body, _ := w.get(b, "/", nil)
	_, rest, ok := strings.Cut(body, `name="csrf" value="`)
	if !ok {
		w.t.Fatal("the page has no word for forms")
	}
	word, _, _ := strings.Cut(rest, `"`)
	return word
}

func form(csrf, pool string) string {
	return url.Values{"csrf": {csrf}, "pool": {pool}}.Encode()
}

var errTest = errors.New("the disk is on fire")

// contextOf returns one that the test ends.
func contextOf(t *testing.T) (context.Context, context.CancelFunc) {
	ctx, stop := context.WithCancel(context.Background())
	t.Cleanup(stop)
	return ctx, stop
}
