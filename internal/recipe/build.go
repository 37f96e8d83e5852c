package recipe

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/mirego/tasuki/internal/base/secret"
	"github.com/mirego/tasuki/internal/guest"
	"github.com/mirego/tasuki/internal/image"
	"github.com/mirego/tasuki/internal/vm"
)

// Options say with what images are built.
type Options struct {
	// Dir is the folder of builds; see cache.go for what lies in it.
	Dir string
	// Driver runs the guests. It must be a vm.DiskKeeper and serve builds
	// alone: what it lists is what earlier builds left, and is destroyed.
	Driver       vm.Driver
	Installation string
	Prefix       string // begins the guests' names
	Dialer       guest.Dialer
	Sources      Sources
	// Seed writes a medium for a cloud image.
	Seed func(path string, s Seed) error
	// NewKey makes a login key for one build.
	NewKey func() (private secret.String, public string, err error)
	// View is told what happens; calls come one at a time.
	View View
	// Anew builds every step, whatever is cached.
	Anew bool
	// Held is called with a guest whose step failed, and returns when nobody
	// needs it any more. Nil: it is destroyed at once.
	Held func(ctx context.Context, g Held)
	Log  *slog.Logger
}

// View is who watches a build.
type View interface {
	// Bring is told how far a download is; total 0 means that nobody knows.
	Bring(what string, done, total int64)
	// Begin and End frame a part of the build. Cached parts only End.
	Begin(name string)
	End(name string, cached bool, took time.Duration, err error)
	// Output takes what a step prints, secrets redacted.
	io.Writer
}

// Held is a guest that was kept after a failure, and how to get in.
type Held struct {
	Guest, Address, User string
	KeyFile              string // of mode 0600; gone with the build
}

// Built is a finished image.
type Built struct {
	Source image.Source
	Key    string // what it was built from
	Ran    []string
	Cached []string // names of the steps that did not have to run
	Log    string   // path of what the steps printed; "" if none ran
}

// Builder builds images, one at a time.
type Builder struct {
	opt    Options
	keeper vm.DiskKeeper
	caps   vm.Capabilities
	// offline: the driver copies only disks of guests that do not run, as it has
	// said. Builds come one at a time.
	offline bool
}

// New makes a builder. Errors: vm.ErrUnsupported where the driver cannot keep
// disks.
func New(opt Options) (*Builder, error) {
	keeper, ok := opt.Driver.(vm.DiskKeeper)
	if !ok {
		return nil, fmt.Errorf("cannot build images with driver %s, which cannot keep a guest's disk: %w", opt.Driver.Capabilities().Driver, vm.ErrUnsupported)
	}
	opt.Log = cmp.Or(opt.Log, slog.New(slog.DiscardHandler))
	return &Builder{opt: opt, keeper: keeper, caps: opt.Driver.Capabilities()}, nil
}

// fake says that guests are folders of this host: no script of ours may touch
// the system there.
func (b *Builder) fake() bool { return b.caps.Driver == "fake" }

// Build makes the image of a recipe, from the last step whose outcome is still
// there. When ctx ends nothing is left but the snapshots of the steps that were
// done. Errors: ErrRecipe, a *StepError.
func (b *Builder) Build(ctx context.Context, r Recipe) (Built, error) {
	if err := r.check(b.caps); err != nil {
		return Built{}, err
	}
	unlock, err := lock(ctx, b.opt.Dir)
	if err != nil {
		return Built{}, err
	}
	defer unlock()
	if err := b.sweep(ctx); err != nil {
		return Built{}, err
	}
	built, err := b.build(ctx, &r)
	if err != nil {
		return built, fmt.Errorf("cannot build %q: %w", r.Name, err)
	}
	return built, b.prune(&r)
}

// sweep destroys what a build that was killed left. The caller holds the lock,
// so no build is under way.
func (b *Builder) sweep(ctx context.Context) error {
	left, err := b.opt.Driver.List(ctx)
	if err != nil {
		return fmt.Errorf("cannot see what an earlier build left: %w", err)
	}
	for _, in := range left {
		b.opt.Log.Warn("guest of an earlier build destroyed", "guest", in.Name)
		if err := b.opt.Driver.Destroy(ctx, in.Name); err != nil {
			return fmt.Errorf("cannot destroy what an earlier build left: %w", err)
		}
	}
	work, err := filepath.Glob(filepath.Join(b.opt.Dir, workPrefix+"*"))
	for _, dir := range work {
		err = errors.Join(err, os.RemoveAll(dir))
	}
	return err
}

