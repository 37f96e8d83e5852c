package tart

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/mirego/tasuki/internal/base/atomicfile"
	"github.com/mirego/tasuki/internal/base/backoff"
	"github.com/mirego/tasuki/internal/image"
	"github.com/mirego/tasuki/internal/image/sparse"
)

// Files of an image in tart's cache, beside those of a machine.
const (
	diskFile     = "disk.img"
	nvramFile    = "nvram.bin"
	manifestFile = "manifest.json"
	// pulledFile marks an image that was asked for by its digest: tart removes
	// others when no tag leads to them.
	pulledFile = ".explicitly-pulled"
)

// cacheHost is the folder of a registry's images. tart writes the colon of a
// port as a URL does.
func (d *Driver) cacheHost(ref image.Ref) string {
	return filepath.Join(d.opt.TartHome, "cache", "OCIs", strings.ReplaceAll(ref.Registry(), ":", "%3A"))
}

// CacheDir is where tart keeps an image, by its digest.
func (d *Driver) CacheDir(ref image.Ref) string {
	return filepath.Join(d.cacheHost(ref), filepath.FromSlash(ref.Name()), ref.Digest())
}

// Admit puts an image that is on this host into tart's cache, as if tart had
// pulled it by its digest: in tart's layout and under tart's locks. One that is
// there is left alone. Where the file system can share space between files, it
// costs none. An image without a configuration and nvram of tart's is refused.
func (d *Driver) Admit(ctx context.Context, ref image.Ref, img image.Local) error {
	if err := d.admit(ctx, ref, img); err != nil {
		return fmt.Errorf("cannot put %s into tart's cache: %w", ref, err)
	}
	return nil
}

func (d *Driver) admit(ctx context.Context, ref image.Ref, img image.Local) error {
	if err := d.here(); err != nil {
		return err
	}
	switch {
	case ref.Digest() == "" || ref.Digest() != img.Digest:
		return fmt.Errorf("its digest is %q", img.Digest)
	case img.ConfigFile == "" || img.NVRAM == "":
		return errors.New("it has no configuration and nvram of tart's, so tart could not run it")
	}
	host := d.cacheHost(ref)
	if err := os.MkdirAll(host, 0o755); err != nil {
		return err
	}
	unlock, err := lockFolder(ctx, host) // one pull from a registry at a time
	if err != nil {
		return err
	}
	defer unlock()
	if d.Cached(ref) {
		return nil
	}
	tmp, release, err := d.temporary(ctx)
	if err != nil {
		return err
	}
	defer release()
	for name, from := range map[string]string{
		configFile: img.ConfigFile, nvramFile: img.NVRAM, diskFile: img.Disk, manifestFile: filepath.Join(img.Dir, manifestFile),
	} {
		if err := copyWhole(ctx, filepath.Join(tmp, name), from); err != nil {
			return err
		}
	}
	if err := os.WriteFile(filepath.Join(tmp, pulledFile), nil, 0o644); err != nil {
		return err
	}
	to := d.CacheDir(ref)
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	if err := os.RemoveAll(to); err != nil { // what has no configuration is no image
		return err
	}
	if err := os.Rename(tmp, to); err != nil {
		return err
	}
	return atomicfile.SyncDir(filepath.Dir(to))
}

// temporary makes a folder among tart's own, locked: each command of tart's
// removes those that are not. release removes what is left of it.
func (d *Driver) temporary(ctx context.Context) (path string, release func(), err error) {
	all := filepath.Join(d.opt.TartHome, "tmp")
	if err := os.MkdirAll(all, 0o755); err != nil {
		return "", nil, err
	}
	const tries = 5 // one that was made may be removed before it is locked
	for range tries {
		if path, err = os.MkdirTemp(all, "tasuki-"); err != nil {
			return "", nil, err
		}
		var unlock func()
		if unlock, err = lockFolder(ctx, path); err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			return "", nil, errors.Join(err, os.Remove(path))
		}
		if _, err = os.Stat(path); err == nil {
			return path, func() { _ = os.RemoveAll(path); unlock() }, nil
		}
		unlock()
	}
	return "", nil, err
}

// lockFolder waits for the lock that tart takes on a folder.
func lockFolder(ctx context.Context, path string) (unlock func(), err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	pace := backoff.Policy{First: 10 * time.Millisecond, Most: time.Second}
	for n := 1; ; n++ {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil
		}
		if errors.Is(err, syscall.EWOULDBLOCK) || errors.Is(err, syscall.EINTR) {
			err = backoff.Sleep(ctx, pace.Delay(n, nil))
		}
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
	}
}

// copyWhole copies a file so that a loss of power leaves it whole or not there.
func copyWhole(ctx context.Context, to, from string) error {
	if err := sparse.CopyFile(ctx, to, from); err != nil {
		return err
	}
	f, err := os.OpenFile(to, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
