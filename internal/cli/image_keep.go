package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/mirego/tasuki/internal/config"
	"github.com/mirego/tasuki/internal/image"
	"github.com/mirego/tasuki/internal/image/store"
	"github.com/mirego/tasuki/internal/image/transfer"
)

// cloned returns the images that guests of this home are clones of, with the
// name of one guest each. Guests outlive the agent, and so does their need.
func (w *imageWork) cloned() (map[string]string, error) {
	records, err := filepath.Glob(filepath.Join(w.home, "guests", "*", "guest.json"))
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for _, path := range records {
		b, err := os.ReadFile(path)
		if errors.Is(err, os.ErrNotExist) {
			continue // deleted meanwhile
		}
		var r struct {
			Image string `json:"image"`
		}
		if err == nil {
			err = json.Unmarshal(b, &r)
		}
		if err != nil {
			return nil, fmt.Errorf("cannot tell which images guests need: %s: %w", path, err)
		}
		out[r.Image] = filepath.Base(filepath.Dir(path))
	}
	return out, nil
}

func newImageRm(a *app) *cobra.Command {
	var quiet bool
	cmd := &cobra.Command{
		Use:   "rm IMAGE...",
		Short: "Remove images from this host",
		Long: "Remove images from this host: by digest, its first digits, or a reference. Registries keep them. One\n" +
			"that a guest is a clone of, or that is being moved, stays.",
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: a.completeImages,
		RunE: func(cmd *cobra.Command, args []string) error {
			w, err := a.newImageWork(cmd.Context(), "")
			if err != nil {
				return err
			}
			s, err := w.local()
			if err != nil {
				return err
			}
			cloned, err := w.cloned()
			if err != nil {
				return err
			}
			for _, arg := range args {
				digest, err := s.Lookup(arg)
				if err != nil {
					return withHint(err, "tasuki image ls shows what is here")
				}
				if guest := cloned[digest]; guest != "" {
					return withHint(fmt.Errorf("cannot remove image %s: %w: guest %s is a clone of it", shortDigest(digest), image.ErrInUse, guest), "tasuki status shows what it does; it goes when its job has ended")
				}
				if err := s.Remove(digest); err != nil {
					if errors.Is(err, image.ErrInUse) {
						err = withHint(err, "a transfer or the agent holds it; try again later")
					}
					return err
				}
				if !quiet {
					fmt.Fprintln(a.stdout, digest)
				}
			}
			return nil
		},
	}
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "print nothing")
	return cmd
}

func newImagePrune(a *app) *cobra.Command {
	var file, free string
	var dry, asJSON, quiet, all bool
	cmd := &cobra.Command{
		Use:   "prune",
		Short: "Remove images that nothing needs until there is space",
		Long: "Remove images that no pool names and no guest needs, the least recently used first, until --free is free on\n" +
			"the disk; with --all every such image. Registries keep them.",
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
				return withHint(errors.New("how much space is wanted?"), "tasuki image prune --free 50GB, or --all")
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
			done, err := s.Prune(ctx, keep, dry)
			if err != nil {
				return err
			}
			return a.printPruned(done, dry, asJSON, quiet)
		},
	}
	registriesFlag(cmd, &file)
	cmd.Flags().StringVar(&free, "free", "", "`space` that shall be free, such as 50GB")
	cmd.Flags().BoolVar(&all, "all", false, "remove every image that nothing needs")
	cmd.Flags().BoolVar(&dry, "dry-run", false, "say what would go, and remove nothing")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print it as JSON")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "print digests alone")
	return cmd
}

// retention says what must stay: what pools name, what they named before, and
// what guests are clones of.
func (w *imageWork) retention(s *store.Store) (image.Retention, error) {
	cloned, err := w.cloned()
	if err != nil {
		return image.Retention{}, err
	}
	keep := image.Retention{}
	for digest := range cloned {
		keep.InUse = append(keep.InUse, digest)
	}
	slices.Sort(keep.InUse)
	if w.cfg == nil {
		return keep, nil
	}
	for _, p := range w.cfg.Pools {
		ref, err := image.Parse(p.Image)
		if err != nil {
			continue // a folder, of a fake guest
		}
		if digest, err := s.Resolve(ref); err == nil {
			keep.Named = append(keep.Named, digest)
		}
	}
	return keep, nil
}

