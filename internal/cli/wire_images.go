package cli

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mirego/tasuki/internal/base/secret"
	"github.com/mirego/tasuki/internal/config"
	"github.com/mirego/tasuki/internal/dockerlogin"
	"github.com/mirego/tasuki/internal/guest"
	"github.com/mirego/tasuki/internal/image"
	"github.com/mirego/tasuki/internal/image/store"
	"github.com/mirego/tasuki/internal/image/transfer"
)

// login is how a registry is spoken to.
type login struct {
	username string
	password *renewed
	http     bool
	roots    *x509.CertPool // nil: the system's
}

// registryAccess is how every registry is spoken to: as the configuration
// says, else as whom "docker login" knows.
type registryAccess struct {
	byHost map[string]login
	docker dockerlogin.File
}

// registryLogins reads the passwords and authorities of all registries that
// the configuration, which may be nil, names.
func registryLogins(ctx context.Context, cfg *config.Config) (registryAccess, error) {
	out := registryAccess{byHost: map[string]login{}}
	if cfg == nil {
		return out, nil
	}
	for _, r := range cfg.Registries {
		password := &renewed{source: r.Password.Read}
		if _, err := password.read(ctx); err != nil {
			return out, fmt.Errorf("password of registry %q: %w", r.Host, err)
		}
		l := login{username: r.Username, password: password, http: r.HTTP}
		if r.CA != "" {
			var err error
			if l.roots, err = rootsOf(r.CA); err != nil {
				return out, fmt.Errorf("authorities of registry %q: %w", r.Host, err)
			}
		}
		out.byHost[r.Host] = l
	}
	return out, nil
}

// rootsOf are the system's authorities and those of a file.
func rootsOf(file string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool()
	}
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%q holds no certificate in PEM", file)
	}
	return roots, nil
}

// passwordAge is how long a registry's password is used before its source is
// asked again: one that a command prints may last for hours only (Amazon ECR's
// for twelve).
const passwordAge = 5 * time.Minute

// renewed is a secret that is read again once it is of age.
type renewed struct {
	source func(context.Context) (secret.String, error)

	mu   sync.Mutex
	last secret.String
	at   time.Time // zero: never read
}

// read returns the secret. While its source fails, the one before goes on; an
// error is that there was none.
func (r *renewed) read(ctx context.Context) (secret.String, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.at.IsZero() && time.Since(r.at) < passwordAge {
		return r.last, nil
	}
	fresh, err := r.source(ctx)
	if err != nil && r.at.IsZero() {
		return secret.String{}, err
	}
	if err == nil {
		r.last = fresh
	}
	r.at = time.Now() // a source that fails is not asked for each image
	return r.last, nil
}

// apply makes opt speak to ref's registry. The error is about what docker
// keeps; anonymously the registry may be spoken to all the same.
func (r *registryAccess) apply(ctx context.Context, ref image.Ref, opt *transfer.Options) error {
	l := r.byHost[ref.Registry()]
	opt.Username, opt.Insecure, opt.Roots = l.username, l.http, l.roots
	if l.username != "" {
		var err error
		opt.Password, err = l.password.read(ctx)
		return err
	}
	kept, err := r.docker.Login(ctx, ref.Registry())
	if err != nil {
		return err
	}
	opt.Username, opt.Password = kept.Username, kept.Password
	return nil
}

// who logs in to ref's registry; "" is nobody.
func (r *registryAccess) who(ctx context.Context, ref image.Ref) string {
	var opt transfer.Options
	if r.apply(ctx, ref, &opt) != nil {
		return ""
	}
	return opt.Username
}

// registryImages brings images from registries into this host's store. It
// implements agent.ImageStore. Its fields are set before its first use.
type registryImages struct {
	store  *store.Store
	log    *slog.Logger
	logins atomic.Pointer[registryAccess] // a reload replaces it
	floor  int64                          // bytes that stay free
	limit  *transfer.Limiter              // of all pulls together; nil: none

	mu    sync.Mutex
	given map[string]bool // references that were answered once
	room  func(ctx context.Context, need int64) error
}

// resolveTimeout bounds asking what a tag means while there is an answer of
// earlier to fall back to.
const resolveTimeout = 15 * time.Second

