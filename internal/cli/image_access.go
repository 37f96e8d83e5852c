package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mirego/tasuki/internal/config"
	"github.com/mirego/tasuki/internal/image"
	"github.com/mirego/tasuki/internal/image/store"
	"github.com/mirego/tasuki/internal/image/tartfmt"
	"github.com/mirego/tasuki/internal/image/transfer"
)

// imageWork is what commands on images work with: the store of the home and
// the ways into registries.
type imageWork struct {
	a      *app
	home   string
	cfg    *config.Config // nil where there is no file
	logins registryAccess
	opt    transfer.Options // what flags say
}

// newImageWork reads the configuration if there is one: it may name the home,
// and registries. The file that was named must be there.
func (a *app) newImageWork(ctx context.Context, file string) (*imageWork, error) {
	log, err := a.logger()
	if err != nil {
		return nil, err
	}
	w := &imageWork{a: a, home: a.home, opt: transfer.Options{Log: log}}
	cfg, err := config.LoadRegistries(a.configFile([]string{file}))
	switch {
	case errors.Is(err, fs.ErrNotExist) && file == "":
	case err != nil:
		return nil, err
	default:
		w.cfg = cfg
		if file != "" && !a.homeGiven {
			w.home = cfg.Host.Home
		}
	}
	w.logins, err = registryLogins(ctx, w.cfg)
	return w, err
}

func registriesFlag(cmd *cobra.Command, file *string) {
	cmd.Flags().StringVarP(file, "config", "c", "", "configuration `file` that names registries (default config.yaml in --home, if there is one)")
}

func (w *imageWork) open() (*store.Store, error) { return store.Open(imagesDir(w.home)) }

// local opens the store only if there is one.
func (w *imageWork) local() (*store.Store, error) {
	if _, err := os.Stat(imagesDir(w.home)); err != nil {
		return nil, fmt.Errorf("%w: there are no images in %s", image.ErrNotFound, w.home)
	}
	return w.open()
}

// find returns the image of this host that a person means.
func (w *imageWork) find(name string) (*store.Store, image.Local, error) {
	s, err := w.local()
	if err != nil {
		return nil, image.Local{}, err
	}
	img, err := s.Find(name)
	if errors.Is(err, image.ErrNotFound) {
		err = withHint(err, "tasuki image ls shows what is here; tasuki image pull brings more")
	}
	return s, img, err
}

// parseRef reads a reference that the user typed.
func parseRef(s string) (image.Ref, error) {
	ref, err := image.Parse(s)
	if err != nil {
		return ref, withHint(err, "references are HOST/NAME:TAG or HOST/NAME@sha256:…, such as registry.example.com/team/linux:stable")
	}
	return ref, nil
}

// options says how ref's registry is spoken to.
func (w *imageWork) options(ctx context.Context, ref image.Ref) (transfer.Options, error) {
	opt := w.opt
	return opt, w.logins.apply(ctx, ref, &opt)
}

// explain adds to an error of a registry what to do about it.
func (w *imageWork) explain(ctx context.Context, ref image.Ref, err error) error {
	host := ref.Registry()
	switch {
	case err == nil || ctx.Err() != nil:
		return err
	case errors.Is(err, transfer.ErrDenied):
		how := fmt.Sprintf("docker login %s, or an entry for it under registries: in the configuration", host)
		if who := w.logins.who(ctx, ref); who != "" {
			how = fmt.Sprintf("user %q is who logged in to %s: is the password right, and may that user do this? docker login %s, or registries: in the configuration, changes it", who, host, host)
		}
		return withHint(err, how)
	case errors.Is(err, image.ErrNotInRegistry):
		return withHint(err, w.nearTags(ctx, ref))
	case errors.Is(err, tartfmt.ErrFormat):
		return withHint(err, "Tasuki runs virtual machines: images in tart's format, as tasuki image push, tart push and Packer's tart builder make them; a container image is none")
	case errors.Is(err, image.ErrNoSpace):
		return withHint(err, "tasuki image prune --dry-run says what could go")
	case strings.Contains(err.Error(), "certificate"):
		return withHint(err, fmt.Sprintf("registries: [{host: %q, ca: FILE}] in the configuration names the authority that signed it", host))
	case strings.Contains(err.Error(), "connection refused"), strings.Contains(err.Error(), "no such host"):
		return withHint(err, fmt.Sprintf("does a registry run at %s? tasuki registry serve starts one", host))
	}
	return err
}

// nearTags names the tags of the repository that are most like the missing one.
func (w *imageWork) nearTags(ctx context.Context, ref image.Ref) string {
	opt, err := w.options(ctx, ref)
	if err != nil {
		return ""
	}
	opt.Tries = 1
	tags, err := transfer.Tags(ctx, ref, opt)
	tags = slices.DeleteFunc(tags, func(t string) bool { return strings.HasPrefix(t, "sha256-") })
	if err != nil || len(tags) == 0 {
		return fmt.Sprintf("the registry has nothing called %s; is the name right?", ref.Name())
	}
	slices.SortStableFunc(tags, func(a, b string) int { return cmp.Compare(distance(a, ref.Tag()), distance(b, ref.Tag())) })
	return fmt.Sprintf("tags of %s: %s", ref.Name(), strings.Join(tags[:min(len(tags), 5)], ", "))
}

// distance counts the letters to change to make b of a (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		before := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := before
			if a[i] != b[j] {
				change++
			}
			before = row[j+1]
			row[j+1] = min(change, row[j+1]+1, row[j]+1)
		}
	}
	return row[len(b)]
}
