package e2e

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mirego/tasuki/internal/base/secret"
	"github.com/mirego/tasuki/internal/emulator"
	"github.com/mirego/tasuki/internal/vm/fake"
)

// sets are the scale sets of the burst, and how long their jobs take.
var sets = []struct {
	name string
	hold time.Duration
}{{"small", 100 * time.Millisecond}, {"medium", 500 * time.Millisecond}, {"large", 1500 * time.Millisecond}}

const (
	burstSlots = 8
	burstSize  = 50 // jobs that are queued at once
)

// burstFaults is what goes wrong meanwhile, spread over n jobs: most of what
// others met on the way between a runner manager and GitHub.
func burstFaults(n int) (all []emulator.Fault) {
	zero := 0
	for _, f := range []emulator.Fault{
		{Route: "POST generatejitconfig", LoseReply: true, Skip: 3},
		{Route: "POST generatejitconfig", Status: 502, Skip: 7},
		{Route: "POST generatejitconfig", Status: 429, RetryAfter: time.Second, Skip: 20},
		{Route: "GET queue", NoBody: true, Skip: 10},
		{Route: "GET queue", Status: 503, Skip: 25},
		{Route: "GET queue", LoseReply: true, Skip: 40},
		{Route: "GET queue", Evict: true, Skip: 60},
		{Route: "DELETE queue", LoseReply: true, Skip: 5},
		{Route: "GET actions/runners", Status: 500, Skip: 5},
		{Route: "GET actions/runners", Delay: 2 * time.Second, Skip: 20},
		{Route: "DELETE runners", LoseReply: true, Skip: 2},
		{Message: "JobStarted", Lose: true, Skip: 5},
		{Message: "JobStarted", Delay: 3 * time.Second, Skip: 15},
		{Message: "JobCompleted", Lose: true, Skip: 8},
		{Message: "JobCompleted", Twice: true, Skip: 20},
		{Message: "JobCompleted", Nameless: true, Skip: 30},
		{Assigned: &zero, Skip: 30},
		{Route: "POST completejob", LoseReply: true, Skip: 9},
	} {
		f.Times = 1
		for i := 0; i == 0 || i < n/burstSize; i++ {
			all = append(all, f)
			f.Skip += burstSize
		}
	}
	return all
}

// burst is the story: a host with the fake driver, three scale sets, and bursts
// of jobs.
type burst struct {
	*world
	calls  *calls
	killed map[string]time.Time // runners whose guests were killed at work, and when
	began  time.Time
	took   time.Duration
}

// TestBurstOverThreeScaleSets lets bursts of jobs over three scale sets meet one
// host while much goes wrong: each job is taken once and concluded once, a job
// whose guest is killed fails and is nobody else's, and nothing is left. It
// prints the figures of docs/performance.md; TASUKI_BURST_JOBS says how many
// jobs, make soak takes 1,000.
func TestBurstOverThreeScaleSets(t *testing.T) {
	jobs := 60
	if os.Getenv("TASUKI_SOAK") != "" {
		jobs = 1000
	}
	if text := os.Getenv("TASUKI_BURST_JOBS"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			t.Fatalf("TASUKI_BURST_JOBS=%q is not a number of jobs", text)
		}
		jobs = n
	}
	b := newBurst(t)
	b.start()
	b.until("all sets listen", func() bool {
		state := b.em.State().ScaleSets
		return len(state) == len(sets) && !slices.ContainsFunc(state, func(s emulator.ScaleSetState) bool { return !s.Listening })
	})
	b.em.SetFaults(burstFaults(jobs))
	b.began = time.Now()
	runs := b.queue(jobs)
	b.waitForAll(runs)
	b.took = time.Since(b.began)
	b.em.SetFaults(nil)
	b.term()
	b.check(jobs)
	b.report()
}

