package scaleset

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/actions/scaleset"

	"github.com/mirego/tasuki/internal/runner"
)

// ensure finds the set, or makes it.
func (s *Set) ensure(ctx context.Context, g *generation) error {
	if g.id(s) != 0 {
		return nil
	}
	group, err := s.svc.group(ctx, g.Group)
	if err != nil {
		return err
	}
	for _, name := range []string{g.Base, g.Base + "-" + digest(g.Labels)} {
		found, err := s.svc.sets(ctx, group, name)
		if err != nil {
			return err
		}
		i := slices.IndexFunc(found, func(f scaleset.RunnerScaleSet) bool { return strings.EqualFold(f.Name, name) })
		if i < 0 {
			return s.make(ctx, g, name, group)
		}
		if sameLabels(labelsOf(found[i]), g.Labels) {
			s.log.Info("scale set found", "scale_set", name, "id", found[i].ID)
			return s.own(g, found[i], g.Making)
		}
		// Labels cannot be changed; another name tells the sets apart.
	}
	return fmt.Errorf("there are scale sets %q and %q-%s, and their labels are not this pool's: delete them, or name another",
		g.Base, g.Base, digest(g.Labels))
}

// make makes the set, after it was written down that it will be: an answer that
// is lost leaves a set that is ours.
func (s *Set) make(ctx context.Context, g *generation, name string, group int) error {
	s.mu.Lock()
	wanted := slices.Contains(s.book.Sets, g)
	g.Making = wanted
	s.mu.Unlock()
	if !wanted {
		return errors.New("the settings mean another set by now")
	}
	if err := s.save(); err != nil {
		return err
	}
	made, err := s.svc.create(ctx, name, group, g.Labels)
	if code := statusOf(err); code >= 400 && code < 500 {
		// Refused: a set of that name that is found later is somebody else's.
		s.mu.Lock()
		g.Making = false
		s.mu.Unlock()
		return errors.Join(err, s.save())
	}
	if err != nil {
		return err
	}
	s.log.Info("scale set made", "scale_set", name, "id", made.ID, "labels", g.Labels)
	return s.own(g, made, true)
}

// own writes down which set it is.
func (s *Set) own(g *generation, set scaleset.RunnerScaleSet, made bool) error {
	s.mu.Lock()
	g.ID, g.Name, g.Made, g.Making = set.ID, set.Name, made, false
	s.mu.Unlock()
	if err := s.save(); err != nil {
		return err
	}
	s.changed()
	s.wake() // the one before gives way from now on
	return nil
}

// drop deletes a set that drained, if we made it, and forgets it.
func (s *Set) drop(ctx context.Context, g *generation) error {
	if g.Made {
		if err := s.svc.remove(ctx, g.ID); err != nil {
			s.mu.Lock()
			g.dropping = false
			s.mu.Unlock()
			if errors.Is(err, runner.ErrBusy) {
				s.log.Info("a scale set that drained has a job again", "scale_set", g.Name)
			}
			return errors.Join(errClosed, err)
		}
		s.log.Info("scale set deleted", "scale_set", g.Name, "id", g.ID)
	}
	s.forget(g)
	return nil
}

// forget takes a set out of the book.
func (s *Set) forget(g *generation) {
	s.mu.Lock()
	s.book.Sets = slices.DeleteFunc(s.book.Sets, func(o *generation) bool { return o == g })
	if len(s.book.Sets) == 0 {
		s.turn(time.Now())
	}
	s.mu.Unlock()
	s.wake()
	if err := s.save(); err != nil {
		s.log.Error("cannot write down that a scale set is gone", "scale_set", g.Name, "err", err)
	}
}

func labelsOf(set scaleset.RunnerScaleSet) []string {
	var out []string
	for _, l := range set.Labels {
		out = append(out, l.Name)
	}
	return out
}

// digest tells sets of one name and other labels apart.
func digest(labels []string) string {
	all := slices.Clone(labels)
	for i, l := range all {
		all[i] = strings.ToLower(l)
	}
	slices.Sort(all)
	sum := sha256.Sum256([]byte(strings.Join(all, "\n")))
	return hex.EncodeToString(sum[:3])
}
