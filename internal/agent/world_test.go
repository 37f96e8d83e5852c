package agent_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/mirego/tasuki/internal/agent"
	"github.com/mirego/tasuki/internal/api"
	"github.com/mirego/tasuki/internal/base/proc"
	"github.com/mirego/tasuki/internal/emulator"
	"github.com/mirego/tasuki/internal/emulator/workflow"
	"github.com/mirego/tasuki/internal/event"
	"github.com/mirego/tasuki/internal/journal"
	"github.com/mirego/tasuki/internal/runner"
	"github.com/mirego/tasuki/internal/vm/fake"
)

// world is everything around an agent: GitHub, and what a home holds.
type world struct {
	t       *testing.T
	em      *emulator.Emulator
	url     string
	home    string
	program string
}

// patience bounds every wait of these tests; nothing should come near it.
const patience = 150 * time.Second

func newWorld(t *testing.T, opt emulator.Options) *world {
	t.Helper()
	opt.PollHold, opt.PickupTimeout, opt.OfflineAfter = 2*time.Second, 5*time.Second, 5*time.Second
	if opt.LockDuration == 0 {
		opt.LockDuration = time.Minute
	}
	w := &world{t: t, em: emulator.New(opt), home: t.TempDir(), program: programDir(t, "300ms")}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w.url = "http://" + ln.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- w.em.Run(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			t.Errorf("emulator: %v", err)
		}
	})
	return w
}

var built struct {
	sync.Once
	path string
	err  error
}

