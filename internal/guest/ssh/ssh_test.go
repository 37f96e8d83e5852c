package ssh_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/mirego/tasuki/internal/base/secret"
	"github.com/mirego/tasuki/internal/guest"
	"github.com/mirego/tasuki/internal/guest/guesttest"
	guestssh "github.com/mirego/tasuki/internal/guest/ssh"
)

func (s *server) target() guest.Target {
	return guest.Target{Guest: "g1", Address: s.addr, User: "runner", Key: s.key, HostKey: s.hostKey}
}

func dial(t *testing.T, d *guestssh.Dialer, target guest.Target) guest.Channel {
	t.Helper()
	ch, err := d.Dial(t.Context(), target)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ch.Close() })
	return ch
}

func TestConformance(t *testing.T) {
	guesttest.Run(t, func(t *testing.T) guesttest.Harness {
		s := newServer(t, nil)
		return guesttest.Harness{
			Dial: func(t *testing.T) guest.Channel { return dial(t, &guestssh.Dialer{}, s.target()) },
			Cut:  func(*testing.T, guest.Channel) { s.cut() },
		}
	})
}

func TestLogins(t *testing.T) {
	s := newServer(t, nil)
	otherKey, _, err := guestssh.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		change func(*guest.Target)
		want   error
	}{
		{"by key", func(*guest.Target) {}, nil},
		{"by password", func(g *guest.Target) { g.Key, g.Password = secret.String{}, secret.New(password) }, nil},
		{"key refused, password taken", func(g *guest.Target) { g.Key, g.Password = otherKey, secret.New(password) }, nil},
		{"another key may be taken later", func(g *guest.Target) { g.Key = otherKey }, guest.ErrUnreachable},
		{"a wrong password", func(g *guest.Target) { g.Key, g.Password = secret.String{}, secret.New("hunter2") }, guest.ErrUnreachable},
		{"nothing to log in with", func(g *guest.Target) { g.Key = secret.String{} }, guest.ErrUnreachable},
		{"a key that is none", func(g *guest.Target) { g.Key = secret.New("hunter2") }, guest.ErrRefused},
		{"a host key that is none", func(g *guest.Target) { g.HostKey = "ssh-ed25519 AAAA" }, guest.ErrRefused},
		{"nobody listens", func(g *guest.Target) { g.Address = "127.0.0.1:1" }, guest.ErrUnreachable},
		{"no address", func(g *guest.Target) { g.Address = "" }, guest.ErrUnreachable},
	} {
		t.Run(c.name, func(t *testing.T) {
			target := s.target()
			c.change(&target)
			ch, err := new(guestssh.Dialer).Dial(t.Context(), target)
			if !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
			if err != nil && strings.Contains(err.Error(), "hunter2") {
				t.Errorf("the secret is in the error: %v", err)
			}
			if ch != nil {
				_ = ch.Close()
			}
		})
	}
}

func TestHostKeys(t *testing.T) {
	s, other := newServer(t, nil), newServer(t, nil)
	fingerprint := func(line string) string {
		key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(line))
		if err != nil {
			t.Fatal(err)
		}
		return ssh.FingerprintSHA256(key)
	}
	wrong := s.target()
	wrong.HostKey = other.hostKey
	_, err := new(guestssh.Dialer).Dial(t.Context(), wrong)
	if !errors.Is(err, guest.ErrRefused) || errors.Is(err, guest.ErrUnreachable) ||
		!strings.Contains(err.Error(), fingerprint(s.hostKey)) || !strings.Contains(err.Error(), fingerprint(other.hostKey)) {
		t.Errorf("got %v, want ErrRefused with both fingerprints", err)
	}

	d := &guestssh.Dialer{}
	first := s.target()
	first.HostKey = ""
	dial(t, d, first)
	dial(t, d, first)
	swapped := other.target()
	swapped.HostKey = ""
	if _, err := d.Dial(t.Context(), swapped); !errors.Is(err, guest.ErrRefused) {
		t.Errorf("a guest that shows another key than at first: %v, want ErrRefused", err)
	}
	swapped.Guest = "g2"
	dial(t, d, swapped)
}

