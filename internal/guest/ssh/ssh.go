// Package ssh is the channel into a guest over SSH.
//
// Dial tries once and gives a guest that says nothing up soon, so that a caller
// who waits for a booting guest can try again at once: a hypervisor may accept
// connections for a guest that cannot answer yet, and forget them. A guest that
// speaks has more time to let us in, since emulated ones are slow at
// cryptography and another try would only add to their load. An open channel asks the guest now and
// then whether it is still there: a guest that lost its power, or a connection
// that a firewall forgot, ends every script with ErrUnreachable after about
// 15 s.
//
// The guest must present the host key that its image names. An image that
// names none is trusted at first use: the key that a guest showed first is the
// key that it must show from then on, for as long as the Dialer lives.
package ssh

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/mirego/tasuki/internal/guest"
)

// Dialer opens channels over SSH. The zero value is ready; the fields must not
// change afterwards.
type Dialer struct {
	// Silence is how long Dial waits for the guest's first word, Login how long
	// from then until we are in; 0 means 1.5 s and 6 s.
	Silence, Login time.Duration
	// Interval is the time between two questions whether the guest is still
	// there, Patience how long it may take to answer; 0 means 5 s and 10 s.
	Interval, Patience time.Duration

	mu    sync.Mutex
	seen  map[string]ssh.PublicKey // by guest: keys trusted at first use
	order []string                 // of seen, oldest first
}

// maxSeen is how many keys are remembered; guests are short-lived.
const maxSeen = 1024

// Dial implements guest.Dialer. A login that the guest refuses is
// ErrUnreachable: right after its boot the user's keys may come later than
// sshd, so it may pass. Another host key than the expected one is ErrRefused.
func (d *Dialer) Dial(ctx context.Context, target guest.Target) (guest.Channel, error) {
	ch, err := d.dial(ctx, target)
	if err != nil {
		return nil, fmt.Errorf("cannot reach guest %q at %s: %w", target.Guest, target.Address, err)
	}
	return ch, nil
}

func (d *Dialer) dial(ctx context.Context, target guest.Target) (*channel, error) {
	config, err := d.config(target)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silence, login := orElse(d.Silence, 1500*time.Millisecond), orElse(d.Login, 6*time.Second)
	limit := time.AfterFunc(silence, func() {
		cancel(fmt.Errorf("it said nothing within %v: %w", silence, guest.ErrUnreachable))
	})
	defer limit.Stop()
	tcp, err := new(net.Dialer).DialContext(ctx, "tcp", target.Address)
	if err != nil {
		return nil, unreachable(ctx, err)
	}
	// The handshake knows no context.
	stop := context.AfterFunc(ctx, func() { _ = tcp.Close() })
	conn := &listening{Conn: tcp, heard: sync.OnceFunc(func() {
		limit.Stop()
		slow := time.AfterFunc(login, func() {
			cancel(fmt.Errorf("it speaks, but the login took longer than %v: %w", login, guest.ErrUnreachable))
		})
		context.AfterFunc(ctx, func() { slow.Stop() })
	})}
	var shown ssh.PublicKey
	check := config.HostKeyCallback
	config.HostKeyCallback = func(host string, remote net.Addr, got ssh.PublicKey) error {
		if shown == nil { // a guest asks for new session keys now and then
			shown = got
		}
		return check(host, remote, got)
	}
	sshConn, channels, requests, err := ssh.NewClientConn(conn, target.Address, config)
	if !stop() && err == nil {
		err = net.ErrClosed
	}
	if err != nil {
		_ = tcp.Close()
		var wrong *wrongKeyError
		if errors.As(err, &wrong) {
			return nil, wrong
		}
		return nil, unreachable(ctx, err)
	}
	ch := newChannel(ssh.NewClient(sshConn, channels, requests),
		orElse(d.Interval, 5*time.Second), orElse(d.Patience, 10*time.Second))
	ch.way = wayTo(target)
	ch.way.HostKey = strings.TrimSpace(string(ssh.MarshalAuthorizedKey(shown)))
	return ch, nil
}

