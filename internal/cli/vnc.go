package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/mirego/tasuki/internal/api"
	"github.com/mirego/tasuki/internal/base/proc"
)

// vncPort is where macOS's Screen Sharing listens.
const vncPort = "5900"

func newVNC(a *app) *cobra.Command {
	var show bool
	cmd := &cobra.Command{
		Use:   "vnc RUNNER",
		Short: "Open the screen of a runner's guest",
		Long: "Open the screen of a runner's guest, by the Screen Sharing of the macOS in it, which the image must have turned\n" +
			"on, as the public images have. It asks for the password of the guest's user. A guest without an address is reached\n" +
			"through its guest agent, for as long as this command runs. To keep a guest after its job, see tasuki hold.",
		Example: "  tasuki vnc tasuki-mini-1-x7k2p9-ios-ab12cd\n  tasuki vnc --print tasuki-mini-1-x7k2p9-ios-ab12cd",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			login, err := a.client().Login(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			show := show || runtime.GOOS != "darwin"
			if login.Address == "" && len(login.Tunnel) > 0 {
				return a.screenThrough(cmd.Context(), login, show)
			}
			address, err := vncAddress(login)
			if err != nil {
				return fmt.Errorf("cannot open the screen of %q: %w", args[0], err)
			}
			return a.showScreen(cmd.Context(), address, show)
		},
	}
	cmd.Flags().BoolVar(&show, "print", false, "print the address instead of opening it; always so where there is no Screen Sharing")
	return cmd
}

// vncAddress is where a guest's screen is, if it has an address of its own.
func vncAddress(login api.Login) (string, error) {
	host, _, err := net.SplitHostPort(login.Address)
	if err != nil {
		return "", fmt.Errorf("the agent gave the address %q", login.Address)
	}
	if host == "127.0.0.1" {
		return "", withHint(errors.New("its driver forwards SSH alone"), "tasuki ssh shows its console")
	}
	return vncURL(login.User, net.JoinHostPort(host, vncPort)), nil
}

func vncURL(user, address string) string {
	u := url.URL{Scheme: "vnc", Host: address}
	if user != "" {
		u.User = url.User(user)
	}
	return u.String()
}

func (a *app) showScreen(ctx context.Context, address string, show bool) error {
	if show {
		fmt.Fprintln(a.stdout, address)
		return nil
	}
	return openScreen(ctx, address)
}

// screenThrough lets programs of this machine see the guest's screen through its
// tunnel until ctx ends: on a loopback port, since viewers take no streams.
func (a *app) screenThrough(ctx context.Context, login api.Login, show bool) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("cannot open the screen: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	if err := a.showScreen(ctx, vncURL(login.User, l.Addr().String()), show); err != nil {
		return errors.Join(err, l.Close())
	}
	fmt.Fprintln(a.stderr, "The screen is there until you press Ctrl-C.")
	var viewers sync.WaitGroup
	defer viewers.Wait()
	for {
		conn, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("cannot open the screen: %w", err)
		}
		viewers.Go(func() {
			defer conn.Close()
			hangUp := context.AfterFunc(ctx, func() { _ = conn.Close() })
			defer hangUp()
			args := append(slices.Clone(login.Tunnel[1:]), vncPort)
			var words strings.Builder
			_, err := proc.Run(ctx, proc.Cmd{Path: login.Tunnel[0], Args: args, Stdin: conn, Stdout: conn, Stderr: &words, Live: true})
			if err != nil && ctx.Err() == nil {
				fmt.Fprintf(a.stderr, "the screen was lost: %v: %s\n", err, oneLine(words.String()))
			}
		})
	}
}

func openScreen(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, 30*time.Second, errors.New("open did not end"))
	defer cancel()
	if _, err := proc.Run(ctx, proc.Cmd{Path: "/usr/bin/open", Args: []string{address}}); err != nil {
		return fmt.Errorf("cannot open %s: %w", address, err)
	}
	return nil
}
