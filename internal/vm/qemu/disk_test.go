package qemu

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/mirego/tasuki/internal/image"
	"github.com/mirego/tasuki/internal/vm"
)

// A snapshot is taken of a running guest, which goes on; a guest made of it
// runs, and its disk can be had as a raw file.
func TestSnapshotAndExport(t *testing.T) {
	w := realWorld(t)
	d := w.driver(t)
	if err := d.Create(t.Context(), w.spec("tk-one")); err != nil {
		t.Fatal(err)
	}
	if err := d.Start(t.Context(), "tk-one"); err != nil {
		t.Fatal(err)
	}
	img, err := d.Snapshot(t.Context(), "tk-one", t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := w.guest("tk-one").answers(t.Context()); err != nil {
		t.Errorf("the guest does not go on: %v", err)
	}
	if img.DiskSize != 1<<20 || img.Digest != w.img.Digest {
		t.Errorf("got %+v", img)
	}
	if _, err := d.Export(t.Context(), "tk-one", t.TempDir()); !errors.Is(err, vm.ErrRunning) {
		t.Errorf("export of a running guest: got %v", err)
	}

	img.Labels = w.img.Labels
	spec := w.spec("tk-two")
	spec.Image = img
	if err := d.Create(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	if err := d.Start(t.Context(), "tk-two"); err != nil {
		t.Fatal(err)
	}
	if err := d.PowerOff(t.Context(), "tk-two"); err != nil {
		t.Fatal(err)
	}
	src, err := d.Export(t.Context(), "tk-two", t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile(w.img.Disk)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(src.Disk); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the exported disk has %d bytes, %v, and is not the image's of %d", len(got), err, len(want))
	}
}

// The guest writes its disk: what looks like qcow2 in an image is not taken for it.
func TestTheNameOfADiskDecidesItsFormat(t *testing.T) {
	for path, want := range map[string]string{
		"/x/disk.img": "raw", "/x/disk.qcow2": "raw", "/x/" + snapshotFile: "qcow2",
	} {
		if got := formatOf(path); got != want {
			t.Errorf("%s: got %s, want %s", path, got, want)
		}
	}
}

func TestWhichFirmware(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, signature string) string {
		path := filepath.Join(dir, name)
		data := make([]byte, 2048)
		copy(data[512:], signature)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	bios, gpt := write("bios", ""), write("gpt", gptSignature)
	for _, c := range []struct {
		arch string
		img  image.Local
		want bool
	}{
		{image.ArchAMD64, image.Local{Disk: bios}, false},
		{image.ArchAMD64, image.Local{Disk: gpt}, true},
		{image.ArchAMD64, image.Local{Disk: bios, NVRAM: "/vars"}, true},
		{image.ArchAMD64, image.Local{Disk: filepath.Join(dir, snapshotFile)}, false},
		{image.ArchARM64, image.Local{Disk: bios}, true},
	} {
		d := &Driver{arch: c.arch}
		if got, err := d.wantsUEFI(c.img); err != nil || got != c.want {
			t.Errorf("%s, %+v: got %v, %v; want %v", c.arch, c.img, got, err, c.want)
		}
	}
}
