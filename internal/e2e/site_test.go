package e2e

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/mirego/tasuki/internal/base/proc"
	"github.com/mirego/tasuki/internal/image"
	"github.com/mirego/tasuki/internal/image/debian"
	"github.com/mirego/tasuki/internal/image/transfer"
	"github.com/mirego/tasuki/internal/registry"
)

// TestRealGuests is every story, one after the other: each guest wants a whole
// processor while it boots.
func TestRealGuests(t *testing.T) {
	needQEMU(t)
	s := newSite(t)
	t.Run("an agent that is killed", s.agentKilled)
	t.Run("a power loss, then two pools at once", s.powerLoss)
	t.Run("the official layout", s.officialLayout)
}

// needQEMU skips the test unless QEMU was asked for; then what is missing fails it.
func needQEMU(t *testing.T) {
	t.Helper()
	if os.Getenv("TASUKI_TEST_QEMU") == "" {
		t.Skip("needs QEMU: set TASUKI_TEST_QEMU=1, or run make test, which installs it")
	}
	for _, program := range []string{"qemu-img", "mmdebstrap", "ssh"} {
		if _, err := proc.Look(program); err != nil {
			t.Fatalf("%v; make prepare installs it", err)
		}
	}
}

// site is what all stories share.
type site struct {
	tasuki   string // the built program
	act      string // github-act-runner for the guests
	images   string // an agent's images; every home has them by a link
	registry string // host:port
	image    string // the reference of the guest image
}

func newSite(t *testing.T) *site {
	t.Helper()
	bin := t.TempDir()
	s := &site{images: t.TempDir(), registry: serveRegistry(t)}
	s.tasuki = build(t, "../..", "./cmd/tasuki", filepath.Join(bin, "tasuki"))
	// The flags are those of the other tests with guests: so they share the image.
	s.act = build(t, "../../tools/demorunner", "github.com/ChristopherHX/github-act-runner", filepath.Join(bin, "github-act-runner"))
	s.image = s.push(t, s.act, "act")
	return s
}

// build returns a static program built from a module's folder.
func build(t *testing.T, dir, pkg, out string) string {
	t.Helper()
	_, err := proc.Run(t.Context(), proc.Cmd{
		Path: "go", Dir: dir,
		Args: []string{"build", "-mod=readonly", "-trimpath", "-ldflags", "-s -w", "-o", out, pkg},
		Env:  []string{"CGO_ENABLED=0", "GOOS=linux", "GOARCH=" + runtime.GOARCH},
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// serveRegistry serves an empty registry until the test ends.
func serveRegistry(t *testing.T) string {
	t.Helper()
	r, err := registry.New(registry.Options{Dir: t.TempDir(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return serve(t, r.Run)
}

// serve runs a server on loopback until the test ends, and returns its address.
func serve(t *testing.T, run func(context.Context, net.Listener) error) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	served := make(chan error, 1)
	go func() { served <- run(ctx, l) }()
	t.Cleanup(func() {
		stop()
		if err := <-served; err != nil {
			t.Errorf("a server of the test: %v", err)
		}
	})
	return l.Addr().String()
}

// push builds the image with this runner program, or takes it from the cache
// that test runs share, and pushes it. It returns the reference by digest.
func (s *site) push(t *testing.T, runner, tag string) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = t.TempDir()
	}
	src, err := debian.Build(t.Context(), debian.Options{CacheDir: filepath.Join(cache, "tasuki", "test-images"), Runner: runner})
	if err != nil {
		t.Fatal(err)
	}
	ref, err := image.Parse(s.registry + "/tasuki/e2e:" + tag)
	if err != nil {
		t.Fatal(err)
	}
	digest, err := transfer.Push(t.Context(), src, ref, transfer.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return ref.WithDigest(digest).String()
}

// officialFolder makes a folder in the layout of actions/runner.
func (s *site) officialFolder(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	from := os.DirFS("testdata/official")
	err := fs.WalkDir(from, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			return os.MkdirAll(filepath.Join(dir, name), 0o755)
		}
		return copyProgram(from, name, filepath.Join(dir, name))
	})
	err = errors.Join(err,
		copyProgram(os.DirFS(filepath.Dir(s.act)), filepath.Base(s.act), filepath.Join(dir, "bin", debian.ActBinary)),
		os.WriteFile(filepath.Join(dir, "VERSION"), []byte("2.330.0\n"), 0o644))
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func copyProgram(from fs.FS, name, to string) error {
	data, err := fs.ReadFile(from, name)
	if err != nil {
		return err
	}
	return os.WriteFile(to, data, 0o755)
}
