package debian

import (
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/mirego/tasuki/internal/image"
)

// The files of an image's folder.
const (
	diskFile     = "disk.img"
	kernelFile   = "kernel"
	initrdFile   = "initrd"
	metadataFile = "image.json"
)

const (
	// workPrefix names the folders of builds that are under way.
	workPrefix = ".build-"
	// keepBuilt is how many images a cache keeps: going back and forth between
	// two versions of the recipe shall not build each time.
	keepBuilt = 3
	// lockPoll is how often a build looks whether another one has ended.
	lockPoll = 250 * time.Millisecond
)

//go:embed all:recipe
var recipe embed.FS

// metadata is what image.json holds.
type metadata struct {
	Key    string            `json:"key"`
	Labels map[string]string `json:"labels"`
}

// recipeKey identifies all that decides the outcome of a build, but for the
// versions of Debian's packages.
func recipeKey(p payload, o Options) string {
	h := sha256.New()
	fmt.Fprintln(h, release, o.Arch, packages, dpkgExcludes, cmdline, diskSize, p.kind, p.version)
	_ = fs.WalkDir(recipe, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := fs.ReadFile(recipe, path)
		fmt.Fprintln(h, path, len(data))
		_, _ = h.Write(data)
		return err
	})
	fmt.Fprintln(h, p.digest)
	if len(o.Packages) > 0 {
		fmt.Fprintln(h, o.Packages)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// load reads an image's folder. It returns fs.ErrNotExist where a file is
// missing or the folder holds an image of another key.
func load(dir, key string) (image.Source, error) {
	data, err := os.ReadFile(filepath.Join(dir, metadataFile))
	if err != nil {
		return image.Source{}, err
	}
	var meta metadata
	if err := json.Unmarshal(data, &meta); err != nil {
		return image.Source{}, fmt.Errorf("cannot read %q: %w", filepath.Join(dir, metadataFile), err)
	}
	if meta.Key != key {
		return image.Source{}, fmt.Errorf("%q holds an image of another recipe: %w", dir, fs.ErrNotExist)
	}
	src := image.Source{
		Disk:   filepath.Join(dir, diskFile),
		Kernel: filepath.Join(dir, kernelFile),
		Initrd: filepath.Join(dir, initrdFile),
		Labels: meta.Labels,
	}
	for _, path := range []string{src.Disk, src.Kernel, src.Initrd} {
		if _, err := os.Stat(path); err != nil {
			return image.Source{}, err
		}
	}
	return src, nil
}

// lock waits until no other process builds into the same cache. The returned
// function unlocks; so does the end of this process.
func lock(ctx context.Context, path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			_ = f.Close()
			return nil, fmt.Errorf("cannot lock %q: %w", path, err)
		}
		select {
		case <-ctx.Done():
			_ = f.Close()
			return nil, fmt.Errorf("cannot wait for the build that holds %q: %w", path, context.Cause(ctx))
		case <-time.After(lockPoll):
		}
	}
}

// sweep removes what builds that were killed left behind. The caller holds the lock.
func sweep(dir string) {
	stale, _ := filepath.Glob(filepath.Join(dir, workPrefix+"*"))
	for _, path := range stale {
		_ = os.RemoveAll(path)
	}
}

// prune removes the oldest images of the cache, never keep.
func prune(cacheDir, keep string, log *slog.Logger) {
	found, _ := filepath.Glob(filepath.Join(cacheDir, "*", metadataFile))
	type built struct {
		dir  string
		when time.Time
	}
	var all []built
	for _, path := range found {
		if info, err := os.Stat(path); err == nil && filepath.Dir(path) != keep {
			all = append(all, built{filepath.Dir(path), info.ModTime()})
		}
	}
	slices.SortFunc(all, func(a, b built) int { return b.when.Compare(a.when) })
	for _, old := range all[min(len(all), keepBuilt-1):] {
		if err := os.RemoveAll(old.dir); err != nil {
			log.Warn("cannot remove an old image", "dir", old.dir, "err", err)
		}
	}
}

// labels are what a host must know before it boots a guest.
func labels(arch string, p payload, key string, host hostFiles, built time.Time) map[string]string {
	out := map[string]string{
		image.LabelOS:      image.OSLinux,
		image.LabelArch:    arch,
		image.LabelBoot:    image.BootKernel,
		image.LabelCmdline: cmdline[arch],
		image.LabelUser:    "runner",
		image.LabelHostKey: strings.TrimSpace(string(host.hostKey)),
		image.LabelRecipe:  "debian-" + release + "@sha256:" + key,
		image.LabelBuilt:   built.UTC().Format(time.RFC3339),
	}
	if p.kind != "" {
		out[image.LabelRunnerDir], out[image.LabelRunnerKind], out[image.LabelRunnerVersion] = RunnerDir, p.kind, p.version
	}
	return out
}
