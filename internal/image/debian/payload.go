package debian

import (
	"archive/tar"
	"cmp"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/mirego/tasuki/internal/image"
)

// runnerModule is the Go module of github-act-runner.
const runnerModule = "github.com/ChristopherHX/github-act-runner"

// epoch is the time of every file that we put into an image.
var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// payload is the runner program on its way into the image.
type payload struct {
	path    string // a file, or a folder in the official layout
	kind    string // a value of image.LabelRunnerKind; "" for no program
	version string // "unknown" where the program does not tell
	digest  string // of all its bytes
}

// Runner is what a runner program is, before it goes into an image.
type Runner struct {
	Kind    string // a value of image.LabelRunnerKind
	Version string // "unknown" where the program does not tell
}

// ReadRunner looks at a runner program for a guest of an architecture: a
// static github-act-runner, or a folder in the layout of actions/runner. Errors:
// ErrRunner.
func ReadRunner(path, arch string) (Runner, error) {
	p, err := readPayload(path, arch)
	return Runner{p.kind, p.version}, err
}

func readPayload(runner, arch string) (payload, error) {
	if runner == "" {
		return payload{digest: "no runner program"}, nil
	}
	info, err := os.Stat(runner)
	if err != nil {
		return payload{}, fmt.Errorf("cannot read the runner program: %w", err)
	}
	p := payload{path: runner, kind: image.RunnerAct, version: "unknown"}
	if !info.IsDir() {
		if p.version, err = actVersion(runner, arch); err != nil {
			return payload{}, err
		}
	} else {
		p.kind = image.RunnerOfficial
		for _, need := range []string{"run.sh", "bin/Runner.Listener"} {
			if _, err := os.Stat(filepath.Join(runner, need)); err != nil {
				return payload{}, fmt.Errorf("cannot take %q as an actions/runner folder: it has no %s: %w", runner, need, ErrRunner)
			}
		}
		if version, err := os.ReadFile(filepath.Join(runner, "VERSION")); err == nil {
			p.version = strings.TrimSpace(string(version))
		}
	}
	h := sha256.New()
	if err := p.writeRunner(tar.NewWriter(h)); err != nil {
		return payload{}, err
	}
	p.digest = hex.EncodeToString(h.Sum(nil))
	return p, nil
}

// actVersion reads the version of the runner's module from the program, and
// checks that the guest could run it.
func actVersion(file, arch string) (string, error) {
	info, err := buildinfo.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("cannot take %q as github-act-runner: it is no Go program (%v): %w", file, err, ErrRunner)
	}
	settings := map[string]string{}
	for _, s := range info.Settings {
		settings[s.Key] = s.Value
	}
	if settings["GOOS"] != "linux" || settings["GOARCH"] != arch {
		return "", fmt.Errorf("cannot run %q in a linux/%s guest: it was built for %s/%s; build it with GOOS=linux GOARCH=%s: %w",
			file, arch, settings["GOOS"], settings["GOARCH"], arch, ErrRunner)
	}
	for _, dep := range append(info.Deps, &info.Main) {
		if dep.Path == runnerModule {
			return cmp.Or(strings.TrimPrefix(dep.Version, "v"), "unknown"), nil
		}
	}
	return "unknown", nil
}

// writeFile makes a file of what write writes.
func (p payload) writeFile(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(p.write(f), f.Close())
}

// write writes the tar of all files that go into the tree.
func (p payload) write(w io.Writer) error {
	tw := tar.NewWriter(w)
	const top = "recipe/files"
	err := fs.WalkDir(recipe, top, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := fs.ReadFile(recipe, name)
		if err != nil {
			return err
		}
		mode := int64(0o644)
		if strings.HasPrefix(string(data), "#!") {
			mode = 0o755
		}
		h := &tar.Header{Name: strings.TrimPrefix(name, top+"/"), Mode: mode, Size: int64(len(data)), ModTime: epoch}
		if err := tw.WriteHeader(h); err != nil {
			return err
		}
		_, err = tw.Write(data)
		return err
	})
	if err != nil {
		return err
	}
	return p.writeRunner(tw)
}

// writeRunner adds the runner program and ends the tar.
func (p payload) writeRunner(tw *tar.Writer) error {
	base := strings.TrimPrefix(RunnerDir, "/")
	if p.kind == "" {
		home := &tar.Header{Typeflag: tar.TypeDir, Name: path.Dir(base) + "/", Mode: 0o755, ModTime: epoch}
		return errors.Join(tw.WriteHeader(home), tw.Close())
	}
	if p.kind == image.RunnerAct {
		if err := addFile(tw, p.path, path.Join(base, ActBinary), 0o755); err != nil {
			return err
		}
		return tw.Close()
	}
	err := filepath.WalkDir(p.path, func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(p.path, file)
		if err != nil {
			return err
		}
		name := path.Join(base, filepath.ToSlash(rel))
		switch info, err := d.Info(); {
		case err != nil:
			return err
		case info.Mode().IsRegular():
			return addFile(tw, file, name, int64(info.Mode().Perm()))
		case info.Mode()&fs.ModeSymlink != 0:
			target, err := os.Readlink(file)
			if err != nil {
				return err
			}
			return tw.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, ModTime: epoch})
		default:
			return fmt.Errorf("cannot take %q into the image: %w", file, errors.ErrUnsupported)
		}
	})
	if err != nil {
		return err
	}
	return tw.Close()
}

func addFile(tw *tar.Writer, from, name string, mode int64) error {
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if err := tw.WriteHeader(&tar.Header{Name: name, Mode: mode, Size: info.Size(), ModTime: epoch}); err != nil {
		return err
	}
	_, err = io.Copy(tw, f)
	return err
}
