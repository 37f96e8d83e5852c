package recipe_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mirego/tasuki/internal/base/secret"
	"github.com/mirego/tasuki/internal/guest/local"
	"github.com/mirego/tasuki/internal/image"
	"github.com/mirego/tasuki/internal/image/cloud"
	"github.com/mirego/tasuki/internal/recipe"
	"github.com/mirego/tasuki/internal/vm"
	"github.com/mirego/tasuki/internal/vm/fake"
)

// folders is the fake driver with disks: a guest's is its root folder.
type folders struct {
	*fake.Driver
	dir     string
	creates int
}

func (d *folders) Create(ctx context.Context, spec vm.Spec) error {
	d.creates++
	if err := d.Driver.Create(ctx, spec); err != nil {
		return err
	}
	return os.CopyFS(d.root(spec.Name), os.DirFS(spec.Image.Disk))
}

func (d *folders) root(name string) string { return filepath.Join(d.dir, name, "root") }

func (d *folders) Snapshot(_ context.Context, name, dir string) (image.Local, error) {
	disk := filepath.Join(dir, "disk")
	return image.Local{Digest: "sha256:" + strings.Repeat("1", 64), Dir: dir, Disk: disk}, os.CopyFS(disk, os.DirFS(d.root(name)))
}

func (d *folders) Export(ctx context.Context, name, dir string) (image.Source, error) {
	img, err := d.Snapshot(ctx, name, dir)
	return image.Source{Disk: img.Disk}, err
}

// base is a folder of this host as a base image.
type base struct {
	sources
	dir, digest string
}

func (b base) Image(context.Context, string, func(int64, int64)) (image.Local, error) {
	return image.Local{Digest: b.digest, Dir: b.dir, Disk: b.dir, Labels: map[string]string{
		image.LabelUser: "runner", image.LabelHostKey: "ssh-ed25519 of-the-base", image.LabelBoot: image.BootKernel,
	}}, nil
}

// world builds with fake guests.
type world struct {
	opt  recipe.Options
	d    *folders
	base *base
	view *view
}

func newWorld(t *testing.T) *world {
	t.Helper()
	home := t.TempDir()
	f, err := fake.New(fake.Options{Dir: filepath.Join(home, "fake"), Installation: "i", Prefix: "b-"})
	if err != nil {
		t.Fatal(err)
	}
	w := &world{d: &folders{Driver: f, dir: filepath.Join(home, "fake")}, view: &view{t: t}, base: &base{sources: sources{&cloud.Cache{Dir: filepath.Join(home, "dl")}}, digest: "sha256:" + strings.Repeat("0", 64), dir: t.TempDir()}}
	w.opt = recipe.Options{
		Dir: filepath.Join(home, "build"), Driver: w.d, Installation: "i", Prefix: "b-", Dialer: local.Dialer{}, Sources: w.base, View: w.view,
		NewKey: func() (secret.String, string, error) { return secret.New("a key"), "ssh-ed25519 AAAA", nil },
	}
	t.Cleanup(func() {
		for _, in := range w.guests(t) {
			if err := f.Destroy(context.WithoutCancel(t.Context()), in.Name); err != nil {
				t.Error(err)
			}
		}
	})
	return w
}

