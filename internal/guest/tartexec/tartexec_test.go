package tartexec_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mirego/tasuki/internal/base/proc"
	"github.com/mirego/tasuki/internal/base/secret"
	"github.com/mirego/tasuki/internal/guest"
	"github.com/mirego/tasuki/internal/guest/guesttest"
	"github.com/mirego/tasuki/internal/guest/local"
	"github.com/mirego/tasuki/internal/guest/tartexec"
	"github.com/mirego/tasuki/internal/vm/tart/tarttest"
)

func TestMain(m *testing.M) {
	tarttest.Play()
	os.Exit(m.Run())
}

const name = "g"

// world is one machine of the stand-in that runs.
type world struct {
	*testing.T
	home, path string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{T: t, home: filepath.Join(t.TempDir(), "tart")}
	var err error
	if w.path, err = tarttest.Command(t.TempDir()); err != nil {
		t.Fatal(err)
	}
	img, err := tarttest.Cache(w.home, "registry.test:5000/mac", nil)
	if err == nil {
		err = tarttest.Add(w.home, name, img)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 20*time.Second)
		defer cancel()
		if err := tarttest.End(ctx, w.home); err != nil {
			t.Error(err)
		}
		inside, err := proc.Marked(local.Mark + "=" + w.root())
		if err != nil || len(inside) > 0 {
			t.Errorf("still inside: %v, %v", inside, err)
		}
	})
	w.start()
	return w
}

func (w *world) env() []string { return []string{"TART_HOME=" + w.home} }

// root is the home folder of the guest's user.
func (w *world) root() string { return filepath.Join(w.home, "stand-in", "process", name, "root") }

func (w *world) start() {
	w.Helper()
	_, err := proc.Detach(proc.Cmd{Path: w.path, Args: []string{"run", name}, Env: w.env()}, filepath.Join(w.TempDir(), "log"))
	if err != nil {
		w.Fatal(err)
	}
	w.until(func() bool { m, err := tarttest.Look(w.home, name); return err == nil && m.PID != 0 })
}

func (w *world) faults(f tarttest.Faults) {
	w.Helper()
	if err := tarttest.SetFaults(w.home, f); err != nil {
		w.Fatal(err)
	}
}

func (w *world) dialer(o tartexec.Options) *tartexec.Dialer {
	w.Helper()
	o.Path, o.Env = w.path, w.env()
	d, err := tartexec.New(o)
	if err != nil {
		w.Fatal(err)
	}
	return d
}

// dial tries until it succeeds.
func (w *world) dial(d *tartexec.Dialer, target guest.Target) guest.Channel {
	w.Helper()
	target.Guest = name
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		ch, err := d.Dial(w.Context(), target)
		if err == nil {
			w.Cleanup(func() { _ = ch.Close() })
			return ch
		}
		if !errors.Is(err, guest.ErrUnreachable) || time.Now().After(deadline) {
			w.Fatal(err)
		}
	}
}

func way(ch guest.Channel) guest.Way { return ch.(guest.Wayfarer).Way() }

func TestConformance(t *testing.T) {
	guesttest.Run(t, func(t *testing.T) guesttest.Harness {
		w := newWorld(t)
		d := w.dialer(tartexec.Options{Channel: tartexec.Exec})
		return guesttest.Harness{
			Dial: func(*testing.T) guest.Channel { return w.dial(d, guest.Target{}) },
			Cut:  func(_ *testing.T, ch guest.Channel) { _ = ch.Close() },
		}
	})
}

// sshd is the other way into the stand-in's guest: what is behind SSH is not
// this package's.
type sshd struct {
	w      *world
	asked  *guest.Target
	err    error
	prefix string // of each script: the environment that this SSH server gives
}

func (s sshd) Dial(ctx context.Context, target guest.Target) (guest.Channel, error) {
	if s.asked != nil {
		*s.asked = target
	}
	if s.err != nil {
		return nil, s.err
	}
	ch, err := local.Dialer{}.Dial(ctx, guest.Target{Guest: name, Address: s.w.root(), User: target.User})
	return prefixed{ch, s.prefix}, err
}

type prefixed struct {
	guest.Channel
	prefix string
}

func (p prefixed) Run(ctx context.Context, cmd guest.Command) (int, error) {
	cmd.Script = p.prefix + cmd.Script
	return p.Channel.Run(ctx, cmd)
}

// The same scripts in the same wrapping: the long run has them all.
func TestConformanceOverSSH(t *testing.T) {
	if os.Getenv("TASUKI_SOAK") == "" {
		t.Skip("takes long: set TASUKI_SOAK=1")
	}
	guesttest.Run(t, func(t *testing.T) guesttest.Harness {
		w := newWorld(t)
		d := w.dialer(tartexec.Options{Channel: tartexec.SSH, SSH: sshd{w: w}})
		return guesttest.Harness{
			Dial: func(*testing.T) guest.Channel { return w.dial(d, guest.Target{}) },
			Cut:  func(_ *testing.T, ch guest.Channel) { _ = ch.Close() },
		}
	})
}

