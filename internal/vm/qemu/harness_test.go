package qemu

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mirego/tasuki/internal/base/proc"
	"github.com/mirego/tasuki/internal/image"
	"github.com/mirego/tasuki/internal/vm"
	"github.com/mirego/tasuki/internal/vm/vmtest"
)

const (
	testPrefix       = "tk-"
	testInstallation = "inst"
)

// world is one home and the options of drivers on it.
type world struct {
	opt Options
	img image.Local
}

// realWorld uses this machine's QEMU, in emulation: what is tested is the
// driver, and where hardware virtualisation works is another test's question.
func realWorld(t *testing.T) *world {
	t.Helper()
	needQEMU(t)
	return newWorld(t, Options{})
}

// needQEMU skips the test unless QEMU was asked for; then what is missing fails it.
func needQEMU(t *testing.T) {
	t.Helper()
	if os.Getenv("TASUKI_TEST_QEMU") != "1" {
		t.Skip("needs QEMU: set TASUKI_TEST_QEMU=1")
	}
	for _, program := range []string{"qemu-system-" + systemNames[runtime.GOARCH], "qemu-img"} {
		if _, err := proc.Look(program); err != nil {
			t.Fatal(err)
		}
	}
}

// newWorld makes a home, and an image whose only program halts.
func newWorld(t *testing.T, opt Options) *world {
	t.Helper()
	opt.Home = filepath.Join(t.TempDir(), "guests")
	opt.Installation, opt.Prefix, opt.Accel = testInstallation, testPrefix, "tcg"
	if testing.Verbose() {
		opt.Log = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	w := &world{opt: opt, img: testImage(t)}
	t.Cleanup(func() { w.killAll(t) })
	return w
}

// testImage boots by the way that needs no firmware package.
func testImage(t *testing.T) image.Local {
	t.Helper()
	dir := t.TempDir()
	img := image.Local{
		Digest: "sha256:" + strings.Repeat("ab", 32), Dir: dir, Disk: filepath.Join(dir, "disk"), DiskSize: 1 << 20,
		Labels: map[string]string{image.LabelOS: image.OSLinux, image.LabelArch: runtime.GOARCH, image.LabelBoot: image.BootFirmware},
	}
	if err := writePayload(img.Disk, runtime.GOARCH); err != nil {
		t.Fatal(err)
	}
	if runtime.GOARCH == image.ArchARM64 {
		img.Kernel, img.Labels[image.LabelBoot] = img.Disk, image.BootKernel
	}
	return img
}

func (w *world) open(t *testing.T) vm.Driver { return w.driver(t) }

func (w *world) driver(t *testing.T) *Driver {
	t.Helper()
	d, err := New(w.opt)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func (w *world) spec(name string) vm.Spec {
	return vm.Spec{
		Name: name, Owner: vm.Owner{Installation: testInstallation, Pool: "p", Runner: "r"}, Image: w.img,
		CPUs: 1, MemoryMiB: 64, Network: vm.Network{Mode: vm.Isolated},
	}
}

// guest reads a guest's folder as a driver would.
func (w *world) guest(name string) *guest {
	return &guest{name: name, dir: filepath.Join(w.opt.Home, name)}
}

// guests are the names of all folders that look like guests of ours.
func (w *world) guests(t *testing.T) []*guest {
	t.Helper()
	dirs, err := filepath.Glob(filepath.Join(w.opt.Home, testPrefix+"*"))
	if err != nil {
		t.Fatal(err)
	}
	var all []*guest
	for _, dir := range dirs {
		all = append(all, w.guest(filepath.Base(dir)))
	}
	return all
}

func (w *world) crash(t *testing.T, name string) {
	t.Helper()
	id, ok := w.guest(name).process()
	if !ok {
		t.Fatalf("%q has no process to kill", name)
	}
	if err := id.Signal(syscall.SIGKILL, false); err != nil {
		t.Fatal(err)
	}
}

func (w *world) killAll(t *testing.T) {
	for _, p := range w.processes(t) {
		if id, err := proc.Identify(p.pid); err == nil {
			_ = id.Signal(syscall.SIGCONT, true)
			_ = id.Kill(t.Context())
			_ = syscall.Kill(p.pid, syscall.SIGKILL)
		}
	}
	for deadline := time.Now().Add(10 * time.Second); len(w.processes(t)) > 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("still there: %v", w.processes(t))
		}
	}
}

// process is one that works in a folder of the home.
type process struct {
	pid  int
	args string
}

func (p process) String() string { return fmt.Sprintf("process %d: %s", p.pid, p.args) }

