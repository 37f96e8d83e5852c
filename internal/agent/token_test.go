package agent_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"testing"

	"github.com/mirego/tasuki/internal/agent"
	"github.com/mirego/tasuki/internal/base/proc"
	"github.com/mirego/tasuki/internal/emulator"
	"github.com/mirego/tasuki/internal/emulator/workflow"
	"github.com/mirego/tasuki/internal/image"
	"github.com/mirego/tasuki/internal/runner"
	"github.com/mirego/tasuki/internal/vm"
	"github.com/mirego/tasuki/internal/vm/fake"
)

// buildActRunner builds the runner program of the demo's guests, or finds it
// where it was built before.
var buildActRunner = sync.OnceValues(func() (string, error) {
	module, err := filepath.Abs("../../tools/demorunner")
	if err != nil {
		return "", err
	}
	sum, err := os.ReadFile(filepath.Join(module, "go.sum"))
	if err != nil {
		return "", err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	path := filepath.Join(cache, "tasuki", fmt.Sprintf("demorunner-%s-%s-%.6x", runtime.GOOS, runtime.GOARCH, sha256.Sum256(sum)))
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	fresh := fmt.Sprintf("%s.%d", path, os.Getpid())
	_, err = proc.Run(context.Background(), proc.Cmd{
		Path: "go", Dir: module, Env: []string{"CGO_ENABLED=0", "GOTOOLCHAIN=local", "GOFLAGS=-mod=readonly"},
		Args: []string{"build", "-trimpath", "-ldflags", "-s -w", "-o", fresh, "github.com/ChristopherHX/github-act-runner"},
	})
	if err != nil {
		return "", err
	}
	return path, os.Rename(fresh, path)
})

// actImage is the image of guests with github-act-runner, a runner program that
// we did not write.
type actImage struct{ dir string }

func (i actImage) Image(ctx context.Context, ref string, progress func(image.Progress)) (image.Local, error) {
	img, err := oneImage{i.dir}.Image(ctx, ref, progress)
	img.Labels[image.LabelRunnerKind] = image.RunnerAct
	return img, err
}

func newActImage(t *testing.T) actImage {
	t.Helper()
	if testing.Short() {
		t.Skip("github-act-runner takes a minute to build: left out with -short")
	}
	path, err := buildActRunner()
	if err != nil && os.Getenv("TASUKI_TEST_QEMU") != "" {
		t.Fatalf("make test must drive github-act-runner, which cannot be built: %v", err)
	}
	if err != nil {
		t.Skipf("github-act-runner cannot be built here: %v", err)
	}
	dir := t.TempDir()
	if err := os.Symlink(path, filepath.Join(dir, "github-act-runner")); err != nil {
		t.Fatal(err)
	}
	return actImage{dir}
}

// onARM is a driver whose guests have another processor, as far as labels go.
type onARM struct{ *fake.Driver }

func (d onARM) Capabilities() vm.Capabilities {
	c := d.Driver.Capabilities()
	c.GuestOS, c.GuestArch = "darwin", "arm64"
	return c
}

// The labels that workflows name are published whichever way a runner registers.
func TestRunsOnLabels(t *testing.T) {
	t.Parallel()
	img := newActImage(t)
	for _, way := range []runner.Way{runner.ByJIT, runner.ByToken} {
		for _, flow := range []emulator.Flow{emulator.FlowV1, emulator.FlowV2} {
			if way == runner.ByJIT && flow == emulator.FlowV1 {
				continue // the same
			}
			t.Run(fmt.Sprint(way, flow), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t, emulator.Options{Flow: flow})
				wf, err := workflow.Parse("labels.yml", []byte("on: push\njobs:\n  ours:\n    runs-on: [self-hosted, ARM64, mirego]\n    steps:\n      - run: echo hello\n"))
				if err != nil {
					t.Fatal(err)
				}
				run, err := w.em.Submit(wf, t.TempDir())
				if err != nil {
					t.Fatal(err)
				}
				h := w.run(fake.Faults{}, func(o *agent.Options) {
					p := &o.Pools[0]
					p.Driver, p.Images, p.Spec.Registration = onARM{p.Driver.(*fake.Driver)}, img, way
				})
				w.concluded(run, "success")
				idle := w.runner(h, runner.Idle)
				for _, r := range w.em.State().Runners {
					if want := []string{"self-hosted", "macOS", "ARM64", "mirego"}; r.Name == idle.Name && !slices.Equal(r.Labels, want) {
						t.Errorf("labels of %s: %q, want %q", r.Name, r.Labels, want)
					}
				}
				w.finish(h)
			})
		}
	}
}

// A registration token that GitHub does not take: the guest's own words say so.
func TestAProgramThatCannotRegister(t *testing.T) {
	t.Parallel()
	w := newWorld(t, emulator.Options{})
	configure := "#!/bin/sh\necho 'Http response code: NotFound from POST /actions/runner-registration'; exit 1\n"
	if err := os.WriteFile(filepath.Join(w.program, "configure"), []byte(configure), 0o700); err != nil {
		t.Fatal(err)
	}
	h := w.run(fake.Faults{}, func(o *agent.Options) { o.Pools[0].Spec.Registration = runner.ByToken })
	w.until("the pool says why", func() bool {
		waits := h.Status().Pools[0].Waits.Text
		return contains(waits, "could not register itself", "Http response code: NotFound")
	})
	w.finish(h)
}
