package cli

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// newMan writes the manual pages of every command, for packages: who uses
// tasuki never needs it.
func newMan(a *app) *cobra.Command {
	return &cobra.Command{
		Use:    "man DIR",
		Short:  "Write the manual pages of every command",
		Long:   "Write a manual page of section 1 for every command into a folder. Its date is SOURCE_DATE_EPOCH, so that two\nbuilds of one commit write the same.",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return fmt.Errorf("cannot make the folder of the manual pages: %w", err)
			}
			root := cmd.Root()
			root.DisableAutoGenTag = true // it names cobra and a day
			// The page says where the home is by default, and not whose machine wrote it.
			root.PersistentFlags().Lookup("home").DefValue = "~/.tasuki"
			head := &doc.GenManHeader{Section: "1", Source: "tasuki " + versionName(), Manual: "Tasuki"}
			if err := doc.GenManTree(root, head, args[0]); err != nil {
				return fmt.Errorf("cannot write the manual pages: %w", err)
			}
			return nil
		},
	}
}
