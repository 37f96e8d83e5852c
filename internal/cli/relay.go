package cli

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/spf13/cobra"
)

const (
	relayName = "relay"
	// relayTimeout bounds connecting; a guest's own patience is longer.
	relayTimeout = 10 * time.Second
)

func newRelay(*app) *cobra.Command {
	return &cobra.Command{
		Use:    relayName + " HOST:PORT",
		Short:  "Connect stdin and stdout to a TCP address",
		Long:   "Connect stdin and stdout to a TCP address. QEMU starts one for each connection of an isolated guest.",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			return relay(os.Stdin, os.Stdout, args[0])
		},
	}
}

func relayMain(address string) int {
	if err := relay(os.Stdin, os.Stdout, address); err != nil {
		fmt.Fprintf(os.Stderr, "tasuki: %v\n", err)
		return exitTrouble
	}
	return exitWell
}

// relay connects in and out to an address until both directions have ended: a
// side that has said all may still listen.
func relay(in io.Reader, out io.WriteCloser, address string) error {
	conn, err := net.DialTimeout("tcp", address, relayTimeout)
	if err != nil {
		return fmt.Errorf("cannot relay: %w", err)
	}
	tcp := conn.(*net.TCPConn)
	defer tcp.Close()
	back := make(chan error, 1)
	go func() {
		_, err := io.Copy(out, tcp)
		endOutput(out)
		back <- err
	}()
	_, sendErr := io.Copy(tcp, in)
	if sendErr == nil {
		sendErr = tcp.CloseWrite()
	} else {
		_ = tcp.Close()
	}
	if errors.Is(sendErr, net.ErrClosed) {
		sendErr = nil
	}
	if err := errors.Join(sendErr, <-back); err != nil {
		return fmt.Errorf("cannot relay to %s: %w", address, err)
	}
	return nil
}

// endOutput says that nothing more comes. QEMU gives one socket as stdin and
// stdout: closing a descriptor of it would tell nobody.
func endOutput(out io.WriteCloser) {
	if f, ok := out.(*os.File); ok && syscall.Shutdown(int(f.Fd()), syscall.SHUT_WR) == nil {
		return
	}
	_ = out.Close()
}
