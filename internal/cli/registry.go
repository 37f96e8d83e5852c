package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/mirego/tasuki/internal/registry"
)

func newRegistry(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "registry",
		Short: "Keep guest images for the hosts to pull",
	}
	cmd.AddCommand(newRegistryServe(a))
	return cmd
}

func newRegistryServe(a *app) *cobra.Command {
	var listen, dir string
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Serve an OCI registry from a folder",
		Long: "Serve an OCI registry from a folder, over plain HTTP, until SIGINT or SIGTERM.\n" +
			"It asks nobody who they are: let it listen on this machine only.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := a.logger()
			if err != nil {
				return err
			}
			if dir == "" {
				dir = filepath.Join(a.home, "registry")
			}
			ctx, stop := interruptible(cmd.Context())
			defer stop()
			l, err := listenTCP(ctx, listen)
			if err != nil {
				return err
			}
			r, err := registry.New(registry.Options{Dir: dir, Log: log})
			if err != nil {
				return errors.Join(err, l.Close())
			}
			fmt.Fprintf(a.stderr, "registry of %s on %s\n", dir, l.Addr())
			return r.Run(ctx, l)
		},
	}
	cmd.Flags().StringVar(&listen, "listen", "127.0.0.1:5000", "`address` to listen on; port 0 takes a free one")
	cmd.Flags().StringVar(&dir, "dir", "", "`folder` of the images (default registry in --home)")
	return cmd
}

// listenTCP opens a port, or says in words what is in the way.
func listenTCP(ctx context.Context, address string) (net.Listener, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, withHint(fmt.Errorf("cannot listen on %q: %w", address, err), "choose another --listen, such as 127.0.0.1:0")
	}
	return l, nil
}
