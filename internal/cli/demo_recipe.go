package cli

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"crypto/sha256"
	_ "embed" // for the recipes below
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/mirego/tasuki/internal/cli/demoview"
	"github.com/mirego/tasuki/internal/config"
	"github.com/mirego/tasuki/internal/config/recipefile"
	"github.com/mirego/tasuki/internal/guest/ssh"
	"github.com/mirego/tasuki/internal/image"
	"github.com/mirego/tasuki/internal/image/cloud"
	"github.com/mirego/tasuki/internal/image/debian"
	"github.com/mirego/tasuki/internal/recipe"
)

// The demo's own recipes.
var (
	//go:embed demo_packages.yaml
	demoPackages []byte
	//go:embed demo_cloud.yaml
	demoCloud []byte
)

// Values of --image-from beside the path of a recipe.
const (
	imageAuto     = "auto"
	imagePackages = "packages"
	imageCloud    = "cloud"
)

// demoRecipe reads the recipe of the guest image.
func demoRecipe(from string) (*recipefile.File, error) {
	if from == imageAuto || from == "" {
		from = imagePackages
		if runtime.GOOS != "linux" { // mmdebstrap needs it
			from = imageCloud
		}
	}
	switch from {
	case imagePackages:
		return recipefile.Parse("demo_packages.yaml", demoPackages)
	case imageCloud:
		return recipefile.Parse("demo_cloud.yaml", demoCloud)
	}
	if ext := filepath.Ext(from); ext != ".yaml" && ext != ".yml" {
		return nil, withHint(fmt.Errorf("cannot make the demo's image from %q: %s, %s, %s and the file of a recipe are known", from, imageAuto, imagePackages, imageCloud),
			"tasuki demo --image-from "+imagePackages)
	}
	return recipefile.Load(from)
}

// runnerVariables are those of a recipe that takes the demo's runner program.
const (
	varRunner   = "RUNNER"
	varSum      = "RUNNER_SHA256"
	varVersion  = "RUNNER_VERSION"
	varOfficial = "OFFICIAL"
	varMirror   = "MIRROR"
)

// variables give the recipe's variables their values: the mirror, and the
// runner program where the recipe asks for one.
func (d *demo) variables(ctx context.Context, f *recipefile.File, arch string) (map[string]string, error) {
	vars, err := variables(d.flags.vars)
	if err != nil {
		return nil, err
	}
	set := func(name, value string) {
		_, known := f.Vars[name]
		if _, given := vars[name]; known && !given && value != "" {
			vars[name] = value
		}
	}
	set(varMirror, d.flags.mirror)
	if _, wants := f.Vars[varRunner]; !wants || vars[varRunner] != "" {
		return vars, nil
	}
	program, err := d.findRunner(ctx)
	if err != nil {
		return nil, err
	}
	about, err := debian.ReadRunner(program, arch)
	if err != nil {
		return nil, withHint(err, "make build builds bin/"+runnerFile())
	}
	if about.Kind == image.RunnerOfficial {
		set(varOfficial, "yes")
	}
	if program, err = archiveOf(program, d.path("bin", "runner.tar.gz")); err != nil {
		return nil, fmt.Errorf("cannot pack the runner program: %w", err)
	}
	sum, err := sumOf(program)
	if err != nil {
		return nil, err
	}
	set(varRunner, program)
	set(varSum, sum)
	set(varVersion, about.Version)
	return vars, nil
}

// archiveOf packs a runner program, a folder or github-act-runner alone, into a
// tar file, the same each time. Packed, it is a third of what a guest would have
// to take in and decrypt where it is emulated.
func archiveOf(program, file string) (_ string, err error) {
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return "", err
	}
	f, err := os.OpenFile(file, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := os.Stat(program)
	if err != nil {
		return "", err
	}
	zip := gzip.NewWriter(f)
	w := tar.NewWriter(zip)
	if info.IsDir() {
		err = w.AddFS(os.DirFS(program))
	} else {
		err = addProgram(w, program, info.Size())
	}
	return file, errors.Join(err, w.Close(), zip.Close())
}

func addProgram(w *tar.Writer, program string, size int64) error {
	in, err := os.Open(program)
	if err != nil {
		return err
	}
	defer in.Close()
	err = w.WriteHeader(&tar.Header{Name: debian.ActBinary, Mode: 0o755, Size: size, ModTime: time.Unix(0, 0)})
	if err != nil {
		return err
	}
	_, err = io.Copy(w, in)
	return err
}

