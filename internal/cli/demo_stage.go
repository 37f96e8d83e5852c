package cli

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/mirego/tasuki/internal/agent"
	"github.com/mirego/tasuki/internal/base/secret"
	"github.com/mirego/tasuki/internal/cli/demoview"
	"github.com/mirego/tasuki/internal/daemon"
	"github.com/mirego/tasuki/internal/emulator"
	"github.com/mirego/tasuki/internal/emulator/workflow"
	"github.com/mirego/tasuki/internal/event"
	"github.com/mirego/tasuki/internal/image"
	"github.com/mirego/tasuki/internal/registry"
)

const (
	// guestGitHub is where the demo's guests reach the emulator; port 80, so
	// that the address reads like any other.
	guestGitHub = "10.0.2.100"
	// demoPatience bounds taking everything away at the end.
	demoPatience = time.Minute
	// demoLook bounds looking for what is left.
	demoLook = 20 * time.Second
	// demoSettle bounds how long the last runners may take to leave by themselves.
	demoSettle = 90 * time.Second
	// demoFailures is how many runners may fail before the demo gives up.
	demoFailures = 3
)

// demo is one demo from its lock to its report.
type demo struct {
	app       *app
	flags     demoFlags
	home      string
	labels    []string
	workflows []*workflow.Workflow

	// open and bring are how guests and their image come about, and advertise
	// is where guests reach GitHub; tests have other ways.
	open      func() (*demoHost, error)
	bring     func(ctx, serve context.Context) error
	advertise string

	log          *slog.Logger
	view         *demoview.View
	events       event.Bus
	host         *demoHost
	installation string
	demand       jobDemand
	token        secret.String
	github       *emulator.Emulator
	address      string // of the emulator, host:port
	registry     string // host:port
	image        image.Local
	agent        *agent.Agent

	endErr   error // what could not be taken away at the end
	services sync.WaitGroup
	fatal    context.CancelCauseFunc // a service that fails ends the demo
}

// run is the whole demo. It returns errNo if a job failed.
func (d *demo) run(ctx context.Context) error {
	if err := claimHome(d.home); err != nil {
		return err
	}
	claim, err := daemon.Take(d.home)
	if errors.Is(err, daemon.ErrRunning) {
		return withHint(fmt.Errorf("a demo runs already: %w", err), "wait for it, or run this one elsewhere: tasuki demo --home FOLDER")
	}
	if err != nil {
		return err
	}
	defer claim.Release()
	logFile, err := os.OpenFile(filepath.Join(d.home, "demo.log"), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("cannot open the demo's log: %w", err)
	}
	defer logFile.Close()
	d.log = d.app.fileLogger(logFile)

	ctx, d.fatal = context.WithCancelCause(ctx)
	defer d.fatal(nil)
	ctx, cancel := context.WithTimeoutCause(ctx, d.flags.timeout, errDemoTimeout)
	defer cancel()
	if d.installation, err = installationOf(d.home); err != nil {
		return err
	}
	d.view = d.newView()
	defer d.view.Close()

	err = d.stage(ctx, claim)
	d.view.Close()
	return d.outcome(ctx, err, logFile.Name())
}

// outcome prefers why the demo was ended to what that broke, and something
// left behind to both.
func (d *demo) outcome(ctx context.Context, err error, logFile string) error {
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if d.endErr != nil {
		return withHint(errors.Join(d.endErr, err), "the next tasuki demo removes it; what happened is in "+logFile)
	}
	if _, told := errors.AsType[*hinted](err); told || err == nil || errors.Is(err, errNo) {
		return err
	}
	switch {
	case errors.Is(err, errInterrupted):
		if d.agent == nil {
			d.view.Say("Interrupted before any guest was started.")
		}
		return exitStatus(exitInterrupted)
	case errors.Is(err, errDemoTimeout):
		return withHint(fmt.Errorf("%w: more than %s", err, d.flags.timeout), "tasuki demo --timeout 3h; what happened is in "+logFile)
	}
	return withHint(err, "what happened is in "+logFile)
}

// stage brings everything up, runs the jobs, and takes everything away again.
func (d *demo) stage(ctx context.Context, claim *daemon.Claim) (err error) {
	d.view.Say("Tasuki demo: GitHub Actions jobs, each in a fresh virtual machine on this host.\n")
	if d.host, err = d.open(); err != nil {
		return err
	}
	if err := d.removeLeftovers(ctx); err != nil {
		return err
	}
	serve, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer d.services.Wait()
	defer stop()
	if err := d.serveGitHub(serve); err != nil {
		return err
	}
	if err := d.bring(ctx, serve); err != nil {
		return err
	}
	err = d.runJobs(ctx, serve, claim)
	d.endErr = d.finish(ctx, err)
	if err == nil && failed(d.github.State()) > 0 {
		err = errNo
	}
	return err
}

func (d *demo) newView() *demoview.View {
	out := d.app.stdout
	opt := demoview.Options{
		Out: out, Terminal: terminal(out) && os.Getenv("TERM") != "dumb" && !d.flags.plain,
		Width: func() int { return width(out) }, Color: colours(out), ASCII: !unicodeLocale(), Trim: d.names(),
	}
	return demoview.New(opt)
}

// unicodeLocale says whether the user's terminal takes more than ASCII.
func unicodeLocale() bool {
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if v := strings.ToLower(os.Getenv(name)); v != "" {
			return strings.Contains(v, "utf-8") || strings.Contains(v, "utf8")
		}
	}
	return true // nothing said: every terminal of today does
}

// fileLogger writes a demo's log: the terminal belongs to the view.
func (a *app) fileLogger(w io.Writer) *slog.Logger {
	var level slog.Level
	if level.UnmarshalText([]byte(a.logLevel)) != nil {
		level = slog.LevelInfo
	}
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: level}))
}

// serve runs a service until stop; one that fails ends the demo.
func (d *demo) serve(stop context.Context, run func(context.Context) error) {
	d.services.Go(func() {
		if err := run(stop); err != nil && stop.Err() == nil {
			d.fatal(err)
		}
	})
}

// serveGitHub starts the emulator on loopback, behind a token of this demo.
func (d *demo) serveGitHub(stop context.Context) error {
	task := d.view.Task("github", "starts GitHub's stand-in")
	d.token = secret.New(rand.Text())
	d.github = emulator.New(emulator.Options{
		AdvertiseURL: d.advertise, Token: d.token, Log: d.log.With("part", "emulator"),
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		task.Fail()
		return fmt.Errorf("cannot start the emulator: %w", err)
	}
	d.address = l.Addr().String()
	d.serve(stop, func(ctx context.Context) error { return d.github.Run(ctx, l) })
	task.Done("GitHub's stand-in on http://%s", d.address)
	return nil
}

// serveRegistry starts the image registry on loopback.
func (d *demo) serveRegistry(stop context.Context) error {
	task := d.view.Task("registry", "starts an image registry")
	r, err := registry.New(registry.Options{Dir: d.path("registry"), Log: d.log.With("part", "registry")})
	if err != nil {
		task.Fail()
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		task.Fail()
		return errors.Join(fmt.Errorf("cannot start the registry: %w", err), r.Close())
	}
	d.registry = l.Addr().String()
	d.serve(stop, func(ctx context.Context) error { return r.Run(ctx, l) })
	task.Done("OCI registry on http://%s", d.registry)
	return nil
}

func (d *demo) path(elem ...string) string {
	return filepath.Join(append([]string{d.home}, elem...)...)
}
