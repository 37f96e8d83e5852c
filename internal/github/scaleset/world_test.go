package scaleset_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mirego/tasuki/internal/base/secret"
	"github.com/mirego/tasuki/internal/emulator"
	"github.com/mirego/tasuki/internal/emulator/protorunner"
	"github.com/mirego/tasuki/internal/emulator/workflow"
	"github.com/mirego/tasuki/internal/github"
	"github.com/mirego/tasuki/internal/github/scaleset"
	"github.com/mirego/tasuki/internal/runner"
	"github.com/mirego/tasuki/internal/wait"
)

const token = "ghp_aTokenThatOnlyTheEmulatorKnows"

// world is a GitHub in memory, in the time of a synctest bubble.
type world struct {
	*emulator.Emulator
	t       *testing.T
	counted *counter
	client  *github.Client
	service *scaleset.Service
}

// counter counts requests by method and path, ids left out.
type counter struct {
	next http.RoundTripper
	mu   sync.Mutex
	seen map[string]int
	each func(*http.Request) error // if not nil, called first
}

// before sets what is called before each request, whose error takes its place.
func (c *counter) before(each func(*http.Request) error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.each = each
}

func (c *counter) RoundTrip(r *http.Request) (*http.Response, error) {
	parts := strings.Split(r.URL.Path, "/")
	for i, p := range parts {
		if p != "" && strings.Trim(p, "0123456789") == "" || len(p) == 36 {
			parts[i] = "ID"
		}
	}
	c.mu.Lock()
	c.seen[r.Method+" "+strings.Join(parts, "/")]++
	each := c.each
	c.mu.Unlock()
	if each != nil {
		if err := each(r); err != nil {
			return nil, err
		}
	}
	return c.next.RoundTrip(r)
}

func (c *counter) count(piece string) (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for key, times := range c.seen {
		if strings.Contains(key, piece) {
			n += times
		}
	}
	return n
}

func newWorld(t *testing.T, opt emulator.Options) *world {
	t.Helper()
	opt.Token = secret.New(token)
	e := emulator.New(opt)
	c := &counter{next: emulator.Transport{Handler: e.Handler()}, seen: map[string]int{}}
	client, err := github.New(github.Options{
		URL: "http://127.0.0.1:1", Scope: "octo", HTTP: c,
		Token:  func(context.Context) (secret.String, error) { return secret.New(token), nil },
		Random: func() float64 { return 0 },
	})
	if err != nil {
		t.Fatal(err)
	}
	return &world{e, t, c, client, scaleset.NewService(client)}
}

// pool is a pool of one host, as the agent keeps it: runners come and go as the
// set wants them.
type pool struct {
	w    *world
	set  *scaleset.Set
	file string
	hold time.Duration
	// lame keeps it from starting runners.
	lame bool

	stop context.CancelFunc
	work sync.WaitGroup
	poke chan struct{}

	mu        sync.Mutex
	alive     map[string]bool // and whether it has a job, as far as we were told
	made      int
	started   []string
	completed []string
	problems  []string // "" where one ended
	problem   string
	most      int // runners at once
	errs      []error
}

type host struct {
	installation, file string
	settings           scaleset.Settings
}

func (w *world) host() host {
	return host{"aaaaaa", filepath.Join(w.t.TempDir(), "pool.json"), scaleset.Settings{
		Name: "pool", Labels: []string{"self-hosted", "Linux", "ARM64", "mirego"}, Capacity: 2,
	}}
}

// listen starts a pool; it ends with the test at the latest.
func (w *world) listen(h host) *pool {
	w.t.Helper()
	p := w.pool(h)
	p.start()
	return p
}

func (w *world) pool(h host) *pool {
	w.t.Helper()
	set, err := scaleset.New(scaleset.Options{
		Service: w.service, Pool: "pool", Installation: h.installation, Host: "host-" + h.installation, File: h.file,
		Random: func() float64 { return 0.5 },
		Log:    slog.New(slog.NewTextHandler(w.t.Output(), nil)),
	}, h.settings)
	if err != nil {
		w.t.Fatal(err)
	}
	return &pool{w: w, set: set, file: h.file, poke: make(chan struct{}, 1), alive: map[string]bool{}}
}

func (p *pool) start() {
	ctx, stop := context.WithCancel(context.Background())
	p.stop = stop
	p.w.t.Cleanup(p.end)
	changed := func() {
		select {
		case p.poke <- struct{}{}:
		default:
		}
	}
	p.work.Go(func() {
		p.set.Listen(ctx, scaleset.Ear{
			Changed: changed,
			Started: func(name string, job runner.Job) {
				p.mu.Lock()
				p.started = append(p.started, name)
				if _, there := p.alive[name]; there {
					p.alive[name] = true
				}
				p.mu.Unlock()
				changed()
			},
			Completed: func(name string, job runner.Job) {
				p.mu.Lock()
				defer p.mu.Unlock()
				p.completed = append(p.completed, name+":"+job.Conclusion)
			},
			Problem: func(trouble wait.Reason) {
				text := trouble.Text
				p.mu.Lock()
				defer p.mu.Unlock()
				p.problems, p.problem = append(p.problems, text), text
			},
		})
	})
	p.work.Go(func() { p.keep(ctx) })
}

