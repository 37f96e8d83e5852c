package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/mirego/tasuki/internal/base/human"
	"github.com/mirego/tasuki/internal/image"
	"github.com/mirego/tasuki/internal/image/transfer"
)

func newImageInspect(a *app) *cobra.Command {
	var file string
	var asJSON, raw, here bool
	cmd := &cobra.Command{
		Use:   "inspect IMAGE",
		Short: "Say what an image is, without bringing it here",
		Long: "Say what an image is, without bringing it here: IMAGE is a reference, which its registry is asked about, or\n" +
			"the digest, or its first digits, of an image of this host.",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeImages,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop := interruptible(cmd.Context())
			defer stop()
			w, err := a.newImageWork(ctx, file)
			if err != nil {
				return err
			}
			in, err := w.inspect(ctx, args[0], here)
			switch {
			case err != nil:
				return err
			case raw:
				_, err = a.stdout.Write(in.Raw)
				return err
			case asJSON:
				return a.printJSON(in)
			}
			return printInspection(a.stdout, in)
		},
	}
	registriesFlag(cmd, &file)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print it as JSON")
	cmd.Flags().BoolVar(&raw, "raw", false, "print the manifest, byte for byte")
	cmd.Flags().BoolVar(&here, "local", false, "take a reference for what it last meant on this host, and ask nobody")
	return cmd
}

// inspect looks at an image of this host or of a registry.
func (w *imageWork) inspect(ctx context.Context, name string, here bool) (transfer.Inspection, error) {
	ref, err := image.Parse(name)
	if here || (err != nil && !strings.ContainsAny(name, "/:@")) || image.CheckDigest(name) == nil || strings.HasPrefix(name, "sha256:") {
		_, img, err := w.find(name)
		if err != nil {
			return transfer.Inspection{}, err
		}
		return transfer.InspectLocal(img)
	}
	if ref, err = parseRef(name); err != nil {
		return transfer.Inspection{}, err
	}
	opt, err := w.options(ctx, ref)
	if err != nil {
		return transfer.Inspection{}, err
	}
	in, err := transfer.Inspect(ctx, ref, opt)
	return in, w.explain(ctx, ref, err)
}

func printInspection(out io.Writer, in transfer.Inspection) error {
	var b strings.Builder
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "%-10s %s\n", name, fmt.Sprintf(format, args...))
	}
	if !in.Ref.IsZero() {
		line("reference", "%s", in.Ref)
	}
	line("digest", "%s", in.Digest)
	line("guest", "%s/%s", orUnknown(in.Labels[image.LabelOS]), orUnknown(in.Labels[image.LabelArch]))
	line("disk", "%s, %s of it zeros", human.Bytes(in.DiskSize), human.Bytes(in.Zeros))
	line("download", "%s in %d layers of up to %s", human.Bytes(in.Download), in.Layers, human.Bytes(in.LargestLayer))
	if !in.UploadTime.IsZero() {
		line("pushed", "%s, %s ago", in.UploadTime.Format(time.RFC3339), human.Duration(time.Since(in.UploadTime)))
	}
	for _, name := range slices.Sorted(maps.Keys(in.Labels)) {
		line("label", "%s=%s", name, oneLine(in.Labels[name]))
	}
	_, err := io.WriteString(out, b.String())
	return err
}

func orUnknown(s string) string {
	if s == "" {
		return "?"
	}
	return s
}

func newImageDiff(a *app) *cobra.Command {
	var file string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "diff FROM TO",
		Short: "Say what a host that has one image has to fetch for another",
		Long: "Say what a host that has the image FROM has to fetch for TO. Both are references, or digests of images of\n" +
			"this host. The exit status is 0 also if they differ.",
		Args:              cobra.ExactArgs(2),
		ValidArgsFunction: a.completeImages,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop := interruptible(cmd.Context())
			defer stop()
			w, err := a.newImageWork(ctx, file)
			if err != nil {
				return err
			}
			var both [2]transfer.Inspection
			for i, arg := range args {
				if both[i], err = w.inspect(ctx, arg, false); err != nil {
					return err
				}
			}
			d := transfer.Diff(both[0], both[1])
			if asJSON {
				return a.printJSON(d)
			}
			return printDifference(a.stdout, d, both)
		},
	}
	registriesFlag(cmd, &file)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print it as JSON")
	return cmd
}

func printDifference(out io.Writer, d transfer.Difference, both [2]transfer.Inspection) error {
	var b strings.Builder
	if d.From == d.To {
		fmt.Fprintf(&b, "they are the same image, %s\n", d.To)
	} else {
		fmt.Fprintf(&b, "fetch  %s in %d layers, for %s of the disk\n", human.Bytes(d.FetchBytes), d.Fetch, human.Bytes(d.FetchRaw))
		fmt.Fprintf(&b, "have   %s of the disk in %d layers\n", human.Bytes(d.HaveRaw), d.Have)
	}
	for _, name := range d.Labels {
		fmt.Fprintf(&b, "label  %s: %q is now %q\n", name, both[0].Labels[name], both[1].Labels[name])
	}
	_, err := io.WriteString(out, b.String())
	return err
}

func newImageTag(a *app) *cobra.Command {
	var file string
	var quiet bool
	cmd := &cobra.Command{
		Use:   "tag OLD NEW",
		Short: "Give an image another name in its registry, without moving it",
		Long: "Give the image OLD another name in its registry: NEW is a tag, or a whole reference to the same registry.\n" +
			"Nothing is downloaded.",
		Example: "  tasuki image tag registry.example.com/linux:2026-11-23 stable",
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop := interruptible(cmd.Context())
			defer stop()
			w, err := a.newImageWork(ctx, file)
			if err != nil {
				return err
			}
			old, err := parseRef(args[0])
			if err != nil {
				return err
			}
			to := old.WithTag(args[1])
			if to.IsZero() {
				if to, err = parseRef(args[1]); err != nil {
					return err
				}
			}
			if to.Registry() != old.Registry() {
				return withHint(errors.New("the two names are in different registries"), fmt.Sprintf("tasuki image copy %s %s", old, to))
			}
			opt, err := w.options(ctx, old)
			if err != nil {
				return err
			}
			digest, err := transfer.Tag(ctx, old, to, opt)
			if err != nil {
				return w.explain(ctx, old, err)
			}
			if !quiet {
				fmt.Fprintf(a.stderr, "%s is now %s\n", to, shortDigest(digest))
			}
			_, err = fmt.Fprintln(a.stdout, digest)
			return err
		},
	}
	registriesFlag(cmd, &file)
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "print the digest alone")
	return cmd
}