// wayTo says how a guest is reached and trusted.
func wayTo(target guest.Target) guest.Way {
	way := guest.Way{Channel: "ssh", Trust: "the image's host key", Login: "key", User: target.User}
	if target.HostKey == "" || target.Seen {
		way.Trust = "the host key that it showed first"
	}
	if target.Key.Empty() {
		way.Login = "password"
	}
	return way
}

// listening is a connection that tells when its first bytes come.
type listening struct {
	net.Conn
	heard func()
}

func (l *listening) Read(p []byte) (int, error) {
	n, err := l.Conn.Read(p)
	if n > 0 {
		l.heard()
	}
	return n, err
}

// unreachable says why a try failed: the end of its context, or err.
func unreachable(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return fmt.Errorf("%w: %w", guest.ErrUnreachable, err)
}

func (d *Dialer) config(target guest.Target) (*ssh.ClientConfig, error) {
	config := &ssh.ClientConfig{User: target.User}
	if !target.Key.Empty() {
		signer, err := ssh.ParsePrivateKey([]byte(target.Key.Reveal()))
		if err != nil {
			return nil, fmt.Errorf("cannot read the login key: %w: %w", guest.ErrRefused, err)
		}
		config.Auth = append(config.Auth, ssh.PublicKeys(signer))
	}
	if !target.Password.Empty() {
		password := target.Password.Reveal()
		config.Auth = append(config.Auth, ssh.Password(password),
			// macOS asks for the password in this way.
			ssh.KeyboardInteractive(func(_, _ string, questions []string, _ []bool) ([]string, error) {
				answers := make([]string, len(questions))
				for i := range answers {
					answers[i] = password
				}
				return answers, nil
			}))
	}
	if target.HostKey == "" {
		config.HostKeyCallback = d.firstUse(target.Guest)
		return config, nil
	}
	want, _, _, _, err := ssh.ParseAuthorizedKey([]byte(target.HostKey))
	if err != nil {
		return nil, fmt.Errorf("cannot read the image's host key %q: %w: %w", target.HostKey, guest.ErrRefused, err)
	}
	// The guest may have keys of several kinds; it shall show this one.
	config.HostKeyAlgorithms = []string{want.Type()}
	if want.Type() == ssh.KeyAlgoRSA {
		config.HostKeyAlgorithms = []string{ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256}
	}
	config.HostKeyCallback = func(_ string, _ net.Addr, got ssh.PublicKey) error { return same(want, got) }
	return config, nil
}

// firstUse trusts the first key that a guest shows, and then only that.
func (d *Dialer) firstUse(name string) ssh.HostKeyCallback {
	return func(_ string, _ net.Addr, got ssh.PublicKey) error {
		d.mu.Lock()
		defer d.mu.Unlock()
		if want, ok := d.seen[name]; ok {
			return same(want, got)
		}
		if d.seen == nil {
			d.seen = make(map[string]ssh.PublicKey)
		}
		if len(d.order) == maxSeen {
			delete(d.seen, d.order[0])
			d.order = d.order[1:]
		}
		d.seen[name] = got
		d.order = append(d.order, name)
		return nil
	}
}

func same(want, got ssh.PublicKey) error {
	if string(want.Marshal()) == string(got.Marshal()) {
		return nil
	}
	return &wrongKeyError{want: ssh.FingerprintSHA256(want), got: ssh.FingerprintSHA256(got)}
}

// wrongKeyError says that the guest is not the one that we expect.
type wrongKeyError struct{ want, got string }

func (e *wrongKeyError) Error() string {
	return fmt.Sprintf("its host key is %s, not %s as its image says: %v", e.got, e.want, guest.ErrRefused)
}

func (e *wrongKeyError) Unwrap() error { return guest.ErrRefused }

func orElse(d, otherwise time.Duration) time.Duration {
	if d > 0 {
		return d
	}
	return otherwise
}
