package guest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
)

// Exit says how the program ended.
type Exit struct {
	Ended bool // false: it still runs, as far as we know
	Code  int  // its exit status, 128+n for signal n; -1 if nobody saw it end
}

// Follow copies the program's log from the byte offset to w, as it is written,
// until the program has ended, the channel breaks or ctx ends. The caller
// counts what w got: a Follow from there, over any channel, loses no byte and
// repeats none. A program whose supervisor was killed is followed to its end
// all the same; its Code is -1. It costs the guest no polling.
//
// Errors: ErrNotLaunched, ErrUnreachable, the cause of ctx, an error of w.
func Follow(ctx context.Context, ch Channel, offset int64, w io.Writer) (Exit, error) {
	exit, err := follow(ctx, ch, offset, w)
	if err != nil {
		return Exit{}, fmt.Errorf("cannot follow the runner program: %w", err)
	}
	return exit, nil
}

func follow(ctx context.Context, ch Channel, offset int64, w io.Writer) (Exit, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	to := &counter{to: w, failed: cancel}
	var last lastLine
	status, err := ch.Run(ctx, Command{
		Script: script("follow", map[string]string{"from": strconv.FormatInt(offset, 10)}),
		Stdout: to,
		Stderr: &last,
	})
	switch {
	case to.err != nil:
		return Exit{}, to.err
	case err != nil:
		return Exit{}, err
	case status == 3:
		return Exit{}, ErrNotLaunched
	case status != 0:
		return Exit{}, failed(status, last.String())
	}
	var code int
	var size int64
	if _, err := fmt.Sscanf(last.String(), "ended %d %d", &code, &size); err != nil {
		return Exit{}, fmt.Errorf("unexpected words %q: %w", last.String(), err)
	}
	if err := rest(ctx, ch, offset, size, to); err != nil {
		return Exit{}, err
	}
	return Exit{Ended: true, Code: code}, nil
}

// rest copies what the follower did not live to read: the log's bytes up to
// size, of which to has got some already.
func rest(ctx context.Context, ch Channel, offset, size int64, to *counter) error {
	missing := size - offset - to.n
	if missing <= 0 {
		return nil
	}
	text := script("rest", map[string]string{
		"from": strconv.FormatInt(offset+to.n, 10),
		"most": strconv.FormatInt(missing, 10),
	})
	before := to.n
	status, err := ch.Run(ctx, Command{Script: text, Stdout: to})
	switch {
	case to.err != nil:
		return to.err
	case err != nil:
		return err
	case status != 0 || to.n-before != missing:
		return fmt.Errorf("the log's last %d bytes came as %d (status %d)", missing, to.n-before, status)
	}
	return nil
}

// counter counts what arrives at a writer, and gives up when it fails.
type counter struct {
	to     io.Writer
	n      int64
	err    error
	failed context.CancelCauseFunc
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.to.Write(p)
	c.n += int64(n)
	if err == nil && n < len(p) {
		err = io.ErrShortWrite
	}
	if err != nil {
		c.err = errors.Join(c.err, err)
		c.failed(err)
	}
	return n, err
}

// lastLine keeps the last line written to it, within 4 KiB.
type lastLine struct {
	mu  sync.Mutex
	buf []byte
}

func (l *lastLine) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.buf = append(l.buf, p...)
	l.buf = l.buf[max(0, len(l.buf)-4<<10):]
	return len(p), nil
}

func (l *lastLine) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	lines := strings.Split(strings.TrimSpace(string(l.buf)), "\n")
	return lines[len(lines)-1]
}
