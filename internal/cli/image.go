package cli

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/mirego/tasuki/internal/base/human"
	"github.com/mirego/tasuki/internal/image"
	"github.com/mirego/tasuki/internal/image/store"
)

func newImage(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "image",
		Short: "The guest images of this host, and those of registries",
	}
	cmd.AddCommand(
		newImageLs(a), newImagePull(a), newImagePush(a), newImageCopy(a), newImageInspect(a), newImageDiff(a),
		newImageTag(a), newImageRm(a), newImagePrune(a), newImageVerify(a), newImageBuild(a),
		newImageRefresh(a), newImageRollback(a), newImagePin(a),
	)
	return cmd
}

func newImageLs(a *app) *cobra.Command {
	var asJSON, quiet bool
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List the images that are on this host",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			images, err := a.images()
			if err != nil && len(images) == 0 {
				return err
			}
			if err != nil { // those that are damaged; the others are listed
				a.complain(err, "tasuki image rm DIGEST, then pull it again")
			}
			switch {
			case asJSON:
				return a.printJSON(images)
			case quiet:
				for _, img := range images {
					fmt.Fprintln(a.stdout, img.Digest)
				}
				return nil
			}
			style := statusStyle{width: width(a.stdout), colour: colours(a.stdout)}
			rows := [][]cell{header("DIGEST", "SIZE", "DISK", "GUEST", "RUNNER", "USED", "REFERENCE")}
			for _, img := range images {
				rows = append(rows, imageRow(img))
			}
			_, err = fmt.Fprint(a.stdout, style.table(rows))
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print it as JSON")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "print digests alone")
	return cmd
}

func (a *app) printJSON(v any) error {
	enc := json.NewEncoder(a.stdout)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// images lists what is there, and makes no store where there is none.
func (a *app) images() ([]image.Stored, error) {
	dir := imagesDir(a.home)
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return []image.Stored{}, nil
	}
	s, err := store.Open(dir)
	if err != nil {
		return nil, err
	}
	images, err := s.Usage()
	return append([]image.Stored{}, images...), err
}

func imageRow(img image.Stored) []cell {
	label := func(name string) string { return cmp.Or(img.Labels[name], "?") }
	used := human.Duration(time.Since(img.LastUsed)) + " ago"
	if img.InUse {
		used = "now"
	}
	var names []string
	for _, ref := range img.Tags {
		names = append(names, ref.String())
	}
	return []cell{
		{text: shortDigest(img.Digest)},
		{text: human.Bytes(img.Size)},
		{text: human.Bytes(img.DiskSize)},
		{text: label(image.LabelOS) + "/" + label(image.LabelArch)},
		{text: strings.TrimSpace(label(image.LabelRunnerKind) + " " + img.Labels[image.LabelRunnerVersion])},
		{text: used},
		{text: cmp.Or(strings.Join(names, ", "), img.Ref.String())},
	}
}

// shortDigest is enough of a digest to name an image of this host.
func shortDigest(digest string) string {
	hex := image.DigestHex(digest)
	return hex[:min(len(hex), 12)]
}

// completeImages offers the images of this host: their references and digests.
func (a *app) completeImages(_ *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
	images, _ := a.images()
	var out []string
	for _, img := range images {
		for _, ref := range img.Tags {
			out = append(out, ref.String()+"\t"+shortDigest(img.Digest))
		}
		out = append(out, shortDigest(img.Digest)+"\t"+img.Ref.String())
	}
	kept := out[:0]
	for _, c := range out {
		if strings.HasPrefix(c, typed) {
			kept = append(kept, c)
		}
	}
	return kept, cobra.ShellCompDirectiveNoFileComp
}
