package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mirego/tasuki/internal/api"
	"github.com/mirego/tasuki/internal/base/secret"
	"github.com/mirego/tasuki/internal/client"
	"github.com/mirego/tasuki/internal/config"
	"github.com/mirego/tasuki/internal/daemon"
	"github.com/mirego/tasuki/internal/emulator"
	"github.com/mirego/tasuki/internal/emulator/workflow"
	"github.com/mirego/tasuki/internal/event"
	"github.com/mirego/tasuki/internal/eventlog"
)

// The secrets that are planted. None looks like one of GitHub's, so that no
// pattern hides them.
const (
	plantedToken    = "planted-token-of-a-maintainer-7c1f"
	plantedPassword = "planted-password-of-a-registry-55aa"
	plantedMetrics  = "planted-token-of-a-prometheus-91be"
	plantedRelease  = "planted-token-of-a-download-04d2"
)

// safeLog is a log that several write to.
type safeLog struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *safeLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *safeLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// leakyGitHub is the emulator behind a server that gives a token with each
// download, as GitHub may.
func leakyGitHub(t *testing.T) (*emulator.Emulator, string) {
	t.Helper()
	e := emulator.New(emulator.Options{
		Token:         secret.New(plantedToken),
		RunnerRelease: emulator.RunnerRelease{Version: "2.400.1", Archive: []byte("an archive")},
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	inner := e.Handler()
	srv := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasSuffix(r.URL.Path, "/actions/runners/downloads") {
			inner.ServeHTTP(w, r)
			return
		}
		listed := &heldAnswer{ResponseWriter: w}
		inner.ServeHTTP(listed, r)
		body := strings.ReplaceAll(listed.body.String(), `"os":`, `"temp_download_token":"`+plantedRelease+`","os":`)
		w.Header().Del("Content-Length")
		w.WriteHeader(max(listed.status, http.StatusOK))
		_, _ = io.WriteString(w, body)
	})}
	var work sync.WaitGroup
	work.Go(func() { _ = srv.Serve(l) })
	t.Cleanup(func() { _ = srv.Close(); work.Wait() })
	return e, "http://" + l.Addr().String()
}

type heldAnswer struct {
	http.ResponseWriter
	body   bytes.Buffer
	status int
}

func (h *heldAnswer) WriteHeader(status int)      { h.status = status }
func (h *heldAnswer) Write(p []byte) (int, error) { return h.body.Write(p) }

