package qemu

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// listenQMP serves one connection with serve, at a path too long for a
// socket's address if deep.
func listenQMP(t *testing.T, deep bool, serve func(net.Conn)) string {
	t.Helper()
	dir := t.TempDir()
	if deep {
		dir = filepath.Join(dir, strings.Repeat("deep/", 30))
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(dir, qmpFile)
	short, free, err := shortPath(path)
	if err != nil {
		t.Fatal(err)
	}
	defer free()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: short, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	done := make(chan struct{})
	t.Cleanup(func() { l.Close(); <-done })
	go func() {
		defer close(done)
		for conn, err := l.Accept(); err == nil; conn, err = l.Accept() {
			serve(conn)
		}
	}()
	return path
}

func TestQMPPassesOverEventsAndTellsErrors(t *testing.T) {
	for _, deep := range []bool{false, true} {
		t.Run(fmt.Sprintf("deep=%v", deep), func(t *testing.T) {
			path := listenQMP(t, deep, func(conn net.Conn) {
				serveQMP(conn, func(command string) (any, error) {
					if command == "stop" {
						return nil, errors.New("not now")
					}
					return map[string]any{"status": command}, nil
				})
			})
			m, err := dialQMP(t.Context(), path)
			if err != nil {
				t.Fatal(err)
			}
			defer m.close()
			var got struct{ Status string }
			if err := m.execute(t.Context(), "query-status", nil, &got); err != nil || got.Status != "query-status" {
				t.Errorf("got %+v, %v", got, err)
			}
			if err := m.execute(t.Context(), "stop", map[string]any{"x": 1}, nil); err == nil || !strings.Contains(err.Error(), "not now") {
				t.Errorf("got %v, want QEMU's words", err)
			}
			if err := m.execute(t.Context(), "cont", nil, nil); err != nil {
				t.Errorf("after an error: %v", err)
			}
		})
	}
}

func TestQMPGivesUpWithItsContext(t *testing.T) {
	cause := errors.New("enough")
	for name, serve := range map[string]func(net.Conn){
		"no greeting": func(c net.Conn) { _, _ = io.Copy(io.Discard, c) },
		"no reply": func(c net.Conn) {
			fmt.Fprintln(c, `{"QMP": {}}`)
			_, _ = io.Copy(io.Discard, c)
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := listenQMP(t, false, serve)
			ctx, cancel := context.WithCancelCause(t.Context())
			timer := time.AfterFunc(20*time.Millisecond, func() { cancel(cause) })
			defer timer.Stop()
			if _, err := dialQMP(ctx, path); !errors.Is(err, cause) {
				t.Errorf("got %v, want the cause", err)
			}
		})
	}
}

func TestQMPRefusesAnotherProtocol(t *testing.T) {
	path := listenQMP(t, false, func(c net.Conn) {
		fmt.Fprintln(c, "220 mail.example ESMTP")
		c.Close()
	})
	if _, err := dialQMP(t.Context(), path); err == nil {
		t.Error("it is taken for QEMU")
	}
}
