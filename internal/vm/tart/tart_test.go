package tart

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mirego/tasuki/internal/base/proc"
	"github.com/mirego/tasuki/internal/image"
	"github.com/mirego/tasuki/internal/vm"
	"github.com/mirego/tasuki/internal/vm/tart/tarttest"
	"github.com/mirego/tasuki/internal/vm/vmtest"
)

const (
	testPrefix       = "tk-"
	testInstallation = "inst"
)

func TestMain(m *testing.M) {
	tarttest.Play()
	if text := os.Getenv(createEnv); text != "" {
		os.Exit(createAsAgent(text))
	}
	os.Exit(m.Run())
}

// world is a folder of tart's behind the stand-in, and a home of ours.
type world struct {
	*testing.T
	opt Options
	img image.Local
}

func newWorld(t *testing.T) *world {
	t.Helper()
	dir := t.TempDir()
	path, err := tarttest.Command(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	w := &world{T: t, opt: Options{
		Home: filepath.Join(dir, "guests"), TartHome: filepath.Join(dir, "tart"), Installation: testInstallation,
		Prefix: testPrefix, Path: path,
		Machines: func(context.Context) (int, error) { return 0, nil },
	}}
	if testing.Verbose() {
		w.opt.Log = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	if w.img, err = tarttest.Cache(w.opt.TartHome, "registry.test:5000/mac", nil); err != nil {
		t.Fatal(err)
	}
	w.faults(tarttest.Faults{})
	t.Cleanup(func() { w.end() })
	return w
}

// end cuts all power and waits for the stand-in's processes.
func (w *world) end() {
	w.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(w.Context()), 20*time.Second)
	defer cancel()
	if err := tarttest.End(ctx, w.opt.TartHome); err != nil {
		w.Error(err)
	}
}

// faults sets the stand-in's; ip polls fast in all tests.
func (w *world) faults(f tarttest.Faults) {
	w.Helper()
	f.IPPoll = tarttest.Duration(10 * time.Millisecond)
	if err := tarttest.SetFaults(w.opt.TartHome, f); err != nil {
		w.Fatal(err)
	}
}

func (w *world) driver() *Driver {
	w.Helper()
	d, err := New(w.opt)
	if err != nil {
		w.Fatal(err)
	}
	return d
}

func (w *world) spec(name string) vm.Spec {
	return vm.Spec{
		Name: name, Owner: vm.Owner{Installation: testInstallation, Pool: "p", Runner: "r"}, Image: w.img,
		CPUs: 4, MemoryMiB: 4096, Network: vm.Network{Mode: vm.Internet},
	}
}

// running makes a guest and starts it.
func (w *world) running(d *Driver, name string) {
	w.Helper()
	if err := d.Create(w.Context(), w.spec(name)); err != nil {
		w.Fatal(err)
	}
	if err := d.Start(w.Context(), name); err != nil {
		w.Fatal(err)
	}
}

// look returns the guest's machine as tart has it.
func (w *world) look(name string) tarttest.Machine {
	w.Helper()
	m, err := tarttest.Look(w.opt.TartHome, name)
	if err != nil {
		w.Fatal(err)
	}
	return m
}

// instance returns the guest as List shows it.
func (w *world) instance(d *Driver, name string) (vm.Instance, bool) {
	w.Helper()
	all, err := d.List(w.Context())
	if err != nil {
		w.Fatal(err)
	}
	for _, in := range all {
		if in.Name == name {
			return in, true
		}
	}
	return vm.Instance{}, false
}

func (w *world) until(what string, ok func() bool) {
	w.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			w.Fatalf("no %s", what)
		}
	}
}

func (w *world) crash(t *testing.T, name string) {
	t.Helper()
	pid := w.look(name).PID
	if pid == 0 { // which would be our own process group
		t.Fatalf("%q does not run", name)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
}

// powerLoss ends all, and gives the numbers of processes to others: to this
// test, which is no tart run.
func (w *world) powerLoss(t *testing.T) {
	t.Helper()
	w.end()
	me, err := proc.Identify(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	files, _ := filepath.Glob(filepath.Join(w.opt.Home, "*", runFile))
	if len(files) == 0 {
		t.Error("no guest ran")
	}
	for _, file := range files {
		if err := writeJSON(file, run{me}); err != nil {
			t.Fatal(err)
		}
		socket := filepath.Join(w.opt.TartHome, "vms", filepath.Base(filepath.Dir(file)), controlFile)
		if err := os.WriteFile(socket, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// halfMade is a guest whose clone was never finished.
func (w *world) halfMade(t *testing.T, name string) {
	t.Helper()
	dir := filepath.Join(w.opt.Home, name)
	rec := record{Version: recordVersion, Name: name, Owner: w.spec(name).Owner}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := writeJSON(filepath.Join(dir, recordFile), rec); err != nil {
		t.Fatal(err)
	}
	if err := tarttest.Add(w.opt.TartHome, name, w.img); err != nil {
		t.Fatal(err)
	}
}

// foreign puts machines of others beside ours: one with our prefix and no
// record, one of another installation that runs, one of a person's.
func (w *world) foreign(t *testing.T) func(*testing.T) {
	t.Helper()
	others := w.opt
	others.Installation = "another"
	theirs, err := New(others)
	if err != nil {
		t.Fatal(err)
	}
	spec := w.spec(testPrefix + "theirs")
	spec.Owner.Installation = "another"
	if err := theirs.Create(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	if err := theirs.Start(t.Context(), spec.Name); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{testPrefix + "nobodys", "someones"} {
		if err := tarttest.Add(w.opt.TartHome, name, w.img); err != nil {
			t.Fatal(err)
		}
	}
	return func(t *testing.T) {
		d := w.driver()
		for _, name := range []string{spec.Name, testPrefix + "nobodys", "someones"} {
			if err := d.Destroy(t.Context(), name); err != nil {
				t.Error(err)
			}
			w.look(name)
		}
		if w.look(spec.Name).PID == 0 {
			t.Error("another installation's guest does not run any more")
		}
	}
}

// leftovers are processes and folders of ours.
func (w *world) leftovers(t *testing.T) []string {
	t.Helper()
	var left []string
	for _, dir := range []string{w.opt.Home, filepath.Join(w.opt.TartHome, "vms"), filepath.Join(w.opt.TartHome, "tmp")} {
		entries, err := os.ReadDir(dir)
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		for _, e := range entries {
			if name := e.Name(); !strings.HasSuffix(name, "theirs") && !strings.HasSuffix(name, "nobodys") && name != "someones" {
				left = append(left, filepath.Join(dir, name))
			}
		}
	}
	return left
}

func TestConformance(t *testing.T) {
	vmtest.Run(t, func(t *testing.T) vmtest.Harness {
		w := newWorld(t)
		return vmtest.Harness{
			Open: func(*testing.T) vm.Driver { return w.driver() }, Image: w.img, Prefix: testPrefix, Installation: testInstallation,
			Timeout: time.Minute,
			Want:    vm.Capabilities{Driver: "tart", GuestOS: "darwin", GuestArch: runtime.GOARCH, MaxGuests: 2, Accel: "vz"},
			Crash:   w.crash, PowerLoss: w.powerLoss, HalfMade: w.halfMade, Foreign: w.foreign, Leftovers: w.leftovers,
		}
	})
}
