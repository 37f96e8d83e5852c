// Package tartexec is the channel into guests of tart: through the guest agent
// that many images carry, by "tart exec", or over SSH where there is none.
//
// The guest agent needs no address of the guest, no login, and none of macOS's
// permission to talk to the local network; what it starts runs in the GUI
// session of the user who is logged in there. It is trusted by the hypervisor:
// only the machine itself is at the end of that line. Over SSH, a script of a
// macOS guest is started inside the GUI session by launchctl, where sudo asks
// for no password.
//
// Either way a script runs with what the profile of the user's login shell
// sets, as a runner that a person had started would have it.
//
// tart exec ends with the status of the command or with one of its own, and
// with 0 where the line was cut. So a script's own status comes as the last
// words on its standard error, behind a word that nobody can guess; without it
// the script was not seen to end.
package tartexec

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/mirego/tasuki/internal/base/proc"
	"github.com/mirego/tasuki/internal/base/secret"
	"github.com/mirego/tasuki/internal/guest"
)

// Which ways into a guest a Dialer takes.
const (
	Auto = "auto" // the guest agent; SSH where it does not answer in time
	Exec = "exec" // the guest agent only
	SSH  = "ssh"  // SSH only
)

// Options say how a pool's guests are reached.
type Options struct {
	Path string   // of the tart program
	Env  []string // that tart runs in
	// Channel is Auto, Exec or SSH; "" means Auto.
	Channel string
	// GUI says that scripts must run inside the GUI session of a macOS guest;
	// where that cannot be, Dial fails with guest.ErrRefused.
	GUI bool
	// SSH opens channels over SSH, HostKeys says whether it knows a key already.
	SSH guest.Dialer
	// User and Password log in over SSH where the image names no user.
	User     string
	Password secret.String
	// AuthorizedKey gives the public half of a guest's login key, as a line of
	// an authorized_keys file. It is put into guests that we got into otherwise.
	// nil: none is.
	AuthorizedKey func(private secret.String) (string, error)
	// Patience is how long SSH waits, once it answers, for the guest agent to
	// answer as well: it comes with the login at the screen, later than sshd. 0
	// means 20 s.
	Patience time.Duration
	Log      *slog.Logger
}

// Dialer opens channels. It implements guest.Resolver. Its methods may be
// called at the same time.
type Dialer struct {
	opt Options
	log *slog.Logger

	mu  sync.Mutex
	ssh map[string]time.Time // by guest: since when SSH answers and the agent does not
}

var (
	_ guest.Resolver = (*Dialer)(nil)
	_ guest.Tunneler = (*Dialer)(nil)
)

// New makes a dialer.
func New(opt Options) (*Dialer, error) {
	opt.Channel = cmp.Or(opt.Channel, Auto)
	opt.Patience = cmp.Or(opt.Patience, 20*time.Second)
	switch {
	case opt.Channel != Auto && opt.Channel != Exec && opt.Channel != SSH:
		return nil, fmt.Errorf("cannot reach guests by %q: auto, exec and ssh are known", opt.Channel)
	case opt.Channel != Exec && opt.SSH == nil:
		return nil, errors.New("cannot reach guests over SSH without its dialer")
	}
	return &Dialer{opt: opt, log: cmp.Or(opt.Log, slog.New(slog.DiscardHandler)), ssh: map[string]time.Time{}}, nil
}

// Resolves implements guest.Resolver.
func (d *Dialer) Resolves() {}

// tryFor bounds one look whether the guest agent answers.
const tryFor = 10 * time.Second

// Dial implements guest.Dialer.
func (d *Dialer) Dial(ctx context.Context, target guest.Target) (guest.Channel, error) {
	ch, err := d.dial(ctx, target)
	if err != nil {
		return nil, fmt.Errorf("cannot reach guest %q: %w", target.Guest, err)
	}
	d.log.Info("guest reached", "guest", target.Guest, "by", ch.Way().String())
	return ch, nil
}

