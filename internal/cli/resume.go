package cli

import (
	"fmt"

	"github.com/spf13/cobra"
)

func newResume(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "resume [POOL]",
		Short: "End a drain",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			pool := first(args)
			if err := a.client().Resume(cmd.Context(), pool); err != nil {
				return err
			}
			fmt.Fprintf(a.stderr, "%s takes runners again\n", whole(pool))
			return nil
		},
	}
}