func TestAutoTakesTheGuestAgent(t *testing.T) {
	w := newWorld(t)
	never := sshd{w: w, err: fmt.Errorf("there is no network: %w", guest.ErrUnreachable)}
	ch := w.dial(w.dialer(tartexec.Options{SSH: never}), guest.Target{})
	if got := way(ch).String(); got != "guest agent, trusted by the hypervisor" {
		t.Errorf("the way is %q", got)
	}
}

// A stock image without an agent, a key of ours or a host key of ours.
func TestAutoTakesSSHWhereNoAgentComes(t *testing.T) {
	w := newWorld(t)
	w.faults(tarttest.Faults{NoAgent: true})
	var asked guest.Target
	d := w.dialer(tartexec.Options{
		SSH: sshd{w: w, asked: &asked}, Patience: time.Millisecond, User: "admin", Password: secret.New("admin"),
		AuthorizedKey: func(secret.String) (string, error) { return "ssh-ed25519 AAAA", nil },
	})
	ch := w.dial(d, guest.Target{Key: secret.New("a key"), Resolve: func(context.Context) (string, error) { return "127.64.0.2:22", nil }})
	if asked.User != "admin" || asked.Password.Reveal() != "admin" || asked.Address != "127.64.0.2:22" {
		t.Errorf("SSH was asked for %+v", asked)
	}
	if got := way(ch); got.Channel != "ssh" || got.Login != "password" || got.Trust != "the host key that it showed first" {
		t.Errorf("the way is %+v", got)
	}
	if keys, err := os.ReadFile(filepath.Join(w.root(), ".ssh", "authorized_keys")); err != nil || string(keys) != "ssh-ed25519 AAAA\n" {
		t.Errorf("the guest's own key: %q, %v", keys, err)
	}
}

func TestExecNeverTakesSSH(t *testing.T) {
	w := newWorld(t)
	w.faults(tarttest.Faults{NoAgent: true})
	d := w.dialer(tartexec.Options{Channel: tartexec.Exec, SSH: sshd{w: w}})
	if _, err := d.Dial(t.Context(), guest.Target{Guest: name}); !errors.Is(err, guest.ErrUnreachable) || !strings.Contains(err.Error(), "guest agent") {
		t.Errorf("Dial: %v, want ErrUnreachable", err)
	}
}

func TestLocalNetworkPrivacy(t *testing.T) {
	w := newWorld(t)
	refused := fmt.Errorf("%w: %w", guest.ErrUnreachable, &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.EHOSTUNREACH)})
	d := w.dialer(tartexec.Options{Channel: tartexec.SSH, SSH: sshd{w: w, err: refused}})
	_, err := d.Dial(t.Context(), guest.Target{Guest: name})
	if !errors.Is(err, guest.ErrUnreachable) || !strings.Contains(err.Error(), "Privacy & Security") || !strings.Contains(err.Error(), "channel: exec") {
		t.Errorf("Dial: %v, want what to do", err)
	}
	// Through the guest agent nothing of it is needed.
	w.dial(w.dialer(tartexec.Options{SSH: sshd{w: w, err: refused}}), guest.Target{})
}

// mac puts macOS's programs into the way of an SSH session's scripts.
func mac(t *testing.T, gui, sudo string) string {
	t.Helper()
	dir := t.TempDir()
	for file, text := range map[string]string{
		"uname": "echo Darwin",
		// launchctl print gui/UID; launchctl managername; launchctl asuser UID COMMAND
		"launchctl": `case $1 in print) exit ` + gui + ` ;; managername) echo ${IN:-Background} ;; asuser) shift 2; IN=Aqua exec "$@" ;; esac`,
		"sudo":      `[ "$1" = -n ] || exit 9; [ ` + sudo + ` = yes ] || exit 1; shift; [ "$1" != -u ] || shift 2; [ "$1" != -H ] || shift; exec "$@"`,
	} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte("#!/bin/sh\n"+text+"\n"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	// The profile of a login shell sets PATH anew.
	return "SHELL=" + filepath.Join(dir, "shell") + "; export SHELL; cat >$SHELL <<'END'\n#!/bin/sh\nshift; PATH=" + dir + ":$PATH; export PATH; exec sh -c \"$@\"\nEND\nchmod +x $SHELL; PATH=" + dir + ":$PATH; export PATH\n"
}

func TestNoGUISession(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct {
		what, gui, sudo string
		want            error
	}{
		{"nobody is logged in", "1", "yes", guest.ErrUnreachable},
		{"sudo asks for a password", "0", "no", guest.ErrRefused},
	} {
		s := sshd{w: w, prefix: mac(t, c.gui, c.sudo)}
		d := w.dialer(tartexec.Options{Channel: tartexec.SSH, SSH: s, GUI: true})
		w.until(func() bool { _, err := os.Stat(w.root() + ".on"); return err == nil })
		if _, err := d.Dial(t.Context(), guest.Target{Guest: name}); !errors.Is(err, c.want) || !strings.Contains(err.Error(), "gui: required") {
			t.Errorf("%s: Dial: %v, want %v", c.what, err, c.want)
		}
		ch := w.dial(w.dialer(tartexec.Options{Channel: tartexec.SSH, SSH: s}), guest.Target{})
		if got := way(ch).GUI; !strings.Contains(got, "outside") {
			t.Errorf("%s, gui not required: %q", c.what, got)
		}
	}
	ch := w.dial(w.dialer(tartexec.Options{Channel: tartexec.SSH, SSH: sshd{w: w, prefix: mac(t, "0", "yes")}, GUI: true}), guest.Target{})
	var out bytes.Buffer
	if status, err := ch.Run(t.Context(), guest.Command{Script: "launchctl managername; exit 3", Stdout: &out}); err != nil || status != 3 || out.String() != "Aqua\n" {
		t.Errorf("a script ran in the session %q: %d, %v; want Aqua", out.String(), status, err)
	}
}

func (w *world) until(ok func() bool) {
	w.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			w.Fatal("it never came")
		}
	}
}

