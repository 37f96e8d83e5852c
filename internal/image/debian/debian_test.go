package debian

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/mirego/tasuki/internal/image"
)

// fakeRunner is a folder in the official layout, the cheapest payload there is.
func fakeRunner(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range map[string]string{
		"run.sh": "#!/bin/sh\n", "bin/Runner.Listener": "#!/bin/sh\n", "VERSION": "2.330.0\n",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func mustPayload(t *testing.T, runner string) payload {
	t.Helper()
	p, err := readPayload(runner, image.ArchAMD64)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// storeImage puts a folder into the cache that looks like an image of key.
func storeImage(t *testing.T, dir, key string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{
		diskFile: "disk", kernelFile: "kernel", initrdFile: "initrd",
		metadataFile: `{"key":"` + key + `","labels":{"org.tasuki.os":"linux"}}`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestKeyFollowsTheRunner(t *testing.T) {
	runner := fakeRunner(t)
	before := recipeKey(mustPayload(t, runner), Options{Arch: image.ArchAMD64})
	if again := recipeKey(mustPayload(t, runner), Options{Arch: image.ArchAMD64}); again != before {
		t.Errorf("two keys of the same inputs differ: %s, %s", before, again)
	}
	if other := recipeKey(mustPayload(t, runner), Options{Arch: image.ArchARM64}); other == before {
		t.Error("the key does not depend on the architecture")
	}
	if err := os.WriteFile(filepath.Join(runner, "run.sh"), []byte("#!/bin/sh\nexit 1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if after := recipeKey(mustPayload(t, runner), Options{Arch: image.ArchAMD64}); after == before {
		t.Error("the key does not depend on the runner's bytes")
	}
}

// A file must carry its time nowhere: copying a checkout shall not build anew.
func TestKeyIgnoresTimes(t *testing.T) {
	runner := fakeRunner(t)
	before := recipeKey(mustPayload(t, runner), Options{Arch: image.ArchAMD64})
	if err := os.Chtimes(filepath.Join(runner, "run.sh"), time.Unix(1, 0), time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	if after := recipeKey(mustPayload(t, runner), Options{Arch: image.ArchAMD64}); after != before {
		t.Error("the key depends on a file's time")
	}
}

func TestBuildTakesWhatIsCached(t *testing.T) {
	runner, cache := fakeRunner(t), t.TempDir()
	o := Options{CacheDir: cache, Runner: runner, Arch: image.ArchAMD64}
	if _, err := Cached(o); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("Cached on an empty cache: got %v, want fs.ErrNotExist", err)
	}
	key := recipeKey(mustPayload(t, runner), Options{Arch: image.ArchAMD64})
	dir := filepath.Join(cache, key[:16])
	storeImage(t, dir, key)
	got, err := Build(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	want := image.Source{
		Disk: filepath.Join(dir, diskFile), Kernel: filepath.Join(dir, kernelFile), Initrd: filepath.Join(dir, initrdFile),
		Labels: map[string]string{image.LabelOS: image.OSLinux},
	}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b image.Ref) bool { return a == b })); diff != "" {
		t.Errorf("image (-want +got):\n%s", diff)
	}
	storeImage(t, dir, "another")
	if _, err := Cached(o); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Cached with an image of another key: got %v, want fs.ErrNotExist", err)
	}
	storeImage(t, dir, key)
	if err := os.Remove(filepath.Join(dir, kernelFile)); err != nil {
		t.Fatal(err)
	}
	if _, err := Cached(o); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Cached without a kernel: got %v, want fs.ErrNotExist", err)
	}
}

func TestPruneKeepsTheNewest(t *testing.T) {
	cache := t.TempDir()
	for i, name := range []string{"a", "b", "c", "d", "e"} {
		storeImage(t, filepath.Join(cache, name), name)
		when := time.Unix(int64(1000+i), 0)
		if err := os.Chtimes(filepath.Join(cache, name, metadataFile), when, when); err != nil {
			t.Fatal(err)
		}
	}
	o := Options{CacheDir: cache, Runner: "x"}
	if err := o.setDefaults(); err != nil {
		t.Fatal(err)
	}
	prune(cache, filepath.Join(cache, "a"), o.Log) // "a" is the oldest and the one in use
	entries, err := os.ReadDir(cache)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if diff := cmp.Diff([]string{"a", "d", "e"}, got); diff != "" {
		t.Errorf("kept images (-want +got):\n%s", diff)
	}
}

func TestUnusableRunner(t *testing.T) {
	empty, text := t.TempDir(), filepath.Join(t.TempDir(), "runner")
	if err := os.WriteFile(text, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct{ runner, arch, want string }{
		"a folder of something else": {empty, image.ArchAMD64, "has no run.sh"},
		"not a Go program":           {text, image.ArchAMD64, "no Go program"},
		"another architecture":       {self, "riscv64", "build it with GOOS=linux GOARCH=riscv64"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := readPayload(test.runner, test.arch)
			if !errors.Is(err, ErrRunner) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want ErrRunner that says %q", err, test.want)
			}
		})
	}
}

func TestWatcher(t *testing.T) {
	var got []string
	w := &watcher{report: func(done float64, doing string) { got = append(got, doing) }, log: func(string) {}}
	for _, part := range []string{"I: running apt-", "get update...\nI: downl", "oading packages with apt...\nW: other\nI: running --customize-hook in shell: sh -c 'x'\n"} {
		if _, err := w.Write([]byte(part)); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{"reading Debian's package lists", "downloading the base packages", "making the disk"}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b image.Ref) bool { return a == b })); diff != "" {
		t.Errorf("progress (-want +got):\n%s", diff)
	}
	for i := range phases[1:] {
		if phases[i].done >= phases[i+1].done {
			t.Errorf("progress falls between %q and %q", phases[i].doing, phases[i+1].doing)
		}
	}
}