// programDir makes a folder with a runner program that holds its job so long.
func programDir(t *testing.T, hold string) string {
	t.Helper()
	built.Do(func() {
		dir, err := os.MkdirTemp("", "protorunner")
		if err != nil {
			built.err = err
			return
		}
		built.path = filepath.Join(dir, "protorunner")
		_, built.err = proc.Run(context.Background(), proc.Cmd{Path: "go", Args: []string{"build", "-o", built.path,
			"github.com/mirego/tasuki/internal/emulator/protorunner/cmd/protorunner"}})
	})
	if built.err != nil {
		t.Fatalf("cannot build the small runner: %v", built.err)
	}
	dir := t.TempDir()
	script := fmt.Sprintf("#!/bin/sh\nexec '%s' -hold %s\n", built.path, hold)
	if err := os.WriteFile(filepath.Join(dir, "run"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

// submit queues a run of so many jobs.
func (w *world) submit(jobs int) int64 {
	w.t.Helper()
	src := "on: push\njobs:\n"
	for i := range jobs {
		src += fmt.Sprintf("  j%d:\n    runs-on: [self-hosted, mirego]\n    steps:\n      - run: echo hello\n", i)
	}
	wf, err := workflow.Parse("test.yml", []byte(src))
	if err != nil {
		w.t.Fatal(err)
	}
	id, err := w.em.Submit(wf, w.t.TempDir())
	if err != nil {
		w.t.Fatal(err)
	}
	return id
}

// start runs an agent in a process of its own.
func (w *world) start(kill string) proc.ID {
	w.t.Helper()
	ready, known := filepath.Join(w.home, "ready"), filepath.Join(w.home, "known")
	_, _ = os.Remove(ready), os.Remove(known)
	self, err := os.Executable()
	if err != nil {
		w.t.Fatal(err)
	}
	id, err := proc.Detach(proc.Cmd{Path: self, Env: []string{
		"TASUKI_TEST_HOST=" + w.home, "TASUKI_TEST_URL=" + w.url, "TASUKI_TEST_PROGRAM=" + w.program, "TASUKI_TEST_KILL=" + kill,
	}}, filepath.Join(w.home, "agent.log"))
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = id.Kill(context.Background()) })
	if err := os.WriteFile(known, nil, 0o600); err != nil {
		w.t.Fatal(err)
	}
	w.until("the agent takes signals", func() bool {
		_, err := os.Stat(ready)
		return err == nil || !id.Alive()
	})
	return id
}

// host is an agent in this process.
type host struct {
	*agent.Agent
	opt  agent.Options
	logs *lockedBuffer
	end  context.CancelFunc // as a second signal does
	done chan error
}

// run runs an agent in this process, with faults of the hypervisor and options
// changed before.
func (w *world) run(faults fake.Faults, change func(*agent.Options)) *host {
	w.t.Helper()
	return w.runAt(site{w.home, w.url, w.program, installation}, faults, change)
}

// runAt is run with a home and an installation of the host's own.
func (w *world) runAt(at site, faults fake.Faults, change func(*agent.Options)) *host {
	w.t.Helper()
	opt, err := at.options(faults)
	if err != nil {
		w.t.Fatal(err)
	}
	h := &host{logs: &lockedBuffer{}, done: make(chan error, 1)}
	opt.Log = slog.New(slog.NewTextHandler(h.logs, nil))
	if change != nil {
		change(&opt)
	}
	if h.Agent, err = agent.New(opt); err != nil {
		w.t.Fatal(err)
	}
	h.opt = opt
	ctx, end := context.WithCancel(context.Background())
	h.end = end
	go func() { h.done <- h.Run(ctx) }()
	w.t.Cleanup(func() {
		end()
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		for _, p := range opt.Pools {
			guests, _ := p.Driver.List(ctx)
			for _, g := range guests {
				_ = p.Driver.Destroy(ctx, g.Name)
			}
		}
		if w.t.Failed() {
			w.t.Logf("agent:\n%s", h.logs)
		}
	})
	return h
}

// finish drains the host and checks that nothing is left.
func (w *world) finish(h *host) {
	w.t.Helper()
	h.Shutdown()
	select {
	case err := <-h.done:
		if err != nil {
			w.t.Errorf("Run: %v", err)
		}
	case <-time.After(patience):
		w.t.Fatalf("the agent does not end: %+v", h.Status().Runners)
	}
	w.nothingLeft()
}

// runner waits until the host has a runner in a state, and returns it.
func (w *world) runner(h *host, state runner.State) api.Runner {
	w.t.Helper()
	var found api.Runner
	w.until("a runner is "+string(state), func() bool {
		for _, r := range h.Status().Runners {
			if r.State == state {
				found = r
				return true
			}
		}
		return false
	})
	return found
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// ends waits until a process is gone.
func (w *world) ends(id proc.ID) {
	w.t.Helper()
	w.until("the agent's process ends", func() bool { return !id.Alive() })
}

// drain lets an agent finish.
func (w *world) drain(id proc.ID) {
	w.t.Helper()
	if err := id.Signal(syscall.SIGTERM, false); err != nil {
		w.t.Fatalf("cannot ask the agent to end: %v\n%s", err, w.log())
	}
	w.ends(id)
}

func (w *world) until(what string, f func() bool) {
	w.t.Helper()
	for end := time.Now().Add(patience); !f(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			state, _ := json.MarshalIndent(w.em.State(), "", " ")
			w.t.Fatalf("waited %v until %s\nGitHub: %s\nagent:\n%s", patience, what, state, w.log())
		}
	}
}

func (w *world) log() string {
	b, _ := os.ReadFile(filepath.Join(w.home, "agent.log"))
	return string(b[max(0, len(b)-6000):])
}

// concluded waits for a run's end and checks that each job was executed once.
func (w *world) concluded(run int64, want string) {
	w.t.Helper()
	w.until("the run ends", func() bool {
		r, _ := w.em.RunState(run)
		return r.Status == "completed"
	})
	r, _ := w.em.RunState(run)
	for _, j := range r.Jobs {
		if j.Conclusion != want {
			w.t.Errorf("job %s of runner %s: %s (%s), want %s\n%s", j.Name, j.RunnerName, j.Conclusion, j.Reason, want, w.log())
		}
	}
}

// nothingLeft checks that no guest, registration, record, key or process is
// left of the host.
func (w *world) nothingLeft() {
	w.t.Helper()
	driver, err := fake.New(fake.Options{Dir: filepath.Join(w.home, "guests"), Installation: installation, Prefix: "tasuki"})
	if err != nil {
		w.t.Fatal(err)
	}
	guests, err := driver.List(w.t.Context())
	if err != nil || len(guests) > 0 {
		w.t.Errorf("guests left: %v, %v\n%s", guests, err, w.log())
	}
	if left := w.em.State().Runners; len(left) > 0 {
		w.t.Errorf("registrations left: %+v\n%s", left, w.log())
	}
	j, err := journal.Open(filepath.Join(w.home, "journal"))
	if err != nil {
		w.t.Fatal(err)
	}
	if records, err := j.All(); err != nil || len(records) > 0 {
		w.t.Errorf("records left: %+v, %v\n%s", records, err, w.log())
	}
	for _, dir := range []string{"keys", "journal"} {
		if left, _ := os.ReadDir(filepath.Join(w.home, dir)); len(left) > 0 {
			w.t.Errorf("files left in %s: %v", dir, left)
		}
	}
}

func contains(text string, parts ...string) bool {
	return !slices.ContainsFunc(parts, func(p string) bool { return !strings.Contains(text, p) })
}

// eventList keeps events.
type eventList struct {
	mu   sync.Mutex
	seen []event.Event
}

// Emit implements event.Sink.
func (l *eventList) Emit(e event.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seen = append(l.seen, e)
}

func (l *eventList) count(kind event.Kind) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.seen {
		if e.Kind == kind {
			n++
		}
	}
	return n
}