// processes finds what runs in the home, without asking the driver.
func (w *world) processes(t *testing.T) []process {
	t.Helper()
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	var all []process
	for _, dir := range dirs {
		cwd, err := os.Readlink(dir + "/cwd")
		if err != nil || !strings.HasPrefix(cwd, w.opt.Home+"/") {
			continue
		}
		pid, _ := strconv.Atoi(filepath.Base(dir))
		args, err := os.ReadFile(dir + "/cmdline")
		if err != nil || len(args) == 0 {
			continue // it ends this moment
		}
		all = append(all, process{pid, strings.ReplaceAll(string(args), "\x00", " ")})
	}
	return all
}

// powerLoss ends everything, and makes what is left lie as it may after a
// reset: process numbers belong to others (to this test) now.
func (w *world) powerLoss(t *testing.T) {
	t.Helper()
	w.killAll(t)
	for _, g := range w.guests(t) {
		w.released(t, g)
		r, err := g.readRun()
		if err != nil {
			t.Fatal(err)
		}
		if r.QEMU.PID == 0 {
			continue
		}
		me, err := proc.Identify(os.Getpid())
		if err != nil {
			t.Fatal(err)
		}
		r.QEMU = proc.ID{PID: me.PID, Start: "another boot/1"}
		if err := writeJSON(g.path(runFile), r); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(g.path(pidFile), []byte(strconv.Itoa(me.PID)), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(g.path(qmpFile)); err != nil {
			t.Fatalf("a killed QEMU should leave its socket: %v", err)
		}
	}
}

// released waits until nobody holds the guest: the last thread of a killed
// QEMU may end a little after the process counts as dead.
func (w *world) released(t *testing.T, g *guest) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		held, err := g.held()
		if err != nil {
			t.Fatal(err)
		}
		if !held {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s is still held", g.path(lockFile))
		}
	}
}

// halfMade is a guest whose record was written and whose disk is not there.
func (w *world) halfMade(t *testing.T, name string) {
	t.Helper()
	d := w.driver(t)
	if err := d.Create(t.Context(), w.spec(name)); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(w.guest(name).path(diskFile)); err != nil {
		t.Fatal(err)
	}
}

// foreign puts folders of others beside ours.
func (w *world) foreign(t *testing.T) func(*testing.T) {
	t.Helper()
	theirs := record{Version: recordVersion, Owner: vm.Owner{Installation: "another"}}
	ours := record{Version: recordVersion, Owner: vm.Owner{Installation: testInstallation}}
	files := map[string]any{
		"other-guest/guest.json":          ours,   // another prefix
		testPrefix + "theirs/guest.json":  theirs, // another installation
		testPrefix + "nothing/notes.txt":  "no guest.json at all",
		testPrefix + "Upper/guest.json":   ours, // no name of ours
		makingPrefix + "other/guest.json": theirs,
		"README":                          "a file",
	}
	for name, content := range files {
		path := filepath.Join(w.opt.Home, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := writeJSON(path, content); err != nil {
			t.Fatal(err)
		}
	}
	return func(t *testing.T) {
		d := w.driver(t)
		for name, content := range files {
			_ = d.Destroy(t.Context(), filepath.Base(filepath.Dir(name)))
			want, _ := json.MarshalIndent(content, "", "  ")
			got, err := os.ReadFile(filepath.Join(w.opt.Home, name))
			if err != nil || string(got) != string(want)+"\n" {
				t.Errorf("%s was touched: %q, %v", name, got, err)
			}
		}
	}
}

// leftovers are processes and folders of ours.
func (w *world) leftovers(t *testing.T) []string {
	t.Helper()
	var left []string
	for _, p := range w.processes(t) {
		left = append(left, p.String())
	}
	entries, err := os.ReadDir(w.opt.Home)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	mine := []string{testPrefix, makingPrefix + testPrefix, deletingPrefix + testPrefix}
	for _, e := range entries {
		isMine := slices.ContainsFunc(mine, func(p string) bool { return strings.HasPrefix(e.Name(), p) })
		_, noRecord := os.Stat(filepath.Join(w.opt.Home, e.Name(), recordFile))
		if isMine && noRecord != nil {
			if _, err := os.Stat(filepath.Join(w.opt.Home, e.Name(), "notes.txt")); err == nil {
				continue
			}
		}
		if isMine && !strings.HasSuffix(e.Name(), "-theirs") && !strings.HasSuffix(e.Name(), "-Upper") {
			left = append(left, e.Name())
		}
	}
	return left
}

func (w *world) harness() vmtest.Harness {
	return vmtest.Harness{
		Open: w.open, Image: w.img, Prefix: testPrefix, Installation: testInstallation, Timeout: time.Minute,
		Want:  vm.Capabilities{Driver: "qemu", GuestOS: "linux", GuestArch: runtime.GOARCH, Accel: "tcg"},
		Crash: w.crash, PowerLoss: w.powerLoss, HalfMade: w.halfMade, Foreign: w.foreign, Leftovers: w.leftovers,
	}
}

func TestConformanceOfQEMU(t *testing.T) {
	needQEMU(t)
	vmtest.Run(t, func(t *testing.T) vmtest.Harness { return realWorld(t).harness() })
}