// secretConfig writes a configuration that names each planted secret, and a
// guest that keeps its credential where the test finds it.
func secretConfig(t *testing.T, home, url, seen string) *config.Config {
	t.Helper()
	dir := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "program")
	script := "#!/bin/sh\nprintenv ACTIONS_RUNNER_INPUT_JITCONFIG >>" + seen + "\nexec " + program + "/protorunner -hold 200ms\n"
	token := filepath.Join(dir, "metrics-token")
	for _, err := range []error{
		os.MkdirAll(program, 0o700), os.Symlink(self, filepath.Join(program, "protorunner")),
		os.WriteFile(filepath.Join(program, "run"), []byte(script), 0o700), os.WriteFile(token, []byte(plantedMetrics+"\n"), 0o600),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PLANTED_TOKEN", plantedToken)
	t.Setenv("PLANTED_PASSWORD", plantedPassword)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	cfg, err := config.Parse(filepath.Join(dir, "host.yaml"), fmt.Appendf(nil, `
host: {name: mini, slots: 1, home: %s, tick: 100ms}
github: {url: %q, token: {env: PLANTED_TOKEN}}
registries: [{host: registry.example.com, username: u, password: {env: PLANTED_PASSWORD}}]
metrics: {listen: %q, token: {file: %s}}
pools: [{name: fake, driver: fake, image: %s, scope: octo/demo, labels: [fake]}]
`, home, url, l.Addr(), token, program))
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// watchedHost is a host with its API.
type watchedHost struct {
	*host
	client *client.Client
	stop   func() error
}

func runWatched(t *testing.T, cfg *config.Config, log *slog.Logger) *watchedHost {
	t.Helper()
	claim, err := daemon.Take(cfg.Host.Home)
	if err != nil {
		t.Fatal(err)
	}
	h, err := newHost(t.Context(), cfg, log)
	if err != nil {
		t.Fatal(err)
	}
	socket, err := claim.Listen()
	if err != nil {
		t.Fatal(err)
	}
	server := daemon.New(daemon.Options{
		Agent: h.agent, Events: h.bus, Log: log, Metrics: h.watch.metrics.Handler(), Complete: h.watch.complete, Runs: h.watch.runs(),
		Past: func(since time.Time) iter.Seq2[event.Event, error] {
			return eventlog.Read(eventsDir(cfg.Host.Home), since)
		},
	})
	ctx, cancel := context.WithCancel(context.Background())
	var work sync.WaitGroup
	var agentErr, serverErr error
	work.Go(func() { agentErr = h.agent.Run(ctx) })
	work.Go(func() { serverErr = server.Run(ctx, socket) })
	work.Go(func() { h.watch.run(ctx) })
	stop := sync.OnceValue(func() error {
		cancel()
		work.Wait()
		return errors.Join(agentErr, serverErr, h.agent.Teardown(context.Background()), h.Close(), claim.Release())
	})
	t.Cleanup(func() { _ = stop() })
	return &watchedHost{h, client.New(cfg.Host.Home), stop}
}

// everythingServed returns what the host says of itself.
func (h *watchedHost) everythingServed(t *testing.T, metricsAt string) string {
	t.Helper()
	ctx := t.Context()
	var b strings.Builder
	status, err := h.client.Status(ctx)
	fmt.Fprintf(&b, "%+v %v\n", status, err)
	runs, err := h.client.Runs(ctx, api.RunQuery{})
	fmt.Fprintf(&b, "%+v %v\n", runs, err)
	stats, err := h.client.Stats(ctx, api.RunQuery{})
	fmt.Fprintf(&b, "%+v %v\n", stats, err)
	for e, err := range h.client.Events(ctx, time.Time{}, false) {
		fmt.Fprintf(&b, "%+v %v\n", e, err)
	}
	for _, r := range runs {
		_ = h.client.Log(ctx, r.Runner, false, &b)
		_ = h.client.GuestConsole(ctx, r.Runner, false, &b)
	}
	if err := h.client.Metrics(ctx, &b); err != nil {
		t.Error(err)
	}
	for _, token := range []string{plantedMetrics, "wrong"} {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+metricsAt+"/metrics", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if want := map[string]int{plantedMetrics: 200, "wrong": 401}[token]; err != nil || res.StatusCode != want {
			t.Errorf("metrics answered %d, want %d: %v", res.StatusCode, want, err)
		}
		b.Write(body)
	}
	return b.String()
}

// A job runs from end to end with secrets everywhere that they can be. None of
// them is in any file of the home, in the log at its most talkative, or in
// what the API serves.
func TestNothingSecretIsWritten(t *testing.T) {
	if _, err := os.Stat("/proc/self"); err != nil {
		t.Skip("fake guests need /proc")
	}
	e, url := leakyGitHub(t)
	home, seen := filepath.Join(t.TempDir(), "h"), filepath.Join(t.TempDir(), "seen")
	cfg := secretConfig(t, home, url, seen)
	var log safeLog
	h := runWatched(t, cfg, slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})))

	flow, err := workflow.Parse("ci.yml", []byte("on: push\njobs:\n  one:\n    runs-on: [self-hosted, fake]\n    steps: [{run: echo}]\n"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.Submit(flow, ""); err != nil {
		t.Fatal(err)
	}
	ended := func() bool {
		runs, err := h.client.Runs(t.Context(), api.RunQuery{Conclusion: "success"})
		_, kept := h.watch.releases.Latest("linux", "amd64")
		return kept && err == nil && len(runs) == 1 && !runs[0].Ended.IsZero() && h.agent.Status().Pools[0].Idle == 1
	}
	for limit := time.Now().Add(time.Minute); !ended(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("the job never ended; log:\n%s", log.String())
		}
	}
	served := h.everythingServed(t, cfg.Metrics.Listen)
	for what, want := range map[string]string{
		"a job's conclusion": `tasuki_jobs_total{conclusion="success",pool="fake"} 1`,
		"the route":          `route="repos/{owner}/{repo}/actions/runners/generate-jitconfig",status="201"`,
		"the next runner":    `tasuki_slot_turnaround_seconds_count{pool="fake"}`,
		"a guest's console":  "booting\n",
	} {
		if !strings.Contains(served, want) {
			t.Errorf("%s is not told: %s", what, want)
		}
	}
	// While guests live and afterwards; theirs alone is their own disk.
	files := contents(t, home)
	if err := h.stop(); err != nil {
		t.Fatal(err)
	}
	files += contents(t, home)
	for _, kept := range []string{".log\n", ".console\nbooting\n", "/events/events.jsonl\n", "/history.db\n"} {
		if !strings.Contains(files, kept) {
			t.Errorf("nothing was looked for in a file %q of the home", kept)
		}
	}

	jit, err := os.ReadFile(seen)
	if err != nil || len(jit) < 100 {
		t.Fatalf("no guest had a credential: %d bytes, %v", len(jit), err)
	}
	planted := map[string]string{"token": plantedToken, "password": plantedPassword, "metrics token": plantedMetrics, "download token": plantedRelease}
	for i, credential := range strings.Fields(string(jit)) {
		planted[fmt.Sprintf("JIT configuration %d", i)] = credential
		planted[fmt.Sprintf("middle of JIT configuration %d", i)] = credential[len(credential)/2:][:40]
	}
	for name, value := range planted {
		for where, text := range map[string]string{"a file of the home": files, "the log": log.String(), "what is served": served} {
			if strings.Contains(text, value) {
				i := strings.Index(text, value)
				t.Errorf("the %s stands in %s: ...%s", name, where, text[max(0, i-200):i])
			}
		}
	}
}

// contents returns all files below a folder, but those of guests, with their
// names.
func contents(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil // it went meanwhile
		case err != nil:
			return err
		case d.IsDir() && d.Name() == "fake":
			return fs.SkipDir
		case !d.Type().IsRegular():
			return nil
		}
		data, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		fmt.Fprintf(&b, "\n== %s\n%s", path, data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}
