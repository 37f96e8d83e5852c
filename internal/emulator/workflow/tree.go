package workflow

import (
	"archive/tar"
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/mirego/tasuki/internal/base/proc"
)

// Bounds on a tree that no git says the extent of.
const (
	maxTreeFiles = 20_000
	maxTreeSize  = 256 << 20
)

// Tree is the tree that a workflow file lies in.
type Tree struct {
	Dir   string // absolute: the top of the git work tree, or the folder; empty where there is none
	Git   bool   // whether git tracks it
	Depth int    // how many commits of history the checkout brings; 0 for all
}

// findTree finds the tree of a workflow file. Without git it is the folder that holds .github/workflows, else
// the working directory where the file was named below it, else the file's own folder.
func findTree(file string) (Tree, error) {
	abs, err := filepath.Abs(file)
	if err != nil {
		return Tree{}, err
	}
	own := filepath.Dir(abs)
	for dir := own; ; dir = filepath.Dir(dir) {
		if _, err := os.Lstat(filepath.Join(dir, ".git")); err == nil {
			return Tree{Dir: dir, Git: true, Depth: 1}, nil
		}
		if dir == filepath.Dir(dir) {
			break
		}
	}
	if top, ok := strings.CutSuffix(own, filepath.Join(".github", "workflows")); ok && strings.HasSuffix(top, string(filepath.Separator)) {
		return Tree{Dir: filepath.Clean(top), Depth: 1}, nil
	}
	if wd, err := os.Getwd(); err == nil && filepath.IsLocal(file) {
		return Tree{Dir: wd, Depth: 1}, nil
	}
	return Tree{Dir: own, Depth: 1}, nil
}

// Head returns the commit that the tree is at and its ref, refs/heads/main; both are empty where git tracks
// nothing yet, the ref where no branch is checked out.
func (t Tree) Head(ctx context.Context) (sha, ref string, err error) {
	if !t.Git {
		return "", "", nil
	}
	out, err := git(ctx, t.Dir, "rev-parse", "--quiet", "--verify", "HEAD")
	if exit, ok := errors.AsType[*proc.ExitError](err); ok && exit.Code == 1 && exit.Stderr == "" {
		return "", "", nil // no commit yet
	}
	if err != nil {
		return "", "", fmt.Errorf("cannot read the commit of %s: %w", t.Dir, err)
	}
	sha = strings.TrimSpace(string(out))
	if out, err := git(ctx, t.Dir, "symbolic-ref", "--quiet", "HEAD"); err == nil {
		ref = strings.TrimSpace(string(out))
	}
	return sha, ref, nil
}

// git runs git on a folder, whatever repository the environment names (as it does within a hook of git).
func git(ctx context.Context, dir string, args ...string) ([]byte, error) {
	var out bytes.Buffer
	unset := []string{"-u", "GIT_DIR", "-u", "GIT_WORK_TREE", "-u", "GIT_INDEX_FILE", "-u", "GIT_OBJECT_DIRECTORY"}
	if _, err := proc.Look("git"); err != nil {
		return nil, err
	}
	_, err := proc.Run(ctx, proc.Cmd{Path: "env", Args: slices.Concat(unset, []string{"git"}, args), Dir: dir, Stdout: &out})
	return out.Bytes(), err
}

// CheckoutArchive writes the action that is served as actions/checkout: a tar.gz with one top folder, in it
// action.yml, tree/ with the files, and git/ with the history where there is one. It needs git on this machine
// where git tracks the tree, and git in the guest only for steps that call it.
//
// The action brings the tree that the workflow lies in, as it is now: everything that git tracks, with
// uncommitted changes, and what is neither tracked nor ignored. With it comes a .git with the last commit (or, with
// fetch-depth, more), so that git log, git status and git rev-parse work; uncommitted changes show as such.
// There is no remote and no credential. Without git the tree is its folder, bounded in size.
//
// Of the inputs, path and fetch-depth do what they do on GitHub, and clean: false keeps what lies in the
// folder. token, persist-credentials, show-progress, set-safe-directory, fetch-tags, filter and lfs are accepted
// and change nothing (large files come as the working tree has them). repository and ref are accepted where they
// name what comes anyway: ${{ github.repository }}, ${{ github.ref }}, ${{ github.sha }}. Load refuses all others.
func CheckoutArchive(ctx context.Context, w io.Writer, tree Tree) error {
	if tree.Dir == "" {
		return errors.New("cannot write checkout: the workflow lies in no tree")
	}
	files, err := tree.files(ctx)
	if err != nil {
		return fmt.Errorf("cannot list the files of %s: %w", tree.Dir, err)
	}
	zipped := gzip.NewWriter(w)
	a := &archive{ctx: ctx, tar: tar.NewWriter(zipped)}
	if err := a.all(tree, files); err != nil {
		return fmt.Errorf("cannot write checkout of %s: %w", tree.Dir, err)
	}
	return cmp.Or(a.tar.Close(), zipped.Close())
}