func (w *world) guests(t *testing.T) []vm.Instance {
	t.Helper()
	all, err := w.d.List(context.WithoutCancel(t.Context()))
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func (w *world) build(t *testing.T, r recipe.Recipe) (recipe.Built, error) {
	t.Helper()
	b, err := recipe.New(w.opt)
	if err != nil {
		t.Fatal(err)
	}
	return b.Build(t.Context(), r)
}

// runs builds and compares the steps that had to run.
func (w *world) runs(t *testing.T, why string, r recipe.Recipe, want ...string) recipe.Built {
	t.Helper()
	built, err := w.build(t, r)
	if err != nil {
		t.Fatalf("%s: %v", why, err)
	}
	if diff := cmp.Diff(want, built.Ran); diff != "" {
		t.Errorf("%s: steps that ran (-want +got):\n%s", why, diff)
	}
	if left := w.guests(t); len(left) > 0 {
		t.Errorf("%s: guests are left: %v", why, left)
	}
	return built
}

func steps(scripts ...string) recipe.Recipe {
	r := recipe.Recipe{
		Name: "x", OS: image.OSLinux, Arch: runtime.GOARCH, Base: recipe.Base{Image: "r.io/base:1"},
		Guest: recipe.Guest{Network: vm.Network{Mode: vm.Isolated}}, Vars: map[string]string{"WORD": "hello", "OTHER": "1"},
	}
	for i, s := range scripts {
		r.Steps = append(r.Steps, recipe.Step{Name: string(rune('a' + i)), Script: s})
	}
	return r
}

func read(t *testing.T, path ...string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(path...))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestOnlyWhatChangedIsRun(t *testing.T) {
	w := newWorld(t)
	file := filepath.Join(t.TempDir(), "f")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("one")
	r := steps("echo a >>done", "echo b $WORD >>done", "cat copied >>done")
	r.Steps[2].Copies = []recipe.Copy{{From: file, To: "~/copied"}}

	built := w.runs(t, "at first", r, "prepare", "a", "b", "c")
	if got := read(t, built.Source.Disk, "done"); got != "a\nb hello\none" {
		t.Errorf("the image holds %q", got)
	}
	creates := w.d.creates
	w.runs(t, "unchanged", r)
	if w.d.creates != creates {
		t.Error("a build of what is there booted a guest")
	}
	r.Vars["OTHER"] = "2"
	w.runs(t, "a variable that no step mentions", r)
	write("two")
	built = w.runs(t, "a copied file", r, "c")
	if got := read(t, built.Source.Disk, "done"); got != "a\nb hello\ntwo" {
		t.Errorf("the image holds %q; the last step ran on what it had made before", got)
	}
	r.Vars["WORD"] = "bye"
	w.runs(t, "a variable that step b mentions", r, "b", "c")
	write("one")
	r.Vars["WORD"] = "hello"
	w.runs(t, "as it was at first", r)
	r.Steps[0].Env = map[string]string{"X": "1"}
	w.runs(t, "the environment of step a", r, "a", "b", "c")
	w.base.digest = "sha256:" + strings.Repeat("2", 64)
	w.runs(t, "another base", r, "prepare", "a", "b", "c")
	w.opt.Anew = true
	w.runs(t, "anew", r, "prepare", "a", "b", "c")
}

// An image that was pruned, and a label, cost no step.
func TestALabelCostsNoStep(t *testing.T) {
	w := newWorld(t)
	r := steps("echo a >done")
	w.runs(t, "at first", r, "prepare", "a")
	r.Labels = map[string]string{"org.example.team": "ios"}
	built := w.runs(t, "with a label", r)
	for name, want := range map[string]string{
		"org.example.team": "ios", image.LabelUser: "runner", image.LabelBoot: image.BootKernel, image.LabelHostKey: "",
	} {
		if got := built.Source.Labels[name]; got != want {
			t.Errorf("label %s: got %q, want %q", name, got, want)
		}
	}
	if !strings.HasPrefix(built.Source.Labels[image.LabelRecipe], "x@sha256:"+built.Key) {
		t.Errorf("the image does not name its recipe: %q", built.Source.Labels[image.LabelRecipe])
	}
}

func TestAFailedStepSaysWhich(t *testing.T) {
	w := newWorld(t)
	r := steps("echo a >>done", "echo one\necho two >&2\nfalse\necho never")
	built, err := w.build(t, r)
	step, ok := errors.AsType[*recipe.StepError](err)
	if !ok || step.Step != "b" || !errors.Is(err, recipe.ErrStep) || !strings.Contains(err.Error(), `step "b" failed: it ended with status 1`) {
		t.Fatalf("got %v; want step b to fail", err)
	}
	if got := strings.Join(step.Last, " "); got != "one two" && got != "two one" {
		t.Errorf("its last lines: %q", got)
	}
	if log := read(t, built.Log); !strings.Contains(log, "== b\n") || !strings.Contains(log, "two\n") {
		t.Errorf("log: %q", log)
	}
	if left := w.guests(t); len(left) > 0 {
		t.Errorf("guests are left: %v", left)
	}
	r.Steps[1].Script = "echo b >>done"
	built = w.runs(t, "mended", r, "b")
	if got := read(t, built.Source.Disk, "done"); got != "a\nb\n" {
		t.Errorf("the image holds %q", got)
	}
}

func TestAGuestIsHeld(t *testing.T) {
	w := newWorld(t)
	var held recipe.Held
	w.opt.Held = func(_ context.Context, g recipe.Held) {
		held = g
		if info, err := os.Stat(g.KeyFile); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("key file: %v, %v", info, err)
		}
		if len(w.guests(t)) != 1 {
			t.Error("the guest is gone while it is held")
		}
	}
	_, err := w.build(t, steps("false"))
	if err == nil || held.Guest == "" || held.User != "runner" {
		t.Errorf("got %v, held %+v", err, held)
	}
	if _, err := os.Stat(held.KeyFile); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the key is left: %v", err)
	}
	if left := w.guests(t); len(left) > 0 {
		t.Errorf("guests are left: %v", left)
	}
}

