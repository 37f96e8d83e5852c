package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/mirego/tasuki/internal/base/human"
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
		fmt.Fprintf(a.stdout, "%s is what its digest says (%s read)\n", shortDigest(r.Digest), human.Bytes(r.Bytes))
	}
}
