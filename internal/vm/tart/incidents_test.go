package tart

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mirego/tasuki/internal/base/proc"
	"github.com/mirego/tasuki/internal/vm"
	"github.com/mirego/tasuki/internal/vm/tart/tarttest"
)

// These are tests of incidents.md, by their names there.

func TestNoIP(t *testing.T) {
	w := newWorld(t)
	w.faults(tarttest.Faults{NoIP: true, NoAgent: true})
	d := w.driver()
	w.running(d, "tk-a")
	_, err := d.Address(t.Context(), "tk-a")
	if err == nil || !strings.Contains(err.Error(), "no IP address found") || errors.Is(err, vm.ErrNotFound) {
		t.Errorf("Address: %v, want an error that may pass, with tart's words", err)
	}
	// A lease file that is just being written is no end either.
	w.faults(tarttest.Faults{TornLeases: 1})
	if err := d.PowerOff(t.Context(), "tk-a"); err != nil {
		t.Fatal(err)
	}
	if err := d.Start(t.Context(), "tk-a"); err != nil {
		t.Fatal(err)
	}
	if addr, err := d.Address(t.Context(), "tk-a"); err != nil || !strings.HasSuffix(addr, ":22") {
		t.Errorf("Address with a torn lease file: %q, %v; want the guest agent's answer", addr, err)
	}
}

// Every clone has the MAC address of its image, and the image's old lease is
// still in the file.
func TestStaleIP(t *testing.T) {
	w := newWorld(t)
	if err := tarttest.Add(w.opt.TartHome, "look", w.img); err != nil {
		t.Fatal(err)
	}
	mac := w.look("look").MAC
	if err := os.RemoveAll(w.look("look").Dir); err != nil {
		t.Fatal(err)
	}
	w.faults(tarttest.Faults{Leases: map[string]string{mac: "127.64.9.9"}})
	d := w.driver()
	w.running(d, "tk-a")
	if got := w.look("tk-a").MAC; got == mac {
		t.Errorf("the clone kept the image's MAC address %s", got)
	}
	if addr, err := d.Address(t.Context(), "tk-a"); err != nil || strings.HasPrefix(addr, "127.64.9.9:") {
		t.Errorf("Address: %q, %v; that is an old lease", addr, err)
	}
}

func TestDuplicateIP(t *testing.T) {
	w := newWorld(t)
	d := w.driver()
	w.running(d, "tk-a")
	w.running(d, "tk-b")
	a, b := w.look("tk-a"), w.look("tk-b")
	if a.MAC == b.MAC || a.ECID == b.ECID || a.ECID == "" {
		t.Errorf("two clones are alike: %+v, %+v", a, b)
	}
	w.faults(tarttest.Faults{Leases: map[string]string{a.MAC: "127.64.7.7", b.MAC: "127.64.7.7"}, NoAgent: true})
	if _, err := d.Address(t.Context(), "tk-a"); err != nil {
		t.Fatal(err)
	}
	if addr, err := d.Address(t.Context(), "tk-b"); err == nil || !strings.Contains(err.Error(), "tk-a") {
		t.Errorf("Address: %q, %v; want an error that names the other guest", addr, err)
	}
}

func TestRunDiesWhileWaiting(t *testing.T) {
	w := newWorld(t)
	d := w.driver()
	w.running(d, "tk-a")
	w.faults(tarttest.Faults{Hang: map[string]int{"ip": 9}})
	time.AfterFunc(50*time.Millisecond, func() { w.crash(t, "tk-a") })
	d.times.ip = time.Hour
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if _, err := d.Address(ctx, "tk-a"); !errors.Is(err, errDied) {
		t.Errorf("Address: %v, want errDied", err)
	}
}

