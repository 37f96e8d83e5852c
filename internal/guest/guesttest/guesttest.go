// Package guesttest is the contract of guest.Channel, and of what package guest
// does over any channel, as a test suite. Every channel runs it.
//
// The suite looks into the guest through the channel alone, so that a channel
// into a real guest can run it as well. It stores nothing outside the guest.
package guesttest

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/mirego/tasuki/internal/guest"
)

// Harness is one fresh guest and the ways into it.
type Harness struct {
	// Dial opens another channel into the guest.
	Dial func(t *testing.T) guest.Channel
	// Cut breaks the connection under a channel without telling the guest.
	// Without it, what needs it is not tested.
	Cut func(t *testing.T, ch guest.Channel)
}

// Run runs the suite. open is called once for each case and takes away with
// t.Cleanup what it made, processes in the guest included.
func Run(t *testing.T, open func(t *testing.T) Harness) {
	cases := []struct {
		name string
		run  func(*suite)
	}{
		{"StatusAndOutput", testStatus},
		{"BytesPassUnchanged", testBytes},
		{"InputThatNobodyReads", testUnreadInput},
		{"AnyScript", testAnyScript},
		{"ManyScriptsAtOnce", testParallel},
		{"AnEndedContextEndsRunAtOnce", testContext},
		{"AClosedChannelIsUnreachable", testClosed},
		{"ACutConnectionIsUnreachable", testCut},
		{"PutWholeOrNotAtAll", testPut},
		{"PutRefuses", testPutRefuses},
		{"PutCutHalfWay", testPutCut},

		{"LaunchAndFollow", testLaunch},
		{"LaunchTwiceStartsOne", testLaunchTwice},
		{"LaunchWithoutAProgram", testLaunchMissing},
		{"LinesArriveWhenTheyAreWritten", testLive},
		{"FollowAfterTheEnd", testFollowEnded},
		{"FollowResumesAtItsOffset", testResume},
		{"FollowTenMegabytes", testBigLog},
		{"FollowEndsThoughADaemonHoldsTheLog", testDaemon},
		{"EnvQuoting", testEnvQuoting},
		{"LongToken", testLongToken},
		{"SecretsAreNowhereElse", testSecretsHidden},
		{"TheProgramsSurroundings", testSurroundings},
		{"ProgramKilled", testProgramKilled},
		{"SupervisorKilled", testSupervisorKilled},
		{"AllKilled", testAllKilled},
		{"StopAndReset", testReset},
		{"AnotherReleaseOfTheRunner", testRelease},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			s := &suite{T: t, h: open(t)}
			s.ch = s.dial()
			c.run(s)
		})
	}
}

// bound is how long one step of a case may take before it counts as hung.
const bound = 60 * time.Second

// suite is one case in progress.
type suite struct {
	*testing.T
	h  Harness
	ch guest.Channel
}

func (s *suite) dial() guest.Channel {
	s.Helper()
	ch := s.h.Dial(s.T)
	s.Cleanup(func() { _ = ch.Close() })
	return ch
}

func (s *suite) ctx() context.Context {
	ctx, cancel := context.WithTimeoutCause(s.Context(), bound, fmt.Errorf("it took longer than %v", bound))
	s.Cleanup(cancel)
	return ctx
}

// sh runs a script that must succeed and returns what it printed.
func (s *suite) sh(script string) string {
	s.Helper()
	var out, errs bytes.Buffer
	status, err := s.ch.Run(s.ctx(), guest.Command{Script: script, Stdout: &out, Stderr: &errs})
	if err != nil || status != 0 {
		s.Fatalf("%s\nended with status %d, error %v, and said %q", script, status, err, errs.String())
	}
	return strings.TrimSuffix(out.String(), "\n")
}

// put puts a program "run" with this text into ~/runner.
func (s *suite) put(text string) guest.Program {
	s.Helper()
	err := guest.Put(s.ctx(), s.ch, "~/runner/run", 0o755, strings.NewReader("#!/bin/sh\n"+text))
	if err != nil {
		s.Fatal(err)
	}
	return guest.Program{Dir: "~/runner", Kind: guest.RunnerCommand}
}

func (s *suite) launch(p guest.Program) {
	s.Helper()
	if err := guest.Launch(s.ctx(), s.ch, p); err != nil {
		s.Fatal(err)
	}
}

// follow follows to the end over a channel.
func (s *suite) follow(ch guest.Channel, offset int64) (string, int) {
	s.Helper()
	var log bytes.Buffer
	exit, err := guest.Follow(s.ctx(), ch, offset, &log)
	if err != nil {
		s.Fatal(err)
	}
	if !exit.Ended {
		s.Fatalf("Follow returned %+v without an error", exit)
	}
	return log.String(), exit.Code
}

// ran launches a program of this text and returns its log and status.
func (s *suite) ran(text string) (string, int) {
	s.Helper()
	s.launch(s.put(text))
	return s.follow(s.ch, 0)
}

// pid returns the process number in one of the supervisor's files, once it is there.
func (s *suite) pid(file string) string {
	s.Helper()
	return s.sh(`n=0
until [ -s ~/.tasuki/runner/` + file + ` ]; do n=$((n + 1)); [ $n -lt 600 ] || exit 1; sleep 0.05; done
read -r pid _ <~/.tasuki/runner/` + file + `; echo "$pid"`)
}
