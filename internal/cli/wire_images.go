package cli

import (
	"context"
	"crypto/sha256"
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
	"github.com/mirego/tasuki/internal/guest"
	"github.com/mirego/tasuki/internal/image"
	"github.com/mirego/tasuki/internal/image/store"
	"github.com/mirego/tasuki/internal/image/transfer"
)

// login is how a registry is spoken to.
type login struct {
	username string
	password secret.String
	http     bool
}

// registryLogins reads the passwords of all registries, by host.
func registryLogins(ctx context.Context, cfg *config.Config) (map[string]login, error) {
	out := map[string]login{}
	for _, r := range cfg.Registries {
		password, err := r.Password.Read(ctx)
		if err != nil {
			return nil, fmt.Errorf("password of registry %q: %w", r.Host, err)
		}
		out[r.Host] = login{username: r.Username, password: password, http: r.HTTP}
	}
	return out, nil
}

// registryImages brings images from registries into this host's store. It
// implements agent.Images.
type registryImages struct {
	store  *store.Store
	log    *slog.Logger
	logins atomic.Pointer[map[string]login] // a reload replaces it

	mu    sync.Mutex
	given map[string]bool // references that were answered once
}

// resolveTimeout bounds asking what a tag means while there is an answer of
// earlier to fall back to.
const resolveTimeout = 15 * time.Second

// Image asks the registry what ref means and pulls what is missing. When the
// agent has just started and the registry does not answer, the image that the
// reference meant last serves (incident registry-down-cached); later it is an
// error, which people see, and the agent keeps what it has.
func (r *registryImages) Image(ctx context.Context, ref string, progress func(done, total int64)) (image.Local, error) {
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
		r.given[ref] = true
	}
	return img, err
}

// newest returns what the registry says. While there is an image to fall back
// to it gives up soon: no runner has to wait for a registry that is down.
func (r *registryImages) newest(ctx context.Context, ref image.Ref, last image.Local, there bool, progress func(done, total int64)) (image.Local, error) {
	opt := r.options(ref, progress)
	if there {
		opt.Tries = 1
		short, cancel := context.WithTimeoutCause(ctx, resolveTimeout, errors.New("the registry does not answer"))
		digest, err := transfer.Resolve(short, ref, opt)
		cancel()
		if err != nil || digest == last.Digest {
			return last, err
		}
		opt.Tries = 0
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

func (r *registryImages) options(ref image.Ref, progress func(done, total int64)) transfer.Options {
	opt := transfer.Options{Log: r.log}
	if logins := r.logins.Load(); logins != nil {
		l := (*logins)[ref.Registry()]
		opt.Username, opt.Password, opt.Insecure = l.username, l.password, l.http
	}
	if progress != nil {
		opt.Progress = func(p transfer.Progress) {
			if p.Phase == transfer.PhasePull {
				progress(p.Done, p.Total)
			}
		}
	}
	return opt
}

// folderImages takes folders of this host for images of fake guests: the
// folder holds a runner program, the executable "run". It implements
// agent.Images.
type folderImages struct{}

// Image returns the folder as an image whose digest changes with the program.
func (*folderImages) Image(_ context.Context, dir string, _ func(done, total int64)) (image.Local, error) {
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
