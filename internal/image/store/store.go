package store

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mirego/tasuki/internal/base/atomicfile"
	"github.com/mirego/tasuki/internal/image"
)

// Sentinels, for callers that have no other reason to import package image.
var (
	ErrNotFound = image.ErrNotFound
	ErrInUse    = image.ErrInUse
)

const (
	dirPartial = "partial"
	dirRefs    = "refs"
	dirTrash   = "trash"
	dirPrefix  = "sha256-"

	// partialAge is how long a transfer that nobody took up again is kept.
	partialAge = 7 * 24 * time.Hour
)

// Store is a directory of images. Its methods may be called from several
// goroutines, and several processes may open the same directory.
type Store struct {
	dir string
}

// record is image.json.
type record struct {
	Ref         image.Ref         `json:"ref,omitzero"`
	Digest      string            `json:"digest"`
	DiskSize    int64             `json:"diskSize"`
	DiskModTime time.Time         `json:"diskModTime"`
	Labels      map[string]string `json:"labels"`
}

// Open opens the store in dir, which is created if it is missing. It deletes
// what removals and long abandoned transfers left behind.
func Open(dir string) (*Store, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("cannot open image store: %w", err)
	}
	for _, sub := range []string{dirPartial, dirRefs, dirTrash} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return nil, fmt.Errorf("cannot open image store %q: %w", dir, err)
		}
	}
	s := &Store{dir: dir}
	if err := s.sweep(time.Now().Add(-partialAge)); err != nil {
		return nil, fmt.Errorf("cannot clean up image store %q: %w", dir, err)
	}
	return s, nil
}

func (s *Store) sweep(olderThan time.Time) error {
	if err := removeChildren(filepath.Join(s.dir, dirTrash)); err != nil {
		return err
	}
	left, err := os.ReadDir(filepath.Join(s.dir, dirPartial))
	if err != nil {
		return err
	}
	for _, e := range left {
		path := filepath.Join(s.dir, dirPartial, e.Name())
		if lastTouched(path).After(olderThan) {
			continue
		}
		lock, err := lockDir(path, unix.LOCK_EX)
		if err != nil {
			continue // in use, or gone meanwhile
		}
		err = os.RemoveAll(path)
		_ = lock.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

func removeChildren(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// lastTouched is the latest modification of a directory or what lies in it.
func lastTouched(dir string) time.Time {
	var last time.Time
	_ = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil {
			return nil //nolint:nilerr // what cannot be read does not count
		}
		if info, err := e.Info(); err == nil && info.ModTime().After(last) {
			last = info.ModTime()
		}
		return nil
	})
	return last
}

// Dir is the store's directory.
func (s *Store) Dir() string { return s.dir }

// Free is the space in bytes that the store's file system has left for us.
func (s *Store) Free() (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(s.dir, &st); err != nil {
		return 0, fmt.Errorf("cannot tell the free space of %q: %w", s.dir, err)
	}
	return int64(st.Bavail) * int64(st.Bsize), nil //nolint:unconvert // the types differ between systems
}

func (s *Store) path(digest string) (string, error) {
	h := image.DigestHex(digest)
	if h == "" {
		return "", fmt.Errorf("cannot find image: %w", image.CheckDigest(digest))
	}
	return filepath.Join(s.dir, dirPrefix+h), nil
}

// Get returns the image with this digest, or an error that wraps ErrNotFound.
// An image whose disk was changed after it was brought here is an error.
func (s *Store) Get(digest string) (image.Local, error) {
	dir, err := s.path(digest)
	if err != nil {
		return image.Local{}, err
	}
	return load(dir, digest)
}

func load(dir, digest string) (image.Local, error) {
	b, err := os.ReadFile(filepath.Join(dir, fileRecord))
	if errors.Is(err, fs.ErrNotExist) {
		return image.Local{}, fmt.Errorf("%w: %s", ErrNotFound, digest)
	}
	if err != nil {
		return image.Local{}, fmt.Errorf("cannot read image %s: %w", digest, err)
	}
	var r record
	if err := json.Unmarshal(b, &r); err != nil || r.Digest != digest {
		return image.Local{}, fmt.Errorf("cannot read image %s: %s is damaged (%v); delete the directory and pull again", digest, filepath.Join(dir, fileRecord), err)
	}
	img := image.Local{Ref: r.Ref, Digest: digest, Dir: dir, DiskSize: r.DiskSize, Labels: r.Labels}
	if img.Labels == nil {
		img.Labels = map[string]string{}
	}
	fillPaths(&img)
	if info, err := os.Stat(filepath.Join(dir, fileRecord)); err == nil {
		img.Arrived = info.ModTime().UTC() // nothing writes it later
	}
	info, err := os.Stat(img.Disk)
	if errors.Is(err, fs.ErrNotExist) {
		if _, again := os.Stat(filepath.Join(dir, fileRecord)); errors.Is(again, fs.ErrNotExist) { // removed while we looked
			return image.Local{}, fmt.Errorf("%w: %s", ErrNotFound, digest)
		}
	}
	if err != nil {
		return image.Local{}, fmt.Errorf("cannot read image %s: %w", digest, err)
	}
	if info.Size() != r.DiskSize || !info.ModTime().Equal(r.DiskModTime) {
		return image.Local{}, fmt.Errorf("image %s was changed on this host at %s, so it is no longer what its digest says; delete %s and pull again",
			digest, info.ModTime().Format(time.RFC3339), dir)
	}
	return img, nil
}

// fillPaths sets the paths of the files that img.Dir holds.
func fillPaths(img *image.Local) {
	img.Disk = filepath.Join(img.Dir, FileDisk)
	for name, path := range map[string]*string{
		FileNVRAM: &img.NVRAM, FileKernel: &img.Kernel, FileInitrd: &img.Initrd, FileConfig: &img.ConfigFile,
	} {
		*path = ""
		if _, err := os.Stat(filepath.Join(img.Dir, name)); err == nil {
			*path = filepath.Join(img.Dir, name)
		}
	}
}

// List returns the images that can be used, by digest. Images that cannot be
// read are left out and told of by the error; the list is good all the same.
func (s *Store) List() ([]image.Local, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, fmt.Errorf("cannot list images: %w", err)
	}
	var images []image.Local
	var errs []error
	for _, e := range entries {
		h, ok := strings.CutPrefix(e.Name(), dirPrefix)
		if !ok || !e.IsDir() {
			continue
		}
		img, err := s.Get("sha256:" + h)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		images = append(images, img)
	}
	slices.SortFunc(images, func(a, b image.Local) int { return cmp.Compare(a.Digest, b.Digest) })
	return images, errors.Join(errs...)
}

