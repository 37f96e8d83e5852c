package tarttest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mirego/tasuki/internal/base/proc"
	"github.com/mirego/tasuki/internal/image"
)

func TestMain(m *testing.M) {
	Play()
	os.Exit(m.Run())
}

// world is a home and the command on it.
type world struct {
	*testing.T
	home, path string
	img        image.Local
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{T: t, home: filepath.Join(t.TempDir(), "tart")}
	var err error
	if w.path, err = Command(t.TempDir()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 20*time.Second)
		defer cancel()
		if err := End(ctx, w.home); err != nil {
			t.Error(err)
		}
	})
	if w.img, err = Cache(w.home, "registry.test:5000/mac", nil); err != nil {
		t.Fatal(err)
	}
	return w
}

// call runs tart to its end.
func (w *world) call(args ...string) (stdout, stderr string, code int) {
	w.Helper()
	ctx, cancel := context.WithTimeout(w.Context(), 30*time.Second)
	defer cancel()
	res, err := proc.Run(ctx, proc.Cmd{Path: w.path, Args: args, Env: []string{"TART_HOME=" + w.home, "CI=true"}})
	if _, exited := errors.AsType[*proc.ExitError](err); err != nil && !exited {
		w.Fatalf("tart %v: %v", args, err)
	}
	return string(res.Stdout), string(res.Stderr), res.Code
}

// must runs tart and wants status 0.
func (w *world) must(args ...string) string {
	w.Helper()
	out, errs, code := w.call(args...)
	if code != 0 {
		w.Fatalf("tart %v: status %d, %s%s", args, code, out, errs)
	}
	return out
}

// start runs a machine and waits for its lock. It returns the file with run's
// output.
func (w *world) start(name string, flags ...string) (proc.ID, string) {
	w.Helper()
	log := filepath.Join(w.TempDir(), "run.log")
	id, err := proc.Detach(proc.Cmd{Path: w.path, Args: append(append([]string{"run", "--no-graphics"}, flags...), name), Env: []string{"TART_HOME=" + w.home}}, log)
	if err != nil {
		w.Fatal(err)
	}
	w.until("the machine's lock", func() bool {
		m, err := Look(w.home, name)
		return err == nil && m.PID == id.PID || !id.Alive()
	})
	return id, log
}

func (w *world) until(what string, ok func() bool) {
	w.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			w.Fatalf("no %s", what)
		}
	}
}

func (w *world) faults(f Faults) {
	w.Helper()
	if err := SetFaults(w.home, f); err != nil {
		w.Fatal(err)
	}
}

func TestALifeOfAMachine(t *testing.T) {
	w := newWorld(t)
	w.must("clone", w.img.Ref.String(), "m")
	w.must("set", "m", "--cpu", "6", "--memory=8192", "--random-mac", "--random-serial", "--display", "1920x1080")
	var got struct {
		OS, Size, Display, State string
		CPU, Memory, Disk        int
		Running                  bool
	}
	if err := json.Unmarshal([]byte(w.must("get", "m", "--format", "json")), &got); err != nil || got.CPU != 6 || got.Memory != 8192 || got.State != "stopped" || got.Display != "1920x1080" {
		t.Errorf("get: %+v, %v", got, err)
	}
	_, log := w.start("m")
	w.until("agent", func() bool { _, _, code := w.call("exec", "m", "true"); return code == 0 })
	out, errs, code := w.call("exec", "m", "sh", "-c", "echo out; echo err >&2; exit 42")
	if out != "out\n" || errs != "err\n" || code != 42 {
		t.Errorf("exec: %q, %q, %d", out, errs, code)
	}
	if ip := w.must("ip", "m"); !strings.HasPrefix(ip, "127.64.") {
		t.Errorf("ip: %q", ip)
	}
	w.must("stop", "m")
	w.until("end", func() bool { m, err := Look(w.home, "m"); return err == nil && m.PID == 0 })
	if text, _ := os.ReadFile(log); !strings.Contains(string(text), "Stopping VM...") || !strings.Contains(string(text), "not tart") {
		t.Errorf("run said %q", text)
	}
	w.must("delete", "m")
	if rows := w.must("list", "--source", "local", "--format", "json"); strings.TrimSpace(rows) != "[]" {
		t.Errorf("list: %s", rows)
	}
}

