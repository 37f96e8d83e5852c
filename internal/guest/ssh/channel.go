package ssh

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/mirego/tasuki/internal/guest"
)

var (
	errClosed = fmt.Errorf("the channel was closed: %w", guest.ErrUnreachable)
	errLost   = fmt.Errorf("the connection was lost: %w", guest.ErrUnreachable)
	errSilent = fmt.Errorf("the guest no longer answers on its connection: %w", guest.ErrUnreachable)
)

// channel is one connection. Each script is a session of it.
type channel struct {
	client *ssh.Client
	way    guest.Way
	open   context.Context // ends, with its cause, when the connection does
	end    context.CancelCauseFunc

	mu     sync.Mutex
	closed bool // no goroutine may start any more
	wg     sync.WaitGroup
}

func newChannel(client *ssh.Client, interval, patience time.Duration) *channel {
	c := &channel{client: client}
	c.open, c.end = context.WithCancelCause(context.Background())
	c.wg.Go(func() {
		_ = client.Wait()
		c.end(errLost)
	})
	c.wg.Go(func() { c.watch(interval, patience) })
	return c
}

// start runs fn in a goroutine that Close waits for, unless it is too late.
func (c *channel) start(fn func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.wg.Go(fn)
	}
	return !c.closed
}

// watch asks the guest now and then whether it is still there. The question
// may block as its answer does, so closing the connection is what ends both.
func (c *channel) watch(interval, patience time.Duration) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-c.open.Done():
			return
		case <-tick.C:
		}
		silent := time.AfterFunc(patience, func() {
			c.end(errSilent)
			_ = c.client.Close()
		})
		_, _, err := c.client.SendRequest("keepalive@openssh.com", true, nil)
		silent.Stop()
		if err != nil {
			_ = c.client.Close()
			return
		}
	}
}

// Way implements guest.Wayfarer.
func (c *channel) Way() guest.Way { return c.way }

// Close implements guest.Channel. Scripts that run go on in the guest.
func (c *channel) Close() error {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.end(errClosed)
	_ = c.client.Close() // all that it can say is that it was closed before
	c.wg.Wait()
	return nil
}

// Run implements guest.Channel. When ctx ends the script is killed, where the
// guest's sshd does that, but not waited for.
func (c *channel) Run(ctx context.Context, cmd guest.Command) (int, error) {
	status, err := c.run(ctx, cmd)
	if err != nil {
		return 0, fmt.Errorf("cannot run a script in the guest: %w", err)
	}
	return status, nil
}

func (c *channel) run(ctx context.Context, cmd guest.Command) (int, error) {
	if ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	if c.open.Err() != nil {
		return 0, context.Cause(c.open)
	}
	r := &running{stdout: gate{to: cmd.Stdout}, stderr: gate{to: cmd.Stderr}, ended: make(chan struct{})}
	// Every call on a connection may block for as long as the guest is silent.
	if !c.start(func() {
		defer close(r.ended)
		r.status, r.err = r.execute(c.client, cmd)
	}) {
		return 0, errClosed
	}
	defer r.shut()
	select {
	case <-r.ended:
	case <-ctx.Done():
		r.abandon(c)
		return 0, context.Cause(ctx)
	case <-c.open.Done():
		return 0, context.Cause(c.open)
	}
	if r.err != nil && c.open.Err() != nil {
		return 0, context.Cause(c.open)
	}
	return r.status, r.err
}

// running is one script in progress. The goroutine that executes it ends with
// the script or the connection, and writes to nobody once it was abandoned.
type running struct {
	stdout, stderr gate
	ended          chan struct{}
	status         int // valid when ended
	err            error

	mu      sync.Mutex
	session *ssh.Session
	gone    bool // nobody waits for it any more
}

func (r *running) execute(client *ssh.Client, cmd guest.Command) (int, error) {
	session, err := client.NewSession()
	if err != nil {
		return 0, fmt.Errorf("%w: %w", guest.ErrUnreachable, err)
	}
	defer session.Close()
	r.mu.Lock()
	r.session = session
	gone := r.gone
	r.mu.Unlock()
	if gone {
		return 0, errClosed
	}
	session.Stdout, session.Stderr = &r.stdout, &r.stderr
	if cmd.Stdin != nil {
		// Session.Stdin would make Wait wait for a reader that blocks.
		stdin, err := session.StdinPipe()
		if err != nil {
			return 0, err
		}
		go func() { // it may stay in a Read that blocks, so nobody waits for it
			defer stdin.Close()
			_, _ = io.Copy(stdin, cmd.Stdin)
		}()
	}
	// The user's shell may be any; it hands over to sh.
	if err := session.Start("exec sh -c " + guest.Quote(cmd.Script)); err != nil {
		return 0, fmt.Errorf("%w: %w", guest.ErrUnreachable, err)
	}
	err = session.Wait()
	if writeErr := errors.Join(r.stdout.failed(), r.stderr.failed()); writeErr != nil {
		return 0, writeErr
	}
	var exit *ssh.ExitError
	switch {
	case err == nil:
		return 0, nil
	case errors.As(err, &exit) && exit.Signal() != "":
		return -1, nil
	case errors.As(err, &exit):
		return exit.ExitStatus(), nil
	}
	// Among these: the session ended without a status, as when sshd was killed.
	return 0, fmt.Errorf("%w: %w", guest.ErrUnreachable, err)
}

// abandon asks the guest to kill the script, without waiting for an answer.
func (r *running) abandon(c *channel) {
	r.mu.Lock()
	r.gone = true
	session := r.session
	r.mu.Unlock()
	if session == nil {
		return
	}
	// Sending may block; the goroutine ends with the connection at the latest.
	c.start(func() {
		_ = session.Signal(ssh.SIGKILL)
		_ = session.Close()
	})
}

// shut makes sure that nothing is written after Run has returned.
func (r *running) shut() {
	r.stdout.shut()
	r.stderr.shut()
}

// gate is a writer that can be shut.
type gate struct {
	mu  sync.Mutex
	to  io.Writer
	off bool
	err error
}

func (g *gate) Write(p []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.off || g.err != nil:
		return len(p), nil // the session is drained all the same
	case g.to == nil:
		return len(p), nil
	}
	n, err := g.to.Write(p)
	if err == nil && n < len(p) {
		err = io.ErrShortWrite
	}
	g.err = err
	return len(p), nil
}

func (g *gate) failed() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.err
}

func (g *gate) shut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.off = true
}