// files lists the tree's files relative to it, with slashes.
func (t Tree) files(ctx context.Context) ([]string, error) {
	if !t.Git {
		return t.walk(ctx)
	}
	out, err := git(ctx, t.Dir, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	if err != nil {
		return nil, err
	}
	var files []string
	for name := range strings.SplitSeq(string(out), "\x00") {
		if name != "" && !strings.HasSuffix(name, "/") { // a slash: a repository of its own within this one
			files = append(files, name)
		}
	}
	slices.Sort(files)
	return slices.Compact(files), nil // a file in conflict is listed once for each side
}

// walk lists a folder that git does not know.
func (t Tree) walk(ctx context.Context) ([]string, error) {
	var files []string
	var size int64
	err := filepath.WalkDir(t.Dir, func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || !e.Type().IsRegular() && e.Type() != fs.ModeSymlink {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		size += info.Size()
		if len(files) >= maxTreeFiles || size > maxTreeSize {
			return fmt.Errorf("more than %d files or %d MiB, and no git says which belong to it: run git init there", maxTreeFiles, maxTreeSize>>20)
		}
		rel, err := filepath.Rel(t.Dir, name)
		files = append(files, filepath.ToSlash(rel))
		return cmp.Or(err, ctx.Err())
	})
	return files, err
}

// archive writes below one top folder.
type archive struct {
	ctx context.Context
	tar *tar.Writer
}

const archiveTop = "checkout"

func (a *archive) all(tree Tree, files []string) error {
	action := checkoutActionFile()
	if err := a.tar.WriteHeader(&tar.Header{Name: archiveTop + "/action.yml", Mode: 0o644, Size: int64(len(action))}); err != nil {
		return err
	}
	if _, err := a.tar.Write(action); err != nil {
		return err
	}
	if err := a.tar.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: archiveTop + "/tree/", Mode: 0o755}); err != nil {
		return err
	}
	for _, name := range files {
		if err := a.add(filepath.Join(tree.Dir, filepath.FromSlash(name)), path.Join("tree", name)); err != nil {
			return err
		}
	}
	return a.history(tree)
}

// add writes one file, link or empty folder; what is no longer there is left out: git lists tracked files
// that were deleted.
func (a *archive) add(file, name string) error {
	if err := a.ctx.Err(); err != nil {
		return context.Cause(a.ctx)
	}
	info, err := os.Lstat(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	link := ""
	switch {
	case info.Mode()&fs.ModeSymlink != 0:
		if link, err = os.Readlink(file); err != nil {
			return err
		}
	case !info.Mode().IsRegular() && !info.IsDir():
		return nil // a socket or the like, which git would not store either
	}
	h, err := tar.FileInfoHeader(info, link)
	if err != nil {
		return err
	}
	h.Name = path.Join(archiveTop, name)
	if info.IsDir() {
		h.Name += "/"
	}
	h.Uid, h.Gid, h.Uname, h.Gname = 0, 0, "", ""
	if err := a.tar.WriteHeader(h); err != nil || !info.Mode().IsRegular() {
		return err
	}
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := io.CopyN(a.tar, f, h.Size); err != nil {
		return fmt.Errorf("%s changed while it was read: %w", file, err)
	}
	return nil
}

// history adds a .git made for the checkout, named git so that nothing on the way treats it as one.
func (a *archive) history(tree Tree) error {
	sha, _, err := tree.Head(a.ctx)
	if err != nil || sha == "" {
		return err
	}
	tmp, err := os.MkdirTemp("", "tasuki-checkout-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	clone := filepath.Join(tmp, "clone")
	args := []string{"clone", "--quiet", "--no-checkout", "--template="}
	if tree.Depth > 0 {
		args = append(args, fmt.Sprintf("--depth=%d", tree.Depth))
	}
	for _, step := range [][]string{
		append(args, "file://"+filepath.ToSlash(tree.Dir), clone),
		{"-C", clone, "read-tree", "HEAD"},
		{"-C", clone, "remote", "remove", "origin"},
	} {
		if _, err := git(a.ctx, tmp, step...); err != nil {
			return fmt.Errorf("cannot copy the history: %w", err)
		}
	}
	top := filepath.Join(clone, ".git")
	return filepath.WalkDir(top, func(file string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(top, file)
		if err != nil {
			return err
		}
		if rel == "logs" { // they name this machine's folders
			return filepath.SkipDir
		}
		return a.add(file, path.Join("git", filepath.ToSlash(rel)))
	})
}
