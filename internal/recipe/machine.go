package recipe

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/mirego/tasuki/internal/base/backoff"
	"github.com/mirego/tasuki/internal/base/secret"
	"github.com/mirego/tasuki/internal/guest"
	"github.com/mirego/tasuki/internal/image"
	"github.com/mirego/tasuki/internal/vm"
)

// Deadlines of what happens around the steps.
const (
	bootTimeout    = 10 * time.Minute // to an answered login; emulated cloud images are slow
	offTimeout     = 5 * time.Minute  // to a system that was shut down
	settleTimeout  = 2 * time.Minute
	destroyTimeout = time.Minute
)

// machine is the guest of a build.
type machine struct {
	b      *Builder
	r      *Recipe
	name   string
	work   string      // folder of the build's own files
	base   image.Local // what the whole chain begins with
	start  image.Local // what this guest was made of: base or a snapshot
	from   string      // key of that snapshot; "" for base
	unseal func()      // lets the frozen file systems go on; nil if they do

	private secret.String
	public  string
	media   []string
	address string
	channel guest.Channel
}

// up makes and starts the guest, and waits until it lets us in.
func (g *machine) up(ctx context.Context) error {
	spec := vm.Spec{
		Name: g.name, Owner: vm.Owner{Installation: g.b.opt.Installation, Pool: "build", Runner: g.name},
		Image: g.start, CPUs: g.r.Guest.CPUs, MemoryMiB: g.r.Guest.MemoryMiB, DiskGB: g.r.Guest.DiskGB,
		Network: g.r.Guest.Network, LoginKey: g.public, Hostname: g.r.Name, Media: g.media,
	}
	if err := g.b.opt.Driver.Create(ctx, spec); err != nil {
		return err
	}
	return g.boot(ctx)
}

// boot starts the guest and logs in.
func (g *machine) boot(ctx context.Context) error {
	g.close()
	if err := g.b.opt.Driver.Start(ctx, g.name); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, bootTimeout, fmt.Errorf("it did not let us in within %v", bootTimeout))
	defer cancel()
	pause := backoff.Policy{First: 100 * time.Millisecond, Most: 2 * time.Second}
	var err error
	for try := 1; ; try++ {
		if err = g.dial(ctx); err == nil {
			return nil
		}
		if dead := g.dead(ctx); dead != nil {
			return dead
		}
		if backoff.Sleep(ctx, pause.Delay(try, nil)) != nil {
			return fmt.Errorf("cannot log in to the guest: %w (last: %w)", context.Cause(ctx), err)
		}
	}
}

func (g *machine) dial(ctx context.Context) error {
	target := guest.Target{
		Guest: g.name, User: g.r.Login, Key: g.private, Password: g.r.Password,
		HostKey: g.base.Labels[image.LabelHostKey], // until finish the guest has its base's
	}
	a, addressed := g.b.opt.Driver.(vm.Addresser)
	if _, ok := g.b.opt.Dialer.(guest.Resolver); ok && addressed {
		target.Resolve = func(ctx context.Context) (string, error) {
			address, err := a.Address(ctx, g.name)
			g.address = address
			return address, err
		}
	} else if addressed {
		address, err := a.Address(ctx, g.name)
		if err != nil {
			return err
		}
		g.address, target.Address = address, address
	}
	channel, err := g.b.opt.Dialer.Dial(ctx, target)
	if err != nil {
		return err
	}
	g.channel = channel
	return nil
}

// dead says why a guest that should run does not.
func (g *machine) dead(ctx context.Context) error {
	in, err := g.look(ctx)
	if err != nil || in.State == vm.Running {
		return nil // nothing is known for sure
	}
	return fmt.Errorf("the guest is %s: %s", in.State, in.Reason)
}

func (g *machine) look(ctx context.Context) (vm.Instance, error) {
	all, err := g.b.opt.Driver.List(ctx)
	if err != nil {
		return vm.Instance{}, err
	}
	for _, in := range all {
		if in.Name == g.name {
			return in, nil
		}
	}
	return vm.Instance{State: vm.Broken, Reason: "it is gone"}, nil
}

func (g *machine) close() {
	if g.channel != nil {
		_ = g.channel.Close() // what it was to say was said
		g.channel = nil
	}
}

// ask runs a short script and returns what it prints.
func (g *machine) ask(ctx context.Context, script string) (string, error) {
	var out, errs bytes.Buffer
	status, err := g.channel.Run(ctx, guest.Command{Script: script, Stdout: &out, Stderr: &errs})
	if err == nil && status != 0 {
		err = fmt.Errorf("it ended with status %d: %s", status, strings.TrimSpace(errs.String()))
	}
	return strings.TrimSpace(out.String()), err
}

