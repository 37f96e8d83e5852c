package recipefile

import (
	"cmp"
	"context"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/mirego/tasuki/internal/base/secret"
	"github.com/mirego/tasuki/internal/config"
	"github.com/mirego/tasuki/internal/image"
	"github.com/mirego/tasuki/internal/recipe"
	"github.com/mirego/tasuki/internal/vm"
)

// Target is what an image is built for and by.
type Target struct{ Arch, Driver string }

// resolver replaces variables.
type resolver struct {
	f    *File
	vars map[string]string
}

// Resolve gives the recipe for a target, with these variables in place of the
// file's. Files are looked up and secrets read now. Mistakes that the variables
// bring to light are config.Problems.
func (f *File) Resolve(ctx context.Context, to Target, vars map[string]string) (recipe.Recipe, error) {
	for _, name := range sorted(vars) {
		if _, ok := f.Vars[name]; !ok {
			return recipe.Recipe{}, fmt.Errorf("recipe %q has no variable %q; it has: %s", f.Name, name, cmp.Or(strings.Join(sorted(f.Vars), ", "), "none"))
		}
	}
	r := &resolver{f: f, vars: map[string]string{"os": f.OS, "arch": to.Arch, "driver": to.Driver}}
	maps.Copy(r.vars, f.Vars)
	maps.Copy(r.vars, vars)
	out := recipe.Recipe{
		Name: f.Name, OS: f.OS, Arch: to.Arch, User: f.User, Login: r.text("login.user", f.Login.User),
		Base: r.base(), Guest: f.guest(), Env: r.env("env", f.Env), Vars: r.vars,
		Labels: r.env("labels", f.Labels), Clean: recipe.Clean{HostKey: f.HostKey == "image"},
		Secrets: map[string]secret.String{}, Password: secret.New(f.Login.PublicPassword),
	}
	for i := range f.Steps {
		met, err := parseCondition(f.Steps[i].When)
		if err == nil && met(r.vars) {
			out.Steps = append(out.Steps, r.step(i))
		}
	}
	if err := f.document.Err(); err != nil {
		return recipe.Recipe{}, err
	}
	return out, f.readSecrets(ctx, &out)
}

// readSecrets reads those that a step of the recipe wants.
func (f *File) readSecrets(ctx context.Context, out *recipe.Recipe) (err error) {
	if !f.Login.Password.IsZero() {
		if out.Password, err = f.Login.Password.Read(ctx); err != nil {
			return fmt.Errorf("password of the base: %w", err)
		}
	}
	for _, s := range out.Steps {
		for _, name := range s.Secrets {
			if out.Secrets[name], err = f.Secrets[name].Read(ctx); err != nil {
				return fmt.Errorf("secret %q of step %q: %w", name, s.Name, err)
			}
		}
	}
	return nil
}

func (f *File) guest() recipe.Guest {
	g := recipe.Guest{
		CPUs: f.Guest.CPUs, MemoryMiB: f.Guest.Memory.MiB(), DiskGB: f.Guest.Disk.GB(),
		Network: vm.Network{Mode: f.Guest.Network.Mode},
	}
	for _, fw := range f.Guest.Network.Forwards {
		g.Network.Forwards = append(g.Network.Forwards, vm.Forward{Guest: fw.Guest, Host: fw.Host})
	}
	return g
}

func (r *resolver) base() recipe.Base {
	b := recipe.Base{Image: r.text("from", r.f.From)}
	if b.Image != "" {
		if _, err := image.Parse(b.Image); err != nil {
			what, mend, _ := strings.Cut(err.Error(), "; ")
			r.f.document.Bad("from", what, mend)
		}
	}
	if r.f.Disk != nil {
		b.Disk = r.download("disk", &r.f.Disk.Files)
	}
	if d := r.f.Debian; d != nil {
		b.Debian = &recipe.Debian{Release: cmp.Or(d.Release, defaultRelease), Mirror: r.text("debian.mirror", d.Mirror)}
		for i, p := range d.Packages {
			b.Debian.Packages = append(b.Debian.Packages, r.text(fmt.Sprintf("debian.packages[%d]", i), p))
		}
	}
	return b
}

