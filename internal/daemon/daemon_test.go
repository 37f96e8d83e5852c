package daemon_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mirego/tasuki/internal/agent"
	"github.com/mirego/tasuki/internal/api"
	"github.com/mirego/tasuki/internal/client"
	"github.com/mirego/tasuki/internal/daemon"
	"github.com/mirego/tasuki/internal/event"
	"github.com/mirego/tasuki/internal/vm"
)

// host is an agent that only remembers.
type host struct {
	dir string

	mu      sync.Mutex
	calls   []string
	runners []api.Runner
}

func (h *host) did(format string, args ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.calls = append(h.calls, fmt.Sprintf(format, args...))
}

func (h *host) setRunners(names ...string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.runners = nil
	for _, n := range names {
		h.runners = append(h.runners, api.Runner{Name: n})
	}
}

func (h *host) Status() api.Status {
	h.mu.Lock()
	defer h.mu.Unlock()
	return api.Status{Host: "h", Slots: 2, Pools: []api.Pool{}, Runners: h.runners}
}

func (h *host) Drain(pool string) error {
	if pool == "none" {
		return fmt.Errorf("cannot find pool %q: %w", pool, agent.ErrNoPool)
	}
	h.did("drain %q", pool)
	return nil
}

func (h *host) Resume(pool string) error           { h.did("resume %q", pool); return nil }
func (h *host) RefreshImage(pool string) error     { h.did("refresh %q", pool); return nil }
func (h *host) RollbackImage(pool string) error    { h.did("rollback %q", pool); return nil }
func (h *host) PinImage(pool, digest string) error { h.did("pin %q %q", pool, digest); return nil }

func (h *host) Hold(name string, d time.Duration) error {
	h.did("hold %s %s", name, d)
	return nil
}

func (h *host) Login(name string) (api.Login, error) {
	switch name {
	case "a":
		return api.Login{Address: "127.0.0.1:1", User: "u", KeyFile: "/k", HostKey: "ssh-ed25519 A"}, nil
	case "booting":
		return api.Login{}, fmt.Errorf("cannot log in to %q: %w", name, vm.ErrNotFound)
	}
	return api.Login{}, fmt.Errorf("cannot find runner %q: %w", name, agent.ErrNoRunner)
}

func (h *host) LogPath(name string) string { return filepath.Join(h.dir, name+".log") }
func (h *host) ConsolePath(name string) string {
	return filepath.Join(h.dir, name+".console")
}

// home is a short temporary folder: a test's own may be too long for a socket.
func home(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "tsk")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// serve runs a server for the test and returns a client of it.
func serve(t *testing.T, opt daemon.Options) *client.Client {
	t.Helper()
	dir := home(t)
	claim, err := daemon.Take(dir)
	if err != nil {
		t.Fatal(err)
	}
	l, err := claim.Listen()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- daemon.New(opt).Run(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(daemon.SocketPath(dir)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the socket is still there: %v", err)
		}
		_ = claim.Release()
	})
	return client.New(dir)
}

func TestCallsReachTheAgent(t *testing.T) {
	h := &host{}
	c := serve(t, daemon.Options{Agent: h, Events: &event.Bus{}, Reload: func(context.Context) error { h.did("reload"); return nil }})
	ctx := t.Context()
	status, err := c.Status(ctx)
	if err != nil || status.Host != "h" || status.Slots != 2 {
		t.Errorf("Status: %+v, %v", status, err)
	}
	login, err := c.Login(ctx, "a")
	want := api.Login{Address: "127.0.0.1:1", User: "u", KeyFile: "/k", HostKey: "ssh-ed25519 A"}
	if diff := cmp.Diff(want, login); err != nil || diff != "" {
		t.Errorf("Login: %v\n%s", err, diff)
	}
	for _, err := range []error{
		c.Drain(ctx, ""), c.Drain(ctx, "a b&c"), c.Resume(ctx, "linux"), c.Reload(ctx),
		c.Hold(ctx, "r", 90*time.Second), c.Hold(ctx, "r", 0),
		c.RefreshImage(ctx, "a/b"), c.RollbackImage(ctx, "p"), c.PinImage(ctx, "p", "sha256:1"), c.PinImage(ctx, "p", ""),
	} {
		if err != nil {
			t.Error(err)
		}
	}
	calls := []string{`drain ""`, `drain "a b&c"`, `resume "linux"`, "reload", "hold r 1m30s", "hold r 0s",
		`refresh "a/b"`, `rollback "p"`, `pin "p" "sha256:1"`, `pin "p" ""`}
	if diff := cmp.Diff(calls, h.calls); diff != "" {
		t.Errorf("calls (-want +got):\n%s", diff)
	}
}