func TestSecretsAreNowhere(t *testing.T) {
	w := newWorld(t)
	r := steps(`[ "${#TOKEN}" = 11 ] && echo "it is $TOKEN." && echo "$TOKEN" | wc -c >length`)
	r.Secrets = map[string]secret.String{"TOKEN": secret.New("it's geheim")}
	r.Steps[0].Secrets = []string{"TOKEN"}
	built := w.runs(t, "at first", r, "prepare", "a")
	r.Secrets["TOKEN"] = secret.New("another")
	w.runs(t, "with another value", r)
	if log := read(t, built.Log); !strings.Contains(log, "it is [redacted].") {
		t.Errorf("log: %q", log)
	}
	err := filepath.WalkDir(w.opt.Dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && strings.Contains(read(t, path), "geheim") {
			t.Errorf("%s holds the secret", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// A build that is called off, and one that was killed, leave nothing.
func TestNothingIsLeft(t *testing.T) {
	w := newWorld(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	w.opt.View = &callsOff{view: w.view, at: "b", cancel: cancel}
	b, err := recipe.New(w.opt)
	if err != nil {
		t.Fatal(err)
	}
	r := steps("echo a >done", "sleep 600")
	if _, err := b.Build(ctx, r); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v, want context.Canceled", err)
	}
	if left := w.guests(t); len(left) > 0 {
		t.Errorf("guests are left: %v", left)
	}
	// What kill -9 leaves: a guest and a folder of work.
	if err := errors.Join(
		w.d.Driver.Create(t.Context(), vm.Spec{Name: "b-killed", Owner: vm.Owner{Installation: "i"}, Image: image.Local{Digest: w.base.digest}, Network: vm.Network{Mode: vm.Isolated}}),
		w.d.Start(t.Context(), "b-killed"), os.MkdirAll(filepath.Join(w.opt.Dir, "work-1/image"), 0o700),
	); err != nil {
		t.Fatal(err)
	}
	r.Steps[1].Script = "echo b >>done"
	w.opt.View = w.view
	w.runs(t, "after a kill", r, "b")
	if left, _ := filepath.Glob(filepath.Join(w.opt.Dir, "work-*")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// callsOff cancels when a part begins.
type callsOff struct {
	*view
	at     string
	cancel func()
}

func (v *callsOff) Begin(name string) {
	if name == v.at {
		v.cancel()
	}
}

func TestAStepHasATimeout(t *testing.T) {
	w := newWorld(t)
	r := steps("sleep 600")
	r.Steps[0].Timeout = 50 * time.Millisecond
	_, err := w.build(t, r)
	if err == nil || !strings.Contains(err.Error(), "not done after 50ms") {
		t.Errorf("got %v", err)
	}
}

func TestRunnerPrograms(t *testing.T) {
	w := newWorld(t)
	program := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(program, []byte("#!/bin/sh\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte("#!/bin/sh\n"))
	r := steps()
	runner := &recipe.Runner{Kind: image.RunnerAct, Dir: "~/actions-runner", Version: "1.2", Archive: recipe.Download{URL: program, Checksum: "sha256:" + hex.EncodeToString(sum[:])}}
	r.Steps = []recipe.Step{{Name: "runner", Runner: runner}}
	built := w.runs(t, "at first", r, "prepare", "runner")
	if info, err := os.Stat(filepath.Join(built.Source.Disk, "actions-runner/github-act-runner")); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("the program: %v, %v", info, err)
	}
	if got := built.Source.Labels; got[image.LabelRunnerKind] != "act" || got[image.LabelRunnerVersion] != "1.2" || got[image.LabelRunnerDir] != "~/actions-runner" {
		t.Errorf("labels: %v", got)
	}
	runner.Kind = image.RunnerOfficial
	if _, err := w.build(t, r); err == nil || !strings.Contains(read(t, built.Log), "no tar archive") {
		t.Errorf("a single file as the official runner: got %v", err)
	}
	runner.Archive.Checksum = "sha256:" + strings.Repeat("0", 64)
	if _, err := w.build(t, r); err == nil || !strings.Contains(err.Error(), "its checksum is another") {
		t.Errorf("a changed program: got %v", err)
	}
}

func TestRecipesThatCannotBeBuiltHere(t *testing.T) {
	w := newWorld(t)
	for want, change := range map[string]func(*recipe.Recipe){
		"driver fake runs linux guests; choose another driver": func(r *recipe.Recipe) { r.OS = image.OSDarwin },
		"build on a machine of that architecture":              func(r *recipe.Recipe) { r.Arch = "riscv64" },
	} {
		r := steps("true")
		change(&r)
		if _, err := w.build(t, r); !errors.Is(err, recipe.ErrRecipe) || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v; want %q", err, want)
		}
	}
	if _, err := recipe.New(recipe.Options{Driver: w.d.Driver}); !errors.Is(err, vm.ErrUnsupported) {
		t.Errorf("a driver that keeps no disks: got %v", err)
	}
}
