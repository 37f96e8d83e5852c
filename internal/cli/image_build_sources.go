package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"

	"github.com/mirego/tasuki/internal/image"
	"github.com/mirego/tasuki/internal/image/cloud"
	"github.com/mirego/tasuki/internal/image/debian"
	"github.com/mirego/tasuki/internal/image/transfer"
	"github.com/mirego/tasuki/internal/recipe"
	"github.com/mirego/tasuki/internal/registry"
)

// buildSources brings what builds begin with. It implements recipe.Sources.
type buildSources struct {
	images  *registryImages
	tart    *tartImages // instead, with driver tart
	files   *cloud.Cache
	dir     string
	log     *slog.Logger
	release []func() // of the images that the build stands on
}

// newBuildSources logs in to registries as every command on images does.
func newBuildSources(w *imageWork, log *slog.Logger) (*buildSources, error) {
	s, err := w.open()
	if err != nil {
		return nil, err
	}
	images := &registryImages{store: s, log: log}
	images.logins.Store(&w.logins)
	dir := buildDir(w.home)
	return &buildSources{images: images, files: &cloud.Cache{Dir: filepath.Join(dir, "downloads")}, dir: dir, log: log}, nil
}

// Image implements recipe.Sources.
func (s *buildSources) Image(ctx context.Context, ref string, progress func(done, total int64)) (image.Local, error) {
	told := func(p image.Progress) {
		if progress != nil {
			progress(p.Done, p.Total)
		}
	}
	if s.tart != nil { // tart itself keeps what its machines are cloned from
		return s.tart.Image(ctx, ref, told)
	}
	img, err := s.images.Image(ctx, ref, told)
	if err != nil {
		return img, err
	}
	release, err := s.images.store.Hold(img.Digest)
	if err != nil {
		return img, err
	}
	s.release = append(s.release, release)
	return img, nil
}

// close lets go of the images.
func (s *buildSources) close() {
	for _, release := range s.release {
		release()
	}
}

// Disk implements recipe.Sources.
func (s *buildSources) Disk(ctx context.Context, d recipe.Download, progress func(done, total int64)) (string, error) {
	return s.files.Disk(ctx, d.URL, d.Checksum, progress)
}

// File implements recipe.Sources.
func (s *buildSources) File(ctx context.Context, d recipe.Download, progress func(done, total int64)) (string, error) {
	return s.files.Fetch(ctx, d.URL, d.Checksum, progress)
}

// Debian implements recipe.Sources. Made twice of the same recipe it is not the
// same: the time of the build is part of what it is known by.
func (s *buildSources) Debian(ctx context.Context, d recipe.Debian, progress func(done float64, doing string)) (image.Local, error) {
	src, err := debian.Build(ctx, debian.Options{
		CacheDir: filepath.Join(s.dir, "debian"), Mirror: d.Mirror, Packages: d.Packages, Progress: progress, Log: s.log,
	})
	if err != nil {
		return image.Local{}, err
	}
	info, err := os.Stat(src.Disk)
	if err != nil {
		return image.Local{}, err
	}
	return image.Local{
		Digest: src.Labels[image.LabelRecipe] + " " + src.Labels[image.LabelBuilt], Dir: filepath.Dir(src.Disk), Disk: src.Disk, DiskSize: info.Size(),
		Kernel: src.Kernel, Initrd: src.Initrd, Labels: src.Labels,
	}, nil
}

// deliver brings a built image to where it is wanted, and prints its digest, or
// its folder if it goes nowhere.
func (w *imageWork) deliver(ctx context.Context, src image.Source, names imageNames, s *buildSources) error {
	if names.push.IsZero() && names.local.IsZero() {
		_, err := fmt.Fprintln(w.a.stdout, filepath.Dir(src.Disk))
		return err
	}
	if !names.local.IsZero() {
		digest, err := s.keepLocal(ctx, src, names.local)
		if err != nil {
			return err
		}
		fmt.Fprintln(w.a.stdout, names.local.WithDigest(digest))
	}
	if names.push.IsZero() {
		return nil
	}
	opt, err := w.options(ctx, names.push)
	if err != nil {
		return err
	}
	digest, err := transfer.Push(ctx, src, names.push, opt)
	if err != nil {
		return w.explain(ctx, names.push, err)
	}
	_, err = fmt.Fprintln(w.a.stdout, names.push.WithDigest(digest))
	return err
}

// keepLocal puts an image into this host's store under a name. An image is its
// manifest, so it goes the way that all go: through a registry, here one that
// lives in this process for the moment and answers to any name.
func (s *buildSources) keepLocal(ctx context.Context, src image.Source, ref image.Ref) (digest string, err error) {
	dir, err := os.MkdirTemp(s.dir, "registry-")
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	r, err := registry.New(registry.Options{Dir: dir, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return "", err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", errors.Join(err, r.Close())
	}
	serving, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	var serveErr error
	wg.Go(func() { serveErr = r.Run(serving, l) })
	defer func() {
		stop()
		wg.Wait()
		err = errors.Join(err, serveErr)
	}()
	here := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", l.Addr().String())
	}}
	defer here.CloseIdleConnections()
	opt := transfer.Options{Insecure: true, Transport: here, Log: s.log}
	if digest, err = transfer.Push(ctx, src, ref, opt); err != nil {
		return "", err
	}
	if _, err = transfer.Pull(ctx, ref, s.images.store, opt); err != nil {
		return "", err
	}
	return digest, s.images.store.Remember(ref, digest)
}