func TestErrorsHaveAStatusAndAHint(t *testing.T) {
	c := serve(t, daemon.Options{Agent: &host{dir: t.TempDir()}, Events: &event.Bus{}, Reload: func(context.Context) error { return errors.New("c.yaml:1:1: broken") }})
	ctx := t.Context()
	_, noRunner := c.Login(ctx, "b")
	_, booting := c.Login(ctx, "booting")
	for name, tc := range map[string]struct {
		err    error
		status int
		text   string
		hint   string
	}{
		"no pool":    {c.Drain(ctx, "none"), http.StatusNotFound, `cannot find pool "none"`, "tasuki status"},
		"no runner":  {noRunner, http.StatusNotFound, `cannot find runner "b"`, "tasuki status"},
		"booting":    {booting, http.StatusConflict, "no such guest", "not there yet"},
		"reload":     {c.Reload(ctx), http.StatusUnprocessableEntity, "c.yaml:1:1: broken", "stays in force"},
		"long hold":  {c.Hold(ctx, "r", 1e6*time.Hour), http.StatusBadRequest, "at most 168h", ""},
		"no log":     {c.Log(ctx, "b", false, &bytes.Buffer{}), http.StatusNotFound, `cannot find runner "b"`, ""},
		"path trick": {c.Log(ctx, "../daemon_test", false, &bytes.Buffer{}), http.StatusNotFound, "cannot find runner", ""},
	} {
		e, ok := errors.AsType[*client.Error](tc.err)
		if !ok {
			t.Errorf("%s: got %v, want a *client.Error", name, tc.err)
			continue
		}
		if e.Status != tc.status || !strings.Contains(e.Message, tc.text) || !strings.Contains(e.Hint, tc.hint) {
			t.Errorf("%s: got %d %q (hint %q), want %d with %q (hint %q)", name, e.Status, e.Message, e.Hint, tc.status, tc.text, tc.hint)
		}
	}
}

func TestEventsGoOnFromThePastWithoutRepetition(t *testing.T) {
	bus := &event.Bus{}
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	at := func(s int) event.Event {
		return event.Event{Time: start.Add(time.Duration(s) * time.Second), Kind: event.HostStarted}
	}
	past := func(since time.Time) iter.Seq2[event.Event, error] {
		return func(yield func(event.Event, error) bool) {
			bus.Emit(at(2)) // live already, and in the file too
			for _, s := range []int{0, 1, 2} {
				if e := at(s); !e.Time.Before(since) && !yield(e, nil) {
					return
				}
			}
			yield(event.Event{}, errors.New("a torn line"))
		}
	}
	c := serve(t, daemon.Options{Agent: &host{}, Events: bus, Past: past})
	var got []int
	for e, err := range c.Events(t.Context(), start.Add(time.Second), true) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, int(e.Time.Sub(start).Seconds()))
		if got[len(got)-1] == 2 {
			bus.Emit(at(3))
		}
		if got[len(got)-1] == 3 {
			break
		}
	}
	if diff := cmp.Diff([]int{1, 2, 3}, got); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

