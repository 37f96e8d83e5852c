package agent_test

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mirego/tasuki/internal/agent"
	"github.com/mirego/tasuki/internal/emulator"
	"github.com/mirego/tasuki/internal/event"
	"github.com/mirego/tasuki/internal/image"
	"github.com/mirego/tasuki/internal/runner"
	"github.com/mirego/tasuki/internal/vm/fake"
	"github.com/mirego/tasuki/internal/wait"
)

// officialImage is the image of guests whose runner lies as GitHub's own does.
type officialImage struct {
	dir     string
	version string // by its label; empty: there is none
	digest  atomic.Pointer[string]
}

func (i *officialImage) Image(ctx context.Context, ref string, progress func(image.Progress)) (image.Local, error) {
	img, err := oneImage{i.dir}.Image(ctx, ref, progress)
	img.Labels[image.LabelRunnerKind], img.Labels[image.LabelRunnerVersion] = image.RunnerOfficial, i.version
	if d := i.digest.Load(); d != nil {
		img.Digest = *d
	}
	return img, err
}

// listenerText is a bin/Runner.Listener of a version, which GitHub may give no
// jobs to.
func listenerText(t *testing.T, version string, refused bool) string {
	t.Helper()
	programDir(t, "") // builds the small runner
	run := "exec '" + built.path + "' -hold 100ms"
	if refused {
		run = "echo 'An error occured: Runner version v" + version + " is deprecated and cannot receive messages.'; exit 7"
	}
	return "#!/bin/sh\ncase $1 in --version) echo " + version + "; exit;; esac\necho \"Current runner version: '" + version + "' $(cat .env 2>/dev/null)\"\n" + run + "\n"
}

func newOfficialImage(t *testing.T, version string, refused bool) *officialImage {
	t.Helper()
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "bin"), 0o700); err != nil {
		t.Fatal(err)
	}
	for path, text := range map[string]string{"bin/Runner.Listener": listenerText(t, version, refused), ".env": "LANG=C.UTF-8"} {
		if err := os.WriteFile(filepath.Join(dir, path), []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return &officialImage{dir: dir, version: version}
}

// kept are the releases of a host.
type kept struct {
	release atomic.Pointer[runner.Release]
}

func (k *kept) Latest(system, arch string) (runner.Release, bool) {
	r := k.release.Load()
	if r == nil || system == "" || arch == "" {
		return runner.Release{}, false
	}
	return *r, true
}

// keep makes a release with a good runner program.
func (k *kept) keep(t *testing.T, version string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "runner.tar.gz")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	text := listenerText(t, version, false)
	zip := gzip.NewWriter(f)
	files := tar.NewWriter(zip)
	if err := files.WriteHeader(&tar.Header{Name: "./bin/Runner.Listener", Mode: 0o755, Size: int64(len(text))}); err != nil {
		t.Fatal(err)
	}
	if _, err := files.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []interface{ Close() error }{files, zip, f} {
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	k.release.Store(&runner.Release{Version: version, Path: path})
}

// GitHub gives no jobs to the runner in the image: the pool says so and does not
// boot guest after guest; a newer runner ends it, in the image or on the host.
func TestVersionDeprecated(t *testing.T) {
	t.Parallel()
	for _, cure := range []string{"a newer image", "a release on the host"} {
		t.Run(cure, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, emulator.Options{})
			img, releases, heard := newOfficialImage(t, "2.300.0", true), &kept{}, &eventList{}
			run := w.submit(1)
			h := w.run(fake.Faults{}, func(o *agent.Options) {
				o.Pools[0].Images, o.Releases, o.Events, o.ImageRefresh = img, releases, heard, 300*time.Millisecond
			})
			w.until("the pool says why", func() bool {
				return contains(h.Status().Pools[0].Waits.Text, "GitHub gives no jobs to runner 2.300.0 of image sha256:000000000000", "asked again at")
			})
			if code := h.Status().Pools[0].Waits.Code; code != wait.Deprecated {
				t.Errorf("it waits for %q", code)
			}
			if s := h.Status().Pools[0]; s.Deprecated != 1 || heard.count(event.RunnerDeprecated) != 1 {
				t.Errorf("%d runners of a deprecated version and %d events, want one", s.Deprecated, heard.count(event.RunnerDeprecated))
			}
			if cure == "a newer image" {
				listener := listenerText(t, "2.336.0", false)
				if err := os.WriteFile(filepath.Join(img.dir, "bin/Runner.Listener"), []byte(listener), 0o700); err != nil {
					t.Fatal(err)
				}
				digest := "sha256:" + strings.Repeat("1", 64)
				img.digest.Store(&digest)
			} else {
				releases.keep(t, "2.336.0")
			}
			w.concluded(run, "success")
			w.finish(h)
		})
	}
}

// An image with an older runner than the host's gets the host's, unless the pool
// says otherwise.
func TestRunnerFromTheHost(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		source        runner.Source
		label, inside string // versions
		want          string
		problem       bool
	}{
		{runner.FromHost, "2.300.0", "2.300.0", "2.336.0' LANG=C.UTF-8", false},
		{runner.FromHost, "", "2.300.0", "2.336.0' LANG=C.UTF-8", false},
		{runner.FromHost, "2.400.0", "2.400.0", "2.400.0'", false},
		{runner.FromImage, "2.300.0", "2.300.0", "2.300.0'", true},
		{runner.FromOff, "2.300.0", "2.300.0", "2.300.0'", false},
	} {
		t.Run(fmt.Sprint(c.source, " ", c.label), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, emulator.Options{})
			img, releases := newOfficialImage(t, c.inside, false), &kept{}
			img.version = c.label
			releases.keep(t, "2.336.0")
			h := w.run(fake.Faults{}, func(o *agent.Options) {
				o.Pools[0].Images, o.Releases, o.Pools[0].Spec.Runner = img, releases, c.source
			})
			idle := w.runner(h, runner.Idle)
			log, err := os.ReadFile(h.LogPath(idle.Name))
			if err != nil || !strings.Contains(string(log), "Current runner version: '"+c.want) {
				t.Errorf("log %q, %v; want version %s", log, err, c.want)
			}
			problems := strings.Join(h.Status().Problems, "\n")
			if got := strings.Contains(problems, "its image carries runner 2.300.0"); got != c.problem {
				t.Errorf("problems: %q", problems)
			}
			w.concluded(w.submit(1), "success")
			w.finish(h)
		})
	}
}