// end is what an agent does that ends.
func (p *pool) end() {
	p.stop()
	p.work.Wait()
}

// kill ends it as kill -9 does: nothing is said to GitHub.
func (p *pool) kill() {
	p.w.counted.before(func(r *http.Request) error {
		if r.Method == http.MethodDelete && strings.Contains(r.URL.Path, "/sessions/") {
			return errors.New("killed")
		}
		return nil
	})
	p.end()
	p.w.counted.before(nil)
}

// keep is a small agent.
func (p *pool) keep(ctx context.Context) {
	tick := time.NewTicker(15 * time.Second)
	defer tick.Stop()
	resync := time.NewTicker(30 * time.Second)
	defer resync.Stop()
	for {
		p.pass(ctx)
		select {
		case <-ctx.Done():
			return
		case <-p.poke:
		case <-tick.C:
		case <-resync.C:
			if _, err := p.set.Runners(ctx); err != nil && ctx.Err() == nil {
				p.failed(err)
			}
		}
	}
}

func (p *pool) failed(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.errs = append(p.errs, err)
}

func (p *pool) pass(ctx context.Context) {
	want := p.set.Want().Runners()
	p.mu.Lock()
	if p.lame {
		want = 0
	}
	waiting := 0
	for _, busy := range p.alive {
		if !busy {
			waiting++
		}
	}
	var names []string
	for ; waiting < want && len(p.alive) < 2; waiting++ {
		p.made++
		name := fmt.Sprintf("vm-%s-%d", filepath.Base(filepath.Dir(p.file)), p.made)
		p.alive[name] = false
		names = append(names, name)
	}
	p.most = max(p.most, len(p.alive))
	p.mu.Unlock()
	for _, name := range names {
		p.work.Go(func() { p.run(ctx, name) })
	}
}

func (p *pool) run(ctx context.Context, name string) {
	defer func() {
		p.mu.Lock()
		delete(p.alive, name)
		p.mu.Unlock()
	}()
	cred, err := p.set.Credential(ctx, runner.Registration{Name: name})
	if err != nil {
		if ctx.Err() == nil {
			p.failed(err)
			time.Sleep(time.Second)
		}
		return
	}
	err = protorunner.Run(ctx, cred.Env[github.JITConfigKey].Reveal(), protorunner.Options{Client: p.w.Client(), Hold: p.hold})
	if err != nil && ctx.Err() == nil && !errors.Is(err, protorunner.ErrGone) {
		p.failed(err)
	}
}

// submit queues a run of a workflow with n jobs.
func (w *world) submit(n int) int64 {
	w.t.Helper()
	numbers := make([]string, n)
	for i := range numbers {
		numbers[i] = fmt.Sprint(i + 1)
	}
	flow, err := workflow.Parse("ci.yml", fmt.Appendf(nil,
		"on: push\njobs:\n  test:\n    runs-on: [self-hosted, ARM64, mirego]\n    strategy:\n      matrix: {n: [%s]}\n    steps:\n      - run: echo\n", strings.Join(numbers, ", ")))
	if err != nil {
		w.t.Fatal(err)
	}
	id, err := w.Submit(flow, "")
	if err != nil {
		w.t.Fatal(err)
	}
	return id
}

// finish waits for a run that shall succeed.
func (w *world) finish(run int64) emulator.RunState {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 10*time.Hour)
	defer cancel()
	state, err := w.WaitRun(ctx, run)
	if err != nil || state.Conclusion != "success" {
		w.t.Errorf("the run ended %q, %v", state.Conclusion, err)
	}
	return state
}

// until waits in the bubble's time.
func (w *world) until(what string, ok func() bool) {
	w.t.Helper()
	for range 40_000 {
		if ok() {
			return
		}
		time.Sleep(250 * time.Millisecond)
	}
	w.t.Fatalf("it never came that %s; the state is %+v", what, w.State().ScaleSets)
}

// theSet is the one scale set that there is.
func (w *world) theSet() emulator.ScaleSetState {
	w.t.Helper()
	all := w.State().ScaleSets
	if len(all) != 1 {
		w.t.Fatalf("there are %d scale sets, want 1: %+v", len(all), all)
	}
	return all[0]
}

// listening waits until somebody listens to the one set.
func (w *world) listening() {
	w.t.Helper()
	w.until("somebody listens", func() bool {
		all := w.State().ScaleSets
		return len(all) > 0 && all[0].Listening && all[0].Capacity != nil
	})
}

func (p *pool) check(t *testing.T, runs int) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, err := range p.errs {
		t.Error(err)
	}
	slices.Sort(p.completed)
	if len(slices.Compact(p.completed)) != runs {
		t.Errorf("heard of %d completions, want %d: %v", len(p.completed), runs, p.completed)
	}
}
