package cli_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/mirego/tasuki/internal/base/proc"
)

// demoPatience bounds one demo with its image built before.
const demoPatience = 10 * time.Minute

// program is a running tasuki.
type program struct {
	t    *testing.T
	p    *os.Process
	mu   sync.Mutex
	out  bytes.Buffer
	read chan struct{} // closed when the output has ended
}

// start runs the built binary with its output kept.
func start(t *testing.T, binary string, args ...string) *program {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	root, _ := filepath.Abs("../..")
	p, err := os.StartProcess(binary, append([]string{binary}, args...), &os.ProcAttr{Dir: root, Files: []*os.File{nil, w, w}})
	_ = w.Close()
	if err != nil {
		t.Fatal(err)
	}
	run := &program{t: t, p: p, read: make(chan struct{})}
	go func() {
		defer close(run.read)
		defer r.Close()
		chunk := make([]byte, 32<<10)
		for {
			n, err := r.Read(chunk)
			run.mu.Lock()
			run.out.Write(chunk[:n])
			run.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	return run
}

func (r *program) output() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.out.String()
}

// await returns when the output matches, or fails the test.
func (r *program) await(pattern string) {
	r.t.Helper()
	want := regexp.MustCompile(pattern)
	ctx, cancel := context.WithTimeout(r.t.Context(), demoPatience)
	defer cancel()
	for !want.MatchString(r.output()) {
		select {
		case <-r.read:
			r.t.Fatalf("it ended before %q:\n%s", pattern, r.output())
		case <-ctx.Done():
			_ = r.p.Kill()
			r.t.Fatalf("no %q:\n%s", pattern, r.output())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// end waits for the exit status.
func (r *program) end() int { r.t.Helper(); return r.endWithin(demoPatience) }

func (r *program) endWithin(patience time.Duration) int {
	r.t.Helper()
	timer := time.AfterFunc(patience, func() { _ = r.p.Kill() })
	defer timer.Stop()
	state, err := r.p.Wait()
	if err != nil {
		r.t.Fatal(err)
	}
	<-r.read
	return state.ExitCode()
}

// build returns a program built from this module, or another with its folder.
func build(t *testing.T, dir, pkg, out string, env ...string) string {
	t.Helper()
	_, err := proc.Run(t.Context(), proc.Cmd{Path: "go", Dir: dir, Env: env, Args: []string{"build", "-trimpath", "-ldflags", "-s -w", "-o", out, pkg}})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func needsQEMU(t *testing.T) {
	t.Helper()
	if os.Getenv("TASUKI_TEST_QEMU") == "" {
		t.Skip("needs QEMU: set TASUKI_TEST_QEMU=1, or run make test, which installs it")
	}
}

// noProcessOf fails if a process works in the demo's folder.
func noProcessOf(t *testing.T, home string) {
	t.Helper()
	installation, err := os.ReadFile(filepath.Join(home, "installation"))
	if err != nil {
		t.Fatal(err)
	}
	names := []byte("tasuki-demo-" + strings.TrimSpace(string(installation)) + "-")
	lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range lines {
		b, err := os.ReadFile(path)
		if err == nil && (bytes.Contains(b, names) || bytes.Contains(b, []byte(filepath.Join(home, "guests")+"/"))) {
			t.Errorf("left behind: %s", bytes.ReplaceAll(b, []byte{0}, []byte{' '}))
		}
	}
	if found, _ := filepath.Glob(filepath.Join(home, "guests", "*", "disk*")); len(found) > 0 {
		t.Errorf("left behind: %v", found)
	}
}

// demoHome is an empty home of a demo, but for the built images: those are
// where all tests with guests have them.
func demoHome(t *testing.T) string {
	t.Helper()
	home := t.TempDir()
	cache, err := os.UserCacheDir()
	if err != nil {
		return home
	}
	images := filepath.Join(cache, "tasuki", "test-images")
	err = errors.Join(os.MkdirAll(images, 0o700), os.Symlink(images, filepath.Join(home, "build")),
		os.WriteFile(filepath.Join(home, "this-is-a-demo"), nil, 0o600))
	if err != nil {
		t.Fatal(err)
	}
	return home
}

// TestDemo is the demo as a newcomer has it: the built binary and real guests.
func TestDemo(t *testing.T) {
	needsQEMU(t)
	home := os.Getenv("TASUKI_TEST_DEMO_HOME") // keeps registry and pulled image, too
	if home == "" {
		home = demoHome(t)
	}
	bin := t.TempDir()
	tasuki := build(t, "../..", "./cmd/tasuki", filepath.Join(bin, "tasuki"))
	build(t, "../../tools/demorunner", "github.com/ChristopherHX/github-act-runner",
		filepath.Join(bin, "demorunner-linux-"+runtime.GOARCH), "CGO_ENABLED=0")
	run := func(t *testing.T, args ...string) *program {
		t.Helper()
		return start(t, tasuki, append([]string{"demo", "--home", home}, args...)...)
	}
	nothingLeft := func(t *testing.T, out string) {
		t.Helper()
		for _, what := range []string{"virtual machine", "process", "disk", "registration at GitHub"} {
			if !regexp.MustCompile(`(?m)^  \S+ no ` + what + `$`).MatchString(out) {
				t.Errorf("it does not say that there is no %s", what)
			}
		}
		noProcessOf(t, home)
	}

	t.Run("relay", func(t *testing.T) {
		p := run(t, "examples/workflows/relay.yml")
		code, out := p.end(), ""
		out = p.output()
		if code != 0 {
			t.Errorf("exit status %d, want 0", code)
		}
		nothingLeft(t, out)
		for _, want := range []string{"leave", "find-nothing", "build the left one of 2", "build the right one of 2", "finish", "queued → started", "the baton says: from-run-", "credential"} {
			if !strings.Contains(out, want) {
				t.Errorf("no %q", want)
			}
		}
		if t.Failed() {
			t.Log(out)
		}
	})
	t.Run("through a scale set", func(t *testing.T) {
		p := run(t, "--scaleset", "examples/workflows/relay.yml")
		code, out := p.end(), ""
		out = p.output()
		if code != 0 || !strings.Contains(out, "Jobs: 5 success") {
			t.Errorf("exit status %d:\n%s", code, out)
		}
		if log, err := os.ReadFile(filepath.Join(home, "demo.log")); err != nil || !strings.Contains(string(log), "listening to a scale set") {
			t.Errorf("nobody listened to a scale set: %v", err)
		}
		nothingLeft(t, out)
	})
	t.Run("a step that fails", func(t *testing.T) {
		p := run(t, "examples/workflows/fails.yml")
		code, out := p.end(), ""
		out = p.output()
		if code != 1 || !strings.Contains(out, "the answer is 41, it should be 42") {
			t.Errorf("exit status %d, want 1 and the step's log:\n%s", code, out)
		}
		nothingLeft(t, out)
	})
	t.Run("a malformed file", func(t *testing.T) {
		p := run(t, "examples/workflows/broken.yml")
		if code := p.end(); code != 2 || !strings.Contains(p.output(), "examples/workflows/broken.yml:8:") || strings.Contains(p.output(), "registry") {
			t.Errorf("exit status %d, want 2, file and line, and nothing started:\n%s", code, p.output())
		}
	})
	t.Run("one slot", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "two.yml")
		text := "on: push\njobs:\n  both:\n    strategy:\n      matrix:\n        n: [1, 2]\n    runs-on: [self-hosted]\n    steps:\n      - run: sleep 2\n"
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		p := run(t, "--slots", "1", file)
		p.await(`\d/10 connecting`)
		res, err := proc.Run(t.Context(), proc.Cmd{Path: tasuki, Args: []string{"status", "--home", home}})
		if err != nil {
			t.Error(err)
		}
		if status := string(res.Stdout); !strings.Contains(status, "1 of 1 slot") || !strings.Contains(status, "no free slot") {
			t.Errorf("status says\n%s", status)
		}
		if code := p.end(); code != 0 {
			t.Errorf("exit status %d:\n%s", code, p.output())
		}
		oneAtATime(t, p.output())
		nothingLeft(t, p.output())
	})
	t.Run("Ctrl-C", func(t *testing.T) {
		p := run(t, "examples/workflows/relay.yml")
		p.await(`\d/10 connecting`)
		second := run(t, "examples/workflows/fails.yml")
		if code := second.end(); code != 2 || !strings.Contains(second.output(), "a demo runs already") {
			t.Errorf("a second demo at once: exit status %d:\n%s", code, second.output())
		}
		if err := p.p.Signal(syscall.SIGINT); err != nil {
			t.Fatal(err)
		}
		if code := p.end(); code != 130 {
			t.Errorf("exit status %d, want 130:\n%s", code, p.output())
		}
		nothingLeft(t, p.output())
	})
	t.Run("kill -9", func(t *testing.T) {
		p := run(t, "examples/workflows/relay.yml")
		p.await(`\d/10 connecting`)
		if err := p.p.Kill(); err != nil {
			t.Fatal(err)
		}
		p.end()
		again := run(t, "examples/workflows/fails.yml")
		if code := again.end(); code != 1 || !strings.Contains(again.output(), "An earlier demo was cut off") {
			t.Errorf("the next demo: exit status %d:\n%s", code, again.output())
		}
		nothingLeft(t, again.output())
	})
}

// oneAtATime reads the transitions: no guest is made while another is there.
func oneAtATime(t *testing.T, out string) {
	t.Helper()
	holds := ""
	for line := range strings.Lines(out) {
		m := regexp.MustCompile(`^ *\d+:\S+  (\S+) +\d+/10 (\S+)`).FindStringSubmatch(line)
		if m == nil {
			continue
		}
		switch name, state := m[1], m[2]; {
		case state == "cloning" && holds != "":
			t.Errorf("%s is cloned while %s is there", name, holds)
		case state == "cloning":
			holds = name
		case state == "deleting" && name == holds:
			holds = ""
		}
	}
	if !strings.Contains(out, "cloning") {
		t.Error(fmt.Sprint("no transition in\n", out))
	}
}
