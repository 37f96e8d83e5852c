package fake_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mirego/tasuki/internal/base/proc"
	"github.com/mirego/tasuki/internal/guest"
	"github.com/mirego/tasuki/internal/guest/local"
	"github.com/mirego/tasuki/internal/image"
	"github.com/mirego/tasuki/internal/vm"
	"github.com/mirego/tasuki/internal/vm/fake"
	"github.com/mirego/tasuki/internal/vm/vmtest"
)

const prefix = "tsk-"

var anImage = image.Local{Digest: "sha256:" + strings.Repeat("a", 64), Labels: map[string]string{image.LabelOS: image.OSLinux}}

// open makes a driver whose guests end with the test.
func open(t *testing.T, opts fake.Options) *fake.Driver {
	t.Helper()
	if opts.Dir == "" {
		opts.Dir = t.TempDir()
	}
	opts.Installation, opts.Prefix = "vmtest", prefix
	d, err := fake.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		opts.Faults = fake.Faults{}
		d, err := fake.New(opts)
		if err == nil {
			err = d.PowerLoss(context.WithoutCancel(t.Context()))
		}
		if err != nil {
			t.Error(err)
		}
	})
	return d
}

func TestConformance(t *testing.T) {
	vmtest.Run(t, func(t *testing.T) vmtest.Harness {
		dir := t.TempDir()
		openAgain := func(t *testing.T) *fake.Driver {
			return open(t, fake.Options{Dir: dir, MaxGuests: 6})
		}
		return vmtest.Harness{
			Open:   func(t *testing.T) vm.Driver { return openAgain(t) },
			Image:  anImage,
			Prefix: prefix,
			Want:   vm.Capabilities{Driver: "fake", GuestOS: "linux", MaxGuests: 6},
			Crash: func(t *testing.T, name string) {
				if err := openAgain(t).Crash(t.Context(), name); err != nil {
					t.Error(err)
				}
			},
			PowerLoss: func(t *testing.T) { losePower(t, dir, openAgain(t)) },
			HalfMade: func(t *testing.T, name string) {
				if err := os.MkdirAll(filepath.Join(dir, ".half-"+name, "root"), 0o700); err != nil {
					t.Error(err)
				}
			},
			Foreign:   func(t *testing.T) func(*testing.T) { return foreign(t, dir) },
			Leftovers: func(t *testing.T) []string { return leftovers(t, dir) },
		}
	})
}

// losePower ends the guests and gives their process numbers to others.
func losePower(t *testing.T, dir string, d *fake.Driver) {
	t.Helper()
	if err := d.PowerLoss(t.Context()); err != nil {
		t.Error(err)
	}
	others, err := json.Marshal(proc.ID{PID: os.Getpid(), Start: "another boot/1"})
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*", "root.on"))
	if err != nil || len(files) == 0 {
		t.Errorf("no guest ran: %v", err)
	}
	for _, file := range files {
		if err := os.WriteFile(file, others, 0o600); err != nil {
			t.Error(err)
		}
	}
}

func foreign(t *testing.T, dir string) func(*testing.T) {
	t.Helper()
	other, err := fake.New(fake.Options{Dir: dir, Installation: "other", Prefix: prefix})
	if err != nil {
		t.Fatal(err)
	}
	spec := vm.Spec{Name: prefix + "theirs", Owner: vm.Owner{Installation: "other"}, Image: anImage, Network: vm.Network{Mode: vm.Isolated}}
	err = errors.Join(other.Create(t.Context(), spec), other.Start(t.Context(), spec.Name),
		os.MkdirAll(filepath.Join(dir, "someone-else"), 0o700))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = other.Destroy(context.WithoutCancel(t.Context()), spec.Name) })
	return func(t *testing.T) {
		all, err := other.List(t.Context())
		if err != nil || len(all) != 1 || all[0].State != vm.Running {
			t.Errorf("their guests: %+v, %v", all, err)
		}
		if _, err := os.Stat(filepath.Join(dir, "someone-else")); err != nil {
			t.Error(err)
		}
	}
}

func leftovers(t *testing.T, dir string) []string {
	t.Helper()
	var left []string
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Error(err)
	}
	for _, e := range entries {
		if e.Name() == "someone-else" || e.Name() == prefix+"theirs" {
			continue
		}
		left = append(left, e.Name())
		ids, _ := proc.Marked(fake.Mark + "=" + filepath.Join(dir, e.Name(), "root"))
		left = append(left, fmt.Sprint(ids))
	}
	return left
}

