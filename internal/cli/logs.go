package cli

import "github.com/spf13/cobra"

func newLogs(a *app) *cobra.Command {
	var follow bool
	cmd := &cobra.Command{
		Use:   "logs RUNNER",
		Short: "Print what a runner's program wrote",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop := interruptible(cmd.Context())
			defer stop()
			err := a.client().Log(ctx, args[0], follow, a.stdout)
			if ended(ctx, err) {
				return nil
			}
			return err
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on until the runner is gone")
	return cmd
}