// sumOf is a file's SHA-256, in hexadecimal digits.
func sumOf(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// builder builds the demo's image, in guests of its own: those of jobs are not
// its to sweep, nor its of theirs.
func (d *demo) builder(view recipe.View) (*recipe.Builder, string, error) {
	accel := "auto"
	if caps := d.host.driver.Capabilities(); caps.Driver == "qemu" {
		accel = caps.Accel // it was probed
	}
	dir := buildDir(d.home)
	w := newWiring(&config.Config{Host: config.Host{Home: dir, Prefix: strings.TrimSuffix(buildPrefix, "-"), Accel: accel}}, d.installation, d.log)
	opt := recipe.Options{
		Dir: dir, Installation: d.installation, Prefix: buildPrefix, NewKey: ssh.NewKey, View: view, Log: d.log,
		Seed:    func(path string, s recipe.Seed) error { return cloud.Seed(s).Write(path) },
		Sources: &buildSources{images: d.host.images, files: &cloud.Cache{Dir: filepath.Join(dir, "downloads")}, dir: dir, log: d.log},
	}
	var err error
	if opt.Driver, opt.Dialer, err = w.driver("qemu"); err != nil {
		return nil, "", err
	}
	b, err := recipe.New(opt)
	return b, opt.Driver.Capabilities().GuestArch, err
}

// buildImage builds the image of the demo's recipe, or finds it built before.
func (d *demo) buildImage(ctx context.Context) (image.Source, error) {
	file, err := demoRecipe(d.flags.imageFrom)
	if err != nil {
		return image.Source{}, err
	}
	view := &demoBuildView{log: d.log}
	b, arch, err := d.builder(view)
	if err != nil {
		return image.Source{}, err
	}
	vars, err := d.variables(ctx, file, arch)
	if err != nil {
		return image.Source{}, err
	}
	r, err := file.Resolve(ctx, recipefile.Target{Arch: arch, Driver: "qemu"}, vars)
	if err != nil {
		return image.Source{}, err
	}
	view.task = d.view.Task("image", "looks for the guest image of recipe "+file.Name)
	built, err := b.Build(ctx, r)
	if err == nil && (built.Source.Labels[image.LabelRunnerKind] == "" || built.Source.Labels[image.LabelUser] == "") {
		err = withHint(fmt.Errorf("recipe %q makes an image without a runner program", file.Name), "give it a step with runner:")
	}
	if err != nil {
		view.task.Fail()
		_, mirror := file.Vars[varMirror]
		return image.Source{}, d.buildTrouble(ctx, err, built.Log, mirror)
	}
	if !view.built {
		view.task.Done("guest image of recipe %s, built before", file.Name)
		return built.Source, nil
	}
	view.task.Done("guest image of recipe %s, built", file.Name)
	// What was made before is of no more use; a registry cannot be cleaned
	// while it serves.
	if err := os.RemoveAll(d.path("registry")); err != nil {
		return built.Source, fmt.Errorf("cannot remove the images of an earlier recipe: %w", err)
	}
	return built.Source, nil
}

// buildTrouble says what helps against an image that could not be built; log is
// where its steps print, and mirror says whether the recipe has one to choose.
func (d *demo) buildTrouble(ctx context.Context, err error, log string, mirror bool) error {
	if step, ok := errors.AsType[*recipe.StepError](err); ok {
		for _, line := range step.Last {
			d.view.Say("    %s", strings.Map(steerless, line))
		}
		return withHint(err, "all that the steps printed is in "+log)
	}
	switch _, told := errors.AsType[*hinted](err); {
	case told || ctx.Err() != nil:
		return err
	case errors.Is(err, debian.ErrHost):
		return withHint(err, "make demo installs what is missing; or take Debian's cloud image: tasuki demo --image-from "+imageCloud)
	}
	hint := "what was said is in " + d.path("demo.log")
	if mirror {
		hint += "; if no Debian mirror was reached, --mirror names another"
	}
	return withHint(err, hint)
}

// demoBuildView shows a build as one task of the demo's. It implements
// recipe.View.
type demoBuildView struct {
	task  *demoview.Task
	log   *slog.Logger
	built bool // something was not there from before
	part  []byte
}

// Bring implements recipe.View.
func (v *demoBuildView) Bring(what string, done, total int64) {
	v.built = true
	if total == 100 { // a builder that counts in parts of a hundred
		v.task.Part(float64(done)/100, what)
		return
	}
	v.task.Doing("fetches " + what)
	v.task.Progress(done, total)
}

// Begin implements recipe.View.
func (v *demoBuildView) Begin(name string) {
	v.built = true
	words := map[string]string{
		"boot": "boots a guest to build in", "prepare": "prepares the guest", "finish": "finishes the image: login, host key, clean-up, power off",
	}
	text, ok := words[name]
	if !ok {
		text = "step " + name
	}
	v.task.Doing(text)
}

// End implements recipe.View.
func (v *demoBuildView) End(name string, cached bool, took time.Duration, err error) {
	v.log.Info("part of the image", "part", name, "cached", cached, "took", took.Round(time.Millisecond), "err", err)
}

// Write implements recipe.View: what steps print goes to the log, by lines.
func (v *demoBuildView) Write(p []byte) (int, error) {
	v.part = append(v.part, p...)
	for {
		line, rest, ended := strings.Cut(string(v.part), "\n")
		if !ended {
			return len(p), nil
		}
		v.part = []byte(rest)
		v.log.Info("step says", "line", line)
	}
}
