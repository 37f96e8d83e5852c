package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/mirego/tasuki/internal/config"
)

// app is what every command has: its streams and the flags of all commands.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	home           string // of the agent; --home
	homeGiven      bool
	logLevel       string
}

// commands are all there are, in the order of the help.
var commands = []func(*app) *cobra.Command{
	newDemo,
	newInit,
	newHostGroup,
	newStatus,
	newConsole,
	newWhy,
	newDrain,
	newResume,
	newReload,
	newEvents,
	newHold,
	newSSH, newVNC,
	newLogs,
	newRuns,
	newMonitoringGroup,
	newDoctor,
	newServiceGroup,
	newGitHubGroup,
	newImage,
	newConfig,
	newEmulator,
	newRegistry,
	newVersion, newMan,
	newRelay,
}

// Main runs the command line of this process and returns its exit status.
func Main() int {
	// A relay is made for each connection of a guest: it skips all the rest.
	if len(os.Args) == 3 && os.Args[1] == relayName {
		return relayMain(os.Args[2])
	}
	a := &app{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr}
	root := newRoot(a)
	root.SetArgs(os.Args[1:])
	return a.exit(root.ExecuteContext(context.Background()))
}

// newRoot makes the whole command line.
func newRoot(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:   "tasuki",
		Short: "GitHub Actions runners, each job in a fresh virtual machine of yours",
		Long: "Tasuki keeps self-hosted GitHub Actions runners on this machine. Each executes one job,\n" +
			"in a virtual machine of its own, which is thrown away afterwards.",
		SilenceErrors: true,
		SilenceUsage:  true,
		PersistentPreRun: func(cmd *cobra.Command, _ []string) {
			a.homeGiven = cmd.Flags().Changed("home")
		},
	}
	cobra.EnableCommandSorting = false // ours is the order of use
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	root.SetIn(a.stdin)
	flags := root.PersistentFlags()
	flags.StringVar(&a.home, "home", config.DefaultHome(), "the agent's `folder`; $TASUKI_HOME says it too")
	flags.StringVar(&a.logLevel, "log-level", "info", "least `level` that is logged: debug, info, warn or error")
	for _, make := range commands {
		root.AddCommand(make(a))
	}
	hardenArgs(root)
	return root
}

// hardenArgs makes wrong arguments and flags the user's trouble with a hint.
func hardenArgs(cmd *cobra.Command) {
	cmd.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return withHint(err, c.CommandPath()+" --help")
	})
	if check := cmd.Args; check != nil {
		cmd.Args = func(c *cobra.Command, args []string) error {
			if err := check(c, args); err != nil {
				return withHint(err, "usage: "+c.UseLine())
			}
			return nil
		}
	}
	if cmd.HasSubCommands() && cmd.RunE == nil {
		cmd.Args = cobra.ArbitraryArgs
		cmd.RunE = func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return c.Help()
			}
			err := fmt.Errorf("unknown command %q for %q", args[0], c.CommandPath())
			if near := c.SuggestionsFor(args[0]); len(near) > 0 {
				return withHint(err, fmt.Sprintf("did you mean %q?", c.CommandPath()+" "+near[0]))
			}
			return withHint(err, c.CommandPath()+" --help")
		}
		cmd.SuggestionsMinimumDistance = 2
	}
	for _, sub := range cmd.Commands() {
		hardenArgs(sub)
	}
}

// interruptible returns a context that ends with the first SIGINT or SIGTERM.
// A second one then ends the process as if nobody listened.
func interruptible(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	return ctx, stop
}
