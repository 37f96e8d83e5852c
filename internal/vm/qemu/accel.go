package qemu

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/mirego/tasuki/internal/base/proc"
	"github.com/mirego/tasuki/internal/image"
)

// accel is how guests are run, and why.
type accel struct {
	Name   string `json:"name"`
	Reason string `json:"reason"`
}

// accelFile keeps the outcome of a probe in the home; a dot keeps it apart
// from guests.
const accelFile = ".accel.json"

// cachedAccel is accelFile. Another boot of the machine, or another QEMU, asks
// for a new probe.
type cachedAccel struct {
	accel
	Key string `json:"key"`
}

// probeTimeout is how long a probe may take. Working virtualisation needs
// about 0.2 s for it, emulation the same.
const probeTimeout = 5 * time.Second

// chooseAccel decides how guests are run on this machine.
func (d *Driver) chooseAccel(ctx context.Context) (accel, error) {
	native := "kvm"
	if runtime.GOOS == "darwin" {
		native = "hvf"
	}
	foreign := d.arch != runtime.GOARCH
	switch d.opt.Accel {
	case "tcg":
		return accel{"tcg", "the configuration says so"}, nil
	case "kvm", "hvf":
		if d.opt.Accel != native {
			return accel{}, fmt.Errorf("cannot use the accelerator %q here: this system has %q", d.opt.Accel, native)
		}
		if foreign {
			return accel{}, fmt.Errorf("cannot use the accelerator %q for %s guests: this machine is %s; use auto or tcg", native, d.arch, runtime.GOARCH)
		}
		if err := openable(native); err != nil {
			return accel{}, fmt.Errorf("cannot use the accelerator %q: %w", native, err)
		}
		return accel{native, "the configuration says so"}, nil
	case "", "auto":
		if foreign {
			return accel{"tcg", fmt.Sprintf("its guests are %s and this machine is %s", d.arch, runtime.GOARCH)}, nil
		}
		return d.autoAccel(ctx, native)
	default:
		return accel{}, fmt.Errorf("cannot use the accelerator %q: auto, kvm, hvf and tcg are known", d.opt.Accel)
	}
}

func (d *Driver) autoAccel(ctx context.Context, native string) (accel, error) {
	if err := openable(native); err != nil {
		// Not kept: the next start may find it mended.
		return accel{"tcg", fmt.Sprintf("no %s: %v", native, err)}, nil
	}
	key, err := d.accelKey(native)
	if err != nil {
		return accel{}, err
	}
	file := filepath.Join(d.opt.Home, accelFile)
	var cached cachedAccel
	if data, err := os.ReadFile(file); err == nil && json.Unmarshal(data, &cached) == nil && cached.Key == key && cached.Name != "" {
		return cached.accel, nil
	}
	chosen := accel{native, "a probe ran on " + native}
	if err := d.probe(ctx, native); err != nil {
		chosen = accel{"tcg", fmt.Sprintf("%s is there and does not work: %v", native, err)}
		d.log.Warn("hardware virtualisation does not work, emulating", "accel", native, "err", err)
	}
	if err := writeJSON(file, cachedAccel{chosen, key}); err != nil {
		return accel{}, fmt.Errorf("cannot keep the outcome of the %s probe: %w", native, err)
	}
	return chosen, nil
}

// openable says whether the accelerator can be opened by us, which is not yet
// a proof that it works.
func openable(native string) error {
	if native == "hvf" {
		return nil // nothing to open; the probe says
	}
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if errors.Is(err, os.ErrPermission) {
		return fmt.Errorf("no permission on /dev/kvm; sudo usermod -aG kvm %s, and log in again", userName())
	}
	if errors.Is(err, os.ErrNotExist) {
		return errors.New("there is no /dev/kvm; turn virtualisation on in the firmware, or nested virtualisation in the hypervisor")
	}
	if err != nil {
		return err
	}
	return f.Close()
}

// accelKey identifies this boot of the machine and this QEMU.
func (d *Driver) accelKey(native string) (string, error) {
	boot, err := bootID()
	if err != nil {
		return "", fmt.Errorf("cannot tell this boot of the machine: %w", err)
	}
	path, err := filepath.EvalSymlinks(d.opt.QEMU)
	if err != nil {
		return "", fmt.Errorf("cannot find QEMU: %w", err)
	}
	info, err := os.Stat(path)
	if err != nil {
		return "", fmt.Errorf("cannot find QEMU: %w", err)
	}
	return fmt.Sprintf("%s %s %s %d %s", native, boot, path, info.Size(), info.ModTime().UTC().Format(time.RFC3339Nano)), nil
}