// What a profile prints, reads or sets: only the last gets to the script.
func TestProfileOfTheLoginShell(t *testing.T) {
	w := newWorld(t)
	d := w.dialer(tartexec.Options{Channel: tartexec.Exec})
	ch := w.dial(d, guest.Target{})
	profile := "echo welcome; echo oh >&2; cat >/dev/null; FROM_PROFILE='a b'; export FROM_PROFILE; cd /\n"
	if err := os.WriteFile(filepath.Join(w.root(), ".profile"), []byte(profile), 0o600); err != nil {
		t.Fatal(err)
	}
	var out, errs bytes.Buffer
	status, err := ch.Run(t.Context(), guest.Command{Script: `echo "$FROM_PROFILE"; pwd; cat`, Stdin: strings.NewReader("input"), Stdout: &out, Stderr: &errs})
	if want := "a b\n" + w.root() + "\ninput"; err != nil || status != 0 || out.String() != want || errs.String() != "" {
		t.Errorf("status %d, %v, stdout %q, stderr %q; want %q", status, err, out.String(), errs.String(), want)
	}
}

// tart exec ends with status 0 when the line is cut.
func TestAGuestThatDiesIsNoSuccess(t *testing.T) {
	w := newWorld(t)
	ch := w.dial(w.dialer(tartexec.Options{Channel: tartexec.Exec}), guest.Target{})
	started := make(chan struct{})
	var err error
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, err = ch.Run(t.Context(), guest.Command{Script: "echo; exec sleep 600", Stdout: writer(func() { close(started) })})
	}()
	<-started
	m, lookErr := tarttest.Look(w.home, name)
	if lookErr != nil || m.PID == 0 {
		t.Fatal("it does not run", lookErr)
	}
	if err := syscall.Kill(m.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-ended
	if !errors.Is(err, guest.ErrUnreachable) {
		t.Errorf("Run: %v, want ErrUnreachable", err)
	}
	if _, err := ch.Run(t.Context(), guest.Command{Script: "true"}); !errors.Is(err, guest.ErrUnreachable) {
		t.Errorf("Run after it: %v, want ErrUnreachable", err)
	}
}

type writer func()

func (w writer) Write(p []byte) (int, error) { w(); return len(p), nil }

// Who we are in the guest and what its SSH server shows is found out on the way
// in, over a line that only the hypervisor can bend.
func TestTheWayKnowsUserAndHostKey(t *testing.T) {
	w := newWorld(t)
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	got := way(w.dial(w.dialer(tartexec.Options{Channel: tartexec.Exec}), guest.Target{}))
	want := ""
	if words := strings.Fields(read("/etc/ssh/ssh_host_ed25519_key.pub")); len(words) >= 2 {
		want = words[0] + " " + words[1]
	}
	if got.User != me.Username || got.HostKey != want {
		t.Errorf("user %q, host key %q; want %q, %q", got.User, got.HostKey, me.Username, want)
	}
}

func read(path string) string {
	data, _ := os.ReadFile(path)
	return string(data)
}

// The tunnel leads to a port of the guest's loopback.
func TestTunnel(t *testing.T) {
	w := newWorld(t)
	d := w.dialer(tartexec.Options{Channel: tartexec.Exec})
	w.dial(d, guest.Target{})                  // it is up
	l, err := net.Listen("tcp", "127.0.0.1:0") // the stand-in's guest has this host's loopback
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			line, _ := bufio.NewReader(conn).ReadString('\n')
			_, _ = io.WriteString(conn, "heard "+line)
			_ = conn.Close()
		}
	}()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	tunnel := d.Tunnel(name)
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	res, err := proc.Run(ctx, proc.Cmd{Path: tunnel[0], Args: append(tunnel[1:], port), Stdin: strings.NewReader("hello\n")})
	if err != nil || string(res.Stdout) != "heard hello\n" {
		t.Errorf("got %q, %q, %v", res.Stdout, res.Stderr, err)
	}
	if got := w.dialer(tartexec.Options{Channel: tartexec.SSH, SSH: sshd{w: w}}).Tunnel(name); got != nil {
		t.Errorf("channel ssh has the tunnel %q", got)
	}
}
