package cli

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/mirego/tasuki/internal/base/human"
)

// defaultHold is how long a guest is kept if nobody says.
const defaultHold = 30 * time.Minute

func newHold(a *app) *cobra.Command {
	var d time.Duration
	var release bool
	cmd := &cobra.Command{
		Use:     "hold RUNNER",
		Short:   "Keep a runner's guest after its job, to look at it",
		Example: "  tasuki hold tasuki-rack-1-x7k2p9-linux-ab12cd --for 1h\n  tasuki ssh tasuki-rack-1-x7k2p9-linux-ab12cd\n  tasuki hold tasuki-rack-1-x7k2p9-linux-ab12cd --release",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if release {
				d = 0
			} else if d <= 0 {
				return withHint(fmt.Errorf("cannot hold for %s", d), "write --for 30m, or --release")
			}
			if err := a.client().Hold(cmd.Context(), args[0], d); err != nil {
				return err
			}
			if release {
				fmt.Fprintf(a.stderr, "%s is no longer held: it goes once its job is over\n", args[0])
				return nil
			}
			fmt.Fprintf(a.stderr, "%s stays for %s; look inside with tasuki ssh %s\n", args[0], human.Duration(d), args[0])
			return nil
		},
	}
	cmd.Flags().DurationVar(&d, "for", defaultHold, "how long, from now")
	cmd.Flags().BoolVar(&release, "release", false, "let it go")
	cmd.MarkFlagsMutuallyExclusive("for", "release")
	return cmd
}