func TestVMLimit(t *testing.T) {
	w := newWorld(t)
	d := w.driver()
	w.running(d, "tk-a")
	// The other one is a person's own machine.
	if err := tarttest.Add(w.opt.TartHome, "mine", w.img); err != nil {
		t.Fatal(err)
	}
	if _, err := proc.Detach(proc.Cmd{Path: w.opt.Path, Args: []string{"run", "mine"}, Env: d.env()}, filepath.Join(t.TempDir(), "log")); err != nil {
		t.Fatal(err)
	}
	w.until("machine of a person's", func() bool { return w.look("mine").PID != 0 })
	if _, err := d.List(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s := d.Slots(); s.Others != 1 || s.Leaked != 0 {
		t.Errorf("slots: %+v, want one of others", s)
	}
	if err := d.Create(t.Context(), w.spec("tk-b")); err != nil {
		t.Fatal(err)
	}
	err := d.Start(t.Context(), "tk-b")
	if !errors.Is(err, vm.ErrLimit) || errors.Is(err, vm.ErrLeaked) {
		t.Errorf("Start: %v, want ErrLimit", err)
	}
}

// A slot that was just left takes a moment to become free.
func TestVMLimitThatPasses(t *testing.T) {
	w := newWorld(t)
	w.faults(tarttest.Faults{LimitFor: 2})
	d := w.driver()
	w.running(d, "tk-a")
	if s := d.Slots(); s != (vm.Slots{}) {
		t.Errorf("slots: %+v", s)
	}
}

// Programs that tart does not show hold slots, too.
func TestVMLimitOfOtherPrograms(t *testing.T) {
	w := newWorld(t)
	w.opt.Machines = func(context.Context) (int, error) { return 2, nil }
	d := w.driver()
	if err := d.Create(t.Context(), w.spec("tk-a")); err != nil {
		t.Fatal(err)
	}
	if err := d.Start(t.Context(), "tk-a"); !errors.Is(err, vm.ErrLimit) || errors.Is(err, vm.ErrLeaked) {
		t.Errorf("Start: %v, want ErrLimit", err)
	}
	if _, err := d.List(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s := d.Slots(); s.Others != 2 {
		t.Errorf("slots: %+v, want two of others", s)
	}
}

func TestLeakedVMSlot(t *testing.T) {
	w := newWorld(t)
	w.faults(tarttest.Faults{Leaked: 1})
	d := w.driver()
	d.times.slot, d.times.leak = 200*time.Millisecond, time.Hour
	w.running(d, "tk-a")
	if err := d.Create(t.Context(), w.spec("tk-b")); err != nil {
		t.Fatal(err)
	}
	if err := d.Start(t.Context(), "tk-b"); !errors.Is(err, vm.ErrLeaked) || !errors.Is(err, vm.ErrLimit) {
		t.Fatalf("Start: %v, want ErrLeaked", err)
	}
	if s := d.Slots(); s.Leaked != 1 || s.Others != 0 || s.Taken() != 1 || !strings.Contains(s.Reason, "reboot") {
		t.Errorf("slots: %+v, want one leaked", s)
	}
	// No hot loop: it is not even tried again before its time.
	before := logTime(t, w, "tk-b")
	for range 5 {
		if err := d.Start(t.Context(), "tk-b"); !errors.Is(err, vm.ErrLeaked) {
			t.Errorf("Start again: %v, want ErrLeaked", err)
		}
	}
	if after := logTime(t, w, "tk-b"); !after.Equal(before) {
		t.Error("tart run was started although the slot is known to have leaked")
	}
	// Once it is time, a try shows that the slot is back.
	w.faults(tarttest.Faults{})
	d.mu.Lock()
	d.slots.retry = time.Now()
	d.mu.Unlock()
	if err := d.Start(t.Context(), "tk-b"); err != nil {
		t.Error(err)
	}
	if s := d.Slots(); s != (vm.Slots{}) {
		t.Errorf("slots: %+v, want none taken", s)
	}
}

// logTime is when the guest's tart run was started last.
func logTime(t *testing.T, w *world, name string) time.Time {
	t.Helper()
	info, err := os.Stat(filepath.Join(w.opt.Home, name, logFile))
	if err != nil {
		t.Fatal(err)
	}
	return info.ModTime()
}

func TestLockedKeychain(t *testing.T) {
	w := newWorld(t)
	w.faults(tarttest.Faults{Keychain: true, GCNoise: true})
	d := w.driver()
	if err := d.Create(t.Context(), w.spec("tk-a")); err != nil {
		t.Fatal(err)
	}
	err := d.Start(t.Context(), "tk-a")
	if err == nil || !strings.Contains(err.Error(), "Interaction is not allowed") || !strings.Contains(err.Error(), "automatic login") || strings.Contains(err.Error(), "garbage") {
		t.Errorf("Start: %v, want tart's words and what to do", err)
	}
}

func TestSoftnetWithoutSUID(t *testing.T) {
	w := newWorld(t)
	w.faults(tarttest.Faults{NoSoftnet: true})
	d := w.driver()
	if err := d.Create(t.Context(), w.spec("tk-a")); err != nil {
		t.Fatal(err)
	}
	if err := d.Start(t.Context(), "tk-a"); err == nil || !strings.Contains(err.Error(), "chmod u+s") {
		t.Errorf("Start: %v, want what to do", err)
	}
}

func TestFreezeInStop(t *testing.T) {
	w := newWorld(t)
	d := w.driver()
	w.running(d, "tk-a")
	w.faults(tarttest.Faults{Deaf: true, Hang: map[string]int{"stop": 9}})
	d.times.grace = 50 * time.Millisecond
	if err := d.Destroy(t.Context(), "tk-a"); err != nil {
		t.Fatal(err)
	}
	if _, there := w.instance(d, "tk-a"); there {
		t.Error("it is still listed")
	}
}

// A process that has the number of a dead tart run is not touched.
func TestFreezeInStopSparesStrangers(t *testing.T) {
	w := newWorld(t)
	d := w.driver()
	w.running(d, "tk-a")
	w.crash(t, "tk-a")
	stranger, err := proc.Detach(proc.Cmd{Path: "sleep", Args: []string{"1000"}}, filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = stranger.Kill(context.WithoutCancel(t.Context())) })
	if err := writeJSON(filepath.Join(w.opt.Home, "tk-a", runFile), run{stranger}); err != nil {
		t.Fatal(err)
	}
	if err := d.Destroy(t.Context(), "tk-a"); err != nil {
		t.Fatal(err)
	}
	if !stranger.Alive() {
		t.Error("a stranger was killed")
	}
}

func TestHungTartCall(t *testing.T) {
	w := newWorld(t)
	d := w.driver()
	w.running(d, "tk-a")
	d.times.list, d.times.delete, d.times.clone = 200*time.Millisecond, 200*time.Millisecond, 200*time.Millisecond
	w.faults(tarttest.Faults{Hang: map[string]int{"list": 1, "delete": 1, "clone": 1}})
	if _, err := d.List(t.Context()); !errors.Is(err, errHung) {
		t.Errorf("List: %v, want errHung", err)
	}
	if err := d.Create(t.Context(), w.spec("tk-b")); !errors.Is(err, errHung) {
		t.Errorf("Create: %v, want errHung", err)
	}
	// A busy machine may have ended a call before it hung.
	w.faults(tarttest.Faults{Hang: map[string]int{"delete": 1}})
	d.times.list, d.times.clone = time.Minute, time.Minute
	if _, there := w.instance(d, "tk-b"); there {
		t.Error("the guest whose clone hung is still there")
	}
	// A delete that hangs leaves no disk behind.
	if err := d.Destroy(t.Context(), "tk-a"); err != nil {
		t.Error(err)
	}
	if left := w.leftovers(t); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}

// Deleting a machine that was just killed is refused for a moment.
func TestCutVMLeaksDirectory(t *testing.T) {
	w := newWorld(t)
	d := w.driver()
	w.running(d, "tk-a")
	w.faults(tarttest.Faults{HeldAfterKill: 3, TornList: 1})
	if err := d.Destroy(t.Context(), "tk-a"); err != nil {
		t.Fatal(err)
	}
	if left := w.leftovers(t); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}

func TestGuestExitsZero(t *testing.T) {
	w := newWorld(t)
	d := w.driver()
	w.running(d, "tk-a")
	w.faults(tarttest.Faults{Crash: "The virtual machine stopped unexpectedly."})
	w.until("end of the guest", func() bool { in, _ := w.instance(d, "tk-a"); return in.State == vm.Stopped })
	if in, _ := w.instance(d, "tk-a"); !strings.Contains(in.Reason, "crashed: The virtual machine stopped unexpectedly.") {
		t.Errorf("the reason is %q", in.Reason)
	}
}

// A tart run that was started, and not written down before we were killed, is
// found all the same.
func TestAStartThatWasNotWrittenDownIsFound(t *testing.T) {
	w := newWorld(t)
	d := w.driver()
	w.running(d, "tk-a")
	if err := writeJSON(filepath.Join(w.opt.Home, "tk-a", runFile), run{}); err != nil {
		t.Fatal(err)
	}
	if err := w.driver().PowerOff(t.Context(), "tk-a"); err != nil {
		t.Fatal(err)
	}
	if in, _ := w.instance(d, "tk-a"); in.State != vm.Stopped {
		t.Errorf("it is %s", in.State)
	}
}

// tart clone would replace a machine of the same name without a word.
func TestCreateNeverReplacesAMachine(t *testing.T) {
	w := newWorld(t)
	if err := tarttest.Add(w.opt.TartHome, "tk-a", w.img); err != nil {
		t.Fatal(err)
	}
	before := w.look("tk-a")
	if err := w.driver().Create(t.Context(), w.spec("tk-a")); !errors.Is(err, vm.ErrSpec) {
		t.Errorf("Create: %v, want ErrSpec", err)
	}
	if after := w.look("tk-a"); after != before {
		t.Errorf("it was %+v and is %+v", before, after)
	}
}

// Two homes may have guests of one name, in tests at least: neither ends the
// other's.
func TestAnotherHomesGuestIsNotEnded(t *testing.T) {
	theirs, ours := newWorld(t), newWorld(t)
	theirs.running(theirs.driver(), "tk-a")
	d := ours.driver()
	if err := d.Create(t.Context(), ours.spec("tk-a")); err != nil {
		t.Fatal(err)
	}
	if err := d.Destroy(t.Context(), "tk-a"); err != nil {
		t.Fatal(err)
	}
	if theirs.look("tk-a").PID == 0 {
		t.Error("the guest of another home was ended")
	}
}
