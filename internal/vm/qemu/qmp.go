package qemu

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
)

// qmp is a connection to QEMU's control socket (docs/interop/qmp-spec of
// QEMU). QEMU serves one at a time; it is closed after each use. Its methods
// may not be called at the same time.
type qmp struct {
	conn net.Conn
	dec  *json.Decoder
	free func()
	last int
}

// maxSocketPath is below the size of sun_path on every system (104 on darwin).
const maxSocketPath = 100

// dialQMP connects and negotiates, within ctx.
func dialQMP(ctx context.Context, path string) (*qmp, error) {
	short, free, err := shortPath(path)
	if err != nil {
		return nil, err
	}
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", short)
	if err != nil {
		free()
		return nil, fmt.Errorf("cannot reach QEMU at %q: %w", path, err)
	}
	m := &qmp{conn: conn, dec: json.NewDecoder(conn), free: free}
	stop := m.bind(ctx)
	defer stop()
	var greeting struct{ QMP json.RawMessage }
	if err := m.dec.Decode(&greeting); err != nil || greeting.QMP == nil {
		m.close()
		return nil, fmt.Errorf("cannot reach QEMU at %q: %w", path, m.why(ctx, err, "it does not greet"))
	}
	if err := m.execute(ctx, "qmp_capabilities", nil, nil); err != nil {
		m.close()
		return nil, err
	}
	return m, nil
}

// shortPath makes a path to the socket that fits into an address, by a link
// from the folder of temporary files where its own is too long.
func shortPath(path string) (short string, free func(), err error) {
	if len(path) <= maxSocketPath {
		return path, func() {}, nil
	}
	dir, err := os.MkdirTemp("", "tq")
	if err != nil {
		return "", nil, err
	}
	free = func() { _ = os.RemoveAll(dir) }
	link := filepath.Join(dir, "g")
	if err := os.Symlink(filepath.Dir(path), link); err != nil {
		free()
		return "", nil, err
	}
	short = filepath.Join(link, filepath.Base(path))
	if len(short) > maxSocketPath {
		free()
		return "", nil, fmt.Errorf("cannot reach a socket: the folder of temporary files %q is too deep; set TMPDIR", os.TempDir())
	}
	return short, free, nil
}

// bind makes the connection's calls end with ctx.
func (m *qmp) bind(ctx context.Context) (stop func()) {
	if at, ok := ctx.Deadline(); ok {
		_ = m.conn.SetDeadline(at)
	}
	cut := context.AfterFunc(ctx, func() { _ = m.conn.Close() })
	return func() { cut() }
}

func (m *qmp) why(ctx context.Context, err error, otherwise string) error {
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		return err
	default:
		return errors.New(otherwise)
	}
}

// execute runs a command and decodes what it returns into result, if that is
// not nil. Events that come between are passed over.
func (m *qmp) execute(ctx context.Context, command string, args, result any) error {
	stop := m.bind(ctx)
	defer stop()
	m.last++
	request := map[string]any{"execute": command, "id": m.last}
	if args != nil {
		request["arguments"] = args
	}
	err := json.NewEncoder(m.conn).Encode(request)
	for err == nil {
		var reply struct {
			ID     int
			Return json.RawMessage
			Error  *struct{ Class, Desc string }
		}
		if err = m.dec.Decode(&reply); err != nil || reply.ID != m.last {
			continue
		}
		if reply.Error != nil {
			return fmt.Errorf("cannot execute %q: QEMU says: %s", command, reply.Error.Desc)
		}
		if result != nil {
			err = json.Unmarshal(reply.Return, result)
		}
		if err == nil {
			return nil
		}
	}
	return fmt.Errorf("cannot execute %q: %w", command, m.why(ctx, err, ""))
}

func (m *qmp) close() {
	_ = m.conn.Close()
	m.free()
}
