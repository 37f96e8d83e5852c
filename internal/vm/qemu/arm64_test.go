package qemu_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mirego/tasuki/internal/base/proc"
	"github.com/mirego/tasuki/internal/image"
	"github.com/mirego/tasuki/internal/vm"
	"github.com/mirego/tasuki/internal/vm/qemu"
)

// TestAnARM64GuestBoots boots Debian's kernel for arm64 with a shell as its
// whole system, on a machine that may be of another architecture.
func TestAnARM64GuestBoots(t *testing.T) {
	if os.Getenv("TASUKI_SOAK") == "" {
		t.Skip("fetches a kernel and emulates another architecture: set TASUKI_SOAK=1")
	}
	for program, pkg := range map[string]string{"qemu-system-aarch64": "qemu-system-arm", "mmdebstrap": "mmdebstrap"} {
		if _, err := proc.Look(program); err != nil {
			t.Skipf("needs %s: sudo apt-get install %s", program, pkg)
		}
	}
	img := arm64Image(t)
	d, err := qemu.New(qemu.Options{Home: filepath.Join(t.TempDir(), "g"), Installation: "i", Prefix: "a-", Arch: image.ArchARM64})
	if err != nil {
		t.Fatal(err)
	}
	spec := vm.Spec{Name: "a-one", Owner: vm.Owner{Installation: "i"}, Image: img, MemoryMiB: 512, Network: vm.Network{Mode: vm.Isolated}}
	if err := errors.Join(d.Create(t.Context(), spec), d.Start(t.Context(), spec.Name)); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := d.Destroy(t.Context(), "a-one"); err != nil {
			t.Error(err)
		}
	}()
	all, err := d.List(t.Context())
	if err != nil || len(all) != 1 {
		t.Fatalf("guests: %v, %v", all, err)
	}
	began := time.Now()
	for deadline := began.Add(5 * time.Minute); ; time.Sleep(100 * time.Millisecond) {
		said, _ := os.ReadFile(all[0].Console)
		if bytes.Contains(said, []byte("up on aarch64 as a-one")) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("it did not come up:\n%s", said)
		}
	}
	t.Logf("it was up after %v", time.Since(began).Round(time.Second))
	spec.Image.Labels = map[string]string{image.LabelArch: image.ArchAMD64}
	spec.Name = "a-two"
	if err := d.Create(t.Context(), spec); !errors.Is(err, vm.ErrSpec) {
		t.Errorf("a guest for amd64: got %v, want ErrSpec", err)
	}
}

// arm64Image is Debian's kernel with an initrd of busybox's, whose init says on
// which machine and under which name it runs.
func arm64Image(t *testing.T) image.Local {
	t.Helper()
	dir := t.TempDir()
	tree := filepath.Join(dir, "tree.tar")
	_, err := proc.Run(t.Context(), proc.Cmd{Path: "mmdebstrap", Dir: "/", Args: []string{
		"--variant=extract", "--arch=arm64", "--include=linux-image-cloud-arm64,busybox-static", "--format=tar", "bookworm", tree,
	}})
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(tree)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var kernel, busybox []byte
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case strings.HasPrefix(path.Base(h.Name), "vmlinuz-") && h.Typeflag == tar.TypeReg:
			kernel, err = io.ReadAll(r)
		case path.Clean(h.Name) == "bin/busybox" && h.Typeflag == tar.TypeReg:
			busybox, err = io.ReadAll(r)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if len(kernel) == 0 || len(busybox) == 0 {
		t.Fatalf("Debian's packages hold a kernel of %d bytes and a busybox of %d", len(kernel), len(busybox))
	}
	init := "#!/bin/busybox sh\n/bin/busybox mkdir /proc\n/bin/busybox mount -t proc proc /proc\n" +
		`name=$(/bin/busybox sed 's/.*systemd.hostname=\([^ ]*\).*/\1/' /proc/cmdline)` + "\n" +
		`echo "up on $(/bin/busybox uname -m) as $name"` + "\nexec /bin/busybox sleep 3600\n"
	var initrd bytes.Buffer
	for i, file := range []struct {
		name string
		mode int
		data []byte
	}{
		{"bin", 0o40755, nil}, {"dev", 0o40755, nil}, {"bin/busybox", 0o100755, busybox}, {"init", 0o100755, []byte(init)}, {"TRAILER!!!", 0, nil},
	} {
		// The "newc" form of cpio, as the kernel's buffer-format.rst has it.
		fmt.Fprintf(&initrd, "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%s\x00",
			i+1, file.mode, 0, 0, 1, 0, len(file.data), 0, 0, 0, 0, len(file.name)+1, 0, file.name)
		initrd.Write(make([]byte, -initrd.Len()&3))
		initrd.Write(file.data)
		initrd.Write(make([]byte, -initrd.Len()&3))
	}
	img := image.Local{
		Digest: "sha256:test", Dir: dir, Disk: filepath.Join(dir, "disk"), Kernel: filepath.Join(dir, "kernel"), Initrd: filepath.Join(dir, "initrd"),
		Labels: map[string]string{image.LabelOS: image.OSLinux, image.LabelArch: image.ArchARM64, image.LabelBoot: image.BootKernel, image.LabelCmdline: "console=ttyAMA0"},
	}
	err = errors.Join(os.WriteFile(img.Disk, make([]byte, 1<<20), 0o600), os.WriteFile(img.Kernel, kernel, 0o600), os.WriteFile(img.Initrd, initrd.Bytes(), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	return img
}
