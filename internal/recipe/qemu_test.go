package recipe_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mirego/tasuki/internal/base/secret"
	"github.com/mirego/tasuki/internal/guest"
	"github.com/mirego/tasuki/internal/guest/ssh"
	"github.com/mirego/tasuki/internal/image"
	"github.com/mirego/tasuki/internal/image/cloud"
	"github.com/mirego/tasuki/internal/image/cloud/cloudtest"
	"github.com/mirego/tasuki/internal/image/store"
	"github.com/mirego/tasuki/internal/image/transfer"
	"github.com/mirego/tasuki/internal/recipe"
	"github.com/mirego/tasuki/internal/registry"
	"github.com/mirego/tasuki/internal/vm"
	"github.com/mirego/tasuki/internal/vm/qemu"
)

// cloudDisk is a cloud image for this machine.
func cloudDisk(t *testing.T) recipe.Download {
	t.Helper()
	path, sum := cloudtest.Disk(t, runtime.GOARCH)
	return recipe.Download{URL: path, Checksum: sum}
}

// sources are those of this host's files.
type sources struct{ files *cloud.Cache }

func (s sources) Image(context.Context, string, func(int64, int64)) (image.Local, error) {
	return image.Local{}, errors.ErrUnsupported
}

func (s sources) Disk(ctx context.Context, d recipe.Download, p func(int64, int64)) (string, error) {
	return s.files.Disk(ctx, d.URL, d.Checksum, p)
}

func (s sources) File(ctx context.Context, d recipe.Download, p func(int64, int64)) (string, error) {
	return s.files.Fetch(ctx, d.URL, d.Checksum, p)
}

func (s sources) Debian(context.Context, recipe.Debian, func(float64, string)) (image.Local, error) {
	return image.Local{}, errors.ErrUnsupported
}

// view keeps what steps print.
type view struct {
	t *testing.T
	bytes.Buffer
}

func (v *view) Bring(string, int64, int64) {}
func (v *view) Begin(name string)          { v.t.Logf("%s begins", name) }
func (v *view) End(name string, cached bool, took time.Duration, err error) {
	v.t.Logf("%s: cached %v, took %v, %v", name, cached, took.Round(time.Millisecond), err)
}

func newQEMU(t *testing.T, home, prefix string) *qemu.Driver {
	t.Helper()
	d, err := qemu.New(qemu.Options{Home: home, Installation: "recipe-test", Prefix: prefix, Accel: "tcg"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		left, err := d.List(ctx)
		if err != nil {
			t.Error(err)
		}
		for _, in := range left {
			t.Errorf("guest %s is left", in.Name)
			if err := d.Destroy(ctx, in.Name); err != nil {
				t.Error(err)
			}
		}
	})
	return d
}

// TestImageOfACloudDisk is the whole way: a cloud image seeded through NoCloud,
// booted by UEFI, provisioned; built again with another last step; pushed,
// pulled, and booted as a guest that runs its runner program.
func TestImageOfACloudDisk(t *testing.T) {
	if os.Getenv("TASUKI_TEST_QEMU") != "1" {
		t.Skip("needs QEMU: set TASUKI_TEST_QEMU=1")
	}
	home := t.TempDir()
	r := cloudRecipe(t)
	v := &view{t: t}
	b, err := recipe.New(recipe.Options{
		Dir: filepath.Join(home, "build"), Driver: newQEMU(t, filepath.Join(home, "g"), "rt-"), Installation: "recipe-test", Prefix: "rt-",
		Dialer: &ssh.Dialer{Silence: 3 * time.Second, Login: 30 * time.Second}, Sources: sources{&cloud.Cache{Dir: filepath.Join(home, "dl")}},
		NewKey: ssh.NewKey, View: v, Seed: func(path string, s recipe.Seed) error { return cloud.Seed(s).Write(path) },
	})
	if err != nil {
		t.Fatal(err)
	}
	first, err := b.Build(t.Context(), r)
	if err != nil {
		t.Fatalf("%v\n%s", err, v.String())
	}
	if diff := cmp.Diff([]string{"prepare", "runner", "tool", "word"}, first.Ran); diff != "" {
		t.Errorf("steps that ran first (-want +got):\n%s", diff)
	}
	log, err := os.ReadFile(first.Log)
	if err != nil || !strings.Contains(string(log), "the token is [redacted]\n") || strings.Contains(string(log)+v.String(), "geheim") {
		t.Errorf("the log shows a secret, or nothing: %v\n%s", err, log)
	}

	r.Steps[2].Script = "echo second >word"
	second, err := b.Build(t.Context(), r)
	if err != nil {
		t.Fatalf("%v\n%s", err, v.String())
	}
	if diff := cmp.Diff([]string{"word"}, second.Ran); diff != "" {
		t.Errorf("steps that ran after the last one changed (-want +got):\n%s", diff)
	}
	again, err := b.Build(t.Context(), r)
	if err != nil || len(again.Ran) > 0 || again.Key != second.Key || again.Source.Disk != second.Source.Disk {
		t.Errorf("built again unchanged: %+v, %v; want nothing to run", again, err)
	}
	checkGuest(t, home, throughRegistry(t, home, second.Source))
}

