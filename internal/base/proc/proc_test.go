package proc_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mirego/tasuki/internal/base/proc"
)

func TestRunKeepsOutputAndStatus(t *testing.T) {
	var live bytes.Buffer
	res, err := proc.Run(t.Context(), proc.Cmd{
		Path: "sh", Args: []string{"-c", `cat; echo "$WORD" >&2; exit 3`},
		Env: []string{"WORD=two words"}, Stdin: strings.NewReader("in"), Stdout: &live,
	})
	var exit *proc.ExitError
	if !errors.As(err, &exit) || exit.Code != 3 || exit.Stderr != "two words" {
		t.Errorf("got error %v, want exit status 3 with its last line", err)
	}
	if string(res.Stdout) != "in" || live.String() != "in" || res.Code != 3 {
		t.Errorf("got %q, live %q, code %d", res.Stdout, live.String(), res.Code)
	}
}

func TestRunKillsTheWholeGroupWhenItsContextEnds(t *testing.T) {
	pidFile := filepath.Join(t.TempDir(), "pid")
	cause := errors.New("deadline of the test")
	ctx, cancel := context.WithCancelCause(t.Context())
	go func() {
		for _, err := os.Stat(pidFile); err != nil; _, err = os.Stat(pidFile) {
			time.Sleep(time.Millisecond)
		}
		cancel(cause)
	}()
	_, err := proc.Run(ctx, proc.Cmd{Path: "sh", Args: []string{"-c", `sleep 600 & echo $! >"$0.part"; mv "$0.part" "$0"; wait`, pidFile}})
	if !errors.Is(err, cause) {
		t.Errorf("got %v, want the cause", err)
	}
	b, _ := os.ReadFile(pidFile)
	for range 500 {
		if err := syscall.Kill(atoi(t, b), 0); errors.Is(err, syscall.ESRCH) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("the grandchild %s still runs", b)
}

func TestAMissingProgramIsNotInstalled(t *testing.T) {
	_, err := proc.Run(t.Context(), proc.Cmd{Path: "no-such-program-of-ours"})
	if !errors.Is(err, proc.ErrNotInstalled) {
		t.Errorf("got %v, want ErrNotInstalled", err)
	}
}

func TestADetachedProcessIsFoundAgainAndKilled(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	id, err := proc.Detach(proc.Cmd{Path: "sh", Args: []string{"-c", "echo up; sleep 600 & wait"}}, log)
	if err != nil {
		t.Fatal(err)
	}
	again, err := proc.Identify(id.PID)
	if err != nil || again != id || !id.Alive() {
		t.Fatalf("identify: %v, %v; want %v", again, err, id)
	}
	if other := (proc.ID{PID: id.PID, Start: "another boot/1"}); other.Alive() || !errors.Is(other.Signal(syscall.SIGKILL, true), fs.ErrNotExist) {
		t.Error("a process of another boot counts as this one")
	}
	for range 500 {
		if b, _ := os.ReadFile(log); string(b) == "up\n" {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if err := id.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	if id.Alive() {
		t.Error("it lives after Kill")
	}
	if err := id.Kill(t.Context()); err != nil {
		t.Errorf("killing it twice: %v", err)
	}
	if b, _ := os.ReadFile(log); string(b) != "up\n" {
		t.Errorf("log holds %q", b)
	}
}

func atoi(t *testing.T, b []byte) int {
	t.Helper()
	n := 0
	for _, c := range bytes.TrimSpace(b) {
		n = n*10 + int(c-'0')
	}
	if n == 0 {
		t.Fatalf("no process number in %q", b)
	}
	return n
}
