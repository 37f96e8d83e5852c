package agent_test

import (
	"context"
	"errors"
	"maps"
	"os"
	"testing"

	"github.com/mirego/tasuki/internal/agent"
	"github.com/mirego/tasuki/internal/api"
	"github.com/mirego/tasuki/internal/emulator"
	"github.com/mirego/tasuki/internal/guest"
	"github.com/mirego/tasuki/internal/guest/local"
	"github.com/mirego/tasuki/internal/image"
	"github.com/mirego/tasuki/internal/runner"
	"github.com/mirego/tasuki/internal/vm/fake"
)

// hidden are guests without an address, as those that only a guest agent
// reaches.
type hidden struct{ *fake.Driver }

func (hidden) Address(context.Context, string) (string, error) {
	return "", errors.New("no IP address found")
}

// agentDialer reaches them all the same, learns who it is there, and has a
// tunnel.
type agentDialer struct{ driver *fake.Driver }

func (d agentDialer) Resolves() {}

func (d agentDialer) Tunnel(name string) []string { return []string{"exec", name} }

func (d agentDialer) Dial(ctx context.Context, target guest.Target) (guest.Channel, error) {
	var err error
	if target.Address, err = d.driver.Address(ctx, target.Guest); err != nil {
		return nil, err
	}
	ch, err := local.Dialer{}.Dial(ctx, target)
	return wayfarer{ch}, err
}

type wayfarer struct{ guest.Channel }

func (wayfarer) Way() guest.Way {
	return guest.Way{Channel: "guest agent", Trust: "the hypervisor", User: "admin", HostKey: "ssh-ed25519 SHOWN"}
}

// A guest that has no address is logged in to through its tunnel, as who the
// agent is in it, and by the host key that the agent saw there.
func TestLoginWithoutAnAddress(t *testing.T) {
	t.Parallel()
	w := newWorld(t, emulator.Options{})
	h := w.run(fake.Faults{}, func(o *agent.Options) {
		p := &o.Pools[0]
		d := p.Driver.(*fake.Driver)
		p.Driver, p.Dialer = hidden{d}, agentDialer{d}
		p.Images = stock{p.Images}
	})
	idle := w.runner(h, runner.Idle)
	login, err := h.Login(idle.Name)
	if err != nil {
		t.Fatal(err)
	}
	if login.Address != "" || len(login.Tunnel) != 2 || login.Tunnel[1] != idle.Name || login.User != "admin" || login.HostKey != "ssh-ed25519 SHOWN" {
		t.Errorf("login: %+v", login)
	}
	// What ssh keeps beside the login key goes with the guest.
	hosts := login.KeyFile + api.HostsSuffix
	if err := os.WriteFile(hosts, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	w.concluded(w.submit(1), "success")
	w.until("the host keys of the guest are gone", func() bool { _, err := os.Stat(hosts); return err != nil })
	w.finish(h)
}

// stock images name no user and no host key.
type stock struct{ agent.Images }

func (s stock) Image(ctx context.Context, ref string, progress func(image.Progress)) (image.Local, error) {
	img, err := s.Images.Image(ctx, ref, progress)
	img.Labels = maps.Clone(img.Labels)
	delete(img.Labels, image.LabelUser)
	return img, err
}
