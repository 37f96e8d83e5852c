package proc_test

import (
	"bytes"
	"context"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/mirego/tasuki/internal/base/proc"
)

func TestMarkedFindsWhatLeftItsSession(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("macOS hides the environment of /bin/sh")
	}
	mark := "TASUKI_TEST_MARK=" + t.TempDir()
	log := filepath.Join(t.TempDir(), "log")
	for _, env := range []string{mark, mark + "-other"} {
		id, err := proc.Detach(proc.Cmd{Path: "sh", Args: []string{"-c", "setsid sleep 600 & exec sleep 600"}, Env: []string{env}}, log)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			ctx := context.WithoutCancel(t.Context())
			ids, _ := proc.Marked(env)
			for _, left := range append(ids, id) {
				_ = left.Kill(ctx)
			}
		})
	}
	var ids []proc.ID
	for range 500 {
		var err error
		if ids, err = proc.Marked(mark); err != nil {
			t.Fatal(err)
		}
		if len(ids) == 2 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("found %v, want the two sleeps of one mark", ids)
}

func TestABareEnvironmentHoldsNothingOfOurs(t *testing.T) {
	t.Setenv("TASUKI_TEST_SECRET", "x")
	env, err := proc.Look("env")
	if err != nil {
		t.Fatal(err)
	}
	res, err := proc.Run(t.Context(), proc.Cmd{Path: env, Env: []string{"A=1"}, Bare: true})
	if err != nil || string(res.Stdout) != "A=1\n" {
		t.Errorf("got %q, %v", res.Stdout, err)
	}
}

func TestALiveProgramKeepsNoOutput(t *testing.T) {
	var out bytes.Buffer
	res, err := proc.Run(t.Context(), proc.Cmd{Path: "sh", Args: []string{"-c", "echo out; echo err >&2"}, Stdout: &out, Live: true})
	if err != nil || out.String() != "out\n" || len(res.Stdout)+len(res.Stderr) > 0 {
		t.Errorf("got %q, kept %q and %q, %v", out.String(), res.Stdout, res.Stderr, err)
	}
}
