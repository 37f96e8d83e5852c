package cli

import "github.com/spf13/cobra"

func newLogs(a *app) *cobra.Command {
	var follow, console bool
	cmd := &cobra.Command{
		Use:   "logs RUNNER",
		Short: "Print what a runner's program wrote, or its guest's console",
		Long: "Print what a runner's program wrote, or with --console what its guest's kernel and services did. Both are\n" +
			"kept after the runner is gone, as logs in the configuration says; of a console, its last 1 MiB.",
		Example: "  tasuki logs tasuki-rack-1-jiooqy-small-dm7bcq --follow",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop := interruptible(cmd.Context())
			defer stop()
			read := a.client().Log
			if console {
				read = a.client().GuestConsole
			}
			err := read(ctx, args[0], follow, a.stdout)
			if ended(ctx, err) {
				return nil
			}
			return err
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on until the runner is gone")
	cmd.Flags().BoolVar(&console, "console", false, "what the guest wrote to its console, instead")
	return cmd
}