func TestDialGivesUpOnASilentGuest(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // the kernel accepts, nobody speaks
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	target := newServer(t, nil).target()
	target.Address = l.Addr().String()
	d := &guestssh.Dialer{Silence: 50 * time.Millisecond}
	if _, err := d.Dial(t.Context(), target); !errors.Is(err, guest.ErrUnreachable) || !strings.Contains(err.Error(), "said nothing within 50ms") {
		t.Errorf("got %v, want ErrUnreachable and the silence", err)
	}
	cause := errors.New("the caller gave up")
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(20*time.Millisecond, func() { cancel(cause) })
	if _, err := new(guestssh.Dialer).Dial(ctx, target); !errors.Is(err, cause) {
		t.Errorf("got %v, want the cause", err)
	}
}

func TestDialGivesAGuestThatSpeaksMoreTime(t *testing.T) {
	slow := make(chan struct{})
	s := newServer(t, func(s *server) {
		login := s.config.PublicKeyCallback
		s.config.PublicKeyCallback = func(meta ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
			<-slow
			return login(meta, key)
		}
	})
	d := &guestssh.Dialer{Silence: 10 * time.Second, Login: 50 * time.Millisecond}
	if _, err := d.Dial(t.Context(), s.target()); !errors.Is(err, guest.ErrUnreachable) || !strings.Contains(err.Error(), "longer than 50ms") {
		t.Errorf("got %v, want ErrUnreachable and the slow login", err)
	}
	time.AfterFunc(1200*time.Millisecond, func() { close(slow) })
	dial(t, &guestssh.Dialer{Silence: time.Second, Login: 30 * time.Second}, s.target())
}

func TestRunDiesWhileWaiting(t *testing.T) {
	for _, c := range []struct {
		name string
		kill func(*server)
	}{
		{"half-open", func(s *server) { s.freeze(true) }},
		{"cut", (*server).cut},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newServer(t, nil)
			d := &guestssh.Dialer{Interval: 20 * time.Millisecond, Patience: 200 * time.Millisecond}
			ch := dial(t, d, s.target())
			up := make(chan struct{})
			ended := make(chan error, 1)
			go func() {
				_, err := ch.Run(t.Context(), guest.Command{Script: "echo up; exec sleep 600", Stdout: signal(up)})
				ended <- err
			}()
			<-up
			c.kill(s)
			if err := <-ended; !errors.Is(err, guest.ErrUnreachable) {
				t.Errorf("the script that ran: %v, want ErrUnreachable", err)
			}
			if _, err := ch.Run(t.Context(), guest.Command{Script: "true"}); !errors.Is(err, guest.ErrUnreachable) {
				t.Errorf("a new script: %v, want ErrUnreachable", err)
			}
		})
	}
}

func TestRunReturnsAtOnceOnAHalfOpenConnection(t *testing.T) {
	s := newServer(t, nil)
	ch := dial(t, &guestssh.Dialer{}, s.target()) // keepalives come much later
	s.freeze(true)
	cause := errors.New("the caller gave up")
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(50*time.Millisecond, func() { cancel(cause) })
	if _, err := ch.Run(ctx, guest.Command{Script: "true", Stdin: bytes.NewReader(make([]byte, 4<<20))}); !errors.Is(err, cause) {
		t.Errorf("got %v, want the cause", err)
	}
}

func TestABusyGuestStaysConnected(t *testing.T) {
	s := newServer(t, nil)
	d := &guestssh.Dialer{Interval: time.Millisecond, Patience: 10 * time.Second}
	var out bytes.Buffer
	status, err := dial(t, d, s.target()).Run(t.Context(), guest.Command{Script: "sleep 0.3; echo well", Stdout: &out})
	if err != nil || status != 0 || out.String() != "well\n" {
		t.Errorf("status %d, %v, %q", status, err, out.String())
	}
}

func TestNewKeysDiffer(t *testing.T) {
	private, public, err := guestssh.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	_, other, err := guestssh.NewKey()
	if err != nil || other == public || !strings.HasPrefix(public, "ssh-ed25519 ") || strings.ContainsAny(public, "\r\n") {
		t.Errorf("keys %q and %q, %v", public, other, err)
	}
	if text := fmt.Sprintf("%v %+v", private, private); strings.Contains(text, "PRIVATE") {
		t.Errorf("the private key prints as %q", text)
	}
}

// signal is a writer that closes the channel at its only write.
type signal chan struct{}

func (s signal) Write(p []byte) (int, error) { close(s); return len(p), nil }
