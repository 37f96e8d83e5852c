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
	"sync/atomic"

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
}

// Image asks the registry what ref means and pulls what is missing. A registry
// that does not answer costs nothing while the image that the reference meant
// last is here (incident registry-down-cached).
func (r *registryImages) Image(ctx context.Context, ref string, progress func(done, total int64)) (image.Local, error) {
	parsed, err := image.Parse(ref)
	if err != nil {
		return image.Local{}, err
	}
	img, err := transfer.Pull(ctx, parsed, r.store, r.options(parsed, progress))
	if err == nil || ctx.Err() != nil || errors.Is(err, image.ErrNotInRegistry) {
		return img, err
	}
	digest, resolveErr := r.store.Resolve(parsed)
	if resolveErr != nil {
		return image.Local{}, err
	}
	img, getErr := r.store.Get(digest)
	if getErr != nil {
		return image.Local{}, err
	}
	r.log.Warn("registry does not answer; the image that it named last is used", "image", ref, "digest", digest, "err", err)
	return img, nil
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