func newBurst(t *testing.T) *burst {
	t.Helper()
	bin := t.TempDir()
	s := &site{tasuki: build(t, "../..", "./cmd/tasuki", filepath.Join(bin, "tasuki"))}
	program := build(t, "../..", "./internal/emulator/protorunner/cmd/protorunner", filepath.Join(bin, "protorunner"))
	token := rand.Text()
	w := &world{t: t, site: s, home: t.TempDir(), em: emulator.New(emulator.Options{
		Token: secret.New(token), Repository: "octo/demo", LockDuration: 20 * time.Second, OfflineAfter: 10 * time.Second,
	})}
	b := &burst{world: w, calls: &calls{n: map[string]int{}}, killed: map[string]time.Time{}}
	w.url = "http://" + serve(t, func(ctx context.Context, l net.Listener) error {
		server := &http.Server{Handler: b.calls.count(w.em.Handler()), ReadHeaderTimeout: time.Minute}
		stop := context.AfterFunc(ctx, func() { _ = server.Close() })
		defer stop()
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	t.Cleanup(b.endGuests)
	t.Cleanup(w.endAll)
	b.write("token", token)
	config := fmt.Sprintf("host: {name: burst, home: %q, slots: %d, drain_timeout: 2m, tick: 500ms}\n", w.home, burstSlots) +
		fmt.Sprintf("github: {url: %q, token: {file: token}}\ndefaults: {driver: fake, scope: octo}\npools:\n", w.url)
	for _, set := range sets {
		dir := filepath.Join(w.home, "program-"+set.name)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		b.write("program-"+set.name+"/run", fmt.Sprintf("#!/bin/sh\nexec '%s' -hold %s\n", program, set.hold))
		if err := os.Chmod(filepath.Join(dir, "run"), 0o700); err != nil {
			t.Fatal(err)
		}
		config += fmt.Sprintf("  - {name: %s, image: %q, labels: [%s], scaleset: {name: burst-%s}}\n", set.name, dir, set.name, set.name)
	}
	b.write("config.yaml", config)
	w.tasuki("config", "check", w.config())
	return b
}

func (b *burst) write(name, text string) {
	b.t.Helper()
	if err := os.WriteFile(filepath.Join(b.home, name), []byte(text), 0o600); err != nil {
		b.t.Fatal(err)
	}
}

// queue submits the jobs in bursts: the next when half of the last is over. In
// every other burst one guest is killed at work.
func (b *burst) queue(jobs int) (runs []int64) {
	b.t.Helper()
	for left := jobs; left > 0; left -= burstSize {
		n := min(left, burstSize)
		text := ""
		for i := range n {
			set := sets[i%len(sets)]
			text += fmt.Sprintf("  j%d:\n    runs-on: [self-hosted, %s]\n    steps:\n      - run: echo hello\n", i, set.name)
		}
		run := b.submit(text)
		if len(runs)%2 == 0 {
			b.killAtWork()
		}
		runs = append(runs, run)
		b.until("half of a burst is over", func() bool { return b.unfinished(run) <= n/2 })
	}
	return runs
}

// unfinished counts the jobs of a run that are not over.
func (b *burst) unfinished(run int64) int {
	r, ok := b.em.RunState(run)
	if !ok {
		b.t.Fatalf("there is no run %d", run)
	}
	n := 0
	for _, j := range r.Jobs {
		if j.Status != "completed" {
			n++
		}
	}
	return n
}

// killAtWork cuts the power of a guest whose job has just begun.
func (b *burst) killAtWork() {
	b.t.Helper()
	running := func(j emulator.JobState) bool { return j.Status == "in_progress" && slices.Contains(j.Labels, "large") }
	var victim emulator.JobState
	b.until("a long job has just begun", func() bool {
		all := b.jobs()
		i := slices.IndexFunc(all, func(j emulator.JobState) bool { return running(j) && time.Since(j.Started) < time.Second })
		if i >= 0 {
			victim = all[i]
		}
		return i >= 0
	})
	if err := b.driver().PowerOff(b.t.Context(), victim.RunnerName); err != nil {
		b.t.Fatal(err)
	}
	b.killed[victim.RunnerName] = time.Now()
}

func (b *burst) driver() *fake.Driver {
	b.t.Helper()
	id, err := os.ReadFile(filepath.Join(b.home, "installation"))
	if err != nil {
		b.t.Fatal(err)
	}
	d, err := fake.New(fake.Options{Dir: filepath.Join(b.home, "fake"), Installation: strings.TrimSpace(string(id)), Prefix: "tasuki-"})
	if err != nil {
		b.t.Fatal(err)
	}
	return d
}

// endGuests ends what a story that failed has left.
func (b *burst) endGuests() {
	if _, err := os.Stat(filepath.Join(b.home, "installation")); err != nil {
		return
	}
	d := b.driver()
	guests, _ := d.List(context.Background())
	for _, g := range guests {
		_ = d.Destroy(context.Background(), g.Name)
	}
}

func (b *burst) waitForAll(runs []int64) {
	b.t.Helper()
	for _, run := range runs {
		b.until(fmt.Sprintf("run %d is over", run), func() bool { return b.unfinished(run) == 0 })
	}
	b.until("every job is over", func() bool {
		return !slices.ContainsFunc(b.jobs(), func(j emulator.JobState) bool { return j.Status != "completed" })
	})
}

// jobs are those of all runs.
func (b *burst) jobs() (all []emulator.JobState) {
	for _, r := range b.em.State().Runs {
		all = append(all, r.Jobs...)
	}
	return all
}

func (b *burst) check(jobs int) {
	b.t.Helper()
	all, took := b.jobs(), map[string]int64{}
	if len(all) != jobs {
		b.t.Errorf("%d jobs, want %d", len(all), jobs)
	}
	for _, j := range all {
		want := "success"
		// One that its runner had reported when the power went is well.
		if at, killed := b.killed[j.RunnerName]; killed && j.Completed.After(at) {
			want = "failure"
		}
		if j.Conclusion != want {
			b.t.Errorf("job %d of run %d on %q: %s (%s), want %s", j.ID, j.RunID, j.RunnerName, j.Conclusion, j.Reason, want)
		}
		if other, twice := took[j.RunnerName]; twice || j.RunnerName == "" {
			b.t.Errorf("job %d ran on %q, which had job %d", j.ID, j.RunnerName, other)
		}
		took[j.RunnerName] = j.ID
	}
	if n := b.calls.ok("completejob"); n < len(all)-len(b.killed) {
		b.t.Errorf("%d jobs were concluded by their runners, want %d", n, len(all)-len(b.killed))
	}
	if n := b.calls.ok("acquirejob"); n != len(all) {
		b.t.Errorf("jobs were acquired %d times, want %d: each once", n, len(all))
	}
	guests, err := b.driver().List(b.t.Context())
	if err != nil || len(guests) > 0 {
		b.t.Errorf("guests are left: %v, %v", guests, err)
	}
	b.nothingLeft()
}

// report prints the figures.
func (b *burst) report() {
	all := b.jobs()
	var waits []time.Duration
	lapses := 0
	for _, j := range all {
		waits = append(waits, j.Started.Sub(j.Queued))
		lapses += j.Lapses
	}
	slices.Sort(waits)
	at := func(q float64) time.Duration {
		return waits[min(len(waits)-1, int(q*float64(len(waits))))].Round(10 * time.Millisecond)
	}
	var text bytes.Buffer
	fmt.Fprintf(&text, "%d jobs in bursts of %d over %d scale sets, %d slots, faults on, %d guests killed at work (%s/%s, %d processors)\n",
		len(all), burstSize, len(sets), burstSlots, len(b.killed), runtime.GOOS, runtime.GOARCH, runtime.NumCPU())
	fmt.Fprintf(&text, "throughput %.1f jobs/s in %v; queued to started p50 %v, p95 %v, p99 %v; %d assignments lapsed\n",
		float64(len(all))/b.took.Seconds(), b.took.Round(time.Second), at(0.50), at(0.95), at(0.99), lapses)
	fmt.Fprintf(&text, "calls of the agent per job: %s\n", b.calls.perJob(len(all)))
	b.t.Log("\n" + text.String())
}

// calls counts requests by what they are for, as they were answered.
type calls struct {
	mu sync.Mutex
	n  map[string]int // by purpose; and as "ok PART", by the path's last part, those that were answered 2xx
}

func (c *calls) count(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		status := &statusWriter{ResponseWriter: w, code: http.StatusOK}
		next.ServeHTTP(status, r)
		c.mu.Lock()
		defer c.mu.Unlock()
		c.n[purpose(r)]++
		if status.code < 300 {
			c.n["ok "+r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]]++
		}
	})
}

