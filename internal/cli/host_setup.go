package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mirego/tasuki/internal/base/proc"
	"github.com/mirego/tasuki/internal/doctor"
)

type setupFlags struct {
	file, name  string
	dryRun, yes bool
}

func newHostSetup(a *app) *cobra.Command {
	var f setupFlags
	cmd := &cobra.Command{
		Use:   "setup",
		Short: "Set this machine up for guests: type what tasuki doctor says",
		Long: "Type the commands that mend what tasuki doctor finds on this machine, each shown before it is asked for.\n" +
			"What only a hand can do is listed at the end. Nothing is typed that is well already, so that it can be run\n" +
			"again. --yes asks nothing, for machines that are set up by a program; sudo must then need no password.\n" +
			"The exit status is 1 if a command failed, or a problem is left.",
		Example: "  tasuki host setup --dry-run\n  tasuki host setup --yes --name mac-mini-3",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := interruptible(cmd.Context())
			defer stop()
			return a.setupHost(ctx, f, doctor.Here{})
		},
	}
	configFlag(cmd, &f.file)
	cmd.Flags().StringVar(&f.name, "name", "", "give the machine this `name` (macOS: host, computer and Bonjour name)")
	cmd.Flags().BoolVar(&f.dryRun, "dry-run", false, "show the commands and type none")
	cmd.Flags().BoolVarP(&f.yes, "yes", "y", false, "ask nothing")
	return cmd
}

// setupStep is one thing to set up.
type setupStep struct {
	why      string
	commands [][]string
}

func (a *app) setupHost(ctx context.Context, f setupFlags, m doctor.Machine) error {
	cfg, _, err := a.configFindings(f.file)
	if err != nil {
		return err
	}
	host, err := a.doctorHost(cfg, false)
	if err != nil {
		return err
	}
	return a.setUp(ctx, f, m, host)
}

// setUp is setupHost for a host that is known.
func (a *app) setUp(ctx context.Context, f setupFlags, m doctor.Machine, host doctor.Host) error {
	steps, byHand := setupSteps(f.name, host.OS, doctor.Examine(ctx, m, host))
	if len(steps) == 0 {
		fmt.Fprintln(a.stdout, "nothing to type: what commands can set up is well")
	}
	failed, err := a.typeSteps(ctx, f, steps)
	if err != nil {
		return err
	}
	for i, h := range byHand {
		if i == 0 {
			fmt.Fprintln(a.stdout, "\nLeft to a hand:")
		}
		fmt.Fprintf(a.stdout, "  %s: %s\n    %s\n", h.Check, oneLine(h.Seen), strings.ReplaceAll(h.Mend, "\n", "\n    "))
	}
	if f.dryRun {
		return nil
	}
	if failed > 0 || doctor.Worst(doctor.Examine(ctx, m, host)) == doctor.Problem {
		fmt.Fprintln(a.stdout, "\nNot all is well yet: tasuki doctor says what is left.")
		return errNo
	}
	fmt.Fprintln(a.stdout, "\nThis machine is set up: tasuki doctor finds no problem.")
	return nil
}

// typeSteps shows each step, asks, and types it; it says how many failed.
func (a *app) typeSteps(ctx context.Context, f setupFlags, steps []setupStep) (failed int, err error) {
	input := bufio.NewReader(a.stdin)
	for _, s := range steps {
		fmt.Fprintf(a.stdout, "\n%s\n", oneLine(s.why))
		for _, c := range s.commands {
			fmt.Fprintf(a.stdout, "  %s\n", doctor.Line(c))
		}
		switch ok, err := a.agreed(f, input); {
		case err != nil:
			return failed, err
		case !ok:
			continue
		}
		if err := a.typeCommands(ctx, s.commands); err != nil {
			failed++
			fmt.Fprintf(a.stderr, "tasuki: %v\n", err)
		}
		if ctx.Err() != nil {
			return failed, errors.New("interrupted")
		}
	}
	return failed, nil
}

// setupSteps sorts findings into what commands mend and what a hand must.
func setupSteps(name, system string, found []doctor.Finding) (steps []setupStep, byHand []doctor.Finding) {
	if name != "" {
		steps = append(steps, setupStep{"name: this machine gets the name " + name, nameCommands(system, name)})
	}
	for _, f := range found {
		switch {
		case f.Level == doctor.Well || f.Level == doctor.Unknown:
		case len(f.Commands) > 0:
			steps = append(steps, setupStep{f.Check + ": " + f.Seen, f.Commands})
		default:
			byHand = append(byHand, f)
		}
	}
	return steps, byHand
}

func nameCommands(system, name string) [][]string {
	if system != "darwin" {
		return [][]string{{"sudo", "hostnamectl", "set-hostname", name}}
	}
	var out [][]string
	for _, kind := range []string{"HostName", "LocalHostName", "ComputerName"} {
		out = append(out, []string{"sudo", "scutil", "--set", kind, name})
	}
	return out
}

// agreed asks whether to type what was shown.
func (a *app) agreed(f setupFlags, input *bufio.Reader) (bool, error) {
	if f.dryRun {
		return false, nil
	}
	if f.yes {
		return true, nil
	}
	fmt.Fprint(a.stdout, "Type it? [y/N] ")
	line, err := input.ReadString('\n')
	if err != nil && line == "" {
		return false, withHint(errors.New("cannot ask: the input has ended"), "tasuki host setup --yes asks nothing; --dry-run types nothing")
	}
	word := strings.ToLower(strings.TrimSpace(line))
	return word == "y" || word == "yes", nil
}

// typeCommands runs commands as the user would, up to the first that fails.
// sudo and the like may ask on the terminal.
func (a *app) typeCommands(ctx context.Context, commands [][]string) error {
	for _, c := range commands {
		status, err := proc.Foreground(proc.Cmd{Path: c[0], Args: c[1:], Stdin: a.stdin, Stdout: a.stdout, Stderr: a.stderr})
		if err != nil {
			return err
		}
		if status != 0 {
			return fmt.Errorf("%q ended with status %d", doctor.Line(c), status)
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	return nil
}
