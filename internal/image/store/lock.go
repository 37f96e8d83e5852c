package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mirego/tasuki/internal/base/atomicfile"
	"github.com/mirego/tasuki/internal/base/backoff"
	"github.com/mirego/tasuki/internal/image"
)

const (
	// holdPatience is how long Hold waits for a lock that is only taken for
	// the moment of a rename.
	holdPatience = 2 * time.Second
	// mostWait is the longest pause between looks at a lock.
	mostWait = 250 * time.Millisecond
)

// lockDir takes a flock(2) lock on the directory at path without waiting; the
// lock ends when the file is closed. It returns unix.EWOULDBLOCK if somebody
// has it, and fs.ErrNotExist if the directory is gone, or was replaced while
// we locked it.
func lockDir(path string, how int) (*os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB); err != nil {
		_ = f.Close()
		return nil, err
	}
	ours, err := f.Stat()
	if err == nil {
		var there fs.FileInfo
		if there, err = os.Stat(path); err == nil && !os.SameFile(ours, there) {
			err = fs.ErrNotExist
		}
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// Hold keeps the image from being removed until release is called, or until
// this process ends. Releasing twice is harmless. A hold counts as a use.
func (s *Store) Hold(digest string) (release func(), err error) {
	dir, err := s.path(digest)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), holdPatience)
	defer cancel()
	for n := 1; ; n++ {
		lock, err := lockDir(dir, unix.LOCK_SH)
		switch {
		case err == nil:
			touch(dir)
			return sync.OnceFunc(func() { _ = lock.Close() }), nil
		case errors.Is(err, fs.ErrNotExist):
			return nil, fmt.Errorf("cannot hold image: %w: %s", ErrNotFound, digest)
		case !errors.Is(err, unix.EWOULDBLOCK):
			return nil, fmt.Errorf("cannot hold image %s: %w", digest, err)
		}
		if backoff.Sleep(ctx, pace.Delay(n, nil)) != nil {
			return nil, fmt.Errorf("cannot hold image %s: it is being removed: %w", digest, ErrInUse)
		}
	}
}

var pace = backoff.Policy{First: 5 * time.Millisecond, Most: mostWait}

// Partial is an image on its way to this host: a directory that one transfer
// at a time may fill. What it holds stays there until Commit or Discard, so
// that the next transfer can go on from it.
type Partial struct {
	store  *Store
	digest string
	dir    string
	lock   *os.File
}

// Begin opens the partial of this digest. While another transfer has it, in
// any process, it waits, and calls waiting once, if it is not nil. When it
// returns the other one may have finished: ask Get again.
func (s *Store) Begin(ctx context.Context, digest string, waiting func()) (*Partial, error) {
	h := image.DigestHex(digest)
	if h == "" {
		return nil, fmt.Errorf("cannot begin image: %w", image.CheckDigest(digest))
	}
	dir := filepath.Join(s.dir, dirPartial, dirPrefix+h)
	for n := 1; ; n++ {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, fmt.Errorf("cannot begin image %s: %w", digest, err)
		}
		lock, err := lockDir(dir, unix.LOCK_EX)
		switch {
		case err == nil:
			p := &Partial{store: s, digest: digest, dir: dir, lock: lock}
			if err := p.unseal(); err != nil {
				p.Close()
				return nil, fmt.Errorf("cannot begin image %s: %w", digest, err)
			}
			return p, nil
		case errors.Is(err, fs.ErrNotExist): // finished or discarded meanwhile
		case !errors.Is(err, unix.EWOULDBLOCK):
			return nil, fmt.Errorf("cannot begin image %s: %w", digest, err)
		case waiting != nil:
			waiting()
			waiting = nil
		}
		if err := backoff.Sleep(ctx, pace.Delay(n, nil)); err != nil {
			return nil, fmt.Errorf("cannot begin image %s: another transfer of it has not ended: %w", digest, err)
		}
	}
}

// unseal makes files writable again that a Commit made read-only before it was
// cut off.
func (p *Partial) unseal() error {
	entries, err := os.ReadDir(p.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !e.Type().IsRegular() {
			continue
		}
		if err := os.Chmod(filepath.Join(p.dir, e.Name()), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// Dir is the directory to fill, with the names of files that the store uses.
func (p *Partial) Dir() string { return p.dir }

// Commit makes the partial an image, as Import does. The partial is closed
// afterwards, whatever the result.
func (p *Partial) Commit(img image.Local) (image.Local, error) {
	defer p.Close()
	img.Digest = p.digest
	return p.store.Import(p.dir, img)
}

// Discard deletes the partial and closes it.
func (p *Partial) Discard() error {
	defer p.Close()
	if err := os.RemoveAll(p.dir); err != nil {
		return fmt.Errorf("cannot discard partial image %s: %w", p.digest, err)
	}
	return atomicfile.SyncDir(filepath.Dir(p.dir))
}

// Close lets others have the partial, which stays on disk. Closing twice, or
// after Commit or Discard, is harmless.
func (p *Partial) Close() { _ = p.lock.Close() }
