package tartexec

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/mirego/tasuki/internal/base/proc"
	"github.com/mirego/tasuki/internal/guest"
)

// errClosed is why a channel ended that its owner closed.
var errClosed = fmt.Errorf("the channel was closed: %w", guest.ErrUnreachable)

// line carries one script into a guest: by the guest agent or over SSH.
type line interface {
	// run executes argv and returns when it has ended, or seems to have. What
	// it says of the status is not believed where reported came.
	run(ctx context.Context, argv []string, cmd guest.Command) error
	// why explains, in an error that wraps guest.ErrUnreachable, that a script
	// was not seen to end.
	why(err error, stderr string) error
	close() error
}

// channel is an open way into one guest.
type channel struct {
	line line
	way  guest.Way
	gui  bool            // scripts are started inside the GUI session
	open context.Context // ends when the channel is closed
	end  context.CancelCauseFunc
}

func newChannel(l line, way guest.Way) *channel {
	c := &channel{line: l, way: way}
	c.open, c.end = context.WithCancelCause(context.Background())
	return c
}

// Way implements guest.Wayfarer.
func (c *channel) Way() guest.Way { return c.way }

// Close implements guest.Channel.
func (c *channel) Close() error {
	c.end(errClosed)
	return c.line.close()
}

// Run implements guest.Channel. A status above 128 that a signal of that number
// less 128 could have caused counts as a signal's: -1.
func (c *channel) Run(ctx context.Context, cmd guest.Command) (int, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(c.open, func() { cancel(errClosed) })()
	status, err := c.run(ctx, cmd)
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return 0, fmt.Errorf("cannot run a script in the guest: %w", err)
	}
	return status, nil
}

func (c *channel) run(ctx context.Context, cmd guest.Command) (int, error) {
	if ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	mark := "tasuki-status-" + rand.Text() + ":"
	stderr := &marked{to: cmd.Stderr, mark: mark}
	out := &kept{to: cmd.Stdout}
	err := c.line.run(ctx, c.argv(cmd.Script, mark), guest.Command{Stdin: cmd.Stdin, Stdout: out, Stderr: stderr})
	text, came := stderr.finish()
	switch {
	case ctx.Err() != nil:
		return 0, context.Cause(ctx)
	case out.err != nil || stderr.err != nil:
		return 0, errors.Join(out.err, stderr.err)
	case !came:
		return 0, c.line.why(err, stderr.last)
	}
	status, err := strconv.Atoi(text)
	if err != nil {
		return 0, fmt.Errorf("its status came as %q: %w", text, guest.ErrUnreachable)
	}
	if status > 128 && status <= 128+64 {
		return -1, nil
	}
	return status, nil
}

// shell runs a script and says how it ended. The words: the script, the mark.
// Its streams are put aside while the login shell reads its profile, which may
// print and may read.
const shell = `exec "${SHELL:-/bin/sh}" -lc 'cd; ` +
	`sh -c "$0" <&4 >&3 2>&5 3>&- 4<&- 5>&-; echo "$1$?" >&5' "$0" "$1" 3>&1 4<&0 5>&2 </dev/null >/dev/null 2>&1`

// argv is the command that runs a script. Inside the GUI session it begins as
// root, whom launchctl asuser wants, and becomes the user again.
func (c *channel) argv(script, mark string) []string {
	argv := []string{"/bin/sh", "-c", shell, script, mark}
	if c.gui {
		enter := `u=$(id -u) n=$(id -un); exec sudo -n launchctl asuser "$u" sudo -n -u "$n" -H env SHELL="$SHELL" "$@"`
		argv = append([]string{"/bin/sh", "-c", enter, "sh"}, argv...)
	}
	return argv
}

// agentLine is tart exec.
type agentLine struct {
	dialer *Dialer
	guest  string
}

func (l *agentLine) close() error { return nil }

func (l *agentLine) run(ctx context.Context, argv []string, cmd guest.Command) error {
	stdin, done, err := input(cmd.Stdin)
	if err != nil {
		return err
	}
	defer done()
	args := []string{l.guest}
	if stdin != nil {
		args = []string{"-i", l.guest}
	}
	c := l.dialer.program(append(args, argv...))
	c.Stdout, c.Stderr = cmd.Stdout, cmd.Stderr
	if stdin != nil {
		c.Stdin = stdin
	}
	_, err = proc.Run(ctx, c)
	return err
}

