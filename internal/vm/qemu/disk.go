package qemu

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/mirego/tasuki/internal/base/proc"
	"github.com/mirego/tasuki/internal/image"
	"github.com/mirego/tasuki/internal/image/sparse"
	"github.com/mirego/tasuki/internal/vm"
)

// Names of the files that a snapshot and an export consist of.
const (
	snapshotFile = "snapshot.qcow2"
	exportFile   = "disk.img"
)

// resumeTimeout bounds how long a guest that stood still for a snapshot may
// take to go on.
const resumeTimeout = 10 * time.Second

var _ vm.DiskKeeper = (*Driver)(nil)

// Snapshot implements vm.DiskKeeper. The snapshot is the guest's overlay; it
// holds what the guest changed, and names the image's disk as the rest.
func (d *Driver) Snapshot(ctx context.Context, name, dir string) (image.Local, error) {
	img, err := d.snapshot(ctx, name, dir)
	if err != nil {
		return image.Local{}, fmt.Errorf("cannot keep the disk of the guest %q: %w", name, err)
	}
	return img, nil
}

func (d *Driver) snapshot(ctx context.Context, name, dir string) (img image.Local, err error) {
	unlock, err := d.lock(ctx, name)
	if err != nil {
		return img, err
	}
	defer unlock()
	g, held, err := d.whole(name)
	if err != nil {
		return img, err
	}
	if held {
		resume, err := g.pause(ctx)
		if err != nil {
			return img, err
		}
		defer func() { err = errors.Join(err, resume()) }()
	}
	img = image.Local{
		Digest: g.rec.Image, Dir: dir, Disk: filepath.Join(dir, snapshotFile),
		Kernel: g.rec.Boot.Kernel, Initrd: g.rec.Boot.Initrd, Labels: map[string]string{},
	}
	if img.DiskSize, err = d.virtualSize(ctx, g.path(diskFile)); err != nil {
		return img, err
	}
	if err := sparse.CopyFile(ctx, img.Disk, g.path(diskFile)); err != nil {
		return img, err
	}
	if g.rec.Boot.Firmware != "" {
		img.NVRAM = filepath.Join(dir, varsFile)
		err = copyFile(img.NVRAM, g.path(varsFile))
	}
	return img, err
}

// whole returns a guest that is not broken, and whether it runs.
func (d *Driver) whole(name string) (g *guest, held bool, err error) {
	if g, err = d.guest(name); err != nil {
		return nil, false, err
	}
	if g.broken != "" {
		return nil, false, errors.New(g.broken)
	}
	held, err = g.held()
	return g, held, err
}

// pause stops the guest's processors and has QEMU write out what it holds of
// the disk, which stopping does. The returned function lets the guest go on.
func (g *guest) pause(ctx context.Context) (resume func() error, err error) {
	resume = func() error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), resumeTimeout)
		defer cancel()
		return g.tell(ctx, "cont")
	}
	if err := g.tell(ctx, "stop"); err != nil {
		return nil, errors.Join(err, resume())
	}
	return resume, nil
}

// tell gives QEMU one command, over a connection of its own: QEMU serves one at
// a time, and others want to ask it meanwhile.
func (g *guest) tell(ctx context.Context, command string) error {
	ctx, cancel := context.WithTimeout(ctx, resumeTimeout)
	defer cancel()
	m, err := dialQMP(ctx, g.path(qmpFile))
	if err != nil {
		return err
	}
	defer m.close()
	return m.execute(ctx, command, nil, nil)
}

// virtualSize is the size of the disk that a qcow2 file holds, in bytes.
func (d *Driver) virtualSize(ctx context.Context, path string) (int64, error) {
	// The guest's QEMU holds the lock; a size does not change under it.
	res, err := proc.Run(ctx, proc.Cmd{Path: d.opt.Img, Args: []string{"info", "-U", "-f", "qcow2", "--output=json", path}})
	if err != nil {
		return 0, fmt.Errorf("cannot read the size of %q: %w", path, err)
	}
	var info struct {
		Size int64 `json:"virtual-size"`
	}
	if err := json.Unmarshal(res.Stdout, &info); err != nil || info.Size <= 0 {
		return 0, errors.Join(fmt.Errorf("cannot read the size of %q: it says %d", path, info.Size), err)
	}
	return info.Size, nil
}

// Export implements vm.DiskKeeper. Zeros become holes.
func (d *Driver) Export(ctx context.Context, name, dir string) (image.Source, error) {
	src, err := d.export(ctx, name, dir)
	if err != nil {
		return image.Source{}, fmt.Errorf("cannot export the disk of the guest %q: %w", name, err)
	}
	return src, nil
}

func (d *Driver) export(ctx context.Context, name, dir string) (image.Source, error) {
	unlock, err := d.lock(ctx, name)
	if err != nil {
		return image.Source{}, err
	}
	defer unlock()
	g, held, err := d.whole(name)
	if err != nil {
		return image.Source{}, err
	}
	if held {
		return image.Source{}, vm.ErrRunning
	}
	disk := filepath.Join(dir, exportFile)
	_, err = proc.Run(ctx, proc.Cmd{Path: d.opt.Img, Args: []string{
		"convert", "-q", "-f", "qcow2", "-O", "raw", "-S", "4k", g.path(diskFile), disk,
	}})
	if err != nil {
		return image.Source{}, err
	}
	// No firmware variables: they fit one build of the firmware, and another
	// host may have another. UEFI finds \EFI\BOOT\BOOTX64.EFI (BOOTAA64.EFI)
	// without them.
	return image.Source{Disk: disk, Kernel: g.rec.Boot.Kernel, Initrd: g.rec.Boot.Initrd}, nil
}
