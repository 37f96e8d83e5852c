package cli_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/mirego/tasuki/internal/base/proc"
	"github.com/mirego/tasuki/internal/image"
	"github.com/mirego/tasuki/internal/image/debian"
	"github.com/mirego/tasuki/internal/image/transfer"
	"github.com/mirego/tasuki/internal/registry"
)

// serveRegistry starts a registry for a test and returns its address.
func serveRegistry(t *testing.T) string {
	t.Helper()
	r, err := registry.New(registry.Options{Dir: t.TempDir(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx, l) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String()
}

// debianBase is the Debian image without a runner program, from the cache that
// test runs share.
func debianBase(t *testing.T) image.Source {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = t.TempDir()
	}
	src, err := debian.Build(t.Context(), debian.Options{CacheDir: filepath.Join(cache, "tasuki", "test-images", "debian")})
	if err != nil {
		t.Fatal(err)
	}
	return src
}

const tartRecipe = `name: through-tart
os: linux
vars: {WORD: first}
from: REGISTRY/base:1
guest: {memory: 1GiB, network: {mode: isolated}}
steps:
  - name: runner
    runner: {kind: command, version: "7", url: run, SUM}
  - name: word
    root: true
    run: echo "the word is $WORD, by $(id -un), for $(ls /home/runner/actions-runner)" >word
`

// TestARecipeIsBuiltThroughTart builds a recipe with the driver tart, whose
// stand-in has real guests: steps over the guest agent, cached by content, and
// an image that is pushed as tart's are.
func TestARecipeIsBuiltThroughTart(t *testing.T) {
	if os.Getenv("TASUKI_SOAK") == "" {
		t.Skip("shuts a guest down after each step, for minutes: set TASUKI_SOAK=1")
	}
	needsQEMU(t)
	dir, home, bin := t.TempDir(), t.TempDir(), t.TempDir()
	tasuki := build(t, "../..", "./cmd/tasuki", filepath.Join(bin, "tasuki"))
	build(t, "../..", "./internal/vm/tart/tarttest/cmd/tart", filepath.Join(bin, "tart"))
	t.Setenv("PATH", bin+string(os.PathListSeparator)+os.Getenv("PATH"))
	t.Setenv("TART_HOME", filepath.Join(home, "tart"))
	t.Setenv("TART_STAND_IN_BACKEND", "qemu")
	host := serveRegistry(t)
	ref := func(s string) image.Ref {
		ref, err := image.Parse(host + "/" + s)
		if err != nil {
			t.Fatal(err)
		}
		return ref
	}
	if _, err := transfer.Push(t.Context(), debianBase(t), ref("base:1"), transfer.Options{}); err != nil {
		t.Fatal(err)
	}
	program := []byte("#!/bin/sh\necho it runs\n")
	text := strings.NewReplacer("REGISTRY", host, "SUM", "sha256: "+sum256(program)).Replace(tartRecipe)
	if err := errors.Join(os.WriteFile(filepath.Join(dir, "run"), program, 0o755), os.WriteFile(filepath.Join(dir, "r.yaml"), []byte(text), 0o600)); err != nil {
		t.Fatal(err)
	}
	run := func(want string, args ...string) image.Ref {
		t.Helper()
		args = append([]string{"image", "build", filepath.Join(dir, "r.yaml"), "--driver", "tart", "--home", filepath.Join(home, "t"), "--push", host + "/out:1"}, args...)
		res, err := proc.Run(t.Context(), proc.Cmd{Path: tasuki, Args: args})
		if err != nil || !strings.Contains(string(res.Stderr), want) {
			t.Fatalf("want %q; got %v\n%s", want, err, res.Stderr)
		}
		pushed, err := image.Parse(strings.TrimSpace(string(res.Stdout)))
		if err != nil || pushed.Digest() == "" {
			t.Fatalf("it names no digest: %q, %v", res.Stdout, err)
		}
		return pushed
	}
	run("3 steps run, 0 not changed")
	second := run("1 step run, 2 not changed", "--var", "WORD=second")

	about, err := transfer.Inspect(t.Context(), second, transfer.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if about.Labels[image.LabelRunnerKind] != "command" || about.Labels[image.LabelRunnerVersion] != "7" || about.Labels[image.LabelHostKey] == "" {
		t.Errorf("the image's labels: %v", about.Labels)
	}
	disks, _ := filepath.Glob(filepath.Join(home, "t", "build", "images", "*", "disk.img"))
	if len(disks) != 2 || !slices.ContainsFunc(disks, func(disk string) bool { return holds(t, disk, "the word is second, by root, for run\n") }) {
		t.Errorf("none of %d images holds what the changed step wrote", len(disks))
	}
	if left, _ := filepath.Glob(filepath.Join(home, "tart", "vms", "*")); len(left) > 0 {
		t.Errorf("machines are left: %v", left)
	}
}

func sum256(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// holds says whether a file holds some bytes, which begin a block of it.
func holds(t *testing.T, path, want string) bool {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	buf := make([]byte, 4<<20)
	for {
		n, err := io.ReadFull(f, buf)
		if bytes.Contains(buf[:n], []byte(want)) {
			return true
		}
		if err != nil {
			return false
		}
	}
}
