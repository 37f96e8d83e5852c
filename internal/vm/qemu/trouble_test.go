package qemu

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/mirego/tasuki/internal/vm"
)

// onBoth runs a test over the fake QEMU and over the real one.
func onBoth(t *testing.T, test func(*testing.T, *world)) {
	t.Run("FakeQEMU", func(t *testing.T) { test(t, fakeWorld(t)) })
	t.Run("QEMU", func(t *testing.T) { test(t, realWorld(t)) })
}

func TestADeepHomeDoesNotExceedASocketsPath(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.opt.Home = filepath.Join(w.opt.Home, strings.Repeat("deep/", 40))
		d, spec := w.driver(t), w.spec(testPrefix+"deep")
		for _, verb := range []string{"create", "start", "poweroff", "start", "destroy"} {
			if err := verbs[verb](t.Context(), d, spec); err != nil {
				t.Fatalf("%s: %v", verb, err)
			}
		}
	})
}

// TestFreezeInStop stops QEMU so that it answers nobody.
func TestFreezeInStop(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		d, spec := w.driver(t), w.spec(testPrefix+"frozen")
		for _, verb := range []string{"poweroff", "destroy"} {
			for _, before := range []string{"create", "start"} {
				if err := verbs[before](t.Context(), d, spec); err != nil {
					t.Fatal(err)
				}
			}
			id, ok := w.guest(spec.Name).process()
			if !ok {
				t.Fatal("it has no process")
			}
			if err := id.Signal(syscall.SIGSTOP, false); err != nil {
				t.Fatal(err)
			}
			if err := verbs[verb](t.Context(), d, spec); err != nil {
				t.Fatalf("%s of a frozen QEMU: %v", verb, err)
			}
			if id.Alive() {
				t.Errorf("%s left the frozen QEMU alive", verb)
			}
		}
	})
}

func TestAPortThatIsTakenMeanwhileIsReplaced(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		d, spec := w.driver(t), w.spec(testPrefix+"race")
		if err := d.Create(t.Context(), spec); err != nil {
			t.Fatal(err)
		}
		var thief net.Listener
		d.step = func(step string) {
			if step != "start written down" || thief != nil {
				return
			}
			r, err := w.guest(spec.Name).readRun()
			if err == nil {
				thief, err = net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: r.SSHPort})
			}
			if err != nil {
				t.Errorf("cannot take the port: %v", err)
			}
		}
		if err := d.Start(t.Context(), spec.Name); err != nil {
			t.Fatal(err)
		}
		defer thief.Close()
		if addr, err := d.Address(t.Context(), spec.Name); err != nil || addr == thief.Addr().String() {
			t.Errorf("its address is %q, %v", addr, err)
		}
	})
}

func TestAStartThatQEMURefusesSaysWhy(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.opt.QEMU = roleScript(t, "qemu", `echo "qemu-system-x86_64: cannot set up guest memory 'pc.ram': Cannot allocate memory" >&2; exit 1`)
		d, spec := w.driver(t), w.spec(testPrefix+"big")
		if err := d.Create(t.Context(), spec); err != nil {
			t.Fatal(err)
		}
		err := d.Start(t.Context(), spec.Name)
		if err == nil || !strings.Contains(err.Error(), "Cannot allocate memory") || !strings.Contains(err.Error(), vm.ErrLimit.Error()) {
			t.Errorf("got %v, want ErrLimit with QEMU's words", err)
		}
	})
}

// TestAConsoleIsBounded has a guest that wrote too much.
func TestAConsoleIsBounded(t *testing.T) {
	w := fakeWorld(t)
	d, spec := w.driver(t), w.spec(testPrefix+"loud")
	for _, verb := range []string{"create", "start"} {
		if err := verbs[verb](t.Context(), d, spec); err != nil {
			t.Fatal(err)
		}
	}
	console := w.guest(spec.Name).path(consoleFile)
	if err := os.Truncate(console, consoleMost+1); err != nil {
		t.Fatal(err)
	}
	if _, err := d.List(t.Context()); err != nil {
		t.Fatal(err)
	}
	now, err := os.Stat(console)
	if err != nil || now.Size() != 0 {
		t.Errorf("the console has %d bytes, %v; want it cut", now.Size(), err)
	}
	if old, err := os.Stat(w.guest(spec.Name).path(consoleOld)); err != nil || old.Size() != consoleKept {
		t.Errorf("its end is not kept: %v", err)
	}
}

func TestInternetWithoutPasstHasAHint(t *testing.T) {
	w := fakeWorld(t)
	w.opt.Passt = "no-such-passt-of-ours"
	spec := w.spec(testPrefix + "net")
	spec.Network.Mode = vm.Internet
	if err := w.driver(t).Create(t.Context(), spec); err == nil || !strings.Contains(err.Error(), "install passt") {
		t.Errorf("got %v, want the command to type", err)
	}
}

// TestAGuestOnTheInternetHasItsOwnPasst starts one whose program only halts: it
// sends nothing.
func TestAGuestOnTheInternetHasItsOwnPasst(t *testing.T) {
	w := realWorld(t)
	d, spec := w.driver(t), w.spec(testPrefix+"net")
	spec.Network.Mode = vm.Internet
	for _, verb := range []string{"create", "start"} {
		if err := verbs[verb](t.Context(), d, spec); err != nil {
			t.Fatal(err)
		}
	}
	r, err := w.guest(spec.Name).readRun()
	if err != nil || !r.Passt.Alive() {
		t.Fatalf("passt does not run: %+v, %v", r, err)
	}
	if err := d.Destroy(t.Context(), spec.Name); err != nil {
		t.Fatal(err)
	}
	if r.Passt.Alive() {
		t.Error("passt outlives its guest")
	}
}
