package tart

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mirego/tasuki/internal/base/proc"
	"github.com/mirego/tasuki/internal/image"
	"github.com/mirego/tasuki/internal/vm"
	"github.com/mirego/tasuki/internal/vm/tart/tarttest"
)

// Each way in which tart run can end at once has words for a person, and tart
// is not asked again and again.
func TestRunThatEndsAtOnce(t *testing.T) {
	w := newWorld(t)
	d := w.driver()
	if err := d.Create(t.Context(), w.spec("tk-a")); err != nil {
		t.Fatal(err)
	}
	for says, want := range map[string]string{
		"Error: Failed to generate keypair: -25308":                                      "automatic login",
		"SoftnetError(why: \"not root\")":                                                "chmod u+s",
		"virtual machine's network attachment 0 has been disconnected with error: EPIPE": "lost its network",
		"Error: failed to bind control.sock":                                             "shorter TART_HOME",
		"error: host macOS version is outdated to run this virtual machine":              "newer macOS",
		"VM \"tk-a\" is already running!":                                                "somebody else",
		"the specified VM \"tk-a\" does not exist":                                       "deleted by somebody else",
		"guest has stopped the virtual machine due to error: the guest panicked":         "crashed: the guest panicked",
		"guest has stopped the virtual machine":                                          "the guest shut down",
		"Stopping VM...":                                                                 "told it to stop",
		"Error: No space left on device":                                                 "TART_HOME is full",
		"something that nobody has seen":                                                 "something that nobody has seen",
		"Failed to perform garbage collection: x\nError: Failed to generate keypair: locked\nUsage: tart …": "automatic login",
	} {
		for _, status := range []int{0, 1} {
			before := runs(t, w)
			w.faults(tarttest.Faults{RunSays: says, RunStatus: status})
			err := d.Start(t.Context(), "tk-a")
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("tart run says %q, status %d: %v; want %q", says, status, err, want)
			}
			if n := runs(t, w) - before; n != 1 {
				t.Errorf("tart run says %q: it was started %d times", says, n)
			}
		}
	}
	// Each left a guest that can be started.
	w.faults(tarttest.Faults{})
	d = w.driver()
	if err := d.Start(t.Context(), "tk-a"); err != nil {
		t.Error(err)
	}
}

func runs(t *testing.T, w *world) int {
	t.Helper()
	calls, err := tarttest.Calls(w.opt.TartHome, "run")
	if err != nil {
		t.Fatal(err)
	}
	return len(calls)
}

func TestTornJSON(t *testing.T) {
	w := newWorld(t)
	d := w.driver()
	w.running(d, "tk-a")
	w.faults(tarttest.Faults{TornJSON: 1})
	if in, there := w.instance(d, "tk-a"); !there || in.State != vm.Running {
		t.Errorf("after one torn answer: %+v, %v", in, there)
	}
	w.faults(tarttest.Faults{TornJSON: 9})
	if _, err := d.List(t.Context()); !errors.Is(err, errTorn) {
		t.Errorf("List: %v, want errTorn", err)
	}
	if calls, err := tarttest.Calls(w.opt.TartHome, "list"); err != nil || len(calls) != 4 {
		t.Errorf("tart was asked %d times, %v; want 4", len(calls), err)
	}
}

// tart is replaced under a running guest, and for a moment there is none.
func TestTartUpgradedUnderARunningGuest(t *testing.T) {
	w := newWorld(t)
	var log strings.Builder
	w.opt.Log = slog.New(slog.NewTextHandler(&log, nil))
	d := w.driver()
	w.running(d, "tk-a")
	script, err := os.ReadFile(w.opt.Path)
	if err == nil {
		err = os.Remove(w.opt.Path)
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.List(t.Context()); !errors.Is(err, proc.ErrNotInstalled) {
		t.Errorf("List without a tart: %v, want ErrNotInstalled", err)
	}
	w.faults(tarttest.Faults{Version: "2.41.0"})
	if err := os.WriteFile(w.opt.Path+".new", append(script, '\n'), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(w.opt.Path+".new", w.opt.Path); err != nil {
		t.Fatal(err)
	}
	if in, _ := w.instance(d, "tk-a"); in.State != vm.Running {
		t.Errorf("the guest is %+v", in)
	}
	w.running(d, "tk-b")
	if v := d.Version(); v != "2.41.0" || d.Capabilities().AccelReason != "tart 2.41.0" {
		t.Errorf("the version is %s", v)
	}
	if text := log.String(); !strings.Contains(text, "tart was replaced") || !strings.Contains(text, "newer than") {
		t.Errorf("the log says %s", text)
	}
	if err := d.Destroy(t.Context(), "tk-a"); err != nil {
		t.Error(err)
	}
}

func TestRemarkOnAVersion(t *testing.T) {
	for version, want := range map[string]string{
		"2.32.1": "licence", "1.99.0": "licence", "2.33.0": "", "2.35.0-tasuki-stand-in": "", "2.36.1": "newer", "3.0.0": "newer", "SNAPSHOT": "no release",
	} {
		if got := remarkOn(version); (got == "") != (want == "") || !strings.Contains(got, want) {
			t.Errorf("remarkOn(%q) = %q, want %q", version, got, want)
		}
	}
}

// The disk of TART_HOME is unplugged: its guests are not believed to be gone,
// and nothing is made in its place.
func TestTartHomeOnADiskThatIsNotThere(t *testing.T) {
	w := newWorld(t)
	d := w.driver()
	if err := d.Create(t.Context(), w.spec("tk-a")); err != nil {
		t.Fatal(err)
	}
	unplugged := w.opt.TartHome + ".unplugged"
	if err := os.Rename(w.opt.TartHome, unplugged); err != nil {
		t.Fatal(err)
	}
	const want = "is its disk mounted?"
	if _, err := d.List(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("List: %v", err)
	}
	if err := d.Destroy(t.Context(), "tk-a"); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("Destroy: %v", err)
	}
	if err := d.Create(t.Context(), w.spec("tk-b")); err == nil {
		t.Error("a guest was created")
	}
	if err := d.Pull(t.Context(), w.img.Ref, Login{}, nil); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("Pull: %v", err)
	}
	if _, err := os.Stat(w.opt.TartHome); err == nil {
		t.Error("it was made anew")
	}
	// A folder of the same name on the disk beneath is another.
	if err := os.Mkdir(w.opt.TartHome, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := d.Destroy(t.Context(), "tk-a"); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("Destroy: %v", err)
	}
	if err := os.RemoveAll(w.opt.TartHome); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(unplugged, w.opt.TartHome); err != nil {
		t.Fatal(err)
	}
	if _, there := w.instance(d, "tk-a"); !there {
		t.Error("the guest is not there any more")
	}
	opt := w.opt
	opt.TartHome = filepath.Join(t.TempDir(), "not", "there")
	if _, err := New(opt); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("New: %v", err)
	}
}

