package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"runtime"
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
			"on, as the public images have. It asks for the password of the guest's user. To keep a guest after its job, see\n" +
			"tasuki hold.",
		Example: "  tasuki vnc tasuki-mini-1-x7k2p9-ios-ab12cd\n  tasuki vnc --print tasuki-mini-1-x7k2p9-ios-ab12cd",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			login, err := a.client().Login(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			address, err := vncAddress(login)
			if err != nil {
				return fmt.Errorf("cannot open the screen of %q: %w", args[0], err)
			}
			if show || runtime.GOOS != "darwin" {
				fmt.Fprintln(a.stdout, address)
				return nil
			}
			return openScreen(cmd.Context(), address)
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
	u := url.URL{Scheme: "vnc", Host: net.JoinHostPort(host, vncPort)}
	if login.User != "" {
		u.User = url.User(login.User)
	}
	return u.String(), nil
}

func openScreen(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, 30*time.Second, errors.New("open did not end"))
	defer cancel()
	if _, err := proc.Run(ctx, proc.Cmd{Path: "/usr/bin/open", Args: []string{address}}); err != nil {
		return fmt.Errorf("cannot open %s: %w", address, err)
	}
	return nil
}
