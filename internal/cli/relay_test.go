package cli

import (
	"bytes"
	"io"
	"net"
	"strings"
	"testing"
)

// nopCloser is an output that counts as closed for nobody.
type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

func TestRelayEndsEachDirectionByItself(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	served := make(chan error, 1)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			served <- err
			return
		}
		defer conn.Close()
		// It answers only after it has heard all: without the half-close it
		// would wait for ever.
		heard, err := io.ReadAll(conn)
		if err == nil {
			_, err = conn.Write(bytes.ToUpper(heard))
		}
		served <- err
	}()
	var out bytes.Buffer
	if err := relay(strings.NewReader("hello"), nopCloser{&out}, l.Addr().String()); err != nil {
		t.Error(err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
	if out.String() != "HELLO" {
		t.Errorf("got %q, want HELLO", out.String())
	}
}

func TestRelayToNowhereSaysSo(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	_ = l.Close()
	err = relay(strings.NewReader(""), nopCloser{io.Discard}, address)
	if err == nil || !strings.Contains(err.Error(), "cannot relay") {
		t.Errorf("got %v", err)
	}
}