func (a *app) printPruned(done store.Pruned, dry, asJSON, quiet bool) error {
	if asJSON {
		if done.Images == nil {
			done.Images = []image.Stored{}
		}
		return a.printJSON(done)
	}
	verb := "removed"
	if dry {
		verb = "would remove"
	}
	for _, img := range done.Images {
		if quiet {
			fmt.Fprintln(a.stdout, img.Digest)
			continue
		}
		fmt.Fprintf(a.stdout, "%s %s  %s  used %s ago  %s\n", verb, shortDigest(img.Digest), bytesText(img.Size), human(time.Since(img.LastUsed)), img.Ref)
	}
	for _, digest := range done.Partials {
		if !quiet {
			fmt.Fprintf(a.stdout, "%s what is left of a pull of %s\n", verb, shortDigest(digest))
		}
	}
	if !quiet {
		fmt.Fprintf(a.stderr, "%s %s for %s; %s are free\n", verb, count(len(done.Images), "image"), bytesText(done.Freed), bytesText(done.Free))
	}
	return nil
}

func newImageVerify(a *app) *cobra.Command {
	var asJSON, quiet bool
	cmd := &cobra.Command{
		Use:   "verify [IMAGE...]",
		Short: "Read images of this host and compare them with their digests",
		Long: "Read images of this host whole and compare them with their digests; without IMAGE all of them. The exit\n" +
			"status is 1 if one differs.",
		ValidArgsFunction: a.completeImages,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop := interruptible(cmd.Context())
			defer stop()
			w, err := a.newImageWork(ctx, "")
			if err != nil {
				return err
			}
			s, err := w.local()
			if err != nil {
				return err
			}
			digests, err := toVerify(s, args)
			if err != nil {
				return err
			}
			view := a.transferView(quiet || asJSON)
			results, bad := []verifyResult{}, false
			for _, digest := range digests {
				v, err := s.Verify(ctx, digest, func(done, total int64) {
					if view != nil {
						view.progress(transfer.Progress{Phase: transfer.PhaseCheck, Done: done, Total: total})
					}
				})
				view.end()
				r := verifyResult{Digest: digest, Verified: v, Well: err == nil}
				if err != nil {
					if !errors.Is(err, image.ErrDamaged) {
						return err
					}
					bad, r.Error = true, err.Error()
				}
				results = append(results, r)
				a.tellVerified(r, err, asJSON, quiet)
			}
			if asJSON {
				err = a.printJSON(results)
			}
			if bad && err == nil {
				return errNo
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print it as JSON")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "print nothing but what is wrong")
	return cmd
}

type verifyResult struct {
	Digest string `json:"digest"`
	Well   bool   `json:"well"`
	store.Verified
	Error string `json:"error,omitempty"`
}

func toVerify(s *store.Store, args []string) (digests []string, err error) {
	if len(args) == 0 {
		all, err := s.List()
		for _, img := range all {
			digests = append(digests, img.Digest)
		}
		return digests, err
	}
	for _, arg := range args {
		digest, err := s.Lookup(arg)
		if err != nil {
			return nil, withHint(err, "tasuki image ls shows what is here")
		}
		digests = append(digests, digest)
	}
	return digests, nil
}

func (a *app) tellVerified(r verifyResult, err error, asJSON, quiet bool) {
	switch {
	case asJSON:
	case err != nil:
		a.complain(err, "tasuki image rm "+shortDigest(r.Digest)+", then pull it again")
	case !quiet:
		fmt.Fprintf(a.stdout, "%s is what its digest says (%s read)\n", shortDigest(r.Digest), bytesText(r.Bytes))
	}
}
