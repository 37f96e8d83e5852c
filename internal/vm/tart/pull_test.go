package tart

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/mirego/tasuki/internal/image"
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
	disk := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(disk, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	tag, err := image.Parse(l.Addr().String() + "/mac:latest")
	if err != nil {
		t.Fatal(err)
	}
	digest, err := transfer.Push(t.Context(), image.Source{Disk: disk, Labels: map[string]string{
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
