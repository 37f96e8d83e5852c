package cli

import (
	"context"
	"fmt"
	"net"
	"path/filepath"

	"github.com/spf13/cobra"
)

func newRegistry(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "registry",
		Short: "Keep guest images for the hosts to pull",
	}
	cmd.AddCommand(newRegistryServe(a), newRegistryUser(a), newRegistryGC(a))
	return cmd
}

// dirFlag adds --dir, which the commands of one registry share.
func dirFlag(cmd *cobra.Command, dir *string) {
	cmd.Flags().StringVar(dir, "dir", "", "`folder` of the images (default registry in --home)")
}

func (a *app) registryDir(dir string) (string, error) {
	if dir == "" {
		dir = filepath.Join(a.home, "registry")
	}
	return filepath.Abs(dir)
}

// registryUsers is the file that says who may use a registry.
func registryUsers(dir string) string { return filepath.Join(dir, "users") }

// listenTCP opens a port, or says in words what is in the way.
func listenTCP(ctx context.Context, address string) (net.Listener, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, withHint(fmt.Errorf("cannot listen on %q: %w", address, err), "choose another --listen, such as 127.0.0.1:0")
	}
	return l, nil
}