// plan is a build with everything known that decides what is to be done.
type plan struct {
	r     *Recipe
	base  image.Local
	links []link // prepare first
	key   string // of the finished image
	left  int    // index of the first link to run
}

func (b *Builder) plan(ctx context.Context, r *Recipe) (*plan, error) {
	base, err := b.base(ctx, r)
	if err != nil {
		return nil, err
	}
	r.Login = cmp.Or(r.Login, base.Labels[image.LabelUser], r.User, "runner")
	r.User = cmp.Or(r.User, r.Login)
	p := &plan{r: r, base: base}
	prepare, err := b.prepare(r)
	if err != nil {
		return nil, err
	}
	whole := *r
	whole.Steps = append([]Step{prepare}, r.Steps...)
	if p.links, err = whole.links(ctx, base.Digest); err != nil {
		return nil, err
	}
	last := p.links[len(p.links)-1].key
	finish, err := b.finishScript(r)
	if err != nil {
		return nil, err
	}
	if p.key, err = chainKey(last, []any{finish, r.labels(base.Labels, ""), r.Clean, r.Guest.DiskGB}); err != nil {
		return nil, err
	}
	for i := range p.links {
		if _, ok := b.snapshotOf(p.links[i].key); ok && !b.opt.Anew {
			p.left = i + 1
		}
	}
	return p, nil
}

func (b *Builder) build(ctx context.Context, r *Recipe) (Built, error) {
	p, err := b.plan(ctx, r)
	if err != nil {
		return Built{}, err
	}
	built := Built{Key: p.key}
	src, there := b.imageOf(p.key)
	if there && !b.opt.Anew {
		p.left = len(p.links)
	}
	for _, l := range p.links[:p.left] {
		built.Cached = append(built.Cached, l.step.Name)
		b.opt.View.End(l.step.Name, true, 0, nil)
	}
	if there && !b.opt.Anew {
		built.Source = src
		return built, nil
	}
	built.Log = filepath.Join(b.opt.Dir, r.Name+".log")
	for _, l := range p.links[p.left:] {
		built.Ran = append(built.Ran, l.step.Name)
	}
	built.Source, err = b.inGuest(ctx, p, built.Log)
	return built, err
}

