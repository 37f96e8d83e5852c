package cli

import (
	"context"
	_ "embed" // for the workflow below
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/mirego/tasuki/internal/emulator/workflow"
)

// demoHello is what a demo runs when it is given nothing.
//
//go:embed demo_hello.yml
var demoHello []byte

// demoFlags are what a user may say of a demo.
type demoFlags struct {
	slots   int
	driver  string
	labels  []string
	runner  string
	mirror  string
	timeout time.Duration

	imageFrom string
	vars      []string
	plain     bool

	scaleSet bool
}

func newDemo(a *app) *cobra.Command {
	var f demoFlags
	cmd := &cobra.Command{
		Use:   "demo [WORKFLOW.yml ...]",
		Short: "Run workflows in fresh virtual machines, without GitHub",
		Long: `Run workflows in fresh virtual machines, without GitHub.

The demo starts a stand-in for GitHub, an image registry and the host agent in
this process, builds a Debian guest image of a recipe on its first run, and
drives the whole loop for each job. It needs no account; the network only for
what Debian publishes. Without a workflow it runs a small one of its own.

Exit status: 0 if every job succeeded, 1 if a job failed, 2 for trouble of the
demo itself, 130 after Ctrl-C. Everything it keeps lies in one folder,
~/.cache/tasuki/demo or --home, which may be deleted at any time between demos.
While it runs, "tasuki status --home FOLDER" shows what its agent does.`,
		Example: `  tasuki demo
  tasuki demo examples/workflows/relay.yml
  tasuki demo --scaleset
  tasuki demo --image-from cloud
  tasuki demo --slots 1 --label ubuntu-latest .github/workflows/ci.yml`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.demo(cmd.Context(), f, args)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.driver, "driver", "qemu", "what runs the guests: qemu, or tart where that is Tasuki's stand-in of it")
	flags.IntVar(&f.slots, "slots", 2, "how many guests may run at once")
	flags.StringArrayVar(&f.labels, "label", nil, "give the runners one more `label` for runs-on; may be repeated")
	flags.StringVar(&f.runner, "runner", "", "`file` of the runner program for the guests; empty: found or built")
	flags.StringVar(&f.imageFrom, "image-from", imageAuto, "what the guest image is made from: packages (by mmdebstrap), cloud (Debian's cloud image), auto, or the `file` of a recipe")
	flags.StringArrayVar(&f.vars, "var", nil, "give a variable of the image's recipe another value: `NAME=VALUE`; may be repeated")
	flags.StringVar(&f.mirror, "mirror", "", "Debian mirror for the guest image; empty: Debian's own")
	flags.DurationVar(&f.timeout, "timeout", time.Hour, "give up after so long")
	flags.BoolVar(&f.scaleSet, "scaleset", false, "let GitHub's stand-in assign the jobs to a scale set")
	flags.BoolVar(&f.plain, "plain", false, "one line per transition, also on a terminal")
	return cmd
}

// Causes that end a demo before its jobs do.
var (
	errInterrupted = errors.New("interrupted")
	errDemoTimeout = errors.New("the jobs took too long")
)

// demo checks what it can before anything starts, then runs the stage.
func (a *app) demo(ctx context.Context, f demoFlags, files []string) error {
	if f.slots < 1 {
		return withHint(fmt.Errorf("cannot run jobs in %d guests at once", f.slots), "tasuki demo --slots 1")
	}
	if f.driver != "qemu" && f.driver != "tart" {
		return withHint(fmt.Errorf("cannot run the demo's guests with driver %q", f.driver), "tasuki demo --driver qemu")
	}
	workflows, err := demoWorkflows(files)
	if err != nil {
		return err
	}
	labels := demoLabels(f.labels)
	if err := checkServable(workflows, labels); err != nil {
		return err
	}
	if _, err := demoRecipe(f.imageFrom); err != nil {
		return err
	}
	home, err := a.demoHome()
	if err != nil {
		return err
	}
	ctx, stop := demoSignals(ctx, a)
	defer stop()
	d := &demo{
		app: a, flags: f, home: home, labels: labels, workflows: workflows,
		advertise: "http://" + guestGitHub,
	}
	d.open, d.bring = d.openHost, d.bringImage
	return d.run(ctx)
}

// demoWorkflows reads every file, so that all problems are told at once.
func demoWorkflows(files []string) ([]*workflow.Workflow, error) {
	if len(files) == 0 {
		w, err := workflow.Parse("hello.yml", demoHello)
		return []*workflow.Workflow{w}, err
	}
	var all []*workflow.Workflow
	var problems workflow.Problems
	for _, file := range files {
		w, err := workflow.Load(file)
		if more, ok := errors.AsType[workflow.Problems](err); ok {
			problems = append(problems, more...)
			continue
		}
		if err != nil {
			return nil, withHint(err, "tasuki demo examples/workflows/relay.yml")
		}
		all = append(all, w)
	}
	if len(problems) > 0 {
		return nil, problems
	}
	return all, nil
}

// demoHome is the folder of everything that a demo keeps.
func (a *app) demoHome() (string, error) {
	if a.homeGiven {
		return filepath.Abs(a.home)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", withHint(fmt.Errorf("cannot find a folder for the demo: %w", err), "tasuki demo --home FOLDER")
	}
	return filepath.Join(cache, "tasuki", "demo"), nil
}

// demoSignals ends the context with the first signal and the process with the
// second.
func demoSignals(ctx context.Context, a *app) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	done := make(chan struct{})
	go func() {
		select {
		case <-signals:
			cancel(errInterrupted)
		case <-done:
			return
		}
		select {
		case <-signals:
			fmt.Fprintln(a.stderr, "\ntasuki: quit at once; guests may still run: the next tasuki demo removes them")
			os.Exit(exitInterrupted)
		case <-done:
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		close(done)
		cancel(nil)
	}
}

// exitInterrupted is what shells say of a program that SIGINT ended.
const exitInterrupted = 130
