package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/mirego/tasuki/internal/base/human"
	"github.com/mirego/tasuki/internal/config"
	"github.com/mirego/tasuki/internal/config/recipefile"
	"github.com/mirego/tasuki/internal/guest/ssh"
	"github.com/mirego/tasuki/internal/image"
	"github.com/mirego/tasuki/internal/image/cloud"
	"github.com/mirego/tasuki/internal/recipe"
)

type buildFlags struct {
	push, name    string
	vars          []string
	driver, accel string
	arch          string
	config        string
	keep, anew    bool
	timeout       time.Duration
}

func newImageBuild(a *app) *cobra.Command {
	var f buildFlags
	cmd := &cobra.Command{
		Use:   "build RECIPE.yaml",
		Short: "Build a guest image of a recipe",
		Long: "Build a guest image of a recipe: boot a guest of its base, run its steps in it, and take its disk.\n" +
			"What each step leaves is kept, so that a changed step costs itself and those after it. The image goes\n" +
			"to a registry (--push), where pools find it, or stays on this host (--name).",
		Example: "  tasuki image build recipes/linux-runner.yaml --push registry.example.com/runners/linux:stable\n" +
			"  tasuki image build my.yaml --var NODE=22 --keep",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop := interruptible(cmd.Context())
			defer stop()
			return a.buildImage(ctx, args[0], f)
		},
	}
	registriesFlag(cmd, &f.config)
	flags := cmd.Flags()
	flags.StringVar(&f.push, "push", "", "push the image under this `reference`, host/name:tag")
	flags.StringVar(&f.name, "name", "", "keep the image on this host under this `reference`, without a registry")
	flags.StringArrayVar(&f.vars, "var", nil, "give a variable of the recipe another value: `NAME=VALUE`; may be repeated")
	flags.StringVar(&f.driver, "driver", "", "what runs the guest: qemu or tart; by default tart for macOS guests and qemu for others")
	flags.StringVar(&f.accel, "accel", "auto", "how QEMU runs it: auto, kvm, hvf or tcg")
	flags.StringVar(&f.arch, "arch", "", "the guest's architecture with QEMU, amd64 or arm64; another than this machine's is emulated (default this machine's)")
	flags.BoolVar(&f.keep, "keep", false, "when a step fails, leave its guest up until Ctrl-C and say how to get in")
	flags.BoolVar(&f.anew, "anew", false, "run every step, whatever is known of earlier builds")
	flags.DurationVar(&f.timeout, "timeout", 6*time.Hour, "how long it may take in all")
	return cmd
}

// buildDir is the folder of builds in a home.
func buildDir(home string) string { return filepath.Join(home, "build") }

// buildImage reads everything that may be wrong before it does anything.
func (a *app) buildImage(ctx context.Context, path string, f buildFlags) error {
	file, err := recipefile.Load(path)
	if err != nil {
		return err
	}
	vars, err := variables(f.vars)
	if err != nil {
		return err
	}
	names, err := parseNames(f.push, f.name)
	if err != nil {
		return err
	}
	if a.logLevel == "info" {
		a.logLevel = "warn" // the view tells of the build; the log, of what is out of the ordinary
	}
	w, err := a.newImageWork(ctx, f.config)
	if err != nil {
		return err
	}
	f.driver = cmp.Or(f.driver, map[bool]string{true: "tart", false: "qemu"}[file.OS == image.OSDarwin])
	wiring, err := w.buildWiring(f)
	if err != nil {
		return err
	}
	opt, err := w.buildOptions(ctx, f, wiring, file.OS)
	if err != nil {
		return err
	}
	caps := opt.Driver.Capabilities()
	r, err := file.Resolve(ctx, recipefile.Target{Arch: caps.GuestArch, Driver: caps.Driver}, vars)
	if err != nil {
		return err
	}
	sources, err := newBuildSources(w, opt.Log)
	if err != nil {
		return err
	}
	defer sources.close()
	if f.driver == "tart" {
		if sources.tart, err = wiring.tartImagesFor(file.OS); err != nil {
			return err
		}
	}
	opt.Sources = sources
	b, err := recipe.New(opt)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, f.timeout, fmt.Errorf("not done after %v", f.timeout))
	defer cancel()
	began := time.Now()
	built, err := b.Build(ctx, r)
	if err != nil {
		return a.buildError(err, built, f.keep)
	}
	fmt.Fprintf(a.stderr, "%s is built in %v: %s run, %d not changed\n", r.Name, time.Since(began).Round(100*time.Millisecond), human.Count(len(built.Ran), "step"), len(built.Cached))
	return w.deliver(ctx, built.Source, names, sources)
}

