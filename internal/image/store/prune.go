package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mirego/tasuki/internal/image"
)

// abandonedAfter is how long nobody touched what a pull left behind, before it
// goes ahead of images: a pull that fails is tried again within minutes.
const abandonedAfter = time.Hour

// Prune removes images until keep.Floor bytes are free, as keep says: the least
// recently used first and none that is needed or in use. What is left of
// transfers goes before them where nobody goes on with it, else last. A dry run
// only says what would go. Several prunes at once, in any process, do no harm.
// What went before an error is in the result.
func (s *Store) Prune(ctx context.Context, keep image.Retention, dry bool) (image.Pruned, error) {
	var done image.Pruned
	before, err := s.Free()
	if err != nil {
		return done, err
	}
	done.Free = before
	if before >= keep.Floor {
		return done, nil
	}
	p := pruning{s, keep, dry, &done}
	if err := p.partials(abandonedAfter); err != nil {
		return done, err
	}
	if dry {
		err = p.wouldGo()
	} else {
		err = p.images(ctx)
	}
	err = errors.Join(err, p.partials(0))
	if !dry {
		done.Freed = max(done.Free-before, 0)
	}
	return done, err
}

type pruning struct {
	*Store
	keep image.Retention
	dry  bool
	done *image.Pruned
}

// wouldGo notes which images a prune would remove.
func (p pruning) wouldGo() error {
	usage, err := p.Usage()
	for _, img := range p.keep.Excess(usage, p.done.Free) {
		p.done.Images = append(p.done.Images, img)
		p.done.Freed += img.Size
		p.done.Free += img.Size
	}
	return err
}

// images removes one image at a time and looks again: what one gives back is
// known only afterwards, and somebody may have begun to use the next. Images
// that cannot be read are left to a person, and stop nothing.
func (p pruning) images(ctx context.Context) error {
	var busy []string // and those that cannot be removed: the others still go
	var failed error
	for {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		var err error
		if p.done.Free, err = p.Free(); err != nil {
			return err
		}
		usage, listErr := p.Usage()
		next := p.keep.Excess(slices.DeleteFunc(usage, func(img image.Stored) bool {
			return slices.Contains(busy, img.Digest)
		}), p.done.Free)
		if len(next) == 0 {
			return errors.Join(listErr, failed)
		}
		switch err := p.Remove(next[0].Digest); {
		case err == nil:
			p.done.Images = append(p.done.Images, next[0])
		case errors.Is(err, ErrInUse), errors.Is(err, ErrNotFound):
			busy = append(busy, next[0].Digest)
		default:
			busy = append(busy, next[0].Digest)
			failed = errors.Join(failed, err)
		}
	}
}

// partials removes what is left of transfers of images that nobody needs; if
// quiet is not 0, only what nobody touched for so long.
func (p pruning) partials(quiet time.Duration) error {
	since := time.Now().Add(-quiet)
	entries, err := os.ReadDir(filepath.Join(p.dir, dirPartial))
	if err != nil {
		return fmt.Errorf("cannot list partial images: %w", err)
	}
	for _, e := range entries {
		digest := "sha256:" + strings.TrimPrefix(e.Name(), dirPrefix)
		path := filepath.Join(p.dir, dirPartial, e.Name())
		if p.keep.Needed[digest] != "" || p.done.Free >= p.keep.Floor || slices.Contains(p.done.Partials, digest) ||
			quiet > 0 && lastTouched(path).After(since) {
			continue
		}
		lock, err := lockDir(path, unix.LOCK_EX)
		if err != nil {
			continue // somebody fills it
		}
		size := p.stored(image.Local{Dir: path}, nil).Size
		if !p.dry {
			err = os.RemoveAll(path)
		}
		_ = lock.Close()
		if err != nil {
			return fmt.Errorf("cannot remove partial image %s: %w", digest, err)
		}
		p.done.Partials = append(p.done.Partials, digest)
		p.done.Freed += size
		p.done.Free += size
	}
	return nil
}
