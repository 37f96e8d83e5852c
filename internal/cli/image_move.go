package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/mirego/tasuki/internal/base/human"
	"github.com/mirego/tasuki/internal/config"
	"github.com/mirego/tasuki/internal/image"
	"github.com/mirego/tasuki/internal/image/transfer"
)

// moveFlags are those of commands that move images.
type moveFlags struct {
	file          string
	quiet, asJSON bool
	limit         string
	parallel      int
}

func (f *moveFlags) add(cmd *cobra.Command) {
	registriesFlag(cmd, &f.file)
	cmd.Flags().BoolVarP(&f.quiet, "quiet", "q", false, "print the digest alone")
	cmd.Flags().BoolVar(&f.asJSON, "json", false, "print the result as JSON")
	cmd.Flags().StringVar(&f.limit, "limit", "", "most `bytes` per second, such as 20MB")
	cmd.Flags().IntVar(&f.parallel, "parallel", 0, "how many layers are in work at once (default 4)")
}

// work makes what the command works with, and a view of what it does.
func (f *moveFlags) work(ctx context.Context, a *app) (*imageWork, *transferView, error) {
	w, err := a.newImageWork(ctx, f.file)
	if err != nil {
		return nil, nil, err
	}
	if f.limit != "" {
		var size config.Size
		if err := size.UnmarshalText([]byte(strings.TrimSuffix(f.limit, "/s"))); err != nil || size <= 0 {
			return nil, nil, withHint(fmt.Errorf("cannot limit to %q", f.limit), "write bytes per second, such as --limit 20MB")
		}
		w.opt.Limit = transfer.NewLimiter(int64(size))
	}
	w.opt.Parallel = f.parallel
	view := a.transferView(f.quiet || f.asJSON)
	if view != nil {
		w.opt.Progress = view.progress
	}
	return w, view, nil
}

// moved is what a pull or push tells programs.
type moved struct {
	Ref    image.Ref `json:"ref"`
	Digest string    `json:"digest"`
	// Bytes is how long what it is made of is; Reused did not travel.
	Bytes  int64 `json:"bytes"`
	Reused int64 `json:"reused"`
	Millis int64 `json:"milliseconds"`
}

func newImagePull(a *app) *cobra.Command {
	f := &moveFlags{}
	cmd := &cobra.Command{
		Use:   "pull REFERENCE...",
		Short: "Bring images from a registry to this host",
		Long: "Bring images from a registry to this host, verified, and only what no image here has already.\n" +
			"A pull that was cut goes on where it was. An agent that runs on the same home is no matter.",
		Example: "  tasuki image pull registry.example.com/team/linux:stable",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop := interruptible(cmd.Context())
			defer stop()
			w, view, err := f.work(ctx, a)
			if err != nil {
				return err
			}
			s, err := w.open()
			if err != nil {
				return err
			}
			for _, arg := range args {
				ref, err := parseRef(arg)
				if err != nil {
					return err
				}
				start := time.Now()
				tally := &tally{next: w.opt.Progress}
				opt, err := w.options(ctx, ref)
				if err != nil {
					return err
				}
				opt.Progress = tally.add
				img, err := transfer.Pull(ctx, ref, s, opt)
				view.end()
				if err != nil {
					return w.explain(ctx, ref, err)
				}
				if err := a.told(f, moved{ref, img.Digest, tally.total, tally.reused, time.Since(start).Milliseconds()}, "pulled"); err != nil {
					return err
				}
			}
			return nil
		},
	}
	f.add(cmd)
	return cmd
}

// tally adds up what the phases of a transfer moved.
type tally struct {
	next          func(transfer.Progress)
	total, reused int64
}

func (t *tally) add(p transfer.Progress) {
	switch p.Phase {
	case transfer.PhasePull, transfer.PhasePush, transfer.PhaseCopy:
		t.total, t.reused = p.Done, p.Reused
	}
	if t.next != nil {
		t.next(p)
	}
}

