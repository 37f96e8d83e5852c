package tart

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/mirego/tasuki/internal/base/backoff"
	"github.com/mirego/tasuki/internal/vm"
)

// errDied: the guest's tart run ended while we asked for something.
var errDied = errors.New("its tart run ended meanwhile")

// resolvers are tart ip's ways to an address, the surest first. Every clone has a
// MAC address that no old lease names; the guest agent knows in every network;
// softnet's guests are in no ARP table, and others may be there late.
func resolvers(open bool) []string {
	if open {
		return []string{"dhcp", "agent", "arp"}
	}
	return []string{"dhcp", "agent"}
}

// Address implements vm.Addresser, by tart ip. The answer is raced against the
// death of tart run, which tart ip does not notice.
func (d *Driver) Address(ctx context.Context, name string) (string, error) {
	fail := func(err error) (string, error) {
		return "", fmt.Errorf("cannot give an address of the guest %q: %w", name, err)
	}
	g, err := d.guest(name)
	if err != nil {
		return fail(err)
	}
	if pid, err := holder(g.machine); err != nil || pid == 0 {
		return fail(errors.Join(err, errors.New("it does not run")))
	}
	ctx, stop := raceDeath(ctx, g)
	defer stop()
	var errs []error
	for _, resolver := range resolvers(g.rec.Machine.OpenNetwork) {
		out, err := d.call(ctx, call{args: []string{"ip", name, "--resolver", resolver}, limit: d.times.ip})
		if ctx.Err() != nil {
			return fail(context.Cause(ctx))
		}
		if err == nil {
			err = d.learn(name, strings.TrimSpace(out))
		}
		if err == nil {
			return net.JoinHostPort(strings.TrimSpace(out), strconv.Itoa(d.opt.SSHPort)), nil
		}
		errs = append(errs, err)
	}
	return fail(errors.Join(errs...))
}

// learn keeps a guest's address, and refuses one that another running guest has
// (incident duplicate-ip).
func (d *Driver) learn(name, address string) error {
	ip, err := netip.ParseAddr(address)
	if err != nil || !ip.IsValid() {
		return fmt.Errorf("tart ip printed %q, which is no address", address)
	}
	d.mu.Lock()
	var twin string
	for other, its := range d.addresses {
		if other != name && its == address {
			twin = other
		}
	}
	d.addresses[name] = address
	d.mu.Unlock()
	if twin == "" {
		return nil
	}
	if pid, err := holder(d.machinePath(twin)); err == nil && pid != 0 {
		d.mu.Lock()
		delete(d.addresses, name)
		d.mu.Unlock()
		return fmt.Errorf("tart ip gave %s, the address of the guest %q", address, twin)
	}
	return nil
}

// raceDeath returns a context that ends with errDied when the guest's tart run
// does. stop waits for the goroutine that watches.
func raceDeath(ctx context.Context, g *guest) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		for backoff.Sleep(ctx, 100*time.Millisecond) == nil {
			if pid, err := holder(g.machine); err == nil && pid == 0 {
				cancel(fmt.Errorf("%w: %w", errDied, ended(g)))
			}
		}
	}()
	return ctx, func() { cancel(nil); <-watched }
}

var _ vm.Addresser = (*Driver)(nil)
