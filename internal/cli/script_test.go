package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/mirego/tasuki/internal/base/backoff"
	"github.com/mirego/tasuki/internal/emulator/protorunner"
	"github.com/mirego/tasuki/internal/github"
	"github.com/mirego/tasuki/internal/runner"
	"github.com/mirego/tasuki/internal/vm/tart/tarttest"
)

// TestMain makes this binary stand for the programs that scripts run.
func TestMain(m *testing.M) {
	tarttest.Play()
	testscript.Main(m, map[string]func(){
		"tasuki":      func() { os.Exit(Main()) },
		"protorunner": func() { os.Exit(protorunnerMain()) },
		"get":         func() { os.Exit(getMain()) },
	})
}

// protorunnerMain is the runner program inside of fake guests.
func protorunnerMain() int {
	hold := flag.Duration("hold", 0, "how long the job runs")
	until := flag.String("until", "", "the file that ends the job when it appears")
	conclusion := flag.String("conclusion", "succeeded", "how it ends")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	opt := protorunner.Options{Hold: *hold, Conclusion: *conclusion, Output: os.Stdout}
	if *until != "" {
		opt.Until = func(ctx context.Context) error {
			for {
				if _, err := os.Stat(*until); err == nil {
					return nil
				}
				if err := backoff.Sleep(ctx, 50*time.Millisecond); err != nil {
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

// getMain is "get URL [METHOD]": it prints what lies there, or what is answered.
func getMain() int {
	req, err := http.NewRequest(strings.Join(os.Args[2:], ""), os.Args[1], nil)
	if err != nil {
		fmt.Fprintln(os.Stderr, "get:", err)
		return 1
	}
	res, err := http.DefaultClient.Do(req)
	if err == nil {
		defer res.Body.Close()
		_, err = io.Copy(os.Stdout, res.Body)
	}
	if err != nil || res.StatusCode >= http.StatusMultipleChoices {
		fmt.Fprintln(os.Stderr, "get:", err)
		return 1
	}
	return 0
}

// TestScripts runs the stories of testdata/script, each with the programs as
// processes of their own.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Deadline:            time.Now().Add(15 * time.Minute), // of all stories together, only to end one that hangs
		// testscript's own is /no-home, which root could make.
		Setup: func(e *testscript.Env) error {
			e.Setenv("HOME", filepath.Join(e.WorkDir, "no-home"))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"freeport": freeport, "until": until, "code": code, "signal": sendSignal, "register": register,
		},
	})
}

// freeport VAR sets VAR to a port that nobody listens on.
func freeport(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: freeport VAR")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	defer l.Close()
	ts.Setenv(args[0], strconv.Itoa(l.Addr().(*net.TCPAddr).Port))
}

// untilTimeout is only there to end a story that hangs.
const untilTimeout = time.Minute

// until PATTERN COMMAND... repeats the command until its stdout matches; with
// a ! before it, until it does not.
func until(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: [!] until PATTERN COMMAND...")
	}
	pattern, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	for deadline := time.Now().Add(untilTimeout); ; time.Sleep(50 * time.Millisecond) {
		err := ts.Exec(args[1], args[2:]...)
		if out := ts.ReadFile("stdout"); (err == nil || neg) && pattern.MatchString(out) != neg {
			return
		} else if time.Now().After(deadline) {
			ts.Fatalf("%q did not come (or go): %v\n%s%s", args[0], err, out, ts.ReadFile("stderr"))
		}
	}
}

// sendSignal is "signal HUP|TERM FILE": it goes to the process that FILE names.
func sendSignal(ts *testscript.TestScript, neg bool, args []string) {
	signals := map[string]syscall.Signal{"HUP": syscall.SIGHUP, "TERM": syscall.SIGTERM}
	if neg || len(args) != 2 || signals[args[0]] == 0 {
		ts.Fatalf("usage: signal HUP|TERM FILE")
	}
	pid, err := strconv.Atoi(strings.TrimSpace(ts.ReadFile(args[1])))
	ts.Check(err)
	ts.Check(syscall.Kill(pid, signals[args[0]]))
}

// code STATUS COMMAND... runs a command that must end with that exit status.
func code(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: code STATUS|any COMMAND...")
	}
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		exit, ok := errors.AsType[*exec.ExitError](err)
		if !ok {
			ts.Fatalf("%v", err)
		}
		got = exit.ExitCode()
	}
	if args[0] != "any" && strconv.Itoa(got) != args[0] {
		ts.Fatalf("exit status %d, want %s", got, args[0])
	}
}

// register URL SCOPE NAME... registers runners, as anybody may.
func register(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 {
		ts.Fatalf("usage: register URL SCOPE NAME...")
	}
	c, err := github.New(github.Options{URL: args[0], Scope: args[1]})
	ts.Check(err)
	for _, name := range args[2:] {
		_, err := c.Credential(context.Background(), runner.Registration{Name: name, Labels: []string{"self-hosted"}})
		ts.Check(err)
	}
}
