package qemu

import (
	"encoding/hex"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/mirego/tasuki/internal/base/proc"
	"github.com/mirego/tasuki/internal/image"
)

// countingQEMU is a QEMU that answers a probe with words and status, and
// counts the probes.
func countingQEMU(t *testing.T, words string, status string) (path string, count func() int) {
	t.Helper()
	dir := t.TempDir()
	path = filepath.Join(dir, "qemu")
	script := "#!/bin/sh\necho probe >>'" + dir + "/count'\n" + words + "\nexit " + status + "\n"
	if err := os.WriteFile(path, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	return path, func() int {
		b, _ := os.ReadFile(filepath.Join(dir, "count"))
		return strings.Count(string(b), "probe")
	}
}

func TestAutoTrustsOnlyAProbeAndKeepsItsAnswer(t *testing.T) {
	if err := openable("kvm"); runtime.GOOS == "linux" && err != nil {
		t.Skipf("needs a /dev/kvm that opens: %v", err)
	}
	native := map[string]string{"linux": "kvm", "darwin": "hvf"}[runtime.GOOS]
	for name, c := range map[string]struct{ words, status, accel, reason string }{
		"works":     {"echo SeaBIOS; echo '" + probeWord + "'; sleep 600", "0", native, "a probe ran"},
		"aborts":    {"echo 'qemu-system-x86_64: error: failed to set MSR 0x10a' >&2", "1", "tcg", "failed to set MSR"},
		"is silent": {"echo nothing of interest", "0", "tcg", "does not work"},
	} {
		t.Run(name, func(t *testing.T) {
			qemu, probes := countingQEMU(t, c.words, c.status)
			opt := Options{
				Home: filepath.Join(t.TempDir(), "guests"), Installation: "i", Prefix: "p-",
				QEMU: qemu, Img: qemu, Accel: "auto",
			}
			for range 2 {
				d, err := New(opt)
				if err != nil {
					t.Fatal(err)
				}
				if got := d.Capabilities(); got.Accel != c.accel || !strings.Contains(got.AccelReason, c.reason) {
					t.Errorf("accel %q because %q, want %q because of %q", got.Accel, got.AccelReason, c.accel, c.reason)
				}
			}
			if probes() != 1 {
				t.Errorf("it was probed %d times for two drivers, want once", probes())
			}
			// Another QEMU asks for another probe.
			f, err := os.OpenFile(qemu, os.O_APPEND|os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = f.WriteString("# newer\n")
			_ = f.Close()
			if _, err := New(opt); err != nil || probes() != 2 {
				t.Errorf("a newer QEMU: %d probes, %v; want another", probes(), err)
			}
		})
	}
}

func TestAccelThatCannotBe(t *testing.T) {
	for _, name := range []string{"xen", map[string]string{"linux": "hvf", "darwin": "kvm"}[runtime.GOOS]} {
		_, err := New(Options{Home: t.TempDir(), Installation: "i", Prefix: "p-", QEMU: "sh", Img: "sh", Accel: name})
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("accel %q: %v", name, err)
		}
	}
}

// Guests of another architecture are emulated, whatever this machine can do.
func TestAForeignArchitectureIsEmulated(t *testing.T) {
	foreign := map[string]string{image.ArchAMD64: image.ArchARM64, image.ArchARM64: image.ArchAMD64}[runtime.GOARCH]
	opt := Options{Home: t.TempDir(), Installation: "i", Prefix: "p-", QEMU: "sh", Img: "sh", Arch: foreign}
	d, err := New(opt)
	if err != nil {
		t.Fatal(err)
	}
	if caps := d.Capabilities(); caps.Accel != "tcg" || caps.GuestArch != foreign || !strings.Contains(caps.AccelReason, runtime.GOARCH) {
		t.Errorf("got %+v", caps)
	}
	opt.Accel = map[string]string{"linux": "kvm", "darwin": "hvf"}[runtime.GOOS]
	if _, err := New(opt); err == nil || !strings.Contains(err.Error(), foreign) {
		t.Errorf("accelerated: got %v", err)
	}
	opt.Arch = "riscv64"
	if _, err := New(opt); err == nil || !strings.Contains(err.Error(), "riscv64") {
		t.Errorf("an unknown architecture: got %v", err)
	}
}

func TestMissingQEMUHasAHint(t *testing.T) {
	_, err := New(Options{Home: t.TempDir(), Installation: "i", Prefix: "p-", QEMU: "no-such-qemu-of-ours"})
	if err == nil || !strings.Contains(err.Error(), "install") {
		t.Errorf("got %v, want the command to type", err)
	}
}

// TestPayloadsAreTheirSources assembles testdata/probe-ARCH.s for the
// architectures that this machine has binutils for.
func TestPayloadsAreTheirSources(t *testing.T) {
	for arch, prefix := range map[string]string{image.ArchAMD64: "x86_64-linux-gnu-", image.ArchARM64: "aarch64-linux-gnu-"} {
		t.Run(arch, func(t *testing.T) {
			as, err := proc.Look(prefix + "as")
			if err != nil {
				t.Skipf("needs binutils: %v", err)
			}
			obj, bin := filepath.Join(t.TempDir(), "o"), filepath.Join(t.TempDir(), "bin")
			run := func(path string, args ...string) {
				if _, err := proc.Run(t.Context(), proc.Cmd{Path: path, Args: args}); err != nil {
					t.Fatal(err)
				}
			}
			run(as, "testdata/probe-"+arch+".s", "-o", obj)
			// A boot sector is loaded at 0x7c00; the arm64 program runs anywhere.
			run(prefix+"ld", "-e", "0", "-Ttext", "0x7c00", obj, "-o", obj+".elf")
			run(prefix+"objcopy", "-O", "binary", "-j", ".text", obj+".elf", bin)
			code, err := os.ReadFile(bin)
			if err != nil {
				t.Fatal(err)
			}
			if len(code) == 512 {
				code = code[:510] // writePayload adds the signature
			}
			got := strings.TrimRight(hex.EncodeToString(code), "0")
			if want := strings.TrimRight(payloads[arch], "0"); got != want {
				t.Errorf("testdata/probe-%s.s assembles to\n%s\nwant\n%s", arch, got, want)
			}
		})
	}
}

// TestProbeInEmulation runs the payload on this machine's QEMU.
func TestProbeInEmulation(t *testing.T) {
	w := realWorld(t)
	if err := w.driver(t).probe(t.Context(), "tcg"); err != nil {
		t.Errorf("the probe fails where it cannot: %v", err)
	}
}
