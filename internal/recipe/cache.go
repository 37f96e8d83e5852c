package recipe

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/mirego/tasuki/internal/base/atomicfile"
	"github.com/mirego/tasuki/internal/image"
)

// Folders and files of a build folder:
//
//	steps/KEY/       the disk as it was after a step, and step.json
//	images/KEY/      a finished image, and image.json
//	work-…/          a build that is under way
//	NAME.log         what the last build of a recipe printed
//	lock             held while a build is under way
const (
	stepsDir   = "steps"
	imagesDir  = "images"
	workPrefix = "work-"
	stepFile   = "step.json"
	imageFile  = "image.json"
)

const (
	lockPoll = 250 * time.Millisecond
	// keepUnused is how long a snapshot that no build used is kept.
	keepUnused = 14 * 24 * time.Hour
	// keepImages is how many finished images of one recipe are kept.
	keepImages = 2
)

// snapshot is step.json. It holds the build's login key, which opens nothing
// but guests of this snapshot: finish takes it out of the image.
type snapshot struct {
	Name    string      `json:"name"`
	After   string      `json:"after"` // the snapshot whose disk this one needs; "" if none
	Image   image.Local `json:"image"`
	Private string      `json:"privateKey"`
	Public  string      `json:"publicKey"`
}

// lock waits until no other process builds in the folder. The end of this
// process unlocks too.
func lock(ctx context.Context, dir string) (unlock func(), err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("cannot make the folder of builds: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("cannot lock the folder of builds: %w", err)
	}
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			return nil, errors.Join(fmt.Errorf("cannot lock the folder of builds: %w", err), f.Close())
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("cannot wait for the build that is under way: %w", context.Cause(ctx)), f.Close())
		case <-time.After(lockPoll):
		}
	}
}

// snapshotOf reads the snapshot of a key. It is false where there is none that
// can be used.
func (b *Builder) snapshotOf(key string) (snapshot, bool) {
	path := filepath.Join(b.opt.Dir, stepsDir, key, stepFile)
	data, err := os.ReadFile(path)
	if err != nil {
		return snapshot{}, false
	}
	var s snapshot
	if err := json.Unmarshal(data, &s); err != nil {
		b.opt.Log.Warn("snapshot cannot be read", "path", path, "err", err)
		return snapshot{}, false
	}
	if _, err := os.Stat(s.Image.Disk); err != nil {
		return snapshot{}, false
	}
	if s.After != "" {
		if _, ok := b.snapshotOf(s.After); !ok {
			return snapshot{}, false
		}
	}
	return s, true
}

// keep makes a snapshot in work and moves it to its key, whole.
func (b *Builder) keep(ctx context.Context, g *machine, key, name string) error {
	tmp := filepath.Join(g.work, "snapshot")
	if err := os.Mkdir(tmp, 0o700); err != nil {
		return err
	}
	img, err := g.snapshot(ctx, tmp)
	if err != nil {
		return fmt.Errorf("cannot keep what the step made: %w", errors.Join(err, os.RemoveAll(tmp)))
	}
	dir := filepath.Join(b.opt.Dir, stepsDir, key)
	img = moved(img, tmp, dir)
	img.Labels = g.base.Labels
	s := snapshot{Name: name, After: g.from, Image: img, Private: g.private.Reveal(), Public: g.public}
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	if err := atomicfile.Write(filepath.Join(tmp, stepFile), append(data, '\n'), 0o600); err != nil {
		return err
	}
	return errors.Join(os.MkdirAll(filepath.Dir(dir), 0o700), os.RemoveAll(dir), os.Rename(tmp, dir))
}

// moved changes the paths of an image whose folder is renamed.
func moved(img image.Local, from, to string) image.Local {
	img.Dir = to
	for _, path := range []*string{&img.Disk, &img.NVRAM, &img.Kernel, &img.Initrd, &img.ConfigFile} {
		if rest, ok := strings.CutPrefix(*path, from+string(filepath.Separator)); ok {
			*path = filepath.Join(to, rest)
		}
	}
	return img
}

// used marks a snapshot as worth keeping, with those that it needs.
func (b *Builder) used(key string) {
	for key != "" {
		s, ok := b.snapshotOf(key)
		if !ok {
			return
		}
		now := time.Now()
		_ = os.Chtimes(filepath.Join(b.opt.Dir, stepsDir, key), now, now) // it is pruned earlier then
		key = s.After
	}
}

// finished is image.json.
type finished struct {
	Recipe string       `json:"recipe"`
	Source image.Source `json:"source"`
}

func (b *Builder) imageOf(key string) (image.Source, bool) {
	data, err := os.ReadFile(filepath.Join(b.opt.Dir, imagesDir, key, imageFile))
	if err != nil {
		return image.Source{}, false
	}
	var f finished
	if json.Unmarshal(data, &f) != nil {
		return image.Source{}, false
	}
	for _, path := range []string{f.Source.Disk, f.Source.Kernel, f.Source.Initrd, f.Source.NVRAM} {
		if _, err := os.Stat(path); path != "" && err != nil {
			return image.Source{}, false
		}
	}
	return f.Source, true
}

// publish moves a finished image to its key.
func (b *Builder) publish(r *Recipe, key, tmp string, src image.Source) (image.Source, error) {
	dir := filepath.Join(b.opt.Dir, imagesDir, key)
	for _, path := range []*string{&src.Disk, &src.NVRAM, &src.Kernel, &src.Initrd} {
		if rest, ok := strings.CutPrefix(*path, tmp+string(filepath.Separator)); ok {
			*path = filepath.Join(dir, rest)
		}
	}
	data, err := json.MarshalIndent(finished{r.Name, src}, "", "  ")
	if err != nil {
		return src, err
	}
	if err := atomicfile.Write(filepath.Join(tmp, imageFile), append(data, '\n'), 0o600); err != nil {
		return src, err
	}
	return src, errors.Join(os.MkdirAll(filepath.Dir(dir), 0o700), os.RemoveAll(dir), os.Rename(tmp, dir))
}

// prune removes snapshots that no build used for long and that no younger one
// needs, and older images of this recipe than the last ones. The caller holds
// the lock.
func (b *Builder) prune(r *Recipe) error {
	var errs []error
	root := filepath.Join(b.opt.Dir, stepsDir)
	for _, e := range entries(root) {
		info, err := e.Info()
		// Using a snapshot renews those it needs, so the old are not needed.
		if err == nil && time.Since(info.ModTime()) > keepUnused {
			errs = append(errs, os.RemoveAll(filepath.Join(root, e.Name())))
		}
	}
	type old struct {
		dir  string
		when time.Time
	}
	var mine []old
	root = filepath.Join(b.opt.Dir, imagesDir)
	for _, e := range entries(root) {
		dir := filepath.Join(root, e.Name())
		info, err := e.Info()
		var f finished
		if data, readErr := os.ReadFile(filepath.Join(dir, imageFile)); err == nil && readErr == nil && json.Unmarshal(data, &f) == nil && f.Recipe == r.Name {
			mine = append(mine, old{dir, info.ModTime()})
		}
	}
	slices.SortFunc(mine, func(a, b old) int { return b.when.Compare(a.when) })
	for _, o := range mine[min(len(mine), keepImages):] {
		errs = append(errs, os.RemoveAll(o.dir))
	}
	return errors.Join(errs...)
}

// entries lists a folder; one that is not there is empty.
func entries(dir string) []fs.DirEntry {
	list, _ := os.ReadDir(dir) // what cannot be read cannot be pruned
	return list
}
