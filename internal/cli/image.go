package cli

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"github.com/mirego/tasuki/internal/image"
	"github.com/mirego/tasuki/internal/image/store"
)

func newImage(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "image",
		Short: "The guest images of this host",
	}
	cmd.AddCommand(newImageLs(a))
	return cmd
}

func newImageLs(a *app) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List the images that are on this host",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			images, err := a.images()
			if err != nil {
				return err
			}
			if asJSON {
				enc := json.NewEncoder(a.stdout)
				enc.SetIndent("", "  ")
				return enc.Encode(images)
			}
			style := statusStyle{width: width(a.stdout), colour: colours(a.stdout)}
			rows := [][]cell{header("DIGEST", "DISK", "GUEST", "RUNNER", "REFERENCE")}
			for _, img := range images {
				rows = append(rows, imageRow(img))
			}
			_, err = fmt.Fprint(a.stdout, style.table(rows))
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print it as JSON")
	return cmd
}

// images lists what is there, and makes no store where there is none.
func (a *app) images() ([]image.Local, error) {
	dir := imagesDir(a.home)
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return []image.Local{}, nil
	}
	s, err := store.Open(dir)
	if err != nil {
		return nil, err
	}
	images, err := s.List()
	return append([]image.Local{}, images...), err
}

func imageRow(img image.Local) []cell {
	hex := image.DigestHex(img.Digest)
	label := func(name string) string { return cmp.Or(img.Labels[name], "?") }
	return []cell{
		{text: hex[:min(len(hex), 12)]},
		{text: fmt.Sprintf("%.1f GB", float64(img.DiskSize)/1e9)},
		{text: label(image.LabelOS) + "/" + label(image.LabelArch)},
		{text: label(image.LabelRunnerKind) + " " + img.Labels[image.LabelRunnerVersion]},
		{text: img.Ref.String()},
	}
}