func TestMissingVolume(t *testing.T) {
	root := t.TempDir()
	if err := os.Mkdir(filepath.Join(root, "plain"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/", filepath.Join(root, "system")); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		root + "/plain/tart":  root + "/plain", // a folder on the same disk
		root + "/gone/tart":   root + "/gone",
		root + "/system/tart": "",
		"/elsewhere/tart":     "",
	} {
		if got := missingVolume(root, path); got != want {
			t.Errorf("missingVolume(%q) = %q, want %q", path, got, want)
		}
	}
	if got := missingVolume("/", "/proc/tart"); got != "" && isMount("/proc") {
		t.Errorf("missingVolume of a mounted disk = %q", got)
	}
}

// isMount says whether a path has a file system of its own.
func isMount(path string) bool { return missingVolume(filepath.Dir(path), path) == "" }

// createEnv makes this test program an agent that creates a guest, and is
// killed meanwhile.
const createEnv = "TASUKI_TEST_TART_CREATE"

// createAsAgent is that agent: its home, tart's, the program, the image.
func createAsAgent(text string) int {
	var args []string
	err := json.Unmarshal([]byte(text), &args)
	if err == nil {
		err = create(args[0], args[1], args[2], args[3])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func create(home, tartHome, path, name string) error {
	ref, err := image.Parse(name)
	if err != nil {
		return err
	}
	d, err := New(Options{Home: home, TartHome: tartHome, Path: path, Installation: testInstallation, Prefix: testPrefix})
	if err != nil {
		return err
	}
	return d.Create(context.Background(), vm.Spec{
		Name: "tk-a", Owner: vm.Owner{Installation: testInstallation}, Image: image.Local{Ref: ref, Digest: ref.Digest()},
		Network: vm.Network{Mode: vm.Internet},
	})
}

// The agent is killed while tart clones. The clone goes on without it, and must
// not bring back the guest that the next agent destroys.
func TestAgentKilledWhileTartClones(t *testing.T) {
	w := newWorld(t)
	w.faults(tarttest.Faults{CloneTakes: tarttest.Duration(time.Hour)})
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	home, err := json.Marshal([]string{w.opt.Home, w.opt.TartHome, w.opt.Path, w.img.Ref.String()})
	if err != nil {
		t.Fatal(err)
	}
	agent, err := proc.Detach(proc.Cmd{Path: self, Env: []string{createEnv + "=" + string(home)}}, filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	w.until("clone", func() bool {
		entries, _ := os.ReadDir(filepath.Join(w.opt.TartHome, "tmp"))
		return len(entries) > 0
	})
	if err := agent.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	left, err := proc.Marked("TART_HOME=" + w.opt.TartHome)
	if err != nil || len(left) == 0 {
		t.Fatalf("the clone ended with the agent: %v", err)
	}
	d := w.driver()
	if in, there := w.instance(d, "tk-a"); !there || in.State != vm.Broken {
		t.Errorf("the guest is %+v, %v; want broken", in, there)
	}
	if err := d.Destroy(t.Context(), "tk-a"); err != nil {
		t.Fatal(err)
	}
	if left, err = proc.Marked("TART_HOME=" + w.opt.TartHome); err != nil || len(left) > 0 {
		t.Errorf("still at work: %v, %v", left, err)
	}
	w.faults(tarttest.Faults{})
	w.running(d, "tk-a") // the name is free, and so is tart
}