// Image asks the registry what ref means and pulls what is missing. When the
// agent has just started and the registry does not answer, the image that the
// reference meant last serves (incident registry-down-cached); later it is an
// error, which people see, and the agent keeps what it has.
func (r *registryImages) Image(ctx context.Context, ref string, progress func(image.Progress)) (image.Local, error) {
	parsed, err := image.Parse(ref)
	if err != nil {
		return image.Local{}, err
	}
	last, there := r.last(parsed)
	img, err := r.newest(ctx, parsed, last, there, progress)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil && ctx.Err() == nil && there && !r.given[ref] {
		r.log.Warn("registry does not answer; the image that it named last is used", "image", ref, "digest", last.Digest, "err", err)
		img, err = last, nil
	}
	if err == nil {
		if r.given == nil {
			r.given = map[string]bool{}
		}
		r.given[ref] = true
	}
	return img, err
}

// newest returns what the registry says. While there is an image to fall back
// to it gives up soon: no runner has to wait for a registry that is down.
func (r *registryImages) newest(ctx context.Context, ref image.Ref, last image.Local, there bool, progress func(image.Progress)) (image.Local, error) {
	opt := r.options(ctx, ref, progress)
	if there {
		opt.Tries = 1
		short, cancel := context.WithTimeoutCause(ctx, resolveTimeout, errors.New("the registry does not answer"))
		digest, err := transfer.Resolve(short, ref, opt)
		cancel()
		if err != nil || digest == last.Digest {
			return last, err
		}
		opt.Tries = 0
		// Where runners can be made meanwhile, their guests' room comes first.
		opt.Reserve = r.floor
	}
	return transfer.Pull(ctx, ref, r.store, opt)
}

// last returns the image that ref meant when the registry was last asked.
func (r *registryImages) last(ref image.Ref) (image.Local, bool) {
	digest, err := r.store.Resolve(ref)
	if err != nil {
		return image.Local{}, false
	}
	img, err := r.store.Get(digest)
	return img, err == nil
}

// Local implements agent.ImageStore.
func (r *registryImages) Local(ref string) (image.Local, bool) {
	parsed, err := image.Parse(ref)
	if err != nil {
		return image.Local{}, false
	}
	return r.last(parsed)
}

// Hold implements agent.ImageStore.
func (r *registryImages) Hold(digest string) (release func(), err error) { return r.store.Hold(digest) }

// Prune implements agent.ImageStore.
func (r *registryImages) Prune(ctx context.Context, keep image.Retention) (image.Pruned, error) {
	return r.store.Prune(ctx, keep, false)
}

// AskRoom implements agent.ImageStore.
func (r *registryImages) AskRoom(room func(ctx context.Context, need int64) error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.room = room
}

func (r *registryImages) options(ctx context.Context, ref image.Ref, progress func(image.Progress)) transfer.Options {
	r.mu.Lock()
	opt := transfer.Options{Log: r.log, Limit: r.limit, Room: r.room}
	r.mu.Unlock()
	if logins := r.logins.Load(); logins != nil {
		if err := logins.apply(ctx, ref, &opt); err != nil {
			r.log.Warn("registry is asked without a login", "registry", ref.Registry(), "err", err)
		}
	}
	if progress != nil {
		opt.Progress = func(p transfer.Progress) {
			if p.Phase == transfer.PhasePull {
				progress(image.Progress{Done: p.Done, Total: p.Total, Reused: p.Reused})
			}
		}
	}
	return opt
}

// keepFree is how many bytes stay free on the disk of the images.
func keepFree(cfg *config.Config) int64 {
	if n := int64(cfg.Images.KeepFree); n > 0 {
		return n
	}
	disk, err := diskOf(cfg.Host.Home)
	if err != nil {
		return 0 // the home is not there yet, and neither is an image
	}
	return min(20e9, disk.Size/20)
}

// folderImages takes folders of this host for images of fake guests: the
// folder holds a runner program, the executable "run". It implements
// agent.Images.
type folderImages struct{}

// Image returns the folder as an image whose digest changes with the program.
func (*folderImages) Image(_ context.Context, dir string, _ func(image.Progress)) (image.Local, error) {
	program := filepath.Join(dir, "run")
	info, err := os.Stat(program)
	if err != nil {
		return image.Local{}, fmt.Errorf("cannot use folder %q as an image: %w", dir, err)
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %d %d", program, info.Size(), info.ModTime().UnixNano()))
	return image.Local{
		Digest: "sha256:" + hex.EncodeToString(sum[:]), Dir: dir, Disk: program, DiskSize: info.Size(),
		Labels: map[string]string{
			image.LabelOS: image.OSLinux, image.LabelArch: runtime.GOARCH, image.LabelUser: "runner",
			image.LabelRunnerKind: guest.RunnerCommand, image.LabelRunnerDir: dir,
		},
	}, nil
}
