package tart

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mirego/tasuki/internal/image"
	"github.com/mirego/tasuki/internal/image/store"
	"github.com/mirego/tasuki/internal/image/transfer"
	"github.com/mirego/tasuki/internal/registry"
	"github.com/mirego/tasuki/internal/vm"
	"github.com/mirego/tasuki/internal/vm/tart/tarttest"
)

// pushed serves a registry with one image and returns its reference by digest.
func pushed(t *testing.T) (ref image.Ref, down func()) {
	t.Helper()
	r, err := registry.New(registry.Options{Dir: t.TempDir(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = r.Run(ctx, l) }()
	down = func() { cancel(); <-ended }
	t.Cleanup(down)
	disk, nvram := filepath.Join(t.TempDir(), "disk"), filepath.Join(t.TempDir(), "nvram")
	// The stand-in takes from the NVRAM what the machine is.
	if err := errors.Join(os.WriteFile(disk, make([]byte, 1<<20), 0o600), os.WriteFile(nvram, []byte(`{"digest":"sha256:any","labels":{}}`), 0o600)); err != nil {
		t.Fatal(err)
	}
	tag, err := image.Parse(l.Addr().String() + "/mac:latest")
	if err != nil {
		t.Fatal(err)
	}
	digest, err := transfer.Push(t.Context(), image.Source{Disk: disk, NVRAM: nvram, Labels: map[string]string{
		image.LabelOS: image.OSDarwin, image.LabelArch: runtime.GOARCH,
	}}, tag, transfer.Options{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return tag.WithDigest(digest), down
}

func TestPullByDigest(t *testing.T) {
	w := newWorld(t)
	ref, down := pushed(t)
	w.faults(tarttest.Faults{PullFails: 1, GCNoise: true})
	d := w.driver()
	if err := d.Create(t.Context(), vm.Spec{
		Name: "tk-a", Owner: vm.Owner{Installation: testInstallation}, Image: image.Local{Ref: ref, Digest: ref.Digest()}, Network: vm.Network{Mode: vm.Internet},
	}); !errors.Is(err, image.ErrNotFound) {
		t.Errorf("Create before the pull: %v, want image.ErrNotFound: nothing is pulled there", err)
	}
	if err := d.Pull(t.Context(), ref, Login{HTTP: true}, nil); err != nil {
		t.Fatal(err)
	}
	w.img = image.Local{Ref: ref, Digest: ref.Digest()}
	w.running(d, "tk-a")
	// Registry-down-cached: what is there is not asked for.
	down()
	if err := d.Pull(t.Context(), ref, Login{HTTP: true}, nil); err != nil {
		t.Errorf("Pull of what is there, with the registry down: %v", err)
	}
	if err := d.Forget(t.Context(), ref); err != nil || d.Cached(ref) {
		t.Errorf("Forget: %v, cached: %v", err, d.Cached(ref))
	}
	if err := d.Forget(t.Context(), ref); err != nil {
		t.Errorf("Forget again: %v", err)
	}
}

// A pull that says nothing is ended and tried again.
func TestPullThatStalls(t *testing.T) {
	w := newWorld(t)
	ref, _ := pushed(t)
	w.faults(tarttest.Faults{Hang: map[string]int{"pull": 1}})
	d := w.driver()
	d.times.stall = 5 * time.Second
	if err := d.Pull(t.Context(), ref, Login{HTTP: true}, nil); err != nil {
		t.Fatal(err)
	}
}

func TestPercents(t *testing.T) {
	var got []int64
	p := &percents{tell: func(n int64) { got = append(got, n) }}
	for _, chunk := range []string{"pulling x...\n4", "2%\n", "waiting for lock...\n100%\n101%\n"} {
		_, _ = p.Write([]byte(chunk))
	}
	if want := []int64{-1, 42, -1, 100, -1}; len(got) != len(want) || got[1] != 42 || got[3] != 100 || got[4] != -1 {
		t.Errorf("got %v, want %v", got, want)
	}
}

// Our own transfer leaves what tart pull would have left, and tart works with it.
func TestAdmit(t *testing.T) {
	w := newWorld(t)
	d := w.driver()
	ref, _ := pushed(t)
	s, err := store.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	img, err := transfer.Pull(t.Context(), ref, s, transfer.Options{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Admit(t.Context(), ref, img); err != nil {
		t.Fatal(err)
	}
	if err := d.Admit(t.Context(), ref, img); err != nil {
		t.Errorf("again: %v", err)
	}
	var names []string
	entries, err := os.ReadDir(d.CacheDir(ref))
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if want := []string{".explicitly-pulled", "config.json", "disk.img", "manifest.json", "nvram.bin"}; err != nil || !slices.Equal(names, want) {
		t.Errorf("the image is %q, %v; want %q", names, err, want)
	}
	if host := filepath.Base(d.cacheHost(ref)); !strings.HasPrefix(host, "127.0.0.1%3A") {
		t.Errorf("the registry's folder is %q", host)
	}
	if left, err := os.ReadDir(filepath.Join(w.opt.TartHome, "tmp")); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	w.img = image.Local{Ref: ref, Digest: ref.Digest()}
	w.running(d, "tk-a")
	if calls, err := tarttest.Calls(w.opt.TartHome, "pull"); err != nil || len(calls) > 0 {
		t.Errorf("tart pulled: %v, %v", calls, err)
	}
	img.NVRAM = ""
	if err := d.Admit(t.Context(), ref, img); err == nil || !strings.Contains(err.Error(), "nvram") {
		t.Errorf("an image without nvram: %v", err)
	}
}

// The locks are tart's: one pull from a registry at a time, and no command
// collects what is on its way as garbage.
func TestAdmitTakesTartsLocks(t *testing.T) {
	w := newWorld(t)
	d := w.driver()
	ref := w.img.Ref
	if err := os.MkdirAll(d.cacheHost(ref), 0o700); err != nil {
		t.Fatal(err)
	}
	unlock, err := lockFolder(t.Context(), d.cacheHost(ref))
	if err != nil {
		t.Fatal(err)
	}
	enough := errors.New("enough")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 50*time.Millisecond, enough)
	defer cancel()
	if err := d.Admit(ctx, ref, image.Local{Digest: ref.Digest(), ConfigFile: "c", NVRAM: "n"}); !errors.Is(err, enough) {
		t.Errorf("Admit during another's pull: %v, want that it waits", err)
	}
	unlock()
	tmp, release, err := d.temporary(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.List(t.Context()); err != nil { // collects garbage first
		t.Fatal(err)
	}
	if _, err := os.Stat(tmp); err != nil {
		t.Errorf("what is on its way was collected: %v", err)
	}
	release()
	if _, err := os.Stat(tmp); err == nil {
		t.Error("it was left")
	}
}
