package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/mirego/tasuki/internal/agent"
	"github.com/mirego/tasuki/internal/base/human"
	"github.com/mirego/tasuki/internal/config"
	"github.com/mirego/tasuki/internal/image"
	"github.com/mirego/tasuki/internal/image/store"
)

func newImagePrune(a *app) *cobra.Command {
	var file, free string
	var dry, asJSON, quiet, all bool
	cmd := &cobra.Command{
		Use:   "prune",
		Short: "Remove images that nothing needs until there is space",
		Long: "Remove images that no pool and no guest needs, the least recently used first, until so much is free on the\n" +
			"disk as the configuration says, or --free; with --all every such image. A pool needs the image that it runs on, the one before, and one that it\n" +
			"is pinned to. Registries keep them. With --dry-run it says of each image why it goes or stays.\n" +
			"An agent does the same by itself (images.keep_free in the configuration). tart's cache is not looked at.",
		Example: "  tasuki image prune --dry-run --free 100GB",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := interruptible(cmd.Context())
			defer stop()
			w, err := a.newImageWork(ctx, file)
			if err != nil {
				return err
			}
			var floor config.Size
			switch {
			case all && free != "":
				return withHint(errors.New("--all and --free are both given"), "keep one of them")
			case all:
				floor = 1 << 62
			case free == "":
				floor = w.floor()
			default:
				if err := floor.UnmarshalText([]byte(free)); err != nil {
					return err
				}
			}
			s, err := w.local()
			if errors.Is(err, image.ErrNotFound) {
				return nil
			}
			if err != nil {
				return err
			}
			keep, err := w.retention(s)
			if err != nil {
				return err
			}
			keep.Floor = int64(floor)
			return a.prune(ctx, s, keep, pruneView{dry, asJSON, quiet})
		},
	}
	registriesFlag(cmd, &file)
	cmd.Flags().StringVar(&free, "free", "", "`space` that shall be free, such as 50GB (default images.keep_free of the configuration)")
	cmd.Flags().BoolVar(&all, "all", false, "remove every image that nothing needs")
	cmd.Flags().BoolVar(&dry, "dry-run", false, "say what would go, and remove nothing")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print it as JSON")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "print digests alone")
	return cmd
}

// retention says what must stay, and why: what pools name, what the agent of
// this home knows of their images, and what guests are clones of.
func (w *imageWork) retention(s *store.Store) (image.Retention, error) {
	var pools []string // nil: no configuration says which there are
	if w.cfg != nil {
		for _, p := range w.cfg.Pools {
			pools = append(pools, p.Name)
		}
	}
	keep, err := agent.NeededImages(w.home, pools)
	if err != nil {
		return keep, err
	}
	cloned, err := w.cloned()
	if err != nil {
		return keep, err
	}
	for digest, guest := range cloned {
		keep.Need(digest, fmt.Sprintf("guest %s is a clone of it", guest))
	}
	if w.cfg == nil {
		return keep, nil
	}
	for _, p := range w.cfg.Pools {
		ref, err := image.Parse(p.Image)
		if err != nil {
			continue // a folder, of a fake guest
		}
		if digest, err := s.Resolve(ref); err == nil {
			keep.Need(digest, fmt.Sprintf("pool %s names it", p.Name))
		}
	}
	return keep, nil
}

// floor is how much an agent of this home keeps free.
func (w *imageWork) floor() config.Size {
	cfg := config.Default()
	if w.cfg != nil {
		cfg.Images = w.cfg.Images
	}
	cfg.Host.Home = w.home
	return config.Size(keepFree(&cfg))
}

// pruneView is how a prune is told.
type pruneView struct{ dry, asJSON, quiet bool }

// keptImage is an image that stays.
type keptImage struct {
	image.Stored
	Why string `json:"why"`
}

// prune removes what may go and tells of everything that is there.
func (a *app) prune(ctx context.Context, s *store.Store, keep image.Retention, view pruneView) error {
	usage, _ := s.Usage() // the prune says which images cannot be read
	done, err := s.Prune(ctx, keep, view.dry)
	if err != nil && len(done.Images) == 0 {
		return err
	}
	kept := []keptImage{}
	for _, img := range usage {
		if !slices.ContainsFunc(done.Images, func(gone image.Stored) bool { return gone.Digest == img.Digest }) {
			kept = append(kept, keptImage{img, cmp.Or(keep.Why(img), "nothing needs it, and there is room for it")})
		}
	}
	if view.asJSON {
		done.Images = append([]image.Stored{}, done.Images...)
		return a.printJSON(struct {
			image.Pruned
			Kept []keptImage `json:"kept"`
		}{done, kept})
	}
	a.printPruned(done, kept, view)
	return err
}

func (a *app) printPruned(done image.Pruned, kept []keptImage, view pruneView) {
	verb := "removed"
	if view.dry {
		verb = "would remove"
	}
	for _, img := range done.Images {
		if view.quiet {
			fmt.Fprintln(a.stdout, img.Digest)
			continue
		}
		fmt.Fprintf(a.stdout, "%s %s  %s  used %s ago  %s\n", verb, shortDigest(img.Digest), human.Bytes(img.Size), human.Duration(time.Since(img.LastUsed)), img.Ref)
	}
	if view.quiet {
		return
	}
	for _, digest := range done.Partials {
		fmt.Fprintf(a.stdout, "%s what is left of a pull of %s\n", verb, shortDigest(digest))
	}
	if view.dry {
		for _, img := range kept {
			fmt.Fprintf(a.stdout, "would keep %s  %s  %s: %s\n", shortDigest(img.Digest), human.Bytes(img.Size), img.Ref, img.Why)
		}
	}
	fmt.Fprintf(a.stderr, "%s %s for %s; %s are free\n", verb, human.Count(len(done.Images), "image"), human.Bytes(done.Freed), human.Bytes(done.Free))
}
