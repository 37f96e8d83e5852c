package cli

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/mirego/tasuki/internal/base/human"
	"github.com/mirego/tasuki/internal/config"
)

func newConfig(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Check and show the configuration",
	}
	cmd.AddCommand(newConfigCheck(a), newConfigShow(a))
	return cmd
}

// configFile is the file that a command was given, or the one in the home.
func (a *app) configFile(args []string) string {
	if len(args) > 0 && args[0] != "" {
		return args[0]
	}
	return filepath.Join(a.home, "config.yaml")
}

func newConfigCheck(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "check [FILE]",
		Short: "Name every mistake of a configuration file",
		Long: "Name every mistake of a configuration file, each with its line and what to do about it.\n" +
			"Without FILE it is config.yaml in the agent's folder. The exit status is 1 if there is a mistake.",
		Example: "  tasuki config check host.yaml",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			file := a.configFile(args)
			c, err := config.Load(file)
			if problems, ok := errors.AsType[config.Problems](err); ok {
				fmt.Fprintln(a.stderr, problems)
				fmt.Fprintf(a.stderr, "%s: %s\n", file, human.Count(len(problems), "mistake"))
				return errNo
			}
			if err != nil {
				return err
			}
			for _, w := range c.Warnings() {
				fmt.Fprintln(a.stderr, "warning:", w)
			}
			_, err = fmt.Fprintf(a.stdout, "%s is well: %s, %s on %d slots\n", file, human.Count(len(c.Pools), "pool"), human.Count(waiting(c), "waiting runner"), c.Host.Slots)
			return err
		},
	}
}

func waiting(c *config.Config) int {
	n := 0
	for _, p := range c.Pools {
		n += p.Standby
	}
	return n
}

func newConfigShow(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "show [FILE]",
		Short: "Print the configuration with all defaults filled in, secrets redacted",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			c, err := config.Load(a.configFile(args))
			if err != nil {
				return err
			}
			shown, err := c.Show()
			if err != nil {
				return err
			}
			_, err = a.stdout.Write(shown)
			return err
		},
	}
}
