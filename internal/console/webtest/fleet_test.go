package webtest

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mirego/tasuki/internal/agent"
	"github.com/mirego/tasuki/internal/base/backoff"
	"github.com/mirego/tasuki/internal/base/secret"
	"github.com/mirego/tasuki/internal/console"
	"github.com/mirego/tasuki/internal/emulator"
	"github.com/mirego/tasuki/internal/emulator/protorunner"
	"github.com/mirego/tasuki/internal/emulator/workflow"
	"github.com/mirego/tasuki/internal/event"
	"github.com/mirego/tasuki/internal/github"
	"github.com/mirego/tasuki/internal/guest"
	"github.com/mirego/tasuki/internal/guest/local"
	"github.com/mirego/tasuki/internal/guest/ssh"
	"github.com/mirego/tasuki/internal/history"
	"github.com/mirego/tasuki/internal/image"
	"github.com/mirego/tasuki/internal/journal"
	"github.com/mirego/tasuki/internal/pool"
	"github.com/mirego/tasuki/internal/vm"
	"github.com/mirego/tasuki/internal/vm/fake"
)

// TestMain makes this binary stand for the runner program of guests.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == "protorunner" {
		os.Exit(runnerMain())
	}
	os.Exit(m.Run())
}

// runnerMain executes one job. One of the pool "app" writes a log until a file is there.
func runnerMain() int {
	until := flag.String("until", "", "file that ends the job")
	conclusion := flag.String("conclusion", "succeeded", "how it ends")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	opt := protorunner.Options{Hold: 300 * time.Millisecond, Conclusion: *conclusion, Output: os.Stdout}
	if *until != "" {
		opt.Until = func(ctx context.Context) error {
			for n := 1; ; n++ {
				if _, err := os.Stat(*until); err == nil {
					return nil
				}
				fmt.Printf("\x1b[32mline %d\x1b[0m of <b>the job</b>\n", n)
				if err := backoff.Sleep(ctx, 100*time.Millisecond); err != nil {
					return err
				}
			}
		}
	}
	if err := protorunner.Run(ctx, os.Getenv("ACTIONS_RUNNER_INPUT_JITCONFIG"), opt); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// plantedToken is what the agent shows GitHub.
const plantedToken = "planted-token-of-a-maintainer-7c1f"

// fleet is an agent with two slots and two pools, and its GitHub. Jobs of the
// pool "mac" fail; those of "app" write a log and go on until they are told
// to end, so that what a page shows meanwhile does not depend on time.
type fleet struct {
	t      *testing.T
	github *emulator.Emulator
	agent  *agent.Agent
	bus    *event.Bus
	past   *history.History
	feed   *console.Feed
	finish string // jobs of linux end while this file is there
}

// folder is an image that is a folder with a runner program. It implements
// agent.Images.
type folder struct{ image.Local }

func (f folder) Image(context.Context, string, func(image.Progress)) (image.Local, error) {
	return f.Local, nil
}

func newFleet(t *testing.T) *fleet {
	t.Helper()
	dir := t.TempDir()
	f := &fleet{t: t, feed: new(console.Feed), finish: filepath.Join(dir, "finish")}
	f.github = emulator.New(emulator.Options{Token: secret.New(plantedToken)})
	address := f.serveGitHub()
	home := filepath.Join(dir, "home")
	driver, err := fake.New(fake.Options{Dir: filepath.Join(home, "fake"), Installation: "abcdef", Prefix: "tasuki-"})
	must(t, err)
	records, err := journal.Open(filepath.Join(home, "journal"))
	must(t, err)
	f.past, err = history.Open(filepath.Join(dir, "history.db"), history.Options{Log: quiet})
	must(t, err)
	client, err := github.New(github.Options{URL: "http://" + address, Scope: "octo/demo", Log: quiet,
		Token: func(context.Context) (secret.String, error) { return secret.New(plantedToken), nil }})
	must(t, err)
	f.bus = &event.Bus{Sinks: []event.Sink{f.feed, f.past}}
	var pools []agent.Pool
	for _, name := range []string{"app", "mac"} {
		img := program(t, filepath.Join(dir, name), name, f.finish)
		pools = append(pools, agent.Pool{
			Spec: pool.Spec{Name: name, Image: img.Dir, Driver: "fake", Scope: "octo/demo", Labels: []string{name}, Standby: 1, WorkFolder: "_work", MaxJob: time.Hour,
				Network: vm.Network{Mode: vm.Internet}},
			Driver: driver, Dialer: local.Dialer{}, GitHub: client, Images: folder{img},
		})
	}
	f.agent, err = agent.New(agent.Options{
		Host: "mini-3", Installation: "abcdef", Version: "test", Home: home, Slots: 2, Tick: 100 * time.Millisecond, Resync: time.Second,
		Pools: pools, Journal: records, Events: f.bus, Log: quiet, NewKey: ssh.NewKey,
	})
	must(t, err)
	f.run()
	return f
}

func (f *fleet) serveGitHub() string {
	f.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(f.t, err)
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- f.github.Run(ctx, l) }()
	f.t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			f.t.Error(err)
		}
	})
	return l.Addr().String()
}

