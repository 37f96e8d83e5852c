package fake_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mirego/tasuki/internal/vm"
	"github.com/mirego/tasuki/internal/vm/fake"
)

// Slots leak and come back while the driver is open; a guest that would need one
// is refused as a hypervisor refuses it.
func TestSlotsLeakWhileTheDriverRuns(t *testing.T) {
	dir := t.TempDir()
	d, err := fake.New(fake.Options{Dir: dir, MaxGuests: 1})
	if err != nil {
		t.Fatal(err)
	}
	if s := d.Slots(); s != (vm.Slots{}) {
		t.Errorf("slots of a driver that lost none: %+v", s)
	}
	file := filepath.Join(dir, "leaked")
	if err := os.WriteFile(file, []byte("1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if s := d.Slots(); s.Leaked != 1 || s.Taken() != 1 || !strings.Contains(s.Reason, "reboot") {
		t.Errorf("slots: %+v, want one that leaked", s)
	}
	if err := d.Create(t.Context(), vm.Spec{Name: "a", Image: anImage, Network: vm.Network{Mode: vm.Isolated}}); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = d.Destroy(t.Context(), "a") }()
	if err := d.Start(t.Context(), "a"); !errors.Is(err, vm.ErrLeaked) {
		t.Errorf("Start: %v, want ErrLeaked", err)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if err := d.Start(t.Context(), "a"); err != nil {
		t.Error(err)
	}
}
