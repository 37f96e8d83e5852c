package tart

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// turnFile is the lock between processes that use this driver on one folder
// of tart's. tart ignores what it does not know there. It is made with the
// driver and not by a call, so that a folder without it is not the one that we
// began with.
const turnFile = "tasuki.lock"

// volumes is where macOS mounts disks.
const volumes = "/Volumes"

func (d *Driver) findFolders() error {
	var err error
	if d.opt.Home, err = filepath.Abs(d.opt.Home); err != nil {
		return fmt.Errorf("cannot use the home %q: %w", d.opt.Home, err)
	}
	if d.opt.TartHome, err = tartHome(d.opt.TartHome); err != nil {
		return err
	}
	if strings.ContainsAny(d.opt.TartHome, " %#?") {
		return fmt.Errorf("cannot use TART_HOME %q: tart needs a path without spaces, %%, # and ?", d.opt.TartHome)
	}
	if err := os.MkdirAll(d.opt.Home, 0o700); err != nil {
		return fmt.Errorf("cannot make the folder of the guests: %w", err)
	}
	if volume := missingVolume(volumes, d.opt.TartHome); volume != "" {
		return fmt.Errorf("cannot use TART_HOME %q: no disk is mounted at %s", d.opt.TartHome, volume)
	}
	// Its parents are not made: on the disk that is there they would stand for
	// the one that is not.
	if err := os.Mkdir(d.opt.TartHome, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("cannot use TART_HOME %q: %w; is its disk mounted?", d.opt.TartHome, err)
	}
	f, err := os.OpenFile(filepath.Join(d.opt.TartHome, turnFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("cannot use TART_HOME %q: %w", d.opt.TartHome, err)
	}
	return f.Close()
}

// tartHome is tart's own rule for its folder.
func tartHome(given string) (string, error) {
	home := cmp.Or(given, os.Getenv("TART_HOME"))
	if home == "" {
		user, err := os.UserHomeDir()
		if err != nil {
			return "", fmt.Errorf("cannot find tart's folder: %w", err)
		}
		home = filepath.Join(user, ".tart")
	}
	return filepath.Abs(home)
}

// missingVolume returns the mount point below root that path needs and that
// has no disk of its own; "" if nothing is missing.
func missingVolume(root, path string) string {
	rest, below := strings.CutPrefix(path, root+"/")
	if !below {
		return ""
	}
	name, _, _ := strings.Cut(rest, "/")
	volume := filepath.Join(root, name)
	if info, err := os.Lstat(volume); err == nil && info.Mode()&fs.ModeSymlink != 0 {
		return "" // the disk that macOS runs from
	}
	of := func(path string) (dev uint64, ok bool) {
		info, err := os.Stat(path)
		if err != nil {
			return 0, false
		}
		st, ok := info.Sys().(*syscall.Stat_t)
		return uint64(st.Dev), ok
	}
	around, ok := of(root)
	if dev, there := of(volume); ok && there && dev != around {
		return ""
	}
	return volume
}

// here returns an error unless tart's folder is the one that we began with.
// Without that, guests on a disk that was unplugged would be believed to be
// gone, and be forgotten.
func (d *Driver) here() error {
	if _, err := os.Stat(filepath.Join(d.opt.TartHome, turnFile)); err != nil {
		return d.away(err)
	}
	return nil
}

func (d *Driver) away(err error) error {
	if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot use TART_HOME: %w", err)
	}
	return fmt.Errorf("TART_HOME %q is not there, or is not the folder that it was: is its disk mounted? (a folder that was made anew is used after a restart of the agent)", d.opt.TartHome)
}
