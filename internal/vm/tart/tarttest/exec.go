package tarttest

import (
	"context"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/mirego/tasuki/internal/guest"
)

// frame is one message on the control socket. The caller sends the request
// first, then its input; the machine sends output and, last, the exit.
type frame struct {
	Argv   []string // the request
	IP     bool     // the request: what is your address?
	Data   []byte
	Stderr bool
	End    bool // of the input
	Exit   bool
	Code   int
	Refuse string // no agent answers, and why
}

// serve answers the control socket until it closes.
func (t *tart) serve(ctx context.Context, l *life) {
	for {
		conn, err := l.control.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			_ = t.answer(ctx, l, conn)
		}()
	}
}

func (t *tart) answer(ctx context.Context, l *life, conn net.Conn) error {
	var req frame
	in, out := gob.NewDecoder(conn), &encoder{to: gob.NewEncoder(conn)}
	if err := in.Decode(&req); err != nil {
		return err
	}
	f, err := readFaults(t.home)
	if err != nil {
		return err
	}
	if f.NoAgent || time.Now().Before(l.booted) {
		return out.send(frame{Refuse: "the connection was reset"})
	}
	if req.IP {
		return out.send(frame{Data: []byte(l.address)})
	}
	ctx, cancel := context.WithTimeout(ctx, 24*time.Hour)
	defer cancel()
	ch, err := l.channel(ctx)
	if err != nil {
		return out.send(frame{Refuse: err.Error()})
	}
	stdin, feed := io.Pipe()
	go func() { // until the caller has hung up
		defer cancel()
		for {
			var f frame
			if err := in.Decode(&f); err != nil {
				_ = feed.CloseWithError(io.ErrUnexpectedEOF)
				return
			}
			if f.End {
				_ = feed.Close()
			} else if _, err := feed.Write(f.Data); err != nil {
				continue // nobody reads it any more
			}
		}
	}()
	words := make([]string, 0, len(req.Argv))
	for _, w := range req.Argv {
		words = append(words, guest.Quote(w))
	}
	code, err := ch.Run(ctx, guest.Command{
		Script: "exec " + strings.Join(words, " "), Stdin: stdin,
		Stdout: writer(func(p []byte) error { return out.send(frame{Data: p}) }),
		Stderr: writer(func(p []byte) error { return out.send(frame{Data: p, Stderr: true}) }),
	})
	_ = stdin.Close()
	if err != nil {
		l.hangUp(ch)
		return err // the stream ends without an exit
	}
	return out.send(frame{Exit: true, Code: code & 0xff})
}

// channel returns the machine's open channel, or opens it: a login costs a
// guest that is emulated much more than a script.
func (l *life) channel(ctx context.Context) (guest.Channel, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.inside != nil {
		return l.inside, nil
	}
	ch, err := l.dial(ctx)
	if err == nil {
		l.inside = ch
	}
	return ch, err
}

// hangUp forgets a channel whose script was not seen to end, unless it was
// the caller who went. Other scripts on it end by themselves.
func (l *life) hangUp(ch guest.Channel) {
	probe, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if _, err := ch.Run(probe, guest.Command{Script: "true"}); err == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.inside == ch {
		l.inside = nil
	}
	_ = ch.Close()
}

// dial opens a channel into the machine, which tries only once.
func (l *life) dial(ctx context.Context) (guest.Channel, error) {
	target := l.target
	var err error
	if target.Address, err = l.driver.Address(ctx, target.Guest); err != nil {
		return nil, err
	}
	return l.dialer.Dial(ctx, target)
}

// encoder sends frames from several goroutines.
type encoder struct {
	mu sync.Mutex
	to *gob.Encoder
}

func (e *encoder) send(f frame) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.to.Encode(f)
}

type writer func(p []byte) error

func (w writer) Write(p []byte) (int, error) {
	if err := w(p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// exec runs a command in a machine. All that follows its name is the command.
func (t *tart) exec(args []string) error {
	interactive := false
	for len(args) > 0 && strings.HasPrefix(args[0], "-") {
		switch args[0] {
		case "-i":
			interactive = true
		case "-t", "-it", "-ti":
			// Without a terminal tart traps there.
			return fail(133, "Fatal error: 'try!' expression unexpectedly raised an error: the stand-in has no terminal")
		default:
			return usage("Unknown option '%s'", args[0])
		}
		args = args[1:]
	}
	if len(args) < 2 {
		return usage("Missing expected argument '<command> ...'")
	}
	conn, err := t.connect(args[0])
	if err != nil {
		return err
	}
	defer conn.Close()
	out := &encoder{to: gob.NewEncoder(conn)}
	if err := out.send(frame{Argv: args[1:]}); err != nil {
		return err
	}
	go func() { // its end is this process's
		if interactive {
			_, _ = io.CopyBuffer(writer(func(p []byte) error { return out.send(frame{Data: p}) }), justReader{t.stdin}, make([]byte, 4096))
		}
		_ = out.send(frame{End: true})
	}()
	return t.relayOutput(gob.NewDecoder(conn))
}

// justReader hides other methods, so that the buffer's size counts.
type justReader struct{ io.Reader }

func (t *tart) relayOutput(in *gob.Decoder) error {
	for {
		var f frame
		err := in.Decode(&f)
		switch {
		case errors.Is(err, io.EOF):
			return nil // a stream that ends without an exit is status 0
		case err != nil:
			return fail(1, "Error: the stream was cut: %v", err)
		case f.Refuse != "":
			return noAgent(f.Refuse)
		case f.Exit && f.Code != 0:
			return trouble{code: f.Code}
		case f.Exit:
			return nil
		case f.Stderr:
			_, err = t.stderr.Write(f.Data)
		default:
			_, err = t.stdout.Write(f.Data)
		}
		if err != nil {
			return err
		}
	}
}

func noAgent(why string) error {
	return fail(1, "Failed to connect to the VM using its control socket: %s, is the Tart Guest Agent running?", why)
}

// connect opens a running machine's control socket.
func (t *tart) connect(name string) (net.Conn, error) {
	m := t.machine(name)
	if !m.initialized() {
		return nil, noVM(name)
	}
	if pid, err := m.holder(); err != nil || pid == 0 {
		return nil, errors.Join(err, fail(2, "VM %q is not running", name))
	}
	if err := os.Chdir(m.dir); err != nil {
		return nil, err
	}
	conn, err := net.DialTimeout("unix", controlFile, time.Second)
	if err != nil {
		return nil, noAgent(err.Error())
	}
	return conn, nil
}

// askIP asks the guest agent for the machine's address.
func (t *tart) askIP(name string) (string, error) {
	conn, err := t.connect(name)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := gob.NewEncoder(conn).Encode(frame{IP: true}); err != nil {
		return "", err
	}
	var f frame
	if err := gob.NewDecoder(conn).Decode(&f); err != nil || f.Refuse != "" {
		return "", fmt.Errorf("no agent: %w", err)
	}
	return string(f.Data), nil
}
