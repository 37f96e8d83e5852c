package tart

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/mirego/tasuki/internal/image"
	"github.com/mirego/tasuki/internal/vm"
)

// What a guest gets where its spec does not say: tart itself gives macOS four
// processors, since fewer freeze often.
const (
	defaultCPUs      = 4
	defaultMemoryMiB = 8192
)

// Create implements vm.Driver. The image must be in tart's cache: a pull is
// nothing to wait for here.
func (d *Driver) Create(ctx context.Context, spec vm.Spec) error {
	if err := d.checkSpec(spec); err != nil {
		return fmt.Errorf("cannot create the guest %q: %w", spec.Name, err)
	}
	unlock, err := d.lock(ctx, spec.Name)
	if err != nil {
		return err
	}
	defer unlock()
	switch _, err := d.guest(spec.Name); {
	case err == nil:
		return nil
	case !errors.Is(err, vm.ErrNotFound):
		return err
	}
	if err := d.free(spec.Name); err != nil {
		return fmt.Errorf("cannot create the guest %q: %w", spec.Name, err)
	}
	if err := d.make(ctx, spec); err != nil {
		return fmt.Errorf("cannot create the guest %q: %w", spec.Name, err)
	}
	return nil
}

// free says whether nobody has the name. tart would replace a machine.
func (d *Driver) free(name string) error {
	for _, dir := range []string{filepath.Join(d.opt.Home, name), d.machinePath(name)} {
		if _, err := os.Lstat(dir); err == nil {
			return fmt.Errorf("%q is there and is not ours: %w", dir, vm.ErrSpec)
		}
	}
	return nil
}

func (d *Driver) make(ctx context.Context, spec vm.Spec) error {
	rec := record{
		Version: recordVersion, Name: spec.Name, Owner: spec.Owner, Created: time.Now().UTC().Round(time.Millisecond),
		Image: spec.Image.Digest, Network: spec.Network, Machine: spec.Machine,
	}
	g := &guest{name: spec.Name, dir: filepath.Join(d.opt.Home, spec.Name), machine: d.machinePath(spec.Name), rec: rec}
	if err := os.Mkdir(g.dir, 0o700); err != nil {
		return err
	}
	if err := writeJSON(g.path(recordFile), rec); err != nil {
		return err
	}
	err := d.clone(ctx, spec)
	if err == nil {
		rec.Made = true
		if err = writeJSON(g.path(recordFile), rec); err == nil {
			return nil
		}
	}
	if ctx.Err() == nil { // else whoever comes next finds it broken
		err = errors.Join(err, d.remove(ctx, g))
	}
	return err
}

// clone makes the machine. Without a new MAC address every clone would have
// the image's, and its old lease (incidents stale-ip and duplicate-ip); without
// a new serial number all clones are one Mac to Apple.
func (d *Driver) clone(ctx context.Context, spec vm.Spec) error {
	name := spec.Image.Ref.WithDigest(spec.Image.Digest).String()
	leave, err := d.takeTurn(ctx)
	if err != nil {
		return err
	}
	defer leave()
	// tart prunes its cache by itself unless this is there, even under a clone.
	// By its mark a clone is found that outlives us.
	env := []string{"TART_NO_AUTO_PRUNE=", d.mark(spec.Name)}
	if isSnapshot(spec.Image) {
		err = d.cloneSnapshot(ctx, spec.Image, spec.Name)
	} else {
		_, err = d.call(ctx, call{args: []string{"clone", name, spec.Name}, env: env, limit: d.times.clone})
	}
	if err != nil {
		return err
	}
	args := []string{"set", spec.Name, "--random-mac", "--random-serial",
		"--cpu", strconv.Itoa(cmp.Or(spec.CPUs, defaultCPUs)), "--memory", strconv.Itoa(cmp.Or(spec.MemoryMiB, defaultMemoryMiB))}
	if grows(spec) {
		args = append(args, "--disk-size", strconv.Itoa(spec.DiskGB))
	}
	if spec.Machine.Display != "" {
		args = append(args, "--display", spec.Machine.Display)
	}
	_, err = d.call(ctx, call{args: args, env: env, limit: d.times.set})
	if says(err, "at minimum") || says(err, "disk size") {
		return fmt.Errorf("%w: %w", err, vm.ErrSpec)
	}
	return err
}

// checkSpec adds what only this driver asks for to the rules of all.
func (d *Driver) checkSpec(spec vm.Spec) error {
	if err := vm.CheckSpec(spec, d.Capabilities()); err != nil {
		return err
	}
	bad := func(format string, args ...any) error {
		return fmt.Errorf(format+": %w", append(args, vm.ErrSpec)...)
	}
	switch ref := spec.Image.Ref.WithDigest(spec.Image.Digest); {
	case !d.ours(spec.Name):
		return bad("its name does not begin with %q", d.opt.Prefix)
	case spec.Owner.Installation != d.opt.Installation:
		return bad("it belongs to the installation %q, this one is %q", spec.Owner.Installation, d.opt.Installation)
	case ref.IsZero() && !isSnapshot(spec.Image):
		return bad("the image %q has no name and digest", spec.Image.Ref)
	case !isSnapshot(spec.Image) && !d.Cached(ref):
		return fmt.Errorf("tart does not have the image %s: %w", ref, image.ErrNotFound)
	case len(spec.Media) > 0:
		return bad("tart attaches no media")
	}
	for _, f := range spec.Network.Forwards {
		if f.Guest != f.Host {
			return bad("tart cannot make %s lead to %s: name an address that the host itself has", f.Guest, f.Host)
		}
	}
	for _, s := range spec.Machine.Shares {
		if info, err := os.Stat(s.Path); err != nil || !info.IsDir() || !filepath.IsAbs(s.Path) {
			return bad("the share %q is not the absolute path of a folder", s.Path)
		}
	}
	return nil
}

// Cached says whether tart has an image, by its digest.
func (d *Driver) Cached(ref image.Ref) bool {
	_, err := os.Stat(filepath.Join(d.CacheDir(ref), configFile))
	return err == nil
}

// TartHome is tart's folder: its machines and its cache of images.
func (d *Driver) TartHome() string { return d.opt.TartHome }