// buildWiring wires a driver whose guests are those of builds alone. An agent
// never sees them, nor a build those of an agent.
func (w *imageWork) buildWiring(f buildFlags) (*wiring, error) {
	log, err := w.a.logger()
	if err != nil {
		return nil, err
	}
	installation, err := installationOf(w.home)
	if err != nil {
		return nil, err
	}
	wiring := newWiring(&config.Config{Host: config.Host{
		Home: buildDir(w.home), Prefix: strings.TrimSuffix(buildPrefix, "-"), Accel: f.accel,
	}}, installation, log)
	wiring.arch = f.arch
	return wiring, nil
}

// buildOptions picks what builds.
func (w *imageWork) buildOptions(ctx context.Context, f buildFlags, wiring *wiring, guestOS string) (recipe.Options, error) {
	opt := recipe.Options{
		Dir: buildDir(w.home), Installation: wiring.installation, Prefix: buildPrefix, NewKey: ssh.NewKey, View: newBuildView(w.a.stderr), Anew: f.anew, Log: wiring.log,
		Seed: func(path string, s recipe.Seed) error { return cloud.Seed(s).Write(path) },
	}
	if f.keep {
		opt.Held = w.a.holdBuild
	}
	pool := config.Pool{Settings: config.Settings{Driver: f.driver, Tart: config.Tart{OS: guestOS}}}
	var err error
	opt.Driver, opt.Dialer, err = wiring.driverOf(ctx, pool)
	return opt, err
}

// buildPrefix begins the names of the guests of builds.
const buildPrefix = "build-"

// variables reads NAME=VALUE.
func variables(args []string) (map[string]string, error) {
	out := map[string]string{}
	for _, arg := range args {
		name, value, ok := strings.Cut(arg, "=")
		if !ok || name == "" {
			return nil, withHint(fmt.Errorf("cannot read variable %q", arg), "write --var NAME=VALUE")
		}
		out[name] = value
	}
	return out, nil
}

// imageNames are where a built image goes; a zero reference means nowhere.
type imageNames struct{ push, local image.Ref }

func parseNames(push, local string) (names imageNames, err error) {
	for s, ref := range map[string]*image.Ref{push: &names.push, local: &names.local} {
		if s == "" {
			continue
		}
		if *ref, err = parseRef(s); err != nil {
			return names, err
		}
		if ref.Digest() != "" {
			return names, withHint(fmt.Errorf("cannot name an image %q: it has a digest of its own", s), "write host/name:tag")
		}
	}
	return names, nil
}

// buildError adds what helps to a failed build.
func (a *app) buildError(err error, built recipe.Built, kept bool) error {
	step, ok := errors.AsType[*recipe.StepError](err)
	if !ok {
		return err
	}
	if len(step.Last) > 0 {
		fmt.Fprintf(a.stderr, "the last lines of step %q:\n", step.Step)
		for _, line := range step.Last {
			fmt.Fprintln(a.stderr, "  "+line)
		}
	}
	hint := "all that the steps printed is in " + built.Log
	if !kept {
		hint += "; with --keep the guest stays up, to look into it"
	}
	return withHint(err, hint)
}

// holdBuild says how to get into a guest and waits until the user is done.
func (a *app) holdBuild(ctx context.Context, g recipe.Held) {
	host, port, err := net.SplitHostPort(g.Address)
	if err != nil {
		host, port = g.Address, "22"
	}
	fmt.Fprintf(a.stderr, "the guest stays up; Ctrl-C ends it. To get in:\n"+
		"  ssh -i %s -o IdentitiesOnly=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -p %s %s@%s\n", g.KeyFile, port, g.User, host)
	<-ctx.Done()
}
