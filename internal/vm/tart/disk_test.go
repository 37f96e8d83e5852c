package tart

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/mirego/tasuki/internal/image"
	"github.com/mirego/tasuki/internal/vm"
)

// A guest's disk is kept beyond it: guests are made of the copy, and images.
func TestSnapshotAndExport(t *testing.T) {
	w := newWorld(t)
	d := w.driver()
	w.running(d, "tk-one")
	if _, err := d.Snapshot(t.Context(), "tk-one", t.TempDir()); !errors.Is(err, vm.ErrRunning) {
		t.Errorf("of a guest that runs: got %v, want ErrRunning", err)
	}
	if err := d.PowerOff(t.Context(), "tk-one"); err != nil {
		t.Fatal(err)
	}
	first := w.look("tk-one")
	if err := os.WriteFile(filepath.Join(first.Dir, machineDisk), []byte("what the guest wrote"), 0o600); err != nil {
		t.Fatal(err)
	}
	snap, err := d.Snapshot(t.Context(), "tk-one", t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Destroy(t.Context(), "tk-one"); err != nil {
		t.Fatal(err)
	}
	snap.Labels = map[string]string{image.LabelUser: "admin"}

	spec := w.spec("tk-two")
	spec.Image = snap
	if err := errors.Join(d.Create(t.Context(), spec), d.Create(t.Context(), spec), d.Start(t.Context(), "tk-two"), d.PowerOff(t.Context(), "tk-two")); err != nil {
		t.Fatal(err)
	}
	second := w.look("tk-two")
	if second.MAC == first.MAC || second.ECID == first.ECID {
		t.Errorf("the second guest has the first one's address %s or serial number %s", second.MAC, second.ECID)
	}
	src, err := d.Export(t.Context(), "tk-two", t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(src.Disk); err != nil || string(got) != "what the guest wrote" {
		t.Errorf("the exported disk: %q, %v", got, err)
	}
	var config struct{ OS string }
	if _, err := os.Stat(src.NVRAM); err != nil || json.Unmarshal(src.ConfigJSON, &config) != nil || config.OS != image.OSDarwin {
		t.Errorf("exported beside it: %v, %s", err, src.ConfigJSON)
	}
	if _, err := d.Export(t.Context(), "tk-none", t.TempDir()); !errors.Is(err, vm.ErrNotFound) {
		t.Errorf("of no guest: got %v, want ErrNotFound", err)
	}
}

// What a copy that failed made is taken away.
func TestHalfASnapshotMakesNoGuest(t *testing.T) {
	w := newWorld(t)
	d := w.driver()
	dir := t.TempDir()
	for _, file := range []string{machineDisk, configFile} { // no NVRAM: the copy ends between
		if err := os.WriteFile(filepath.Join(dir, file), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	spec := w.spec("tk-half")
	spec.Image = image.Local{Digest: "sha256:x", Dir: dir, Disk: filepath.Join(dir, machineDisk), ConfigFile: filepath.Join(dir, configFile), Labels: map[string]string{}}
	if err := d.Create(t.Context(), spec); err == nil {
		t.Fatal("a guest was made of half a snapshot")
	}
	if all, err := d.List(t.Context()); err != nil || len(all) > 0 {
		t.Errorf("left: %v, %v", all, err)
	}
	if _, err := os.Lstat(d.machinePath("tk-half")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("its machine is left: %v", err)
	}
}