func TestAFollowedLogEndsWithItsRunner(t *testing.T) {
	h := &host{dir: t.TempDir()}
	h.setRunners("r")
	c := serve(t, daemon.Options{Agent: h, Events: &event.Bus{}})
	var out bytes.Buffer
	followed := make(chan error, 1)
	go func() { followed <- c.Log(context.Background(), "r", true, &out) }()
	if err := os.WriteFile(h.LogPath("r"), []byte("one\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(h.LogPath("r"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString("two\n"); err != nil {
		t.Fatal(err)
	}
	h.setRunners()
	if err := <-followed; err != nil {
		t.Fatal(err)
	}
	if out.String() != "one\ntwo\n" {
		t.Errorf("got %q", out.String())
	}
}

func TestAGuestsConsole(t *testing.T) {
	h := &host{dir: t.TempDir()}
	h.setRunners("r")
	c := serve(t, daemon.Options{Agent: h, Events: &event.Bus{}})
	var out bytes.Buffer
	if err := c.GuestConsole(t.Context(), "r", false, &out); err == nil || !strings.Contains(err.Error(), "its guest has no console") {
		t.Errorf("no console: %v", err)
	}
	for path, text := range map[string]string{h.ConsolePath("r"): "panic\n", h.LogPath("r"): "job\n"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.GuestConsole(t.Context(), "r", false, &out); err != nil || out.String() != "panic\n" {
		t.Errorf("console %q, %v", out.String(), err)
	}
}

func TestOneAgentPerHome(t *testing.T) {
	dir := home(t)
	first, err := daemon.Take(dir)
	if err != nil {
		t.Fatal(err)
	}
	_, err = daemon.Take(dir)
	if !errors.Is(err, daemon.ErrRunning) || !strings.HasSuffix(err.Error(), fmt.Sprintf("an agent runs already, pid %d", os.Getpid())) {
		t.Errorf("a second agent: %v", err)
	}
	if err := first.Release(); err != nil {
		t.Fatal(err)
	}
	second, err := daemon.Take(dir)
	if err != nil {
		t.Fatalf("after the first: %v", err)
	}
	_ = second.Release()
}

func TestIncidentHostPowerLossLeavesAStaleSocket(t *testing.T) {
	dir := home(t)
	// A socket file that nobody listens on, and a lock file with the number of
	// a process that is alive and not an agent.
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	if err := syscall.Bind(fd, &syscall.SockaddrUnix{Name: daemon.SocketPath(dir)}); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "tasuki.lock"), []byte("1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	claim, err := daemon.Take(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer claim.Release()
	l, err := claim.Listen()
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	info, err := os.Stat(daemon.SocketPath(dir))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("socket: %v, %v; want mode 0600", info, err)
	}
}

func TestALongHomeIsSaidPlainly(t *testing.T) {
	_, err := daemon.Take(filepath.Join(t.TempDir(), strings.Repeat("x", 120)))
	if !errors.Is(err, daemon.ErrSocketPath) {
		t.Errorf("got %v", err)
	}
}

func TestNobodyListens(t *testing.T) {
	dir := home(t)
	_, err := client.New(dir).Status(t.Context())
	if !errors.Is(err, client.ErrNoAgent) || !strings.Contains(err.Error(), "no agent runs at "+dir) {
		t.Errorf("got %v", err)
	}
}

func TestUnknownRoutesAnswerInJSON(t *testing.T) {
	srv := daemon.New(daemon.Options{Agent: &host{}, Events: &event.Bus{}})
	rec := &recorder{header: http.Header{}}
	req, err := http.NewRequest(http.MethodGet, "/v9/nothing", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	srv.Handler().ServeHTTP(rec, req)
	var e api.Error
	if err := json.Unmarshal(rec.body.Bytes(), &e); err != nil || rec.status != http.StatusNotFound || e.Hint == "" {
		t.Errorf("got %d %q, %v", rec.status, rec.body.String(), err)
	}
}

type recorder struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (r *recorder) Header() http.Header         { return r.header }
func (r *recorder) WriteHeader(status int)      { r.status = status }
func (r *recorder) Write(b []byte) (int, error) { return r.body.Write(b) }
