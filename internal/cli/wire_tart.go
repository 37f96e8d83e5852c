package cli

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/mirego/tasuki/internal/agent"
	"github.com/mirego/tasuki/internal/base/secret"
	"github.com/mirego/tasuki/internal/config"
	"github.com/mirego/tasuki/internal/guest"
	"github.com/mirego/tasuki/internal/guest/ssh"
	"github.com/mirego/tasuki/internal/guest/tartexec"
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

func (w *wiring) tartImagesFor(guestOS string) (*tartImages, error) {
	if _, err := w.imagesFor("qemu"); err != nil { // for its logins
		return nil, err
	}
	d, err := w.tart(guestOS)
	if err != nil {
		return nil, err
	}
	t, err := newTartImages(d, w.images, filepath.Join(w.host.Home, "tart-images-"+guestOS+".json"))
	if err == nil {
		t.own = w.kept.Tart == config.TartOwn
	}
	return t, err
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
