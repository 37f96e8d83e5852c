package cli

import (
	"fmt"

	"github.com/spf13/cobra"
)

func newImageRefresh(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "refresh POOL",
		Short: "Ask the registry now what a pool's image is; ends a rollback",
		Long: "Ask the registry now what a pool's image is, forget that it was rejected, and end a rollback. A newer image\n" +
			"is tried with one runner before the others follow.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := a.client().RefreshImage(cmd.Context(), args[0]); err != nil {
				return err
			}
			fmt.Fprintf(a.stderr, "pool %s asks for its image now; tasuki status shows it\n", args[0])
			return nil
		},
	}
}

func newImageRollback(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "rollback POOL",
		Short: "Make a pool's runners from the image that worked before",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := a.client().RollbackImage(cmd.Context(), args[0]); err != nil {
				return err
			}
			fmt.Fprintf(a.stderr, "pool %s goes back; tasuki image refresh %s ends it\n", args[0], args[0])
			return nil
		},
	}
}

func newImagePin(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "pin POOL DIGEST|off",
		Short: "Make a pool's runners from the image of a digest, whatever its tag names",
		Args:  cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			pool, digest := args[0], args[1]
			if digest == "off" {
				digest = ""
			}
			if err := a.client().PinImage(cmd.Context(), pool, digest); err != nil {
				return err
			}
			if digest == "" {
				fmt.Fprintf(a.stderr, "pool %s follows its tag again\n", pool)
			} else {
				fmt.Fprintf(a.stderr, "pool %s stays on %s; tasuki image pin %s off ends it\n", pool, digest, pool)
			}
			return nil
		},
	}
}