func (d *Dialer) dial(ctx context.Context, target guest.Target) (*channel, error) {
	var agentErr error
	if d.opt.Channel != SSH {
		ch, err := d.dialAgent(ctx, target)
		if err == nil {
			d.forget(target.Guest)
			return ch, nil
		}
		agentErr = err
		if d.opt.Channel == Exec || errors.Is(agentErr, guest.ErrRefused) || ctx.Err() != nil {
			return nil, agentErr
		}
	}
	ch, err := d.dialSSH(ctx, target)
	if err != nil {
		return nil, errors.Join(agentErr, err)
	}
	if d.opt.Channel == Auto && !d.patienceEnded(target.Guest) {
		return nil, errors.Join(fmt.Errorf("SSH answers; its guest agent has %v more to answer, too: %w", d.opt.Patience, guest.ErrUnreachable), ch.Close())
	}
	if err := d.prepare(ctx, ch, target); err != nil {
		return nil, errors.Join(err, ch.Close())
	}
	return ch, nil
}

// patienceEnded says whether SSH answers for so long that no guest agent is to
// be expected.
func (d *Dialer) patienceEnded(name string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	since, ok := d.ssh[name]
	if !ok {
		for other, at := range d.ssh { // guests are short-lived
			if time.Since(at) > time.Hour {
				delete(d.ssh, other)
			}
		}
		d.ssh[name] = time.Now()
		return false
	}
	return time.Since(since) >= d.opt.Patience
}

func (d *Dialer) forget(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.ssh, name)
}

// dialAgent tries the guest agent once.
func (d *Dialer) dialAgent(ctx context.Context, target guest.Target) (*channel, error) {
	ch := newChannel(&agentLine{dialer: d, guest: target.Guest}, guest.Way{Channel: "guest agent", Trust: "the hypervisor"})
	try, cancel := context.WithTimeoutCause(ctx, tryFor, fmt.Errorf("its guest agent did not answer within %v: %w", tryFor, guest.ErrUnreachable))
	defer cancel()
	return ch, d.prepare(try, ch, target)
}

// dialSSH tries SSH once. A stock image has a user whose password everybody
// knows, and no host key of ours: the first one that a guest shows is trusted.
func (d *Dialer) dialSSH(ctx context.Context, target guest.Target) (*channel, error) {
	way := guest.Way{Channel: "ssh", Trust: "the image's host key", Login: "key"}
	if target.HostKey == "" || target.Seen {
		way.Trust = "the host key that it showed first"
	}
	if target.User == "" {
		target.User, target.Password, way.Login = d.opt.User, d.opt.Password, "password"
	}
	if target.Address == "" && target.Resolve != nil {
		address, err := target.Resolve(ctx)
		if err != nil {
			return nil, fmt.Errorf("it has no address: %w: %w", guest.ErrUnreachable, err)
		}
		target.Address = address
	}
	ch, err := d.opt.SSH.Dial(ctx, target)
	if errors.Is(err, syscall.EHOSTUNREACH) {
		return nil, fmt.Errorf("%w; macOS may refuse this program the local network: System Settings, Privacy & Security, Local Network, allow tasuki; or use an image with tart's guest agent (channel: exec), which needs no network", err)
	}
	if err != nil {
		return nil, err
	}
	return newChannel(&sshLine{ch: ch}, way), nil
}

// session finds out where scripts run, and prints it as words: system, whether
// a GUI session is there, and whether sudo may start something inside it.
//
// A second line is the key that the guest's SSH server shows, which everybody in
// it may read.
const session = `sys=$(uname -s); gui=no; in=no; as=no
if [ "$sys" = Darwin ]; then
  launchctl print "gui/$(id -u)" >/dev/null 2>&1 && gui=yes
  [ "$(launchctl managername 2>/dev/null)" = Aqua ] && in=yes
  sudo -n launchctl asuser "$(id -u)" true >/dev/null 2>&1 && as=yes
fi
echo "session $sys $gui $in $as $(id -un)"
cat /etc/ssh/ssh_host_ed25519_key.pub 2>/dev/null
exit 0`