// running makes a guest and starts it.
func running(t *testing.T, d *fake.Driver, name string) {
	t.Helper()
	spec := vm.Spec{Name: name, Owner: vm.Owner{Installation: "vmtest"}, Image: anImage, Network: vm.Network{Mode: vm.Isolated}}
	if err := d.Create(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	if err := d.Start(t.Context(), name); err != nil {
		t.Fatal(err)
	}
}

// into opens the channel into a guest.
func into(t *testing.T, d *fake.Driver, name string) guest.Channel {
	t.Helper()
	addr, err := d.Address(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	ch, err := local.Dialer{}.Dial(t.Context(), guest.Target{Guest: name, Address: addr, User: "runner"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ch.Close() })
	return ch
}

// program makes a host folder with an executable run.
func program(t *testing.T, text string) guest.Program {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "run"), []byte("#!/bin/sh\n"+text), 0o700); err != nil {
		t.Fatal(err)
	}
	return guest.Program{Dir: dir, Kind: guest.RunnerCommand}
}

func TestPowerOffEndsAllThatRunsInside(t *testing.T) {
	if fake.Mark != local.Mark {
		t.Fatalf("the driver marks with %q, the channel with %q", fake.Mark, local.Mark)
	}
	d := open(t, fake.Options{})
	running(t, d, prefix+"a")
	running(t, d, prefix+"b")
	p := program(t, "sleep 1000 & (setsid sleep 1000 &) ; nohup sleep 1000 & echo up; exec sleep 1000")
	follows := make(chan error, 2)
	for _, name := range []string{prefix + "a", prefix + "b"} {
		ch := into(t, d, name)
		if err := guest.Launch(t.Context(), ch, p); err != nil {
			t.Fatal(err)
		}
		up := make(chan struct{})
		to := guest.NewLines(func(string) { close(up) })
		go func() {
			_, err := guest.Follow(t.Context(), ch, 0, to)
			follows <- err
		}()
		<-up
	}
	inside := func(name string) int {
		ids, err := proc.Marked(fake.Mark + "=" + address(t, d, name))
		if err != nil {
			t.Fatal(err)
		}
		return len(ids)
	}
	a := address(t, d, prefix+"a")
	if n := inside(prefix + "a"); n < 6 {
		t.Errorf("%d processes in the guest, want its hypervisor, the supervisor and four sleeps at least", n)
	}
	// A new agent ends them, not the one that started them.
	again := open(t, fake.Options{Dir: filepath.Dir(filepath.Dir(a))})
	if err := again.PowerOff(t.Context(), prefix+"a"); err != nil {
		t.Fatal(err)
	}
	if err := <-follows; !errors.Is(err, guest.ErrUnreachable) {
		t.Errorf("Follow: %v, want ErrUnreachable", err)
	}
	if ids, err := proc.Marked(fake.Mark + "=" + a); err != nil || len(ids) > 0 {
		t.Errorf("still inside: %v, %v", ids, err)
	}
	if n := inside(prefix + "b"); n < 6 {
		t.Errorf("%d processes in the other guest", n)
	}
	if err := again.Destroy(t.Context(), prefix+"b"); err != nil {
		t.Fatal(err)
	}
	if err := <-follows; !errors.Is(err, guest.ErrUnreachable) {
		t.Errorf("Follow: %v, want ErrUnreachable", err)
	}
}

