package guest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"sync"
)

// Put writes a file in the guest: whole or not at all, with this mode, its
// parent folders made where missing. A path that begins with "~/" lies in the
// home of the user. Where the user may not write and sudo asks for no password,
// the file becomes root's.
func Put(ctx context.Context, ch Channel, path string, mode fs.FileMode, r io.Reader) error {
	if err := put(ctx, ch, path, mode, r); err != nil {
		return fmt.Errorf("cannot put %q into the guest: %w", path, err)
	}
	return nil
}

func put(ctx context.Context, ch Channel, path string, mode fs.FileMode, r io.Reader) error {
	if path == "" || strings.HasSuffix(path, "/") {
		return errors.New("it is no path of a file")
	}
	from := &measured{from: r}
	write := script("put", map[string]string{"path": path, "mode": fmt.Sprintf("%04o", mode.Perm())})
	status, stdout, stderr, err := call(ctx, ch, write, from)
	sent, readErr := from.total()
	var got int64
	var part string
	if err == nil && status == 0 {
		_, part, _ = strings.Cut(strings.TrimSuffix(stdout, "\n"), " ")
		_, err = fmt.Sscanf(stdout, "%d ", &got)
	}
	switch {
	case readErr != nil:
		err = readErr // also where the channel reports it
	case err != nil:
	case status != 0:
		err = failed(status, stderr)
	case got != sent:
		err = fmt.Errorf("%d of %d bytes arrived: %w", got, sent, ErrUnreachable)
	}
	name := "place"
	if err != nil {
		if part == "" {
			return err
		}
		name = "discard"
	}
	status, _, stderr, placeErr := call(ctx, ch, script(name, map[string]string{"path": path, "part": part}), nil)
	switch {
	case err != nil:
		return err
	case placeErr != nil:
		return placeErr
	case status != 0:
		return failed(status, stderr)
	}
	return nil
}

// measured counts what is read of a reader. A channel may still read when Run
// has returned.
type measured struct {
	from io.Reader
	mu   sync.Mutex
	n    int64
	err  error
}

func (m *measured) Read(p []byte) (int, error) {
	n, err := m.from.Read(p)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.n += int64(n)
	if err != nil && !errors.Is(err, io.EOF) {
		m.err = err
	}
	return n, err
}

func (m *measured) total() (int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.n, m.err
}
