package fake_test

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"github.com/mirego/tasuki/internal/base/proc"
	"github.com/mirego/tasuki/internal/image"
	"github.com/mirego/tasuki/internal/vm"
	"github.com/mirego/tasuki/internal/vm/fake"
	"github.com/mirego/tasuki/internal/vm/vmtest"
)

func TestConformance(t *testing.T) {
	vmtest.Run(t, func(t *testing.T) vmtest.Harness {
		opt := fake.Options{Dir: t.TempDir(), Installation: "vmtest", Prefix: "tasuki-", MaxGuests: 8}
		open := func(t *testing.T) vm.Driver {
			d, err := fake.New(opt)
			if err != nil {
				t.Fatal(err)
			}
			return d
		}
		t.Cleanup(func() { endAll(t, opt) })
		return vmtest.Harness{
			Open: open, Prefix: opt.Prefix, Installation: opt.Installation,
			Image: image.Local{Digest: "sha256:fake"},
			Want:  vm.Capabilities{Driver: "fake", GuestOS: "linux", GuestArch: runtime.GOARCH, MaxGuests: 8},
			Crash: func(t *testing.T, name string) { kill(t, opt.Dir, name) },
			PowerLoss: func(t *testing.T) {
				entries, _ := os.ReadDir(opt.Dir)
				for _, e := range entries {
					if power(opt.Dir, e.Name()).PID != 0 {
						kill(t, opt.Dir, e.Name())
						reuse(t, opt.Dir, e.Name())
					}
				}
			},
			HalfMade: func(t *testing.T, name string) {
				if err := os.MkdirAll(filepath.Join(opt.Dir, name, "root"), 0o700); err != nil {
					t.Fatal(err)
				}
			},
			Foreign:   func(t *testing.T) func(*testing.T) { return foreign(t, opt.Dir) },
			Leftovers: func(t *testing.T) []string { return leftovers(t, opt.Dir) },
		}
	})
}

func power(dir, name string) proc.ID {
	var id proc.ID
	b, _ := os.ReadFile(filepath.Join(dir, name, "root.on"))
	_ = json.Unmarshal(b, &id)
	return id
}

func kill(t *testing.T, dir, name string) {
	t.Helper()
	if err := power(dir, name).Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// reuse gives the process number of a guest's record to this test's process,
// as a reboot might.
func reuse(t *testing.T, dir, name string) {
	t.Helper()
	b, _ := json.Marshal(proc.ID{PID: os.Getpid(), Start: "an earlier boot/1"})
	if err := os.WriteFile(filepath.Join(dir, name, "root.on"), b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// foreign puts a guest of another installation and a folder of another program
// beside ours.
func foreign(t *testing.T, dir string) func(*testing.T) {
	t.Helper()
	for name, json := range map[string]string{
		"tasuki-theirs": `{"owner":{"installation":"another"}}`,
		"someone-else":  `{"owner":{"installation":"vmtest"}}`,
	} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name, "guest.json"), []byte(json), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return func(t *testing.T) {
		for _, name := range []string{"tasuki-theirs", "someone-else"} {
			if _, err := os.Stat(filepath.Join(dir, name, "guest.json")); err != nil {
				t.Errorf("%s was touched: %v", name, err)
			}
		}
	}
}

func leftovers(t *testing.T, dir string) []string {
	t.Helper()
	var left []string
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != "tasuki-theirs" && e.Name() != "someone-else" {
			left = append(left, e.Name())
		}
	}
	return left
}

func endAll(t *testing.T, opt fake.Options) {
	t.Helper()
	d, err := fake.New(opt)
	if err != nil {
		t.Fatal(err)
	}
	all, err := d.List(context.Background())
	if err != nil {
		t.Error(err)
	}
	for _, in := range all {
		if err := d.Destroy(context.Background(), in.Name); err != nil {
			t.Error(err)
		}
	}
}

func TestPowerOffEndsAllThatRunsInside(t *testing.T) {
	d, err := fake.New(fake.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	if err := d.Create(ctx, vm.Spec{Name: "a", Image: image.Local{Digest: "sha256:fake"}, Network: vm.Network{Mode: vm.Isolated}}); err != nil {
		t.Fatal(err)
	}
	if err := d.Start(ctx, "a"); err != nil {
		t.Fatal(err)
	}
	root, err := d.Address(ctx, "a")
	if err != nil {
		t.Fatal(err)
	}
	inside, err := proc.Detach(proc.Cmd{Path: "sh", Args: []string{"-c", "trap '' TERM HUP; sleep 600; sleep 600"},
		Env: []string{"TASUKI_FAKE_GUEST=" + root}}, filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = inside.Signal(syscall.SIGKILL, true) }()
	if err := d.PowerOff(ctx, "a"); err != nil {
		t.Fatal(err)
	}
	if inside.Alive() {
		t.Error("what ran inside goes on after PowerOff")
	}
	if err := d.Destroy(ctx, "a"); err != nil {
		t.Fatal(err)
	}
}