func address(t *testing.T, d *fake.Driver, name string) string {
	t.Helper()
	addr, err := d.Address(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return addr
}

func TestBootTroubles(t *testing.T) {
	is := func(word string) fake.Some {
		return func(name string) bool { return name == prefix+word }
	}
	delay := map[string]time.Duration{prefix + "slow": time.Hour, prefix + "dies": 10 * time.Millisecond}
	d := open(t, fake.Options{
		BootDelay: func(name string) time.Duration { return delay[name] },
		Faults:    fake.Faults{NeverBoots: is("never"), DiesBooting: is("dies")},
	})
	for _, word := range []string{"slow", "never", "dies", "well"} {
		running(t, d, prefix+word)
	}
	for _, word := range []string{"slow", "never"} {
		if addr, err := d.Address(t.Context(), prefix+word); err == nil || errors.Is(err, vm.ErrNotFound) {
			t.Errorf("%s has the address %q, %v; want an error that may pass", word, addr, err)
		}
	}
	address(t, d, prefix+"well")
	for range 1000 {
		all, err := d.List(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if dead := all[0]; dead.State == vm.Stopped {
			if !strings.Contains(dead.Reason, "kernel panic") {
				t.Errorf("the reason is %q", dead.Reason)
			}
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Error("the guest that dies while booting lives")
}

func TestFaultsBefore(t *testing.T) {
	broken := errors.New("the disk is slow today")
	d := open(t, fake.Options{Faults: fake.Faults{Before: []fake.Fault{
		fake.Fail(fake.OpStart, 2, vm.ErrLimit), fake.Fail(fake.OpDestroy, 1, broken), fake.Hang(fake.OpCreate, 1),
	}}})
	name := prefix + "g"
	spec := vm.Spec{Name: name, Owner: vm.Owner{Installation: "vmtest"}, Image: anImage, Network: vm.Network{Mode: vm.Isolated}}
	cause := errors.New("deadline of the test")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 20*time.Millisecond, cause)
	defer cancel()
	for _, c := range []struct {
		what string
		do   func() error
		want error
	}{
		{"a Create that hangs", func() error { return d.Create(ctx, spec) }, cause},
		{"Create", func() error { return d.Create(t.Context(), spec) }, nil},
		{"Start 1", func() error { return d.Start(t.Context(), name) }, vm.ErrLimit},
		{"Start 2", func() error { return d.Start(t.Context(), name) }, vm.ErrLimit},
		{"Start 3", func() error { return d.Start(t.Context(), name) }, nil},
		{"Destroy 1", func() error { return d.Destroy(t.Context(), name) }, broken},
		{"Destroy 2", func() error { return d.Destroy(t.Context(), name) }, nil},
	} {
		if err := c.do(); !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
			t.Errorf("%s: %v, want %v", c.what, err, c.want)
		}
	}
}

func TestManyGuestsWithPrograms(t *testing.T) {
	n := 200
	if testing.Short() {
		n = 20
	}
	d := open(t, fake.Options{})
	p := program(t, `echo "job of $WHO"; until [ -e go ]; do sleep 0.3; done; exit 3`)
	var wg sync.WaitGroup
	var up sync.WaitGroup
	up.Add(n)
	slots := make(chan struct{}, 8) // launches at once; the guests live all at once
	for i := range n {
		wg.Go(func() {
			name := fmt.Sprintf("%s%d", prefix, i)
			ch, err := begin(t, d, name, p, slots)
			if err != nil {
				t.Error(err)
				up.Done()
				return
			}
			var log bytes.Buffer
			ready := sync.OnceFunc(up.Done)
			exit, err := guest.Follow(t.Context(), ch, 0, guest.NewLines(func(line string) { log.WriteString(line); ready() }))
			ready()
			if err != nil || exit.Code != 3 || log.String() != "job of "+name {
				t.Errorf("%s: %+v, %v, log %q", name, exit, err, log.String())
			}
			slots <- struct{}{}
			defer func() { <-slots }()
			if err := d.Destroy(t.Context(), name); err != nil {
				t.Error(err)
			}
		})
	}
	up.Wait()
	if all, err := d.List(t.Context()); err != nil || len(all) != n {
		t.Errorf("%d guests at once, %v; want %d", len(all), err, n)
	}
	for i := range n {
		addr, err := d.Address(t.Context(), fmt.Sprintf("%s%d", prefix, i))
		if err == nil {
			err = os.WriteFile(filepath.Join(addr, "go"), nil, 0o600)
		}
		if err != nil {
			t.Error(err)
		}
	}
	wg.Wait()
	if all, err := d.List(t.Context()); err != nil || len(all) > 0 {
		t.Errorf("left: %+v, %v", all, err)
	}
}

// begin makes a guest with a program in it.
func begin(t *testing.T, d *fake.Driver, name string, p guest.Program, slots chan struct{}) (guest.Channel, error) {
	slots <- struct{}{}
	defer func() { <-slots }()
	spec := vm.Spec{Name: name, Owner: vm.Owner{Installation: "vmtest"}, Image: anImage, Network: vm.Network{Mode: vm.Isolated}}
	if err := d.Create(t.Context(), spec); err != nil {
		return nil, err
	}
	if err := d.Start(t.Context(), name); err != nil {
		return nil, err
	}
	addr, err := d.Address(t.Context(), name)
	if err != nil {
		return nil, err
	}
	ch, err := local.Dialer{}.Dial(t.Context(), guest.Target{Guest: name, Address: addr})
	if err != nil {
		return nil, err
	}
	p.Env = map[string]string{"WHO": name}
	return ch, guest.Launch(t.Context(), ch, p)
}