// run runs the agent until the test ends, and takes its guests away.
func (f *fleet) run() {
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- f.agent.Run(ctx) }()
	f.t.Cleanup(func() {
		stop()
		patient, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := errors.Join(<-ended, f.agent.Teardown(patient), f.past.Close()); err != nil {
			f.t.Error(err)
		}
	})
}

// program makes the folder with a pool's runner program.
func program(t *testing.T, dir, name, finish string) image.Local {
	t.Helper()
	self, err := os.Executable()
	must(t, err)
	must(t, os.MkdirAll(dir, 0o700))
	must(t, os.Symlink(self, filepath.Join(dir, "protorunner")))
	script := "#!/bin/sh\nexec " + dir + "/protorunner -conclusion failed\n"
	if name == "app" {
		script = "#!/bin/sh\nexec " + dir + "/protorunner -until " + finish + "\n"
	}
	must(t, os.WriteFile(filepath.Join(dir, "run"), []byte(script), 0o700))
	return image.Local{
		Digest: "sha256:" + strings.Repeat(fmt.Sprintf("%x", name[:2]), 16), Dir: dir, Disk: filepath.Join(dir, "run"), DiskSize: 1,
		Labels: map[string]string{
			image.LabelOS: image.OSLinux, image.LabelArch: runtime.GOARCH, image.LabelUser: "runner",
			image.LabelRunnerKind: guest.RunnerCommand, image.LabelRunnerDir: dir,
		},
	}
}

// submit queues jobs of a label.
func (f *fleet) submit(n int, label string) error {
	var numbers []string
	for i := range n {
		numbers = append(numbers, fmt.Sprint(i+1))
	}
	flow, err := workflow.Parse("ci.yml", fmt.Appendf(nil,
		"name: CI\non: push\njobs:\n  build:\n    runs-on: [self-hosted, %s]\n    strategy:\n      fail-fast: false\n      matrix: {n: [%s]}\n    steps:\n      - run: make\n", label, strings.Join(numbers, ", ")))
	if err != nil {
		return err
	}
	_, err = f.github.Submit(flow, "")
	return err
}

// options are those of the fleet's console.
func (f *fleet) options() console.Options {
	return console.Options{Installation: "abcdef", Host: f.agent, Status: f.agent.Status, Feed: f.feed, Runs: f.past, Log: quiet,
		Findings: func(context.Context) []console.Finding {
			return []console.Finding{{Check: "disk-space", Level: "warning", Seen: "31 GB are free", Why: "guests fail when the disk is full", Mend: "tasuki image prune --dry-run"}}
		}}
}

var quiet = slog.New(slog.DiscardHandler)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