// prepare looks where scripts run, and makes a macOS guest's run inside its GUI
// session. It lets the guest's own login key in on the way, so that tasuki ssh
// needs no password: all in one script, since a guest that boots is slow.
func (d *Dialer) prepare(ctx context.Context, ch *channel, target guest.Target) error {
	script, err := d.authorize(ch.way, target)
	if err != nil {
		return err
	}
	var out strings.Builder
	if _, err := ch.Run(ctx, guest.Command{Script: script + session, Stdout: &out}); err != nil {
		return err
	}
	var sys, gui, in, as string
	first, key, _ := strings.Cut(out.String(), "\n")
	if _, err := fmt.Sscanf(first, "session %s %s %s %s %s", &sys, &gui, &in, &as, &ch.way.User); err != nil {
		return fmt.Errorf("cannot tell where its scripts run: %q: %w", out.String(), guest.ErrUnreachable)
	}
	if words := strings.Fields(key); len(words) >= 2 && words[0] == "ssh-ed25519" {
		ch.way.HostKey = words[0] + " " + words[1]
	}
	switch {
	case sys != "Darwin":
		if d.opt.GUI {
			return fmt.Errorf("gui: required, and a %s guest has no GUI session: %w", sys, guest.ErrRefused)
		}
	case in == "yes":
		ch.way.GUI = "in the GUI session"
	case gui == "yes" && as == "yes":
		ch.gui, ch.way.GUI = true, "in the GUI session by launchctl asuser"
	case d.opt.GUI && gui == "no":
		// It comes with the login at the screen, after the boot.
		return fmt.Errorf("gui: required, and nobody is logged in at its screen (yet): the image needs automatic login: %w", guest.ErrUnreachable)
	case d.opt.GUI:
		return fmt.Errorf("gui: required, and its user may not run sudo without a password, which launchctl asuser needs: %w", guest.ErrRefused)
	default:
		ch.way.GUI = "outside the GUI session: no login keychain, no simulators' screens"
	}
	return nil
}

// authorize returns a script that lets the guest's own key log in, if it does
// not yet. A guest that has no sshd is none the worse.
func (d *Dialer) authorize(way guest.Way, target guest.Target) (string, error) {
	if d.opt.AuthorizedKey == nil || target.Key.Empty() || way.Login == "key" {
		return "", nil
	}
	line, err := d.opt.AuthorizedKey(target.Key)
	if err != nil {
		return "", err
	}
	line = guest.Quote(line)
	return "(umask 077; mkdir -p ~/.ssh; grep -qxF " + line + " ~/.ssh/authorized_keys || echo " + line + " >>~/.ssh/authorized_keys) 2>/dev/null\n", nil
}

// toPort is run in a guest by its guest agent: macOS has nc, and so have most
// Linux images; the others have bash.
const toPort = `command -v nc >/dev/null 2>&1 && exec nc 127.0.0.1 "$0"
exec bash -c 'exec 3<>"/dev/tcp/127.0.0.1/$0" || exit; cat <&3 & cat >&3; wait' "$0"`

// Tunnel implements guest.Tunneler, by the guest agent.
func (d *Dialer) Tunnel(name string) []string {
	if d.opt.Channel == SSH {
		return nil
	}
	return slices.Concat([]string{"/usr/bin/env"}, d.opt.Env, []string{d.opt.Path, "exec", "-i", name, "/bin/sh", "-c", toPort})
}

// program is one call of tart exec.
func (d *Dialer) program(args []string) proc.Cmd {
	return proc.Cmd{Path: d.opt.Path, Args: append([]string{"exec"}, args...), Env: d.opt.Env, Live: true}
}
