package cli_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/mirego/tasuki/internal/image"
	"github.com/mirego/tasuki/internal/image/transfer"
)

const cutRecipe = `name: cut-off
vars: {HOW: "sleep 600"}
from: REGISTRY/base:1
guest: {memory: 1GiB, network: {mode: isolated}}
steps:
  - name: first
    run: echo first >first
  - name: last
    run: |
      echo "it begins"
      $HOW
`

// TestABuildThatIsCutOff interrupts a build, and kills one: nothing of them is
// left, at once or by the next build, but the step that was done.
func TestABuildThatIsCutOff(t *testing.T) {
	needsQEMU(t)
	if runtime.GOOS != "linux" {
		t.Skip("looks for guests in /proc")
	}
	home, dir := t.TempDir(), t.TempDir()
	tasuki := build(t, "../..", "./cmd/tasuki", filepath.Join(t.TempDir(), "tasuki"))
	host := serveRegistry(t)
	ref, err := image.Parse(host + "/base:1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := transfer.Push(t.Context(), debianBase(t), ref, transfer.Options{}); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "cut.yaml")
	if err := os.WriteFile(file, []byte(strings.Replace(cutRecipe, "REGISTRY", host, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) *program {
		return start(t, tasuki, append([]string{"image", "build", file, "--home", home}, args...)...)
	}
	guests := func() (found int) {
		lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
		for _, path := range lines {
			if b, err := os.ReadFile(path); err == nil && bytes.Contains(b, []byte(home)) && bytes.Contains(b, []byte("qemu-system")) {
				found++
			}
		}
		return found
	}
	images := func() int {
		all, err := os.ReadDir(filepath.Join(home, "build", "images"))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		return len(all)
	}

	// A step that fails says which it is, where it stands, and what it printed.
	p := run("--var", "HOW=ls /no-such-file")
	if code := p.end(); code != 2 || guests() > 0 || images() > 0 {
		t.Errorf("a step that fails: exit status %d, %d guests, %d images", code, guests(), images())
	}
	for _, want := range []string{`step "last" (` + file + `:8) failed: it ended with status`, "  ls: cannot access '/no-such-file'"} {
		if !strings.Contains(p.output(), want) {
			t.Errorf("no %q:\n%s", want, p.output())
		}
	}
	p = run()
	p.await("    it begins\n")
	if err := p.p.Kill(); err != nil {
		t.Fatal(err)
	}
	p.end()
	if guests() != 1 || images() > 0 {
		t.Errorf("after kill -9: %d guests, %d images; the guest lives on by itself", guests(), images())
	}
	p = run()
	p.await("    it begins\n")
	if guests() != 1 || !strings.Contains(p.output(), "==> first: not changed") {
		t.Errorf("the next build: %d guests; want its own alone, and the step that was done kept\n%s", guests(), p.output())
	}
	if err := p.p.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if code := p.end(); code == 0 || guests() > 0 || images() > 0 {
		t.Errorf("after Ctrl-C: exit status %d, %d guests, %d images\n%s", code, guests(), images(), p.output())
	}
	if left, _ := filepath.Glob(filepath.Join(home, "build", "work-*")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}
