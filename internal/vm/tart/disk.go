package tart

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/mirego/tasuki/internal/image"
	"github.com/mirego/tasuki/internal/image/sparse"
	"github.com/mirego/tasuki/internal/vm"
)

// Files of a machine beside its configuration, as tart names them. A snapshot
// and an export have all three.
const (
	machineDisk  = "disk.img"
	machineNVRAM = "nvram.bin"
)

var _ vm.DiskKeeper = (*Driver)(nil)

// Snapshot implements vm.DiskKeeper. tart cannot have a guest stand still, and
// what macOS has not written yet is in no copy of its disk: a guest that runs is
// vm.ErrRunning. The snapshot is the machine's files, whole, and depends on
// nothing else; on APFS it takes no space until one of the two changes.
func (d *Driver) Snapshot(ctx context.Context, name, dir string) (image.Local, error) {
	g, err := d.copyMachine(ctx, name, dir)
	if err != nil {
		return image.Local{}, fmt.Errorf("cannot keep the disk of the guest %q: %w", name, err)
	}
	img := image.Local{
		Digest: g.rec.Image, Dir: dir, Disk: filepath.Join(dir, machineDisk), NVRAM: filepath.Join(dir, machineNVRAM),
		ConfigFile: filepath.Join(dir, configFile), Labels: map[string]string{},
	}
	info, err := os.Stat(img.Disk)
	if err != nil {
		return image.Local{}, fmt.Errorf("cannot keep the disk of the guest %q: %w", name, err)
	}
	img.DiskSize = info.Size()
	return img, nil
}

// Export implements vm.DiskKeeper. The image carries tart's configuration of
// the machine, hardware model included, and its NVRAM: what tart push would.
func (d *Driver) Export(ctx context.Context, name, dir string) (image.Source, error) {
	if _, err := d.copyMachine(ctx, name, dir); err != nil {
		return image.Source{}, fmt.Errorf("cannot export the disk of the guest %q: %w", name, err)
	}
	config, err := os.ReadFile(filepath.Join(dir, configFile))
	if err != nil {
		return image.Source{}, fmt.Errorf("cannot export the disk of the guest %q: %w", name, err)
	}
	return image.Source{Disk: filepath.Join(dir, machineDisk), NVRAM: filepath.Join(dir, machineNVRAM), ConfigJSON: config}, nil
}

// copyMachine copies the files of a guest that does not run into dir.
func (d *Driver) copyMachine(ctx context.Context, name, dir string) (*guest, error) {
	unlock, err := d.lock(ctx, name)
	if err != nil {
		return nil, err
	}
	defer unlock()
	g, err := d.guest(name)
	if err != nil {
		return nil, err
	}
	if g.broken != "" {
		return nil, errors.New(g.broken)
	}
	if pid, err := holder(g.machine); err != nil || pid != 0 {
		return nil, errors.Join(err, fmt.Errorf("tart can copy it once it is shut down: %w", vm.ErrRunning))
	}
	return g, copyFiles(ctx, dir, g.machine)
}

// copyFiles copies a machine. Its configuration comes last: tart takes a folder
// for a machine once all three files are there.
func copyFiles(ctx context.Context, to, from string) error {
	for _, file := range []string{machineDisk, machineNVRAM, configFile} {
		if err := sparse.CopyFile(ctx, filepath.Join(to, file), filepath.Join(from, file)); err != nil {
			return err
		}
	}
	return nil
}

// isSnapshot says whether an image is what Snapshot returned: it was never in a
// registry, and so not in tart's cache.
func isSnapshot(img image.Local) bool { return img.Ref.IsZero() && img.ConfigFile != "" }

// cloneSnapshot makes a machine of a snapshot, as tart clone does of an image.
// The caller has taken the turn.
func (d *Driver) cloneSnapshot(ctx context.Context, img image.Local, name string) error {
	to := d.machinePath(name)
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return err
	}
	if err := os.Mkdir(to, 0o700); err != nil {
		return err
	}
	return copyFiles(ctx, to, img.Dir)
}

// grows says whether a guest's disk is to be made larger than its image's. tart
// refuses to be asked for less than there is.
func grows(spec vm.Spec) bool {
	return spec.DiskGB > 0 && (!isSnapshot(spec.Image) || spec.Image.DiskSize < int64(spec.DiskGB)*1e9)
}
