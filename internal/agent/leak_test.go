package agent_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mirego/tasuki/internal/agent"
	"github.com/mirego/tasuki/internal/emulator"
	"github.com/mirego/tasuki/internal/event"
	"github.com/mirego/tasuki/internal/runner"
	"github.com/mirego/tasuki/internal/vm"
	"github.com/mirego/tasuki/internal/vm/fake"
)

// A slot leaks while a job runs: it is told, and the host reboots where it may,
// once, when nobody is at work.
func TestLeakedVMSlot(t *testing.T) {
	t.Parallel()
	w := newWorld(t, emulator.Options{})
	w.program = programDir(t, "2s")
	rebooted := filepath.Join(t.TempDir(), "rebooted")
	events := &eventList{}
	h := w.run(fake.Faults{}, func(o *agent.Options) {
		o.Reboot = []string{"/bin/sh", "-c", `echo now >>"$0"`, rebooted} // the stand-in for sudo -n shutdown
		o.LeakLasts, o.Events = time.Millisecond, events
	})
	run := w.submit(1)
	busy := w.runner(h, runner.Busy)
	if err := os.WriteFile(filepath.Join(w.home, "guests", "leaked"), []byte("1"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.until("the leak is told", func() bool { return h.Status().Leaked == 1 })
	w.until("the host is told to reboot", func() bool {
		_, err := os.Stat(rebooted)
		for _, r := range h.Status().Runners {
			if r.Name == busy.Name && r.State == runner.Busy && err == nil {
				t.Error("it was told to reboot under a job")
			}
		}
		return err == nil
	})
	w.concluded(run, "success")
	s := h.Status()
	if !s.Draining || !strings.Contains(strings.Join(s.Problems, "; "), "reboot") {
		t.Errorf("the host does not wait for its reboot: %+v", s)
	}
	w.finish(h)
	if text, err := os.ReadFile(rebooted); err != nil || string(text) != "now\n" {
		t.Errorf("it was told to reboot: %q, %v", text, err)
	}
	if n, m := events.count(event.SlotsLeaked), events.count(event.HostRebooting); n != 1 || m != 1 {
		t.Errorf("%d events of a leak and %d of a reboot", n, m)
	}
}

// Where nothing else is said, a reboot is left to people; a leak that passes is
// told, too.
func TestLeakedVMSlotWithoutAReboot(t *testing.T) {
	t.Parallel()
	w := newWorld(t, emulator.Options{})
	leaked := filepath.Join(w.home, "guests", "leaked")
	events := &eventList{}
	h := w.run(fake.Faults{}, func(o *agent.Options) { o.LeakLasts, o.Events = time.Millisecond, events })
	idle := w.runner(h, runner.Idle)
	if err := os.WriteFile(leaked, []byte("1"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.until("the leak is told", func() bool { return h.Status().Leaked == 1 })
	if err := os.Remove(leaked); err != nil {
		t.Fatal(err)
	}
	w.until("its end is told", func() bool { s := h.Status(); return s.Leaked == 0 && len(s.Problems) == 0 })
	if now := w.runner(h, runner.Idle); now.Name != idle.Name {
		t.Error("the runner that waited gave way")
	}
	if n, m := events.count(event.SlotsLeaked), events.count(event.SlotsBack); n != 1 || m != 1 {
		t.Errorf("%d events of a leak and %d of its end", n, m)
	}
	w.finish(h)
}

// linux are guests of a hypervisor that bounds only those of another system.
type linux struct{ *fake.Driver }

func (d linux) Capabilities() vm.Capabilities {
	c := d.Driver.Capabilities()
	c.GuestOS, c.MaxGuests = "linux", 0
	return c
}

// Two macOS guests per Mac; its Linux guests are not counted with them.
func TestTheLimitIsOfOneSystem(t *testing.T) {
	t.Parallel()
	w := newWorld(t, emulator.Options{})
	h := w.run(fake.Faults{}, func(o *agent.Options) {
		d, err := fake.New(fake.Options{Dir: filepath.Join(w.home, "macs"), Installation: installation, Prefix: "tasuki", MaxGuests: 1})
		if err != nil {
			t.Fatal(err)
		}
		o.Slots = 3
		mac, other := o.Pools[0], o.Pools[0]
		mac.Driver, mac.Spec.Name = d, "mac"
		other.Driver, other.Spec.Name, other.Spec.Standby = linux{other.Driver.(*fake.Driver)}, "linux", 2
		o.Pools = []agent.Pool{mac, other}
	})
	w.until("each pool has its runners", func() bool {
		pools := h.Status().Pools
		return pools[0].Idle == 1 && pools[1].Idle == 2
	})
	w.finish(h)
}
