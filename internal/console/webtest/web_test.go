package webtest

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/mirego/tasuki/internal/base/proc"
	"github.com/mirego/tasuki/internal/console"
)

// browserVariable asks for these tests; make test sets it on Linux.
const browserVariable = "TASUKI_TEST_BROWSER"

// shotsVariable names a folder for screenshots; empty: none are kept.
const shotsVariable = "TASUKI_TEST_SHOTS"

// patience bounds the whole of it, so that a browser that hangs ends.
const patience = 15 * time.Minute

// TestTheConsoleInABrowser runs console.test.mjs.
func TestTheConsoleInABrowser(t *testing.T) {
	if os.Getenv(browserVariable) == "" {
		t.Skip("needs a browser: set " + browserVariable + "=1, or run make test, which installs it")
	}
	for _, program := range []string{"node", "chromium"} {
		if _, err := proc.Look(program); err != nil {
			t.Fatalf("%v; make prepare installs it", err)
		}
	}
	for _, module := range []string{"playwright-core", "axe-core"} {
		if _, err := os.Stat(filepath.Join("node_modules", module)); err != nil {
			t.Fatalf("%v; make prepare runs npm ci", err)
		}
	}
	control := newControl(t)
	ctx, cancel := context.WithTimeoutCause(t.Context(), patience, fmt.Errorf("the browser took more than %v", patience))
	defer cancel()
	env := []string{"CONTROL=" + control, "SHOTS=" + os.Getenv(shotsVariable), "CHROMIUM_PROFILE=" + t.TempDir()}
	res, err := proc.Run(ctx, proc.Cmd{Path: "node", Args: []string{"console.test.mjs"}, Env: env, Grace: 5 * time.Second})
	t.Logf("%s", res.Stdout)
	if err != nil {
		t.Errorf("%v\n%s", err, res.Stderr)
	}
}

// control is what the browser's side asks for.
type control struct {
	t     *testing.T
	fleet *fleet
	all   map[string]*served
}

// served is a console that can be stopped and begun again at its address.
type served struct {
	t    *testing.T
	opt  console.Options
	mu   sync.Mutex
	now  *console.Console
	stop func()
}

// newControl serves all consoles, and returns the address of the control.
func newControl(t *testing.T) string {
	t.Helper()
	c := &control{t: t, fleet: newFleet(t), all: map[string]*served{}}
	for name, opt := range map[string]console.Options{"fleet": c.fleet.options(), "empty": empty(t), "full": full(t), "failing": failing(t)} {
		c.all[name] = &served{t: t, opt: opt}
		c.all[name].start()
		t.Cleanup(c.all[name].end)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	srv := &http.Server{Handler: c, ReadHeaderTimeout: time.Minute}
	var work sync.WaitGroup
	work.Go(func() { _ = srv.Serve(l) })
	t.Cleanup(func() { _ = srv.Close(); work.Wait() })
	return "http://" + l.Addr().String()
}

func (s *served) start() {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, err := console.New(s.opt)
	must(s.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	var work sync.WaitGroup
	work.Go(func() { c.Run(ctx) })
	s.now, s.stop = c, func() { cancel(); work.Wait() }
	link, err := c.Link(s.t.Context())
	must(s.t, err)
	s.opt.Listen = link.Address // the next one is there, too
}

func (s *served) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stop != nil {
		s.stop()
		s.stop = nil
	}
}

func (s *served) link(ctx context.Context) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	link, err := s.now.Link(ctx)
	return link.URL, err
}

// ServeHTTP implements http.Handler.
func (c *control) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	var answer any = true
	var err error
	switch r.URL.Path {
	case "/link":
		answer, err = c.all[q.Get("of")].link(r.Context())
	case "/stop":
		c.all[q.Get("of")].end()
	case "/start":
		c.all[q.Get("of")].start()
	case "/submit":
		n, _ := strconv.Atoi(q.Get("n"))
		err = c.fleet.submit(n, q.Get("label"))
	case "/hold":
		err = os.Remove(c.fleet.finish)
	case "/finish":
		err = os.WriteFile(c.fleet.finish, nil, 0o600)
	case "/status":
		answer = c.fleet.agent.Status()
	default:
		http.NotFound(w, r)
		return
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	_ = json.NewEncoder(w).Encode(answer)
}

// The files of others that we carry are those of uplot@1.6.32 at the npm
// registry: dist/uPlot.iife.min.js, dist/uPlot.min.css and LICENSE.
func TestVendoredFilesAreTheirs(t *testing.T) {
	for name, want := range map[string]string{
		"uplot.min.js":      "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f",
		"uplot.min.css":     "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04",
		"uplot.LICENSE.txt": "8f989229699b4fe2f1a0432d0e9edc338a8a911e250e2d1b01ecd770a5f5b1bd",
	} {
		b, err := os.ReadFile(filepath.Join("..", "assets", name))
		must(t, err)
		if sum := fmt.Sprintf("%x", sha256.Sum256(b)); sum != want {
			t.Errorf("%s has the digest %s, and is to have %s: it was changed, or is of another version", name, sum, want)
		}
	}
}
