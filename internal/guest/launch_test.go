package guest_test

import (
	"bytes"
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mirego/tasuki/internal/base/proc"
	"github.com/mirego/tasuki/internal/guest"
	"github.com/mirego/tasuki/internal/image"
)

// host is a channel whose guest is a folder, without power to lose.
type host struct{ home string }

func (h host) Close() error { return nil }

func (h host) Run(ctx context.Context, c guest.Command) (int, error) {
	res, err := proc.Run(ctx, proc.Cmd{Path: "sh", Args: []string{"-c", c.Script}, Env: []string{"HOME=" + h.home},
		Dir: h.home, Stdin: c.Stdin, Stdout: c.Stdout, Stderr: c.Stderr})
	if ctx.Err() != nil {
		return 0, err
	}
	return res.Code, nil
}

// layout puts programs into a guest: path in ~/r to text.
func layout(t *testing.T, files map[string]string) (host, guest.Program) {
	t.Helper()
	h := host{filepath.Clean(t.TempDir())}
	for path, text := range files {
		if err := guest.Put(t.Context(), h, "~/r/"+path, 0o755, strings.NewReader("#!/bin/sh\n"+text)); err != nil {
			t.Fatal(err)
		}
	}
	return h, guest.Program{Dir: "~/r"}
}

func finish(t *testing.T, h host, p guest.Program) (string, int) {
	t.Helper()
	if err := guest.LaunchAgain(t.Context(), h, p, 10*time.Millisecond, 3); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	exit, err := guest.Follow(t.Context(), h, 0, &log)
	if err != nil || !exit.Ended {
		t.Fatalf("%+v, %v", exit, err)
	}
	return log.String(), exit.Code
}

func TestOfficialLayout(t *testing.T) {
	// What run-helper.sh makes of the listener's status; here for the contrast.
	const runSh = `"$(dirname "$0")/bin/Runner.Listener" run; case $? in 0 | 1 | 5) exit 0 ;; *) exit 9 ;; esac`
	listener := func(codes string) string {
		return `echo "$*" "$ACTIONS_RUNNER_RETURN_VERSION_DEPRECATED_EXIT_CODE" "$TOKEN" "$(basename "$(pwd)")"
touch starts; n=$(wc -l <starts); echo >>starts
set -- ` + codes + `; shift "$n"; exit "$1"`
	}
	for _, c := range []struct {
		name, codes string
		runs, code  int
	}{
		{"done", "0", 1, 0},
		{"terminated is not masked", "1", 1, 1},
		{"retryable then done", "2 2 0", 3, 0},
		{"retryable for ever", "2 2 2 2 2 2 2", 4, 2},
		{"session conflict", "5", 1, 5},
		{"version deprecated", "7", 1, 7},
		{"retryable then deprecated", "2 7", 2, 7},
	} {
		t.Run(c.name, func(t *testing.T) {
			h, p := layout(t, map[string]string{"bin/Runner.Listener": listener(c.codes), "run.sh": runSh})
			p.Kind, p.Env = image.RunnerOfficial, map[string]string{"TOKEN": "t k"}
			log, code := finish(t, h, p)
			if want := strings.Repeat("run 1 t k r\n", c.runs); log != want || code != c.code {
				t.Errorf("status %d, log %q; want %d and %q", code, log, c.code, want)
			}
		})
	}
	t.Run("only run.sh", func(t *testing.T) {
		h, p := layout(t, map[string]string{"run.sh": "echo run.sh; exit 6"})
		p.Kind = image.RunnerOfficial
		if log, code := finish(t, h, p); log != "run.sh\n" || code != 6 {
			t.Errorf("status %d, log %q", code, log)
		}
	})
}

func TestActIsRunInTheHomeWithoutATerminal(t *testing.T) {
	h, p := layout(t, map[string]string{"github-act-runner": `echo "$*"; pwd; exit 2`})
	p.Kind = image.RunnerAct
	want := fmt.Sprintf("run --terminal=false\n%s\n", h.home)
	if log, code := finish(t, h, p); log != want || code != 2 {
		t.Errorf("status %d, log %q, want 2, %q and no second try", code, log, want)
	}
}

func TestWithoutSetsid(t *testing.T) {
	// macOS has no setsid. The supervisor is started by nohup then.
	h, p := layout(t, map[string]string{"run": "echo up; exit 8", "no/setsid": "exit 1"})
	p.Kind = guest.RunnerCommand
	hidden := hiding{h}
	if err := guest.Launch(t.Context(), hidden, p); err != nil {
		t.Fatal(err)
	}
	if err := guest.Launch(t.Context(), hidden, p); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	exit, err := guest.Follow(t.Context(), hidden, 0, &log)
	if err != nil || log.String() != "up\n" || exit.Code != 8 {
		t.Errorf("%+v, %v, log %q", exit, err, log.String())
	}
}

// hiding is a host whose setsid fails.
type hiding struct{ host }

func (h hiding) Run(ctx context.Context, c guest.Command) (int, error) {
	c.Script = "PATH=~/r/no:$PATH\n" + c.Script
	return h.host.Run(ctx, c)
}