func cloudRecipe(t *testing.T) recipe.Recipe {
	t.Helper()
	program := filepath.Join(t.TempDir(), "run")
	text := []byte("#!/bin/sh\necho runs as $(id -un) with $ACTIONS_RUNNER_INPUT_JITCONFIG\nexit 7\n")
	if err := os.WriteFile(program, text, 0o755); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(text)
	return recipe.Recipe{
		Name: "cloudy", OS: image.OSLinux, Arch: runtime.GOARCH, User: "runner", Base: recipe.Base{Disk: cloudDisk(t)},
		Guest: recipe.Guest{CPUs: 2, MemoryMiB: 1024, DiskGB: 3, Network: vm.Network{Mode: vm.Isolated}},
		Vars:  map[string]string{"WHAT": "tool"}, Secrets: map[string]secret.String{"TOKEN": secret.New("geheim")},
		Clean: recipe.Clean{HostKey: true},
		Steps: []recipe.Step{
			{Name: "runner", Runner: &recipe.Runner{
				Kind: "command", Dir: "~/actions-runner", Version: "1", Archive: recipe.Download{URL: program, Checksum: "sha256:" + hex.EncodeToString(sum[:])},
			}},
			{Name: "tool", Root: true, Secrets: []string{"TOKEN"}, Script: "mkdir -p /opt/$WHAT\necho the token is $TOKEN\nid -u >/opt/$WHAT/who"},
			{Name: "word", Script: "echo first >word"},
		},
	}
}

// throughRegistry pushes an image to the embedded registry and pulls it.
func throughRegistry(t *testing.T, home string, src image.Source) image.Local {
	t.Helper()
	r, err := registry.New(registry.Options{Dir: filepath.Join(home, "registry"), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx, l) }()
	defer func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	ref, err := image.Parse(l.Addr().String() + "/cloudy:latest")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := transfer.Push(t.Context(), src, ref, transfer.Options{}); err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(filepath.Join(home, "images"))
	if err != nil {
		t.Fatal(err)
	}
	img, err := transfer.Pull(t.Context(), ref, s, transfer.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// checkGuest boots an image as an agent does and runs its runner program.
func checkGuest(t *testing.T, home string, img image.Local) {
	t.Helper()
	d := newQEMU(t, filepath.Join(home, "r"), "rg-")
	private, public, err := ssh.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	spec := vm.Spec{
		Name: "rg-one", Owner: vm.Owner{Installation: "recipe-test"}, Image: img, CPUs: 2, MemoryMiB: 1024, DiskGB: 4,
		Network: vm.Network{Mode: vm.Isolated}, LoginKey: public,
	}
	defer func() {
		if err := d.Destroy(context.WithoutCancel(t.Context()), spec.Name); err != nil {
			t.Error(err)
		}
	}()
	if err := errors.Join(d.Create(t.Context(), spec), d.Start(t.Context(), spec.Name)); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	channel := dialGuest(t, d, guest.Target{
		Guest: spec.Name, User: img.Labels[image.LabelUser], Key: private, HostKey: img.Labels[image.LabelHostKey],
	}, home)
	defer channel.Close()
	t.Logf("the guest answered %v after its start", time.Since(began).Round(time.Millisecond))

	program := guest.Program{
		Dir: img.Labels[image.LabelRunnerDir], Kind: img.Labels[image.LabelRunnerKind],
		Secrets: map[string]secret.String{"ACTIONS_RUNNER_INPUT_JITCONFIG": secret.New("a-credential")},
	}
	if err := guest.Launch(t.Context(), channel, program); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	exit, err := guest.Follow(t.Context(), channel, 0, &out)
	if err != nil || exit.Code != 7 || out.String() != "runs as runner with a-credential\n" {
		t.Errorf("the runner program: %+v, %v, %q", exit, err, out.String())
	}
	for script, want := range map[string]string{
		"cat word": "second",
		"cat /opt/tool/who; sudo -n id -u | sed s/^/root\\ is\\ /":  "0\nroot is 0",
		"wc -l <.ssh/authorized_keys":                               "1", // this guest's own, not the build's
		"sudo ls /tmp/tasuki-build /var/lib/cloud/seed 2>/dev/null": "",
		"systemctl is-active cloud-init 2>/dev/null":                "inactive",
		"grep -rlF geheim /etc /opt /home /var/log 2>/dev/null":     "",
		"sudo grep ^runner: /etc/shadow | cut -d: -f2":              "*",
	} {
		var got bytes.Buffer
		if _, err := channel.Run(t.Context(), guest.Command{Script: script, Stdout: &got}); err != nil || strings.TrimSpace(got.String()) != want {
			t.Errorf("%s: got %q, %v; want %q", script, got.String(), err, want)
		}
	}
}

func dialGuest(t *testing.T, d *qemu.Driver, to guest.Target, home string) guest.Channel {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	dialer := ssh.Dialer{Silence: 3 * time.Second, Login: 30 * time.Second}
	for {
		address, err := d.Address(ctx, to.Guest)
		if err == nil {
			to.Address = address
			var channel guest.Channel
			if channel, err = dialer.Dial(ctx, to); err == nil {
				return channel
			}
		}
		select {
		case <-ctx.Done():
			console, _ := os.ReadFile(filepath.Join(home, "r", to.Guest, "console.log"))
			t.Fatalf("no way into the guest: %v\n%s", err, console[max(0, len(console)-3000):])
		case <-time.After(200 * time.Millisecond):
		}
	}
}
