package workflow

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v4"

	"github.com/mirego/tasuki/internal/base/proc"
)

func needGit(t *testing.T) {
	t.Helper()
	if _, err := proc.Look("git"); errors.Is(err, proc.ErrNotInstalled) {
		t.Skip("git is not installed")
	}
	t.Setenv("GIT_CONFIG_GLOBAL", os.DevNull)
	t.Setenv("GIT_CONFIG_SYSTEM", os.DevNull)
	for _, who := range []string{"AUTHOR", "COMMITTER"} {
		t.Setenv("GIT_"+who+"_NAME", "someone")
		t.Setenv("GIT_"+who+"_EMAIL", "someone@example.com")
	}
}

func mustGit(t *testing.T, dir string, args ...string) string {
	t.Helper()
	out, err := git(t.Context(), dir, args...)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// unpacked writes the checkout's archive and unpacks it as github-act-runner does: without its top folder, and
// without empty folders.
func unpacked(t *testing.T, tree Tree) string {
	t.Helper()
	var b bytes.Buffer
	if err := CheckoutArchive(t.Context(), &b, tree); err != nil {
		t.Fatal(err)
	}
	zipped, err := gzip.NewReader(&b)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	r := tar.NewReader(zipped)
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return dir
		}
		if err != nil {
			t.Fatal(err)
		}
		rest, ok := strings.CutPrefix(h.Name, "checkout/")
		if !ok {
			t.Fatalf("%q is not below the one top folder", h.Name)
		}
		if h.Typeflag == tar.TypeDir {
			continue
		}
		file := filepath.Join(dir, filepath.FromSlash(rest))
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		switch h.Typeflag {
		case tar.TypeSymlink:
			err = os.Symlink(h.Linkname, file)
		default:
			text, readErr := io.ReadAll(r)
			err = errors.Join(readErr, os.WriteFile(file, text, h.FileInfo().Mode()))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// execute runs the action's one step as a runner does.
func execute(t *testing.T, action, workspace, path, clean string) (string, error) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(action, "action.yml"))
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Inputs map[string]any
		Runs   struct {
			Using string
			Steps []struct{ Shell, Run string }
		}
	}
	if err := yaml.Unmarshal(text, &file); err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	if file.Runs.Using != "composite" || len(file.Runs.Steps) != 1 || file.Inputs["token"] == nil {
		t.Fatalf("the action is %+v", file)
	}
	res, err := proc.Run(t.Context(), proc.Cmd{Path: file.Runs.Steps[0].Shell, Args: []string{"-e", "-c", file.Runs.Steps[0].Run}, Dir: workspace, Env: []string{
		"CHECKOUT_ACTION=" + action, "CHECKOUT_PATH=" + path, "CHECKOUT_CLEAN=" + clean,
		"GITHUB_WORKSPACE=" + workspace, "GITHUB_REPOSITORY=octo/demo", "GITHUB_ACTION_PATH=/wrong",
	}})
	return string(res.Stdout), err
}