// inGuest runs the links that are left, finishes the guest and takes its disk.
func (b *Builder) inGuest(ctx context.Context, p *plan, logFile string) (src image.Source, err error) {
	work, err := os.MkdirTemp(b.opt.Dir, workPrefix)
	if err != nil {
		return src, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	out, err := newOutput(logFile, b.opt.View, p.r.Secrets)
	if err != nil {
		return src, err
	}
	defer func() { err = errors.Join(err, out.close()) }()
	g, err := b.machine(p, work)
	if err != nil {
		return src, err
	}
	defer func() { err = errors.Join(err, g.destroy(ctx)) }()
	if err := b.part("boot", func() error { return g.up(ctx) }); err != nil {
		return src, err
	}
	for _, l := range p.links[p.left:] {
		err := b.part(l.step.Name, func() error {
			if err := g.run(ctx, l.step, out); err != nil {
				return err
			}
			return b.keep(ctx, g, l.key, l.step.Name)
		})
		if err != nil {
			b.hold(ctx, g, err)
			return src, err
		}
	}
	b.used(p.links[len(p.links)-1].key)
	err = b.part("finish", func() error {
		var err error
		src, err = b.finish(ctx, p, g, out)
		return err
	})
	return src, err
}

// part runs one part of a build and tells the view of it.
func (b *Builder) part(name string, do func() error) error {
	began := time.Now()
	b.opt.View.Begin(name)
	err := do()
	b.opt.View.End(name, false, time.Since(began), err)
	return err
}

// machine is the guest of a plan, not made yet.
func (b *Builder) machine(p *plan, work string) (*machine, error) {
	g := &machine{
		b: b, r: p.r, work: work, base: p.base, start: p.base,
		name: b.opt.Prefix + strings.ToLower(rand.Text()[:8]),
	}
	if p.left > 0 {
		g.from = p.links[p.left-1].key
		s, ok := b.snapshotOf(g.from)
		if !ok {
			return nil, fmt.Errorf("the snapshot of step %q is gone", p.links[p.left-1].step.Name)
		}
		g.start, g.private, g.public = s.Image, secret.New(s.Private), s.Public
	} else {
		var err error
		if g.private, g.public, err = b.opt.NewKey(); err != nil {
			return nil, err
		}
	}
	if p.r.Base.Disk.URL == "" {
		return g, nil
	}
	medium := filepath.Join(work, "seed.iso")
	g.media = []string{medium}
	return g, b.opt.Seed(medium, Seed{Instance: g.name, Hostname: p.r.Name, User: p.r.Login, Key: g.public})
}

// hold lets a person into the guest of a failed step.
func (b *Builder) hold(ctx context.Context, g *machine, err error) {
	if b.opt.Held == nil || ctx.Err() != nil || !errors.Is(err, ErrStep) {
		return
	}
	key := filepath.Join(g.work, "key")
	if err := os.WriteFile(key, []byte(g.private.Reveal()), 0o600); err != nil {
		b.opt.Log.Warn("login key not written", "err", err)
		return
	}
	g.unsettle()
	b.opt.Held(ctx, Held{Guest: g.name, Address: g.address, User: g.r.Login, KeyFile: key})
}

// base brings what the recipe begins with to this host. Its digest says what
// it is.
func (b *Builder) base(ctx context.Context, r *Recipe) (image.Local, error) {
	report := func(what string) func(done, total int64) {
		return func(done, total int64) { b.opt.View.Bring(what, done, total) }
	}
	switch {
	case r.Base.Image != "":
		img, err := b.opt.Sources.Image(ctx, r.Base.Image, report(r.Base.Image))
		if err != nil {
			return img, err
		}
		return img, b.fits(r, img)
	case r.Base.Debian != nil:
		return b.opt.Sources.Debian(ctx, *r.Base.Debian, func(done float64, doing string) {
			b.opt.View.Bring(doing, int64(done*100), 100)
		})
	}
	disk, err := b.opt.Sources.Disk(ctx, r.Base.Disk, report(r.Base.Disk.URL))
	if err != nil {
		return image.Local{}, err
	}
	info, err := os.Stat(disk)
	if err != nil {
		return image.Local{}, err
	}
	digest, err := chainKey("", r.Base.Disk.Checksum)
	return image.Local{
		Digest: "sha256:" + digest, Dir: filepath.Dir(disk), Disk: disk, DiskSize: info.Size(),
		Labels: map[string]string{image.LabelOS: r.OS, image.LabelArch: r.Arch, image.LabelBoot: image.BootFirmware},
	}, err
}

// fits refuses an image of another kind than the recipe makes.
func (b *Builder) fits(r *Recipe, img image.Local) error {
	for name, want := range map[string]string{image.LabelOS: r.OS, image.LabelArch: r.Arch} {
		if got := img.Labels[name]; got != "" && got != want {
			return fmt.Errorf("image %s is made for %s and the recipe for %s: %w", r.Base.Image, got, want, ErrRecipe)
		}
	}
	return nil
}

// finish makes a guest image of the machine and takes its disk.
func (b *Builder) finish(ctx context.Context, p *plan, g *machine, out *output) (image.Source, error) {
	hostKey, err := g.finishSystem(ctx, out)
	if err != nil {
		return image.Source{}, err
	}
	if err := g.off(ctx); err != nil {
		return image.Source{}, err
	}
	tmp := filepath.Join(g.work, "image")
	if err := os.Mkdir(tmp, 0o700); err != nil {
		return image.Source{}, err
	}
	src, err := b.keeper.Export(ctx, g.name, tmp)
	if err != nil {
		return image.Source{}, err
	}
	src.Labels = maps.Clone(p.r.labels(p.base.Labels, p.key))
	src.Labels[image.LabelBuilt] = time.Now().UTC().Format(time.RFC3339)
	if hostKey != "" {
		src.Labels[image.LabelHostKey] = hostKey
	}
	if p.r.Base.Image != "" && p.base.Disk != "" {
		src.Base = p.base // what did not change keeps its layers
	}
	return b.publish(p.r, p.key, tmp, src)
}