// probe runs a few instructions as a guest's kernel would, with the processor
// that guests get, and returns nil if they said so on the serial port in time.
func (d *Driver) probe(ctx context.Context, native string) error {
	dir, err := os.MkdirTemp("", "tasuki-probe")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	payload := filepath.Join(dir, "payload")
	if err := writePayload(payload, d.arch); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, probeTimeout, fmt.Errorf("its probe printed nothing within %v", probeTimeout))
	defer cancel()
	ctx, seen := context.WithCancel(ctx)
	defer seen()
	console := &watcher{want: probeWord, found: seen}
	res, err := proc.Run(ctx, proc.Cmd{Path: d.opt.QEMU, Args: probeArguments(d.arch, native, payload), Stdout: console})
	if console.done {
		return nil
	}
	if words := strings.TrimSpace(string(res.Stderr)); words != "" && ctx.Err() == nil {
		return errors.New(firstLine(words))
	}
	if err != nil {
		return err
	}
	return errors.New("its probe ended and had printed nothing")
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	if _, after, ok := strings.Cut(line, "qemu-system-"); ok {
		_, line, _ = strings.Cut(after, ": ")
	}
	return line
}

// probeWord is what the payloads print.
const probeWord = "tasuki: a 64-bit processor runs"

// watcher calls found when want was written to it.
type watcher struct {
	want  string
	found func()
	got   []byte
	done  bool
}

func (w *watcher) Write(p []byte) (int, error) {
	w.got = append(w.got, p...)
	if !w.done && strings.Contains(string(w.got), w.want) {
		w.done = true
		w.found()
	}
	w.got = w.got[max(0, len(w.got)-len(w.want)):]
	return len(p), nil
}

func probeArguments(arch, accel, payload string) []string {
	args := []string{
		"-name", "tasuki-probe", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-machine", machine{Arch: arch, Accel: accel}.board(), "-accel", accelArg(accel), "-cpu", cpuArg(arch, accel),
		"-m", "32M", "-serial", "stdio",
	}
	if arch == image.ArchARM64 {
		return append(args, "-kernel", payload)
	}
	return append(args,
		"-drive", "if=none,id=disk,format=raw,readonly=on,file="+commas(payload),
		"-device", "virtio-blk-pci,drive=disk")
}

// payloads are the programs that a probe runs. A real-mode program alone
// proves too little: there are machines where that runs, slowly, and no kernel
// does. Their sources are testdata/probe-ARCH.s; a test assembles them where
// it finds an assembler.
var payloads = map[string]string{
	image.ArchAMD64: "fafc31c08ed88ec08ed0bc007cea127c000066bf001000000f22df6631c066b9000c000066f3ab" +
		"66c70600100320000066c70600200330000066c7060030830000000f20e06683c8200f22e066b980" +
		"0000c00f32660d000100000f300f0116d07c0f20c0660d010000800f22c0ea727c0800b810000000" +
		"8ed88ed0bb40000000bf00001000b9000002004889d8f348abffcb75ecbed67c0000ac84c0741688" +
		"c3bafd030000eca82074fbbaf803000088d8eeebe5f4ebfd90000000000000000000000000009a20" +
		"0000000000009200001700b87c0000746173756b693a20612036342d6269742070726f636573736f" +
		"722072756e730d0a",
	image.ArchARM64: "010100100220a1d22014403860000034400000b9fdffff177f2003d5ffffff17746173756b693a20" +
		"612036342d6269742070726f636573736f722072756e730d0a00",
}

// writePayload writes the architecture's program: a disk with a boot sector
// for amd64, a bare kernel for arm64.
func writePayload(path, arch string) error {
	code, err := hex.DecodeString(payloads[arch])
	if err != nil || len(code) == 0 {
		return fmt.Errorf("cannot probe on %s: %w", arch, err)
	}
	if err := os.WriteFile(path, code, 0o600); err != nil || arch != image.ArchAMD64 {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt([]byte{0x55, 0xaa}, 510) // makes it bootable
	// The BIOS derives a geometry from the size and refuses a disk of one sector.
	return errors.Join(err, f.Truncate(1<<20), f.Close())
}
