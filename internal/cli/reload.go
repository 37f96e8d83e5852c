package cli

import (
	"fmt"

	"github.com/spf13/cobra"
)

func newReload(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "reload",
		Short: "Take the changed configuration file over, without touching running jobs",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := a.client().Reload(cmd.Context()); err != nil {
				return err
			}
			fmt.Fprintln(a.stderr, "the configuration was taken over")
			return nil
		},
	}
}
