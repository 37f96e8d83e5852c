package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mirego/tasuki/internal/base/secret"
	"github.com/mirego/tasuki/internal/config"
	"github.com/mirego/tasuki/internal/emulator"
	"github.com/mirego/tasuki/internal/emulator/workflow"
)

// setWorld is an emulator on this machine, and hosts whose guests are processes.
type setWorld struct {
	*emulator.Emulator
	t   *testing.T
	url string
}

func newSetWorld(t *testing.T) *setWorld {
	t.Helper()
	e := emulator.New(emulator.Options{Token: secret.New("ghp_aTokenOfNobody")})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- e.Run(ctx, l) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	t.Setenv("TASUKI_TEST_TOKEN", "ghp_aTokenOfNobody")
	return &setWorld{e, t, "http://" + l.Addr().String()}
}

// setHost is a host that runs.
type setHost struct {
	*host
	t    *testing.T
	home string
	end  func()
}

// config writes a configuration of one pool, whose settings are given as YAML.
func (w *setWorld) config(home, pool string) *config.Config {
	w.t.Helper()
	program := filepath.Join(filepath.Dir(home), "program")
	self, err := os.Executable()
	if err != nil {
		w.t.Fatal(err)
	}
	if err := os.MkdirAll(program, 0o700); err != nil {
		w.t.Fatal(err)
	}
	if err := os.Symlink(self, filepath.Join(program, "protorunner")); err != nil && !errors.Is(err, os.ErrExist) {
		w.t.Fatal(err)
	}
	script := "#!/bin/sh\nexec " + filepath.Join(program, "protorunner") + "\n"
	if err := os.WriteFile(filepath.Join(program, "run"), []byte(script), 0o700); err != nil {
		w.t.Fatal(err)
	}
	cfg, err := config.Parse(filepath.Join(home, "host.yaml"), fmt.Appendf(nil,
		"host: {name: mini, slots: 2, home: %s, tick: 100ms}\ngithub: {url: %q, token: {env: TASUKI_TEST_TOKEN}}\n"+
			"pools:\n  - {name: ios, driver: fake, image: %s, scope: octo, %s}\n", home, w.url, program, pool))
	if err != nil {
		w.t.Fatal(err)
	}
	return cfg
}

func (w *setWorld) run(home, pool string) *setHost {
	w.t.Helper()
	log := slog.New(slog.NewTextHandler(w.t.Output(), &slog.HandlerOptions{Level: slog.LevelInfo}))
	h, err := newHost(w.t.Context(), w.config(home, pool), log)
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- h.agent.Run(ctx) }()
	over := false
	out := &setHost{h, w.t, home, func() {
		if over {
			return
		}
		over = true
		stop()
		if err := errors.Join(<-ended, h.agent.Teardown(context.Background()), h.Close()); err != nil {
			w.t.Error(err)
		}
	}}
	w.t.Cleanup(out.end)
	return out
}

// until waits until what the emulator says, or the host, is as wanted.
func (w *setWorld) until(what string, ok func() bool) {
	w.t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			w.t.Fatalf("it never came that %s: %+v", what, w.State().ScaleSets)
		}
	}
}

func (w *setWorld) listens(name string) bool {
	for _, s := range w.State().ScaleSets {
		if s.Name == name && s.Listening && s.Capacity != nil && *s.Capacity > 0 {
			return true
		}
	}
	return false
}

// jobs runs a workflow of n jobs to its end.
func (w *setWorld) jobs(n int, labels string) {
	w.t.Helper()
	numbers := strings.Trim(strings.Repeat("1, ", n), ", ")
	for i := range n {
		numbers = strings.Replace(numbers, "1", fmt.Sprint(i+2), 1)
	}
	flow, err := workflow.Parse("ci.yml", fmt.Appendf(nil,
		"on: push\njobs:\n  test:\n    runs-on: %s\n    strategy:\n      matrix: {n: [%s]}\n    steps:\n      - run: echo\n", labels, numbers))
	if err != nil {
		w.t.Fatal(err)
	}
	run, err := w.Submit(flow, "")
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	state, err := w.WaitRun(ctx, run)
	if err != nil || state.Conclusion != "success" || len(state.Jobs) != n {
		w.t.Fatalf("the run of %d jobs ended %q, %v: %+v", n, state.Conclusion, err, state.Jobs)
	}
}

func TestHostServesAScaleSet(t *testing.T) {
	w := newSetWorld(t)
	h := w.run(filepath.Join(t.TempDir(), "home"), "labels: [ARM64, mirego], scaleset: {}")
	w.until("the host listens", func() bool { return w.listens("tasuki-mini-ios") })
	w.jobs(5, "[self-hosted, ARM64, mirego]")
	w.until("all runners have left", func() bool { return len(w.State().Runners) == 0 && len(h.agent.Status().Runners) == 0 })

	info, err := os.Stat(filepath.Join(h.home, "scalesets", "ios.json"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the book: %v, %v", info, err)
	}
	// An unchanged configuration, and one that asks for other numbers, leave the
	// session alone; the set's labels are another set.
	owner := w.State().ScaleSets[0].Owner
	if err := h.reconfigure(t.Context(), w.config(h.home, "labels: [ARM64, mirego], scaleset: {warm: 1}")); err != nil {
		t.Fatal(err)
	}
	w.until("a runner waits", func() bool { return len(w.State().Runners) == 1 && w.State().Runners[0].Online })
	if sets := w.State().ScaleSets; len(sets) != 1 || sets[0].Owner != owner || !strings.HasPrefix(owner, "tasuki-") || !strings.HasSuffix(owner, "-mini") {
		t.Errorf("after a reload: %+v", sets)
	}
	if err := h.reconfigure(t.Context(), w.config(h.home, "labels: [other], scaleset: {}")); err != nil {
		t.Fatal(err)
	}
	w.until("one set is left, with the new labels", func() bool {
		sets := w.State().ScaleSets
		return len(sets) == 1 && strings.Contains(strings.Join(sets[0].Labels, " "), "other") && w.listens(sets[0].Name)
	})
	w.jobs(2, "[self-hosted, other]")
	h.end()
	if sets := w.State().ScaleSets; len(sets) != 1 || sets[0].Owner != "" {
		t.Errorf("an agent that has ended leaves %+v; want its set, and no session", sets)
	}
}

func TestTwoHostsOnOneScaleSet(t *testing.T) {
	w := newSetWorld(t)
	const pool = "labels: [mirego], scaleset: {name: macs, warm: 1}"
	first := w.run(filepath.Join(t.TempDir(), "home"), pool)
	w.until("the first host listens", func() bool { return w.listens("macs") })
	second := w.run(filepath.Join(t.TempDir(), "home"), pool)
	w.until("the second says whose it is", func() bool {
		return strings.Contains(strings.Join(second.agent.Status().Problems, "\n"),
			"held by installation "+first.agent.Status().Installation+" on host mini")
	})
	if text := strings.Join(second.agent.Status().Problems, "\n"); !strings.Contains(text, "standby") {
		t.Errorf("it does not say what to do: %s", text)
	}
	w.jobs(4, "[self-hosted, mirego]")
	if n := len(second.agent.Status().Runners); n != 0 {
		t.Errorf("the second host has %d runners of a set that it does not hear", n)
	}
}