// purpose tells the agent's requests from those of runner programs.
func purpose(r *http.Request) string {
	switch p := r.URL.Path; {
	case strings.Contains(p, "/api/v3/"):
		return "REST"
	case strings.Contains(p, "generatejitconfig"):
		return "credential"
	case strings.Contains(p, "runnerscalesets"), strings.Contains(p, "runner-registration"):
		return "scale set"
	case strings.Contains(p, "/queue/") && r.Method == http.MethodGet:
		return "poll"
	case strings.Contains(p, "/queue/"):
		return "acknowledge"
	}
	return "runner"
}

func (c *calls) ok(last string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n["ok "+last]
}

func (c *calls) perJob(jobs int) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var parts []string
	sum := 0
	for _, kind := range []string{"credential", "poll", "acknowledge", "scale set", "REST"} {
		parts = append(parts, fmt.Sprintf("%s %.2f", kind, float64(c.n[kind])/float64(jobs)))
		sum += c.n[kind]
	}
	return fmt.Sprintf("%.2f (%s); of the runner programs %.2f", float64(sum)/float64(jobs), strings.Join(parts, ", "), float64(c.n["runner"])/float64(jobs))
}

type statusWriter struct {
	http.ResponseWriter
	code int
}

func (s *statusWriter) WriteHeader(code int) { s.code = code; s.ResponseWriter.WriteHeader(code) }

func (s *statusWriter) Unwrap() http.ResponseWriter { return s.ResponseWriter }
