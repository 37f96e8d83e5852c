package debian_test

import (
	"context"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/mirego/tasuki/internal/base/proc"
	"github.com/mirego/tasuki/internal/guest"
	"github.com/mirego/tasuki/internal/guest/ssh"
	"github.com/mirego/tasuki/internal/image"
	"github.com/mirego/tasuki/internal/image/debian"
	"github.com/mirego/tasuki/internal/vm"
	"github.com/mirego/tasuki/internal/vm/qemu"
)

// bootPatience bounds one boot on a machine that is busy with other tests.
const bootPatience = 5 * time.Minute

func needQEMU(t *testing.T) {
	t.Helper()
	if os.Getenv("TASUKI_TEST_QEMU") != "1" {
		t.Skip("needs QEMU: set TASUKI_TEST_QEMU=1")
	}
}

// buildRunner builds the demo's runner program.
func buildRunner(t *testing.T) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "runner")
	_, err := proc.Run(t.Context(), proc.Cmd{
		Path: "go", Dir: "../../../tools/demorunner",
		Args: []string{"build", "-mod=readonly", "-trimpath", "-ldflags", "-s -w", "-o", out, "github.com/ChristopherHX/github-act-runner"},
		Env:  []string{"CGO_ENABLED=0", "GOOS=linux", "GOARCH=" + runtime.GOARCH},
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// buildImage builds the image, or takes it from the cache that test runs share.
func buildImage(t *testing.T) image.Source {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = t.TempDir()
	}
	o := debian.Options{CacheDir: filepath.Join(cache, "tasuki", "test-images"), Runner: buildRunner(t)}
	src, err := debian.Build(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	again, err := debian.Cached(o)
	if err != nil || again.Disk != src.Disk {
		t.Errorf("Cached after Build: got %q, %v; want %q", again.Disk, err, src.Disk)
	}
	return src
}

// boot starts a guest of the image and returns a channel into it.
func boot(t *testing.T, src image.Source, name string) guest.Channel {
	t.Helper()
	driver, err := qemu.New(qemu.Options{
		Home: filepath.Join(t.TempDir(), "g"), Installation: "debian-test", Prefix: "dt-", Accel: "tcg",
	})
	if err != nil {
		t.Fatal(err)
	}
	private, public, err := ssh.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(src.Disk)
	if err != nil {
		t.Fatal(err)
	}
	spec := vm.Spec{
		Name: name, Owner: vm.Owner{Installation: "debian-test", Pool: "p", Runner: "r"},
		Image: image.Local{
			Digest: "sha256:" + strings.Repeat("0", 64), Dir: filepath.Dir(src.Disk), Disk: src.Disk,
			Kernel: src.Kernel, Initrd: src.Initrd, DiskSize: info.Size(), Labels: src.Labels,
		},
		CPUs: 2, MemoryMiB: 1024, Network: vm.Network{Mode: vm.Isolated}, LoginKey: public, DiskGB: 6,
	}
	started := time.Now()
	t.Cleanup(func() {
		if err := driver.Destroy(context.WithoutCancel(t.Context()), name); err != nil {
			t.Error(err)
		}
	})
	if err := driver.Create(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	if err := driver.Start(t.Context(), name); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), bootPatience)
	defer cancel()
	dialer := ssh.Dialer{Silence: 3 * time.Second, Login: 30 * time.Second} // the machine may be busy with other tests
	for {
		address, err := driver.Address(ctx, name)
		if err == nil {
			var channel guest.Channel
			channel, err = dialer.Dial(ctx, guest.Target{
				Guest: name, Address: address, User: src.Labels[image.LabelUser], Key: private, HostKey: src.Labels[image.LabelHostKey],
			})
			if err == nil {
				t.Cleanup(func() { _ = channel.Close() })
				t.Logf("%s answered %v after its start", name, time.Since(started).Round(time.Millisecond))
				return channel
			}
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s did not answer within %v: %v", name, bootPatience, err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// ask runs a script that must succeed and returns its output.
func ask(t *testing.T, channel guest.Channel, script string) string {
	t.Helper()
	var out, errs strings.Builder
	code, err := channel.Run(t.Context(), guest.Command{Script: script, Stdout: &out, Stderr: &errs})
	if err != nil || code != 0 {
		t.Errorf("%s: got exit status %d, %v, %q; want 0", script, code, err, errs.String())
	}
	return strings.TrimSpace(out.String())
}

func TestGuestOfTheImage(t *testing.T) {
	needQEMU(t)
	src := buildImage(t)
	first := boot(t, src, "dt-one")

	for script, want := range map[string]string{
		"id -un":                        "runner",
		"sudo -n id -u":                 "0",
		"hostname":                      "dt-one",
		"stat -c '%U %a' ~/.ssh":        "runner 700",
		"ls -A ~/actions-runner":        debian.ActBinary,
		"git --version | cut -d' ' -f1": "git",
		"sudo systemctl is-failed '*' --no-legend | grep -c '^failed' || true":      "0",
		"sudo systemctl show -P ActiveState guest-net guest-sshd | sort -u | xargs": "active",
		// Nothing of the build is left.
		"sudo find /var/lib/apt/lists /var/cache/apt /boot -type f | wc -l": "0",
		"sudo ls -A /etc/ssh | grep host_":                                  "ssh_host_ed25519_key\nssh_host_ed25519_key.pub",
		// Passwords are of no use.
		"sudo sshd -T | grep -c -e '^passwordauthentication no' -e '^permitrootlogin without-password' -e '^kbdinteractiveauthentication no'": "3",
		"sudo grep -E '^(root|runner):[^*!]' /etc/shadow || true":                                                                             "",
	} {
		if got := ask(t, first, script); got != want {
			t.Errorf("%s: got %q, want %q", script, got, want)
		}
	}
	// A file where only root may write, as a pool's own CA.
	const ca = "/usr/local/share/ca-certificates/acme/root.crt"
	if err := guest.Put(t.Context(), first, ca, 0o644, strings.NewReader("a CA")); err != nil {
		t.Error(err)
	}
	if got := ask(t, first, "stat -c '%U %a' "+ca+"; cat "+ca); got != "root 644\na CA" {
		t.Errorf("%s: got %q", ca, got)
	}
	if got := ask(t, first, "~/actions-runner/"+debian.ActBinary+" --version"); !strings.Contains(got, "github-act-runner") {
		t.Errorf("runner's version: got %q", got)
	}
	grown := "for i in $(seq 60); do s=$(df -B1M --output=size / | tail -1); [ $s -gt 5000 ] && break; sleep 1; done; echo $((s > 5000))"
	if got := ask(t, first, grown); got != "1" {
		t.Errorf("root file system has not grown to the guest's disk: df says %q", ask(t, first, "df -B1M /"))
	}

	// Each guest is its own machine.
	id := ask(t, first, "cat /etc/machine-id")
	if raw, err := hex.DecodeString(id); err != nil || len(raw) != 16 {
		t.Errorf("machine id: got %q, want 32 hexadecimal digits", id)
	}
	second := boot(t, src, "dt-two")
	if other := ask(t, second, "cat /etc/machine-id"); other == id {
		t.Errorf("two guests have the machine id %s", id)
	}
}

// The secrets of a build are the host key, which guests must have, and nothing else.
func TestImageNamesNoBuilder(t *testing.T) {
	needQEMU(t)
	src := buildImage(t)
	key := src.Labels[image.LabelHostKey]
	if !regexp.MustCompile(`^ssh-ed25519 \S+$`).MatchString(key) {
		t.Errorf("host key %q carries more than the key, or is none", key)
	}
	for name, value := range src.Labels {
		if host, err := os.Hostname(); err == nil && strings.Contains(value, host) {
			t.Errorf("label %s names the building machine: %q", name, value)
		}
	}
}

// A build that is called off leaves neither its folder nor mmdebstrap's tree.
func TestCancelledBuildLeavesNothing(t *testing.T) {
	needQEMU(t)
	cache, tmp := t.TempDir(), t.TempDir()
	if err := os.Chmod(tmp, 0o1777); err != nil {
		t.Fatal(err)
	}
	t.Setenv("TMPDIR", tmp)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	_, err := debian.Build(ctx, debian.Options{CacheDir: cache, Runner: officialFixture(t), Progress: func(done float64, _ string) {
		if done > 0.1 {
			cancel()
		}
	}})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Build: got %v, want context.Canceled", err)
	}
	for _, dir := range []string{cache, tmp} {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if e.Name() != "lock" {
				t.Errorf("%s is left in %s", e.Name(), dir)
			}
		}
	}
}

// officialFixture is a folder in the layout of actions/runner that does nothing.
func officialFixture(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"run.sh", "bin/Runner.Listener"} {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte("#!/bin/sh\n"), 0o755)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}
