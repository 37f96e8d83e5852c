package runnerdist

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/mirego/tasuki/internal/base/atomicfile"
	"github.com/mirego/tasuki/internal/runner"
)

const (
	partialDir = "partial"
	listSuffix = ".json"
)

// kept is one release in OS-ARCH.json.
type kept struct {
	Version   string    `json:"version"`
	File      string    `json:"file"` // in the Cache's folder
	SHA256    string    `json:"sha256"`
	Size      int64     `json:"size"` // bytes
	Published time.Time `json:"published"`
}

// list is the content of OS-ARCH.json.
type list struct {
	OS       string `json:"os"`
	Arch     string `json:"arch"`
	Releases []kept `json:"releases"` // the one that GitHub offered last first
}

// load reads what the folder has. A list that cannot be read is as none: all
// of it can be had again.
func (c *Cache) load() error {
	if err := atomicfile.Sweep(c.opt.Dir); err != nil {
		return fmt.Errorf("cannot keep releases of the runner program: %w", err)
	}
	paths, err := filepath.Glob(filepath.Join(c.opt.Dir, "*"+listSuffix))
	if err != nil {
		return fmt.Errorf("cannot find releases of the runner program: %w", err)
	}
	for _, path := range paths {
		var l list
		b, err := os.ReadFile(path)
		if err == nil {
			err = json.Unmarshal(b, &l)
		}
		if err != nil {
			c.opt.Log.Warn("list of runner releases is unreadable; they are brought again", "file", path, "err", err)
			continue
		}
		p := &platform{}
		for _, k := range l.Releases {
			info, err := os.Stat(c.path(k))
			if err != nil || info.Size() != k.Size || check(runner.Download{File: k.File, SHA256: k.SHA256, URL: "https://-"}) != nil {
				c.opt.Log.Warn("runner release is not as it was kept; it is brought again", "file", k.File, "err", err)
				continue
			}
			p.kept = append(p.kept, k)
		}
		c.platforms[Platform{l.OS, l.Arch}] = p
	}
	return nil
}

// verifyAll forgets releases whose content has changed on the disk.
func (c *Cache) verifyAll(ctx context.Context) {
	c.mu.Lock()
	all := map[Platform][]kept{}
	for at, p := range c.platforms {
		all[at] = slices.Clone(p.kept)
	}
	c.mu.Unlock()
	for at, releases := range all {
		for _, k := range releases {
			sum, err := sumOf(c.path(k))
			if ctx.Err() != nil || err == nil && sum == k.SHA256 {
				continue
			}
			c.opt.Log.Warn("runner release was changed on the disk; it is brought again", "file", k.File, "err", err)
			c.mu.Lock()
			p := c.platforms[at]
			p.kept = slices.DeleteFunc(p.kept, func(o kept) bool { return o.File == k.File })
			c.mu.Unlock()
			_ = os.Remove(c.path(k))
		}
	}
}

// chosen makes a release that is here already the first, and says whether it is.
func (c *Cache) chosen(at Platform, sum string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.platforms[at]
	i := slices.IndexFunc(p.kept, func(k kept) bool { return k.SHA256 == sum })
	if i > 0 { // GitHub went back to an older one
		next := slices.Concat([]kept{p.kept[i]}, p.kept[:i], p.kept[i+1:])
		if err := c.write(at, next); err != nil {
			c.opt.Log.Warn("list of runner releases is not written", "err", err)
		}
		p.kept = next
	}
	return i >= 0
}

// place moves a whole download to its place and drops what is too old.
func (c *Cache) place(at Platform, d runner.Download, published time.Time) error {
	// Two archives of one name differ by their content.
	file := d.SHA256[:12] + "-" + d.File
	k := kept{Version: d.Version, File: file, SHA256: d.SHA256, Published: published}
	info, err := os.Stat(c.partial(d))
	if err != nil {
		return err
	}
	k.Size = info.Size()
	if err := os.Rename(c.partial(d), c.path(k)); err != nil {
		return err
	}
	if err := atomicfile.SyncDir(c.opt.Dir); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.platforms[at]
	next := append([]kept{k}, p.kept...)
	if err := c.write(at, next[:min(len(next), c.opt.Keep)]); err != nil {
		return err
	}
	p.kept = next[:min(len(next), c.opt.Keep)]
	c.sweep()
	return nil
}

// write makes a platform's list durable. The caller holds c.mu.
func (c *Cache) write(at Platform, releases []kept) error {
	b, err := json.MarshalIndent(list{at.OS, at.Arch, releases}, "", "  ")
	if err != nil {
		return err
	}
	return atomicfile.Write(filepath.Join(c.opt.Dir, at.String()+listSuffix), append(b, '\n'), 0o600)
}

// sweep deletes archives that no list names, and downloads that nobody goes on
// with. The caller holds c.mu.
func (c *Cache) sweep() {
	wanted := map[string]bool{}
	for _, p := range c.platforms {
		for _, k := range p.kept {
			wanted[k.File] = true
		}
	}
	entries, err := os.ReadDir(c.opt.Dir)
	if err != nil {
		c.opt.Log.Warn("cannot look for old runner releases", "err", err)
	}
	for _, e := range entries {
		if e.Type().IsRegular() && !wanted[e.Name()] && !strings.HasSuffix(e.Name(), listSuffix) && !strings.HasPrefix(e.Name(), ".") {
			_ = os.Remove(filepath.Join(c.opt.Dir, e.Name()))
		}
	}
	parts, err := os.ReadDir(filepath.Join(c.opt.Dir, partialDir))
	if err != nil {
		return
	}
	for _, e := range parts {
		info, err := e.Info()
		if err == nil && time.Since(info.ModTime()) > 24*time.Hour {
			_ = os.Remove(filepath.Join(c.opt.Dir, partialDir, e.Name()))
		}
	}
}

func (c *Cache) path(k kept) string { return filepath.Join(c.opt.Dir, k.File) }

func (c *Cache) partial(d runner.Download) string {
	return filepath.Join(c.opt.Dir, partialDir, d.SHA256)
}

func (c *Cache) release(k kept) runner.Release {
	return runner.Release{Version: k.Version, Path: c.path(k), SHA256: k.SHA256, Published: k.Published}
}

var (
	sumForm  = regexp.MustCompile(`^[0-9a-f]{64}$`)
	fileForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)
)

// check refuses an offer that cannot be trusted: what it names becomes a file
// of ours.
func check(d runner.Download) error {
	switch {
	case d.SHA256 == "":
		return errors.New("GitHub gives no checksum for it")
	case !sumForm.MatchString(d.SHA256):
		return fmt.Errorf("its checksum %q is none", short(d.SHA256))
	case !fileForm.MatchString(d.File):
		return fmt.Errorf("its file is named %q", short(d.File))
	}
	return safe(d.URL)
}

func short(s string) string { return s[:min(len(s), 80)] }

func sumOf(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// sizeOf returns how much of a download is here; 0: nothing.
func sizeOf(path string) (int64, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}
