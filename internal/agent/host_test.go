package agent_test

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/mirego/tasuki/internal/agent"
	"github.com/mirego/tasuki/internal/base/secret"
	"github.com/mirego/tasuki/internal/event"
	"github.com/mirego/tasuki/internal/github"
	"github.com/mirego/tasuki/internal/guest/local"
	"github.com/mirego/tasuki/internal/image"
	"github.com/mirego/tasuki/internal/journal"
	"github.com/mirego/tasuki/internal/pool"
	"github.com/mirego/tasuki/internal/runner"
	"github.com/mirego/tasuki/internal/vm"
	"github.com/mirego/tasuki/internal/vm/fake"
)

// This test program is also the agent of its crash tests: started again with
// TASUKI_TEST_HOST it is a host with the fake driver, in a process of its own
// that a test, or itself, can kill.
func TestMain(m *testing.M) {
	if home := os.Getenv("TASUKI_TEST_HOST"); home != "" {
		os.Exit(runHost(home))
	}
	flag.Parse()
	// These tests wait for other processes and for pauses that are part of what
	// they test; they need no processor meanwhile.
	explicit := false
	flag.Visit(func(f *flag.Flag) { explicit = explicit || f.Name == "test.parallel" })
	if !explicit {
		_ = flag.Set("test.parallel", "8")
	}
	os.Exit(m.Run())
}

const installation = "abc123"

// runHost keeps runners until SIGTERM (drain and end) or SIGINT (end now).
func runHost(home string) int {
	bomb := newBomb(os.Getenv("TASUKI_TEST_KILL"), filepath.Join(home, "known"))
	opt, err := hostOptions(home, os.Getenv("TASUKI_TEST_URL"), os.Getenv("TASUKI_TEST_PROGRAM"), fake.Faults{})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	opt.Journal, opt.Events = bombedJournal{opt.Journal, bomb}, bomb
	opt.Log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	a, err := agent.New(opt)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	go func() {
		<-term
		a.Shutdown()
	}()
	if err := os.WriteFile(filepath.Join(home, "ready"), nil, 0o600); err != nil {
		return 2
	}
	if err := a.Run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	counts := fmt.Sprintf("%d %d", bomb.writes.Load(), bomb.events.Load())
	if err := os.WriteFile(filepath.Join(home, "counts"), []byte(counts), 0o600); err != nil {
		return 1
	}
	return 0
}

// hostOptions is a host of two slots whose guests are folders and processes.
func hostOptions(home, url, program string, faults fake.Faults) (agent.Options, error) {
	return site{home, url, program, installation}.options(faults)
}

// site is what hosts differ in.
type site struct{ home, url, program, installation string }

func (s site) options(faults fake.Faults) (agent.Options, error) {
	home, url, program, installation := s.home, s.url, s.program, s.installation
	driver, err := fake.New(fake.Options{Dir: filepath.Join(home, "guests"), Installation: installation, Prefix: "tasuki", Faults: faults})
	if err != nil {
		return agent.Options{}, err
	}
	gh, err := github.New(github.Options{URL: url, Scope: "octo/demo"})
	if err != nil {
		return agent.Options{}, err
	}
	j, err := journal.Open(filepath.Join(home, "journal"))
	if err != nil {
		return agent.Options{}, err
	}
	return agent.Options{
		Host: "test", Installation: installation, Home: home, Slots: 2,
		Tick: 100 * time.Millisecond, Resync: 500 * time.Millisecond, LostReply: 15 * time.Second,
		Journal: j, NewKey: noKey,
		Pools: []agent.Pool{{
			Spec:   pool.Spec{Name: "fake", Image: "fake", Standby: 1, Labels: []string{"mirego"}, Network: vm.Network{Mode: vm.Isolated}},
			Driver: driver, Dialer: local.Dialer{}, GitHub: gh, Images: oneImage{program},
		}},
	}, nil
}

func noKey() (secret.String, string, error) {
	return secret.New("private"), "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBthXeIsQnbrwZOI3yW4rBsxvbKHQ8vXjdlzQyXgVm1Y", nil
}

// oneImage is the image of every fake guest: its runner program lies in a
// folder of this host.
type oneImage struct{ program string }

func (i oneImage) Image(context.Context, string, func(image.Progress)) (image.Local, error) {
	return image.Local{Digest: "sha256:" + strings.Repeat("0", 64), Labels: map[string]string{
		image.LabelRunnerKind: "command", image.LabelRunnerDir: i.program, image.LabelUser: "runner",
	}}, nil
}

// bomb kills this process at one point of its work: "before-write 7",
// "after-write 7" or "event 7".
type bomb struct {
	where          string
	at             int64
	known          string // a file: whoever started this process knows it now
	writes, events atomic.Int64
}

func newBomb(text, known string) *bomb {
	where, at, _ := strings.Cut(text, " ")
	n, _ := strconv.ParseInt(at, 10, 64)
	return &bomb{where: where, at: n, known: known}
}

func (b *bomb) reach(where string, n int64) {
	if b.where == where && b.at == n {
		for _, err := os.Stat(b.known); err != nil; _, err = os.Stat(b.known) {
			time.Sleep(time.Millisecond)
		}
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	}
}

// Emit implements event.Sink.
func (b *bomb) Emit(e event.Event) {
	if e.Kind == event.RunnerMoved {
		b.reach("event", b.events.Add(1))
	}
}

type bombedJournal struct {
	agent.Journal
	b *bomb
}

func (j bombedJournal) Put(r runner.Record) error {
	n := j.b.writes.Add(1)
	j.b.reach("before-write", n)
	err := j.Journal.Put(r)
	j.b.reach("after-write", n)
	return err
}

func (j bombedJournal) Delete(name string) error {
	n := j.b.writes.Add(1)
	j.b.reach("before-write", n)
	err := j.Journal.Delete(name)
	j.b.reach("after-write", n)
	return err
}
