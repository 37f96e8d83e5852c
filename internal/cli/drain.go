package cli

import (
	"fmt"

	"github.com/spf13/cobra"
)

func newDrain(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "drain [POOL]",
		Short: "Start no new runners and let those that wait go; busy ones finish",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			pool := first(args)
			if err := a.client().Drain(cmd.Context(), pool); err != nil {
				return err
			}
			fmt.Fprintf(a.stderr, "draining %s; tasuki resume %sends it\n", whole(pool), spaced(pool))
			return nil
		},
	}
}

func spaced(word string) string {
	if word == "" {
		return ""
	}
	return word + " "
}
