package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/mirego/tasuki/internal/base/human"
	"github.com/mirego/tasuki/internal/config"
	"github.com/mirego/tasuki/internal/registry"
)

func newRegistryGC(a *app) *cobra.Command {
	var dry, asJSON bool
	f := &serveFlags{}
	var grace, untagged time.Duration
	cmd := &cobra.Command{
		Use:   "gc",
		Short: "Delete what no image of the registry needs",
		Long: "Delete what no tag leads to, in a registry that runs or does not. While one that runs deletes,\n" +
			"pushes wait for a moment and pulls go on. What it keeps is what the configuration, or the\n" +
			"flags, say; without either every tag.",
		Example: "  tasuki registry gc --dry-run\n  tasuki registry gc --keep-last 5 --keep-tag 'stable*'",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			f.changed = cmd.Flags().Changed
			conf, err := a.registryConfig(f)
			if err != nil {
				return err
			}
			policy := policyOf(conf.GC)
			if f.changed("grace") {
				policy.Grace = grace
			}
			if f.changed("untagged") {
				policy.Untagged = untagged
			}
			if _, err := os.Stat(conf.Dir); err != nil {
				return withHint(fmt.Errorf("there is no registry in %q", conf.Dir), "name its folder with --dir")
			}
			ctx, stop := interruptible(cmd.Context())
			defer stop()
			report, err := a.collectGarbage(ctx, conf, policy, dry)
			if err != nil {
				return err
			}
			if asJSON {
				enc := json.NewEncoder(a.stdout)
				enc.SetIndent("", "  ")
				return enc.Encode(report)
			}
			printGarbage(a.stdout, report)
			return nil
		},
	}
	flags := cmd.Flags()
	dirFlag(cmd, &f.conf.Dir)
	flags.StringVar(&f.file, "config", "", "configuration `file` of the registry; flags count more")
	flags.BoolVar(&dry, "dry-run", false, "say what would be deleted, and delete nothing")
	flags.IntVar(&f.conf.GC.KeepLast, "keep-last", 0, "keep so many images of each repository, those tagged last; 0 keeps all")
	flags.StringArrayVar(&f.conf.GC.KeepTags, "keep-tag", nil, "`pattern` of tags to keep whatever their age; repeat it for several")
	flags.DurationVar(&grace, "grace", time.Duration(config.Default().Registry.GC.Grace), "keep what came less long ago; 0s only if nobody is pushing")
	flags.DurationVar(&untagged, "untagged", time.Duration(config.Default().Registry.GC.Untagged), "keep images so long that lost their last tag")
	flags.BoolVar(&asJSON, "json", false, "print it as JSON")
	return cmd
}

// collectGarbage has the registry that runs do it, or does it itself.
func (a *app) collectGarbage(ctx context.Context, conf config.RegistryServer, policy registry.Policy, dry bool) (registry.Report, error) {
	lock, err := registry.Lock(conf.Dir)
	if errors.Is(err, registry.ErrRunning) {
		report, err := registry.AskCollect(ctx, conf.Dir, policy, dry)
		if errors.Is(err, registry.ErrBusy) {
			err = withHint(err, "try again when the pushes have ended; it does so by itself too")
		}
		return report, err
	}
	if err != nil {
		return registry.Report{}, err
	}
	defer lock.Close()
	log, err := a.logger()
	if err != nil {
		return registry.Report{}, err
	}
	r, err := registry.New(registry.Options{Dir: conf.Dir, Mirrors: keptMirrors(conf), Log: log})
	if err != nil {
		return registry.Report{}, err
	}
	report, err := r.Collect(ctx, policy, dry)
	return report, errors.Join(err, r.Close())
}

// keptMirrors are the mirrors that the configuration names, and those whose
// folders are there although it does not.
func keptMirrors(conf config.RegistryServer) []registry.Mirror {
	var out []registry.Mirror
	named := map[string]bool{}
	for _, m := range conf.Mirrors {
		name := m.Name
		if name == "" {
			name = m.Upstream
		}
		named[name] = true
		out = append(out, registry.Mirror{Name: m.Name, Upstream: m.Upstream, Keep: time.Duration(m.Keep)})
	}
	entries, _ := os.ReadDir(filepath.Join(conf.Dir, "mirrors"))
	for _, e := range entries {
		if !named[e.Name()] {
			out = append(out, registry.Mirror{Name: e.Name(), Upstream: e.Name()})
		}
	}
	return out
}

func printGarbage(w io.Writer, r registry.Report) {
	verb := "deleted"
	if r.DryRun {
		verb = "would delete"
	}
	for _, t := range r.Tags {
		fmt.Fprintln(w, verb, "tag", t)
	}
	for _, m := range r.Manifests {
		fmt.Fprintln(w, verb, "image", m)
	}
	fmt.Fprintf(w, "%s %d tags, %d images and %d blobs of %s\n", verb, len(r.Tags), len(r.Manifests), r.Blobs, human.Bytes(r.Bytes))
}
