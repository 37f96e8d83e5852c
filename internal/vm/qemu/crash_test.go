package qemu

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"syscall"
	"testing"

	"github.com/mirego/tasuki/internal/base/proc"
	"github.com/mirego/tasuki/internal/vm"
)

// verbs are the methods that change something.
var verbs = map[string]func(context.Context, *Driver, vm.Spec) error{
	"create":   func(ctx context.Context, d *Driver, s vm.Spec) error { return d.Create(ctx, s) },
	"start":    func(ctx context.Context, d *Driver, s vm.Spec) error { return d.Start(ctx, s.Name) },
	"poweroff": func(ctx context.Context, d *Driver, s vm.Spec) error { return d.PowerOff(ctx, s.Name) },
	"destroy":  func(ctx context.Context, d *Driver, s vm.Spec) error { return d.Destroy(ctx, s.Name) },
}

// order tells a caller what to do and when to die.
type order struct {
	Opt   Options
	Spec  vm.Spec
	Verb  string
	DieAt int // the step before which it kills itself, from 1
}

// caller is a process that uses a driver and is killed half way.
func caller(text string) error {
	var o order
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		return err
	}
	d, err := New(o.Opt)
	if err != nil {
		return err
	}
	n := 0
	d.step = func(string) {
		if n++; n == o.DieAt {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	}
	return verbs[o.Verb](context.Background(), d, o.Spec)
}

// TestKilledAtEachStep kills a process that uses the driver between any two
// steps of each method. Whatever that was, the method can be called again and
// then has worked, and Destroy takes everything away.
func TestKilledAtEachStep(t *testing.T) {
	t.Run("FakeQEMU", func(t *testing.T) { killAtEachStep(t, fakeWorld) })
	t.Run("QEMU", func(t *testing.T) { killAtEachStep(t, realWorld) })
}

func killAtEachStep(t *testing.T, world func(*testing.T) *world) {
	for _, c := range []struct {
		verb   string
		before []string
		after  vm.State // "" means gone
	}{
		{"create", nil, vm.Stopped},
		{"start", []string{"create"}, vm.Running},
		{"poweroff", []string{"create", "start"}, vm.Stopped},
		{"destroy", []string{"create", "start"}, ""},
	} {
		t.Run(c.verb, func(t *testing.T) {
			died := true
			for n := 1; died; n++ {
				for _, then := range []string{c.verb, "destroy"} {
					w := world(t)
					died = w.dieAt(t, c.verb, c.before, n)
					w.recover(t, then, c.after)
				}
				if n == 1 && !died {
					t.Fatalf("%s has no steps", c.verb)
				}
			}
		})
	}
}

// dieAt lets a process run the verbs before, then one that kills itself at a
// step of this verb. It says whether the verb has so many steps.
func (w *world) dieAt(t *testing.T, verb string, before []string, step int) bool {
	t.Helper()
	spec := w.spec(testPrefix + "victim")
	d := w.driver(t)
	for _, v := range before {
		if err := verbs[v](t.Context(), d, spec); err != nil {
			t.Fatalf("%s: %v", v, err)
		}
	}
	text, err := json.Marshal(order{Opt: w.callerOptions(), Spec: spec, Verb: verb, DieAt: step})
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	_, err = proc.Run(t.Context(), proc.Cmd{Path: self, Args: []string{string(text)}, Env: []string{roleEnv + "=caller"}})
	var exit *proc.ExitError
	if err != nil && (!errors.As(err, &exit) || exit.Signal != "killed") {
		t.Fatalf("the caller: %v", err)
	}
	return err != nil
}

func (w *world) callerOptions() Options {
	opt := w.opt
	opt.Log = nil
	return opt
}

// recover opens the home anew, calls a verb, and looks whether it has worked.
func (w *world) recover(t *testing.T, verb string, after vm.State) {
	t.Helper()
	spec := w.spec(testPrefix + "victim")
	d := w.driver(t)
	before, err := d.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := verbs[verb](t.Context(), d, spec); err != nil {
		t.Fatalf("%s, from %+v: %v", verb, before, err)
	}
	list, err := d.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if verb == "destroy" {
		after = ""
	}
	got := "gone"
	if len(list) > 0 {
		got = string(list[0].State)
	}
	want := string(after)
	if want == "" {
		want = "gone"
	}
	if got != want {
		t.Errorf("after %s, from %+v, it is %s, want %s", verb, before, got, want)
	}
	if err := d.Destroy(t.Context(), spec.Name); err != nil {
		t.Fatal(err)
	}
	if left := w.leftovers(t); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
	if entries, _ := os.ReadDir(w.opt.Home); len(entries) > 0 {
		t.Errorf("left behind: %s", fmt.Sprint(entries))
	}
}