// Import makes the directory dir, which must lie on the store's file system
// and hold at least FileDisk under the names above, the image img.Digest. It
// syncs the files, makes them read-only and moves dir without its FileJournal;
// afterwards dir is gone.
// Of img it takes the reference, the digest and the labels. An image that is
// there already stays as it is and dir is deleted.
func (s *Store) Import(dir string, img image.Local) (image.Local, error) {
	fail := func(err error) (image.Local, error) {
		return image.Local{}, fmt.Errorf("cannot import image %s: %w", img.Digest, err)
	}
	target, err := s.path(img.Digest)
	if err != nil {
		return fail(err)
	}
	info, err := os.Stat(filepath.Join(dir, FileDisk))
	if err != nil {
		return fail(err)
	}
	r := record{Ref: img.Ref, Digest: img.Digest, DiskSize: info.Size(), DiskModTime: info.ModTime(), Labels: maps.Clone(img.Labels)}
	if err := seal(dir); err != nil {
		return fail(err)
	}
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fail(err)
	}
	if err := atomicfile.Write(filepath.Join(dir, fileRecord), append(b, '\n'), 0o444); err != nil {
		return fail(err)
	}
	// The journal goes last: who dies over syncing a large disk need not fetch it
	// again.
	if err := os.Remove(filepath.Join(dir, FileJournal)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fail(err)
	}
	if err := os.Rename(dir, target); err != nil {
		if there, getErr := s.Get(img.Digest); getErr == nil {
			return there, os.RemoveAll(dir)
		}
		return fail(err)
	}
	if err := atomicfile.SyncDir(s.dir); err != nil {
		return fail(err)
	}
	return s.Get(img.Digest)
}

// seal makes every file of dir read-only and durable.
func seal(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if !e.Type().IsRegular() {
			return fmt.Errorf("%s is not a regular file", path)
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		err = errors.Join(f.Sync(), f.Chmod(0o444), f.Close())
		if err != nil {
			return err
		}
	}
	return atomicfile.SyncDir(dir)
}

// Remove deletes an image. It returns an error that wraps ErrInUse while the
// image is held, by any process, and ErrNotFound if it is not there.
func (s *Store) Remove(digest string) error {
	dir, err := s.path(digest)
	if err != nil {
		return err
	}
	lock, err := lockDir(dir, unix.LOCK_EX)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("cannot remove image: %w: %s", ErrNotFound, digest)
	case errors.Is(err, unix.EWOULDBLOCK):
		return fmt.Errorf("cannot remove image %s: %w", digest, ErrInUse)
	case err != nil:
		return fmt.Errorf("cannot remove image %s: %w", digest, err)
	}
	defer lock.Close()
	// A name that nothing else has: another process may be emptying the trash.
	trash := filepath.Join(s.dir, dirTrash, fmt.Sprintf("%s-%x", filepath.Base(dir), rand.Uint64()))
	if err := os.Rename(dir, trash); err != nil {
		return fmt.Errorf("cannot remove image %s: %w", digest, err)
	}
	if err := atomicfile.SyncDir(s.dir); err != nil {
		return fmt.Errorf("cannot remove image %s: %w", digest, err)
	}
	if err := os.RemoveAll(trash); err != nil {
		return fmt.Errorf("cannot delete the files of image %s: %w", digest, err)
	}
	return nil
}