func (r *resolver) step(i int) recipe.Step {
	s, at := &r.f.Steps[i], fmt.Sprintf("steps[%d]", i)
	out := recipe.Step{
		Name: s.Name, Place: r.f.document.Place(at), Script: s.Run, Env: r.env(at+".env", s.Env), Secrets: s.Secrets,
		Root: s.Root, Restart: s.Restart, Timeout: time.Duration(s.Timeout),
	}
	if s.Script != "" {
		data, err := config.ReadFile(r.f.document.Path(r.text(at+".script", s.Script)))
		if err != nil {
			r.f.document.Bad(at+".script", fmt.Sprintf("cannot read script %q: %v", s.Script, err), "")
		}
		out.Script = string(data)
	}
	for j, c := range s.Copy {
		out.Copies = append(out.Copies, r.copies(fmt.Sprintf("%s.copy[%d]", at, j), c)...)
	}
	if s.Runner != nil {
		out.Runner = &recipe.Runner{
			Kind: s.Runner.Kind, Archive: r.download(at+".runner", &s.Runner.Files), Version: r.text(at+".runner.version", s.Runner.Version),
			Dir: cmp.Or(r.text(at+".runner.dir", s.Runner.Dir), defaultRunnerDir), Warmup: s.Runner.Warmup,
		}
	}
	return out
}

func (r *resolver) download(at string, files *Files) recipe.Download {
	d := files.of(r.vars["arch"])
	if d == nil {
		r.f.document.Bad(at, fmt.Sprintf("it names no file for %s", r.vars["arch"]), "add it, or build on another machine")
		return recipe.Download{}
	}
	url := r.text(at+".url", d.URL)
	if !strings.Contains(url, "://") {
		url = r.f.document.Path(url)
	}
	return recipe.Download{URL: url, Checksum: r.text(at, d.checksum())}
}

// copies are the files that a copy means, by name.
func (r *resolver) copies(at string, c Copy) []recipe.Copy {
	from, to := r.f.document.Path(r.text(at+".from", c.From)), r.text(at+".to", c.To)
	found, err := filepath.Glob(from)
	if err != nil || len(found) == 0 {
		r.f.document.Bad(at+".from", fmt.Sprintf("there is no file %q", from), "")
		return nil
	}
	if len(found) > 1 && !strings.HasSuffix(to, "/") {
		r.f.document.Bad(at+".to", fmt.Sprintf("%d files cannot all be %q", len(found), to), "end it with / to mean a folder")
	}
	var out []recipe.Copy
	for _, path := range found {
		err := filepath.WalkDir(path, func(file string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			rel, _ := filepath.Rel(filepath.Dir(path), file) // below it by construction
			if file != path && !strings.HasSuffix(to, "/") {
				rel, _ = filepath.Rel(path, file)
				rel = "/" + rel
			} else if !strings.HasSuffix(to, "/") {
				rel = ""
			}
			out = append(out, recipe.Copy{From: file, To: to + filepath.ToSlash(rel), Mode: os.FileMode(c.Mode)})
			return nil
		})
		if err != nil {
			r.f.document.Bad(at+".from", fmt.Sprintf("cannot read %q: %v", path, err), "")
		}
	}
	return out
}

var variable = regexp.MustCompile(`\$\{([A-Za-z_][A-Za-z0-9_]*)\}`)

// text replaces ${NAME}.
func (r *resolver) text(at, s string) string {
	return variable.ReplaceAllStringFunc(s, func(m string) string {
		name := m[2 : len(m)-1]
		value, ok := r.vars[name]
		if !ok {
			r.f.known(at, name)
		}
		return value
	})
}

func (r *resolver) env(at string, m map[string]string) map[string]string {
	out := make(map[string]string, len(m))
	for name, value := range m {
		out[name] = r.text(at+"."+name, value)
	}
	return out
}

func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
