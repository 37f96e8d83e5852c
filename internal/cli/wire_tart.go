package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	"github.com/mirego/tasuki/internal/agent"
	"github.com/mirego/tasuki/internal/base/atomicfile"
	"github.com/mirego/tasuki/internal/base/secret"
	"github.com/mirego/tasuki/internal/config"
	"github.com/mirego/tasuki/internal/guest"
	"github.com/mirego/tasuki/internal/guest/ssh"
	"github.com/mirego/tasuki/internal/guest/tartexec"
	"github.com/mirego/tasuki/internal/image"
	"github.com/mirego/tasuki/internal/image/transfer"
	"github.com/mirego/tasuki/internal/vm"
	"github.com/mirego/tasuki/internal/vm/tart"
)

// driverOf returns the driver of a pool and the channel into its guests.
func (w *wiring) driverOf(ctx context.Context, p config.Pool) (vm.Driver, guest.Dialer, error) {
	if p.Driver != "tart" {
		return w.driver(p.Driver)
	}
	t := p.Tart.WithDefaults()
	d, err := w.tart(t.OS)
	if err != nil {
		return nil, nil, err
	}
	password, err := t.Password.Read(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("password of user %q: %w", t.User, err)
	}
	if password.Empty() {
		password = secret.New(config.StockPassword)
	}
	path, env := d.Program()
	dialer, err := tartexec.New(tartexec.Options{
		Path: path, Env: env, Channel: t.Channel, GUI: t.GUI == "required", SSH: w.ssh, User: t.User, Password: password,
		AuthorizedKey: ssh.Public, Log: w.log,
	})
	return d, dialer, err
}

// tart returns the driver for guests of a system. Both share one home, and
// each sees the other's guests.
func (w *wiring) tart(guestOS string) (*tart.Driver, error) {
	key := "tart " + guestOS
	if known, ok := w.known(key); ok {
		return known.(*tart.Driver), nil
	}
	d, err := tart.New(tart.Options{
		Home: filepath.Join(w.host.Home, "tart"), Installation: w.installation, Prefix: w.host.Prefix + "-",
		GuestOS: guestOS, Log: w.log,
	})
	if err == nil {
		w.know(key, d)
	}
	return d, err
}

// tartImages brings images into tart's own cache, by tart pull: by the digest
// that the registry names for a reference now. It implements agent.Images.
type tartImages struct {
	driver   *tart.Driver
	registry *registryImages // knows how registries are spoken to
	file     string          // what references meant last
	log      *slog.Logger

	mu    sync.Mutex
	given map[string]bool // references that were answered once
}

func (w *wiring) tartImagesFor(guestOS string) (*tartImages, error) {
	if _, err := w.imagesFor("qemu"); err != nil { // for its logins
		return nil, err
	}
	d, err := w.tart(guestOS)
	if err != nil {
		return nil, err
	}
	return &tartImages{
		driver: d, registry: w.images, file: filepath.Join(w.host.Home, "tart-images.json"), log: w.log, given: map[string]bool{},
	}, nil
}

// imagesOf returns where the images of a pool's guests come from. The same
// value for the same system: the agent knows image sources by identity.
func (w *wiring) imagesOf(p config.Pool) (agent.Images, error) {
	if p.Driver != "tart" {
		return w.imagesFor(p.Driver)
	}
	guestOS := p.Tart.WithDefaults().OS
	if t, ok := w.tarts[guestOS]; ok {
		return t, nil
	}
	t, err := w.tartImagesFor(guestOS)
	if err == nil {
		w.tarts[guestOS] = t
	}
	return t, err
}

// tartMeant is what a reference meant when the registry was last asked, and
// the image that it meant before, to go back to.
type tartMeant struct {
	Digest string            `json:"digest"`
	Labels map[string]string `json:"labels"`
	Before string            `json:"before,omitempty"`
}

// Image asks the registry what ref means and pulls what is missing. When the
// agent has just started and the registry does not answer, what the reference
// meant last serves (incident registry-down-cached).
func (t *tartImages) Image(ctx context.Context, ref string, progress func(done, total int64)) (image.Local, error) {
	parsed, err := image.Parse(ref)
	if err != nil {
		return image.Local{}, err
	}
	t.mu.Lock()
	defer t.mu.Unlock() // tart itself pulls one image of a registry at a time
	all := t.read()
	last, there := all[ref]
	there = there && t.driver.Cached(parsed.WithDigest(last.Digest))
	now, err := t.newest(ctx, parsed, last, there, progress)
	if err != nil && ctx.Err() == nil && there && !t.given[ref] {
		t.log.Warn("registry does not answer; the image that it named last is used", "image", ref, "digest", last.Digest, "err", err)
		now, err = last, nil
	}
	if err != nil {
		return image.Local{}, err
	}
	if now.Digest != last.Digest {
		if last.Before != "" && there {
			t.forget(ctx, parsed.WithDigest(last.Before), all)
		}
		now.Before = last.Digest
		all[ref] = now
		if err := t.write(all); err != nil {
			return image.Local{}, err
		}
	}
	t.given[ref] = true
	return image.Local{Ref: parsed, Digest: now.Digest, Labels: withRunner(now.Labels)}, nil
}

// newest returns what the registry says, with the image in tart's cache.
func (t *tartImages) newest(ctx context.Context, ref image.Ref, last tartMeant, there bool, progress func(done, total int64)) (tartMeant, error) {
	opt := t.registry.options(ctx, ref, nil)
	if there {
		opt.Tries = 1
	}
	short, cancel := context.WithTimeoutCause(ctx, resolveTimeout, errors.New("the registry does not answer"))
	defer cancel()
	digest, err := transfer.Resolve(short, ref, opt)
	if err != nil {
		return last, err
	}
	if there && digest == last.Digest {
		return last, nil
	}
	about, err := transfer.Inspect(short, ref.WithDigest(digest), opt)
	if err != nil {
		return last, err
	}
	login := tart.Login{Username: opt.Username, Password: opt.Password, HTTP: opt.Insecure || ref.Loopback()}
	if err := t.driver.Pull(ctx, ref.WithDigest(digest), login, progress); err != nil {
		return last, err
	}
	return tartMeant{Digest: digest, Labels: about.Labels, Before: last.Before}, nil
}

// forget removes an image that no reference means any more.
func (t *tartImages) forget(ctx context.Context, old image.Ref, all map[string]tartMeant) {
	for _, m := range all {
		if m.Digest == old.Digest() {
			return
		}
	}
	if err := t.driver.Forget(ctx, old); err != nil {
		t.log.Warn("old image not removed", "image", old.String(), "err", err)
	}
}

func (t *tartImages) read() map[string]tartMeant {
	all := map[string]tartMeant{}
	if data, err := os.ReadFile(t.file); err == nil {
		_ = json.Unmarshal(data, &all) // what cannot be read is asked for again
	}
	return all
}

func (t *tartImages) write(all map[string]tartMeant) error {
	data, err := json.MarshalIndent(all, "", "  ")
	if err != nil {
		return err
	}
	return atomicfile.Write(t.file, append(data, '\n'), 0o600)
}

// withRunner says where the runner program is in an image that does not, as
// the public images for tart do not: ~/actions-runner.
func withRunner(labels map[string]string) map[string]string {
	out := map[string]string{image.LabelRunnerDir: "~/actions-runner", image.LabelRunnerKind: image.RunnerOfficial}
	for k, v := range labels {
		out[k] = v
	}
	return out
}