// why tells tart's own words from the guest's by their having no mark.
func (l *agentLine) why(err error, stderr string) error {
	words := strings.TrimSpace(stderr)
	switch {
	case strings.Contains(words, "Guest Agent running?"):
		return fmt.Errorf("its guest agent does not answer: %w", guest.ErrUnreachable)
	case errors.Is(err, proc.ErrNotInstalled):
		return fmt.Errorf("%w: %w", err, guest.ErrRefused)
	case words != "":
		return fmt.Errorf("tart exec: %s: %w", words, guest.ErrUnreachable)
	case err != nil:
		return fmt.Errorf("%w: %w", err, guest.ErrUnreachable)
	}
	return fmt.Errorf("tart exec ended, and the script was not seen to: %w", guest.ErrUnreachable)
}

// input returns r as a pipe. os/exec would wait for a reader that blocks even
// when the script has ended; the goroutine here is left to its Read instead.
func input(r io.Reader) (stdin *os.File, done func(), err error) {
	if r == nil {
		return nil, func() {}, nil
	}
	from, to, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	go func() {
		defer to.Close()
		_, _ = io.Copy(to, r)
	}()
	return from, func() { _ = from.Close() }, nil
}

// sshLine is a channel over SSH.
type sshLine struct{ ch guest.Channel }

func (l *sshLine) close() error { return l.ch.Close() }

func (l *sshLine) run(ctx context.Context, argv []string, cmd guest.Command) error {
	words := make([]string, 0, len(argv))
	for _, w := range argv {
		words = append(words, guest.Quote(w))
	}
	cmd.Script = "exec " + strings.Join(words, " ")
	_, err := l.ch.Run(ctx, cmd)
	return err
}

func (l *sshLine) why(err error, stderr string) error {
	if err == nil {
		err = errors.New("the script was not seen to end")
	}
	if words := strings.TrimSpace(stderr); words != "" {
		err = fmt.Errorf("%w: %s", err, words)
	}
	return fmt.Errorf("%w: %w", err, guest.ErrUnreachable)
}

// kept passes bytes on and remembers that they could not be.
type kept struct {
	to  io.Writer
	err error
}

func (k *kept) Write(p []byte) (int, error) {
	if k.to == nil || k.err != nil {
		return len(p), nil // the script is drained all the same
	}
	n, err := k.to.Write(p)
	if err == nil && n < len(p) {
		err = io.ErrShortWrite
	}
	k.err = err
	return len(p), nil
}

// marked passes standard error on up to a mark, behind which the status comes.
type marked struct {
	to   io.Writer
	mark string

	held   []byte // may be the beginning of the mark
	status []byte // what came behind it
	found  bool
	last   string // the end of what was passed on
	err    error
}

func (m *marked) Write(p []byte) (int, error) {
	if m.found {
		m.status = append(m.status, p...)
		return len(p), nil
	}
	m.held = append(m.held, p...)
	if before, after, ok := strings.Cut(string(m.held), m.mark); ok {
		m.found, m.status = true, []byte(after)
		m.pass([]byte(before))
		m.held = nil
		return len(p), nil
	}
	// All but what may be the beginning of the mark.
	safe := len(m.held)
	for n := min(len(m.mark)-1, len(m.held)); n > 0; n-- {
		if strings.HasPrefix(m.mark, string(m.held[len(m.held)-n:])) {
			safe = len(m.held) - n
			break
		}
	}
	m.pass(m.held[:safe])
	m.held = append([]byte(nil), m.held[safe:]...)
	return len(p), nil
}

func (m *marked) pass(p []byte) {
	m.last += string(p)
	m.last = m.last[max(0, len(m.last)-1024):]
	k := kept{to: m.to, err: m.err}
	_, _ = k.Write(p)
	m.err = k.err
}

// finish returns what came behind the mark.
func (m *marked) finish() (status string, came bool) {
	m.pass(m.held)
	m.held = nil
	return strings.TrimSpace(string(m.status)), m.found
}
