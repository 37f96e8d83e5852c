package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/mirego/tasuki/internal/image"
)

// Pruned is what a prune removed, or would remove.
type Pruned struct {
	// Images are those that went, in this order.
	Images []image.Stored `json:"images"`
	// Partials are digests of images that were never brought here to the end.
	Partials []string `json:"partials,omitempty"`
	// Freed is what that gave back, in bytes; of a dry run, what it takes now.
	Freed int64 `json:"freed"`
	// Free is what is free afterwards. It stays below the floor where all that
	// is left is needed.
	Free int64 `json:"free"`
}

// Prune removes images until keep.Floor bytes are free, as keep says: the least
// recently used first, none that is named or in use, and before them what is
// left of transfers that nobody goes on with. A dry run only says what would go.
// Several prunes at once, in any process, do no harm. What went before an error
// is in the result.
func (s *Store) Prune(ctx context.Context, keep image.Retention, dry bool) (Pruned, error) {
	var done Pruned
	before, err := s.Free()
	if err != nil {
		return done, err
	}
	done.Free = before
	if before >= keep.Floor {
		return done, nil
	}
	if err := s.prunePartials(keep, dry, &done); err != nil {
		return done, err
	}
	if dry {
		usage, err := s.Usage()
		for _, img := range keep.Excess(usage, done.Free) {
			done.Images = append(done.Images, img)
			done.Freed += img.Size
			done.Free += img.Size
		}
		return done, err
	}
	err = s.pruneImages(ctx, keep, &done)
	done.Freed = max(done.Free-before, 0)
	return done, err
}

// pruneImages removes one image at a time and looks again: what one gives back
// is known only afterwards, and somebody may have begun to use the next.
func (s *Store) pruneImages(ctx context.Context, keep image.Retention, done *Pruned) error {
	var busy []string
	for {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		var err error
		if done.Free, err = s.Free(); err != nil {
			return err
		}
		usage, listErr := s.Usage()
		next := keep.Excess(slices.DeleteFunc(usage, func(img image.Stored) bool {
			return slices.Contains(busy, img.Digest)
		}), done.Free)
		if len(next) == 0 {
			return listErr
		}
		switch err := s.Remove(next[0].Digest); {
		case err == nil:
			done.Images = append(done.Images, next[0])
		case errors.Is(err, ErrInUse), errors.Is(err, ErrNotFound):
			busy = append(busy, next[0].Digest)
		default:
			return err
		}
	}
}

// prunePartials removes abandoned transfers of images that no pool names.
func (s *Store) prunePartials(keep image.Retention, dry bool, done *Pruned) error {
	entries, err := os.ReadDir(filepath.Join(s.dir, dirPartial))
	if err != nil {
		return fmt.Errorf("cannot list partial images: %w", err)
	}
	for _, e := range entries {
		digest := "sha256:" + strings.TrimPrefix(e.Name(), dirPrefix)
		if slices.Contains(keep.Named, digest) || done.Free >= keep.Floor {
			continue
		}
		path := filepath.Join(s.dir, dirPartial, e.Name())
		lock, err := lockDir(path, unix.LOCK_EX)
		if err != nil {
			continue // somebody fills it
		}
		size := s.stored(image.Local{Dir: path}, nil).Size
		if !dry {
			err = os.RemoveAll(path)
		}
		_ = lock.Close()
		if err != nil {
			return fmt.Errorf("cannot remove partial image %s: %w", digest, err)
		}
		done.Partials = append(done.Partials, digest)
		done.Freed += size
		done.Free += size
	}
	return nil
}