func TestStatusesAndWords(t *testing.T) {
	w := newWorld(t)
	w.must("clone", w.img.Ref.String(), "m")
	for _, c := range []struct {
		args string
		code int
		text string
	}{
		{"stop nosuch", 2, `the specified VM "nosuch" does not exist`},
		{"delete nosuch", 2, `the specified VM "nosuch" does not exist`},
		{"ip nosuch", 2, `does not exist`},
		{"run nosuch", 1, `the specified VM "nosuch" does not exist`},
		{"stop m", 2, `VM "m" is not running`},
		{"exec m true", 2, `VM "m" is not running`},
		{"clone m a/b", 64, "local name"},
		{"list --no-such", 64, "Unknown option"},
		{"prune", 64, "criteria"},
		{"run --net-host --net-softnet m", 64, "mutually exclusive"},
		{"frobnicate", 64, "Unexpected argument"},
	} {
		_, errs, code := w.call(strings.Fields(c.args)...)
		if code != c.code || !strings.Contains(errs, c.text) {
			t.Errorf("tart %s: %d, %q; want %d, %q", c.args, code, errs, c.code, c.text)
		}
	}
}

func TestTheLimitCountsOthers(t *testing.T) {
	w := newWorld(t)
	for _, name := range []string{"a", "b", "c"} {
		w.must("clone", w.img.Ref.String(), name)
	}
	w.start("a")
	w.start("b")
	_, errs, code := w.call("run", "c")
	if code != 1 || !strings.Contains(errs, "The number of VMs exceeds the system limit (other running VMs: a, b)") {
		t.Errorf("%d, %q", code, errs)
	}
}

// A machine dies with the process of run, however that ends.
func TestSIGKILLOfRunCutsThePower(t *testing.T) {
	w := newWorld(t)
	w.must("clone", w.img.Ref.String(), "m")
	id, _ := w.start("m")
	w.until("agent", func() bool { _, _, code := w.call("exec", "m", "true"); return code == 0 })
	mark := "TASUKI_FAKE_GUEST=" + filepath.Join(w.home, "stand-in", "process", "m", "root")
	if ids, err := proc.Marked(mark); err != nil || len(ids) == 0 {
		t.Fatalf("nothing runs inside: %v", err)
	}
	if err := id.Signal(syscall.SIGKILL, false); err != nil {
		t.Fatal(err)
	}
	w.until("end of what ran inside", func() bool { ids, err := proc.Marked(mark); return err == nil && len(ids) == 0 })
}

func TestTheDoubleSaysSo(t *testing.T) {
	w := newWorld(t)
	if v := w.must("--version"); !strings.Contains(v, "stand-in") || !strings.HasPrefix(v, "2.") {
		t.Errorf("version %q", v)
	}
	if _, errs, _ := w.call("list"); !strings.Contains(errs, "test double") {
		t.Errorf("list: %q", errs)
	}
	if out, _, _ := w.call("--help"); !strings.Contains(out, "test double") {
		t.Errorf("help: %q", out)
	}
}

func TestSuspendAndResume(t *testing.T) {
	w := newWorld(t)
	w.must("clone", w.img.Ref.String(), "m")
	w.start("m")
	w.must("suspend", "m")
	if out := w.must("list", "--source", "local", "--format", "json"); !strings.Contains(out, `"State": "suspended"`) {
		t.Errorf("list: %s", out)
	}
	w.must("stop", "m") // forgets the saved state
	if out := bytes.NewBufferString(w.must("list", "--source", "local", "--format", "json")); !strings.Contains(out.String(), `"stopped"`) {
		t.Errorf("list: %s", out)
	}
}