// told prints the result of a transfer.
func (a *app) told(f *moveFlags, m moved, verb string) error {
	if f.asJSON {
		return a.printJSON(m)
	}
	if !f.quiet {
		text := fmt.Sprintf("%s %s: %s in %s", verb, m.Ref, human.Bytes(m.Bytes-m.Reused), took(time.Duration(m.Millis)*time.Millisecond))
		if m.Bytes == 0 {
			text = fmt.Sprintf("%s is here already", m.Ref)
		} else if m.Reused > 0 {
			text += fmt.Sprintf(", %s did not have to move", human.Bytes(m.Reused))
		}
		fmt.Fprintln(a.stderr, text)
	}
	_, err := fmt.Fprintln(a.stdout, m.Digest)
	return err
}

// took writes a duration that a person waited for.
func took(d time.Duration) string {
	if d < 10*time.Second {
		return fmt.Sprintf("%.1f s", d.Seconds())
	}
	return human.Duration(d)
}

// diskFlags describe a disk that is no image yet.
type diskFlags struct {
	disk, nvram, kernel, initrd string
	labels                      []string
	chunk                       string
}

func newImagePush(a *app) *cobra.Command {
	f, d := &moveFlags{}, &diskFlags{}
	cmd := &cobra.Command{
		Use:   "push [IMAGE] REFERENCE",
		Short: "Bring an image of this host, or a disk, to a registry",
		Long: "Bring an image of this host to a registry: IMAGE is a digest, its first digits, or a reference; without\n" +
			"it, it is the one that REFERENCE means here. What the registry has is not sent. With --disk it is\n" +
			"a raw disk instead, which becomes an image by being pushed.",
		Example: "  tasuki image push 3fa91c20 registry.example.com/team/linux:stable\n" +
			"  tasuki image push --disk disk.img --label org.tasuki.os=linux registry.example.com/team/linux:new",
		Args:              cobra.RangeArgs(1, 2),
		ValidArgsFunction: a.completeImages,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop := interruptible(cmd.Context())
			defer stop()
			w, view, err := f.work(ctx, a)
			if err != nil {
				return err
			}
			return a.pushImage(ctx, w, view, f, d, args)
		},
	}
	f.add(cmd)
	flags := cmd.Flags()
	flags.StringVar(&d.disk, "disk", "", "raw disk `file` to make an image of")
	flags.StringVar(&d.nvram, "nvram", "", "`file` with the firmware's variables, for --disk")
	flags.StringVar(&d.kernel, "kernel", "", "kernel `file`, for a disk that boots by kernel and initrd")
	flags.StringVar(&d.initrd, "initrd", "", "initrd `file`, likewise")
	flags.StringArrayVar(&d.labels, "label", nil, "label of the image, `NAME=VALUE`; repeat it for several. With IMAGE, beside those it has")
	flags.StringVar(&d.chunk, "chunk", "", "`size` of the layers of a disk (default 16MiB; tart writes 512MiB)")
	return cmd
}

func (a *app) pushImage(ctx context.Context, w *imageWork, view *transferView, f *moveFlags, d *diskFlags, args []string) error {
	ref, err := parseRef(args[len(args)-1])
	if err != nil {
		return err
	}
	if d.chunk != "" {
		var size config.Size
		if err := size.UnmarshalText([]byte(d.chunk)); err != nil || size < 1<<20 {
			return withHint(fmt.Errorf("cannot cut layers of %q", d.chunk), "write a size of 1MiB or more, such as --chunk 16MiB")
		}
		w.opt.ChunkSize = int64(size)
	}
	src, original, release, err := w.pushSource(d, args)
	if err != nil {
		return err
	}
	defer release()
	start := time.Now()
	tally := &tally{next: w.opt.Progress}
	opt, err := w.options(ctx, ref)
	if err != nil {
		return err
	}
	opt.Progress = tally.add
	if original != "" {
		if in, err := transfer.InspectLocal(src.Base); err == nil && !in.UploadTime.IsZero() {
			opt.Now = func() time.Time { return in.UploadTime } // the same image keeps its digest
		}
	}
	digest, err := transfer.Push(ctx, src, ref, opt)
	view.end()
	if err != nil {
		return w.explain(ctx, ref, err)
	}
	if original != "" && digest != original && len(d.labels) == 0 {
		fmt.Fprintf(a.stderr, "note: here its digest is %s; tasuki image copy brings an image from a registry to another as it is\n", shortDigest(original))
	}
	return a.told(f, moved{ref, digest, tally.total, tally.reused, time.Since(start).Milliseconds()}, "pushed")
}