// snapshot copies the guest's disk into dir while its system stands still, or,
// where the driver cannot have that, is shut down. A connection that did not
// bear it is made anew.
func (g *machine) snapshot(ctx context.Context, dir string) (image.Local, error) {
	if g.b.offline {
		return g.snapshotOff(ctx, dir)
	}
	err := g.settle(ctx)
	if err != nil {
		g.unsettle()
		return image.Local{}, err
	}
	img, err := g.b.keeper.Snapshot(ctx, g.name, dir)
	g.unsettle()
	if errors.Is(err, vm.ErrRunning) {
		g.b.offline = true
		return g.snapshotOff(ctx, dir)
	}
	if err != nil {
		return image.Local{}, err
	}
	if _, err := g.ask(ctx, ":"); err != nil {
		return img, g.boot(ctx)
	}
	return img, nil
}

// snapshotOff copies the disk of the guest while it is shut down.
func (g *machine) snapshotOff(ctx context.Context, dir string) (image.Local, error) {
	if err := g.off(ctx); err != nil {
		return image.Local{}, err
	}
	img, err := g.b.keeper.Snapshot(ctx, g.name, dir)
	if err != nil {
		return image.Local{}, err
	}
	return img, g.boot(ctx)
}

// settle has the guest's system write out what it holds, and freezes its file
// system where it can: then a copy of the disk is as after a shutdown.
func (g *machine) settle(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, settleTimeout, fmt.Errorf("not done within %v", settleTimeout))
	defer cancel()
	if g.b.fake() {
		return nil
	}
	if _, err := g.ask(ctx, "sync"); err != nil {
		return fmt.Errorf("cannot have the guest write out its disk: %w", err)
	}
	if g.r.OS == image.OSLinux {
		return g.freeze(ctx)
	}
	return nil
}

// freeze runs a script that freezes the root file system, says so, and thaws it
// when its input ends. Where it cannot freeze, sync must do.
func (g *machine) freeze(ctx context.Context) error {
	// More than one program is started only before the freeze: a new one may
	// want to write.
	const script = `thaw() { fsfreeze -u /; }
fsfreeze -f / 2>/dev/null || { echo no; exit 0; }
trap thaw EXIT
echo yes
read -r _ || true`
	hold, release := io.Pipe()
	said := make(chan string, 1)
	ended := make(chan struct{})
	lines := guest.NewLines(func(line string) {
		select {
		case said <- line:
		default:
		}
	})
	go func() {
		defer close(ended)
		_, _ = g.channel.Run(context.WithoutCancel(ctx), guest.Command{Script: asRoot("sh -c " + guest.Quote(script)), Stdin: hold, Stdout: lines})
		_ = hold.Close()
	}()
	g.unseal = func() {
		_ = release.Close()
		select {
		case <-ended:
		case <-time.After(settleTimeout): // its guest is of no more use, and is destroyed
		}
	}
	select {
	case <-said:
		return nil
	case <-ended:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// unsettle ends what settle did.
func (g *machine) unsettle() {
	if g.unseal != nil {
		g.unseal()
		g.unseal = nil
	}
}

// asRoot is a command for the shell, run as root; by sudo unless we are root.
func asRoot(command string) string {
	return "if [ \"$(id -u)\" = 0 ]; then set --; else set -- sudo -n; fi; exec \"$@\" " + command
}

// off shuts the system down and waits until its hypervisor is gone.
func (g *machine) off(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, offTimeout, fmt.Errorf("it still runs %v after its shutdown", offTimeout))
	defer cancel()
	if g.b.fake() {
		return g.cut(ctx)
	}
	command := "poweroff"
	if g.r.OS == image.OSDarwin {
		command = "shutdown -h now"
	}
	// The connection may break before the answer comes.
	if _, err := g.ask(ctx, asRoot(command)); err != nil && !errors.Is(err, guest.ErrUnreachable) {
		return fmt.Errorf("cannot shut the guest down: %w", err)
	}
	g.close()
	for {
		in, err := g.look(ctx)
		if err == nil && in.State == vm.Stopped {
			return nil
		}
		if backoff.Sleep(ctx, 200*time.Millisecond) != nil {
			return fmt.Errorf("cannot shut the guest down: %w", context.Cause(ctx))
		}
	}
}

// cut takes the guest's power and keeps its disk.
func (g *machine) cut(ctx context.Context) error {
	g.close()
	p, ok := g.b.opt.Driver.(vm.PowerOffer)
	if !ok {
		return fmt.Errorf("driver %s cannot power a guest off: %w", g.b.caps.Driver, vm.ErrUnsupported)
	}
	return p.PowerOff(ctx, g.name)
}

// destroy leaves nothing of the guest, also when ctx has ended.
func (g *machine) destroy(ctx context.Context) error {
	g.unsettle()
	g.close()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), destroyTimeout)
	defer cancel()
	if err := g.b.opt.Driver.Destroy(ctx, g.name); err != nil {
		return fmt.Errorf("cannot destroy the guest of the build: %w", err)
	}
	return nil
}