func listing(t *testing.T, dir string) map[string]string {
	t.Helper()
	got := map[string]string{}
	err := filepath.WalkDir(dir, func(file string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			if e != nil && e.Name() == ".git" {
				return filepath.SkipDir
			}
			return err
		}
		rel, _ := filepath.Rel(dir, file)
		if e.Type()&os.ModeSymlink != 0 {
			got[rel], err = os.Readlink(file)
			return err
		}
		text, err := os.ReadFile(file)
		got[rel] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestCheckoutOfGit(t *testing.T) {
	needGit(t)
	top := t.TempDir()
	mustGit(t, top, "init", "-q", "-b", "main")
	write(t, top, map[string]string{
		".github/workflows/w.yml": one("", "uses: actions/checkout@v4"), ".gitignore": "*.o\n", "kept.txt": "old", "gone.txt": "x", "bin/tool": "#!/bin/sh\n", "strange name\n.txt": "s",
	})
	if err := errors.Join(os.Chmod(filepath.Join(top, "bin/tool"), 0o755), os.Symlink("kept.txt", filepath.Join(top, "link"))); err != nil {
		t.Fatal(err)
	}
	mustGit(t, top, "add", ".")
	mustGit(t, top, "commit", "-q", "-m", "one")
	mustGit(t, top, "commit", "-q", "-m", "two", "--allow-empty")
	write(t, top, map[string]string{"kept.txt": "changed", "new.txt": "untracked", "built.o": "ignored", "other/.git/HEAD": "a repository of its own"})
	if err := os.Remove(filepath.Join(top, "gone.txt")); err != nil {
		t.Fatal(err)
	}

	w, err := Load(filepath.Join(top, ".github/workflows/w.yml"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(Tree{Dir: top, Git: true, Depth: 1}, w.Tree()); diff != "" || w.File != ".github/workflows/w.yml" {
		t.Errorf("file %s, tree (-want +got):\n%s", w.File, diff)
	}
	sha, ref, err := w.Tree().Head(t.Context())
	if err != nil || sha != mustGit(t, top, "rev-parse", "HEAD") || ref != "refs/heads/main" {
		t.Errorf("Head = %s, %s, %v", sha, ref, err)
	}

	workspace := t.TempDir()
	write(t, workspace, map[string]string{"left/from": "before", ".hidden": "x", "..odd": "x"})
	out, err := execute(t, unpacked(t, w.Tree()), workspace, ".", "true")
	if err != nil || !strings.Contains(out, "Brought the tree of octo/demo") {
		t.Fatalf("%v, %s", err, out)
	}
	want := map[string]string{
		".github/workflows/w.yml": one("", "uses: actions/checkout@v4"), ".gitignore": "*.o\n", "kept.txt": "changed", "bin/tool": "#!/bin/sh\n", "strange name\n.txt": "s",
		"link": "kept.txt", "new.txt": "untracked"}
	if diff := cmp.Diff(want, listing(t, workspace)); diff != "" {
		t.Errorf("the workspace (-want +got):\n%s", diff)
	}
	if info, err := os.Stat(filepath.Join(workspace, "bin/tool")); err != nil || info.Mode().Perm()&0o100 == 0 {
		t.Errorf("bin/tool is not executable: %v, %v", info.Mode(), err)
	}
	if got := mustGit(t, workspace, "log", "--format=%H %s"); got != sha+" two" {
		t.Errorf("git log in the job: %s", got)
	}
	status := strings.Fields(mustGit(t, workspace, "status", "--short"))
	if diff := cmp.Diff([]string{"D", "gone.txt", "M", "kept.txt", "??", "new.txt"}, status); diff != "" {
		t.Errorf("git status in the job (-want +got):\n%s", diff)
	}

	deep := w.Tree()
	deep.Depth = 0
	workspace = t.TempDir()
	write(t, workspace, map[string]string{"sub/mine": "stays"})
	if _, err := execute(t, unpacked(t, deep), workspace, "sub", "false"); err != nil {
		t.Fatal(err)
	}
	if got := mustGit(t, filepath.Join(workspace, "sub"), "log", "--format=%s"); got != "two\none" {
		t.Errorf("git log with the whole history: %s", got)
	}
	if got := listing(t, workspace); got["sub/mine"] != "stays" || got["sub/kept.txt"] != "changed" {
		t.Errorf("the workspace has %v", slices.Sorted(maps.Keys(got)))
	}
}

// A commit without a branch leaves no file under refs/, and what is no longer there cannot be in the archive.
func TestCheckoutOfDetachedHead(t *testing.T) {
	needGit(t)
	top, workspace := t.TempDir(), t.TempDir()
	mustGit(t, top, "init", "-q")
	write(t, top, map[string]string{"a": "x"})
	mustGit(t, top, "add", ".")
	mustGit(t, top, "commit", "-q", "-m", "one")
	mustGit(t, top, "checkout", "-q", "--detach")
	if err := os.Remove(filepath.Join(top, "a")); err != nil {
		t.Fatal(err)
	}
	tree := Tree{Dir: top, Git: true, Depth: 1}
	sha, ref, err := tree.Head(t.Context())
	if sha == "" || ref != "" || err != nil {
		t.Errorf("Head = %q, %q, %v", sha, ref, err)
	}
	if _, err := execute(t, unpacked(t, tree), workspace, ".", "true"); err != nil {
		t.Fatal(err)
	}
	if got := mustGit(t, workspace, "rev-parse", "HEAD"); got != sha {
		t.Errorf("HEAD in the job is %s, want %s", got, sha)
	}
}

func TestCheckoutPathStaysInside(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"a": "x"})
	action := unpacked(t, Tree{Dir: dir})
	for _, path := range []string{"../out", "/tmp/out", "a/../../out", ".."} {
		workspace := t.TempDir()
		out, err := execute(t, action, workspace, path, "true")
		if err == nil || !strings.Contains(out, "::error::path lies outside the workspace") {
			t.Errorf("path %q: %v, %s", path, err, out)
		}
	}
	if _, err := execute(t, action, t.TempDir(), "", "true"); err != nil {
		t.Errorf("no path: %v", err)
	}
}

func TestCheckoutWithoutCommit(t *testing.T) {
	needGit(t)
	top := t.TempDir()
	mustGit(t, top, "init", "-q")
	write(t, top, map[string]string{"a": "x"})
	tree := Tree{Dir: top, Git: true, Depth: 1}
	if sha, ref, err := tree.Head(t.Context()); sha != "" || ref != "" || err != nil {
		t.Errorf("Head = %q, %q, %v", sha, ref, err)
	}
	dir := unpacked(t, tree)
	if _, err := os.Stat(filepath.Join(dir, "git")); err == nil || listing(t, filepath.Join(dir, "tree"))["a"] != "x" {
		t.Error("the archive of a repository without commits is not its files alone")
	}
}

func TestCheckoutWithoutGit(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"ci/w.yml": one("", ""), "a/b": "x"})
	t.Chdir(dir)
	w, err := Load("ci/w.yml")
	if err != nil {
		t.Fatal(err)
	}
	if w.Tree().Dir != dir || w.File != "ci/w.yml" {
		t.Errorf("a file below the working directory lies in %s as %s", w.Tree().Dir, w.File)
	}
	if got := listing(t, filepath.Join(unpacked(t, w.Tree()), "tree")); got["a/b"] != "x" || len(got) != 2 {
		t.Errorf("the archive has %v", got)
	}
	if w, err = Load(filepath.Join(dir, "ci", "w.yml")); err != nil || w.Tree().Dir != filepath.Join(dir, "ci") {
		t.Errorf("a file named by its whole path lies in %s, %v", w.Tree().Dir, err)
	}
	write(t, dir, map[string]string{".github/workflows/w.yml": one("", "")})
	if w, err = Load(filepath.Join(dir, ".github", "workflows", "w.yml")); err != nil || w.Tree().Dir != dir {
		t.Errorf("a file in .github/workflows lies in %s, %v", w.Tree().Dir, err)
	}
	write(t, dir, map[string]string{"large": ""})
	if err := os.Truncate("large", maxTreeSize+1); err != nil {
		t.Fatal(err)
	}
	err = CheckoutArchive(t.Context(), io.Discard, w.Tree())
	if err == nil || !strings.Contains(err.Error(), "run git init there") {
		t.Errorf("a folder that is too large: %v", err)
	}
}

func TestCheckoutFails(t *testing.T) {
	if err := CheckoutArchive(t.Context(), io.Discard, Tree{}); err == nil {
		t.Error("no tree was written")
	}
	dir := t.TempDir()
	write(t, dir, map[string]string{"a": "x"})
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("enough"))
	if err := CheckoutArchive(ctx, io.Discard, Tree{Dir: dir}); err == nil {
		t.Error("a cancelled context wrote an archive")
	}
	if err := CheckoutArchive(t.Context(), io.Discard, Tree{Dir: dir, Git: true}); err == nil {
		t.Error("a folder without git was taken for one with")
	}
}
