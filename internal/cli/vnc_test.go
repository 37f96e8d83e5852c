package cli

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/mirego/tasuki/internal/api"
)

func TestAddressOfAScreen(t *testing.T) {
	for _, c := range []struct {
		login api.Login
		want  string // "" means an error
	}{
		{api.Login{Address: "192.168.64.7:22", User: "admin"}, "vnc://admin@192.168.64.7:5900"},
		{api.Login{Address: "192.168.64.7:22"}, "vnc://192.168.64.7:5900"},
		{api.Login{Address: "127.0.0.1:40022", User: "runner"}, ""},
		{api.Login{Address: "/a/folder"}, ""},
	} {
		got, err := vncAddress(c.login)
		if got != c.want || (err != nil) != (c.want == "") {
			t.Errorf("vncAddress(%+v) = %q, %v; want %q", c.login, got, err, c.want)
		}
	}
}

// A guest without an address: its screen is on a loopback port for as long as
// the command runs, and each viewer has a tunnel of its own.
func TestScreenThroughATunnel(t *testing.T) {
	out, to := io.Pipe()
	a := &app{stdout: to, stderr: io.Discard}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() {
		login := api.Login{Tunnel: []string{"/bin/sh", "-c", `echo "port $0"; cat`}, User: "admin"}
		ended <- a.screenThrough(ctx, login, true)
	}()
	line, err := bufio.NewReader(out).ReadString('\n')
	address, ok := strings.CutPrefix(strings.TrimSpace(line), "vnc://admin@127.0.0.1:")
	if err != nil || !ok {
		t.Fatalf("%q, %v", line, err)
	}
	for _, word := range []string{"one", "two"} {
		conn, err := net.Dial("tcp", "127.0.0.1:"+address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := fmt.Fprintln(conn, word); err != nil {
			t.Fatal(err)
		}
		in := bufio.NewReader(conn)
		for _, want := range []string{"port 5900\n", word + "\n"} {
			if got, err := in.ReadString('\n'); got != want {
				t.Errorf("got %q, %v; want %q", got, err, want)
			}
		}
	}
	cancel() // Ctrl-C, with both viewers open
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