// pushSource finds what is to be pushed, and holds it. The digest is that of
// an image of this host, or "".
func (w *imageWork) pushSource(d *diskFlags, args []string) (src image.Source, digest string, release func(), err error) {
	release = func() {}
	labels := map[string]string{}
	for _, l := range d.labels {
		name, value, ok := strings.Cut(l, "=")
		if !ok || name == "" {
			return src, "", release, withHint(fmt.Errorf("%q is not a label", l), "write --label NAME=VALUE")
		}
		labels[name] = value
	}
	if d.disk != "" {
		if len(args) > 1 {
			return src, "", release, withHint(errors.New("there are a disk and an image"), "leave out one of --disk and IMAGE")
		}
		// Without its config.json, which holds the machine's identity, no Mac
		// starts it; and macOS is what an image without the label counts for.
		if labels[image.LabelOS] != image.OSLinux {
			return src, "", release, withHint(fmt.Errorf("cannot push %q: a disk alone is enough for Linux only", d.disk),
				"say that it is one: --label "+image.LabelOS+"="+image.OSLinux+"; a macOS virtual machine is pushed by tart push")
		}
		return image.Source{Disk: d.disk, NVRAM: d.nvram, Kernel: d.kernel, Initrd: d.initrd, Labels: labels}, "", release, nil
	}
	s, img, err := w.find(args[0])
	if err != nil {
		return src, "", release, err
	}
	if release, err = s.Hold(img.Digest); err != nil {
		return src, "", func() {}, err
	}
	src = image.Source{Disk: img.Disk, NVRAM: img.NVRAM, Kernel: img.Kernel, Initrd: img.Initrd, Base: img, Labels: map[string]string{}}
	for _, from := range []map[string]string{img.Labels, labels} {
		for k, v := range from {
			src.Labels[k] = v
		}
	}
	if img.ConfigFile != "" {
		src.ConfigJSON, err = os.ReadFile(img.ConfigFile)
	}
	return src, img.Digest, release, err
}

func newImageCopy(a *app) *cobra.Command {
	f := &moveFlags{}
	cmd := &cobra.Command{
		Use:   "copy FROM TO",
		Short: "Bring an image from one registry to another, past this host's disk",
		Long: "Bring an image from one registry to another as it is: its digest stays, and what the other has is not\n" +
			"moved. Nothing is kept on this host.",
		Example: "  tasuki image copy ghcr.io/cirruslabs/macos-sequoia-base:latest registry.example.com/macos:sequoia",
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop := interruptible(cmd.Context())
			defer stop()
			w, view, err := f.work(ctx, a)
			if err != nil {
				return err
			}
			var places [2]transfer.Place
			for i, arg := range args {
				if places[i].Ref, err = parseRef(arg); err != nil {
					return err
				}
				if places[i].Options, err = w.options(ctx, places[i].Ref); err != nil {
					return err
				}
			}
			start := time.Now()
			done, err := transfer.Copy(ctx, places[0], places[1])
			view.end()
			if err != nil {
				ref := places[1].Ref
				if errors.Is(err, image.ErrNotInRegistry) {
					ref = places[0].Ref
				}
				return w.explain(ctx, ref, err)
			}
			if f.asJSON {
				return a.printJSON(done)
			}
			if !f.quiet {
				fmt.Fprintf(a.stderr, "copied %s to %s: %s in %s, %d of its blobs were there\n", args[0], args[1], human.Bytes(done.Bytes), took(time.Since(start)), done.Present)
			}
			_, err = fmt.Fprintln(a.stdout, done.Digest)
			return err
		},
	}
	f.add(cmd)
	return cmd
}
