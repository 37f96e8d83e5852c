package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/mirego/tasuki/internal/base/atomicfile"
	"github.com/mirego/tasuki/internal/base/backoff"
	"github.com/mirego/tasuki/internal/base/proc"
	"github.com/mirego/tasuki/internal/client"
	"github.com/mirego/tasuki/internal/config"
	"github.com/mirego/tasuki/internal/doctor"
	"github.com/mirego/tasuki/internal/service"
)

type serviceFlags struct {
	file, user     string
	system, dryRun bool
}

func newServiceGroup(a *app) *cobra.Command {
	var f serviceFlags
	cmd := &cobra.Command{
		Use:   "service",
		Short: "Let this machine start the agent by itself",
		Long: "Let this machine start the agent by itself, and again whenever it ended: by a LaunchAgent of this user on macOS,\n" +
			"by a unit of this user on Linux, or with --system by one of the system. Guests outlive the agent in each case.",
	}
	configFlag(cmd, &f.file)
	flags := cmd.PersistentFlags()
	flags.AddFlag(cmd.Flags().Lookup("config"))
	flags.BoolVar(&f.system, "system", false, "a unit of the system (Linux; as root)")
	flags.StringVar(&f.user, "user", "", "who runs the agent of a unit of the system (default: who owns host.home, else tasuki)")
	flags.BoolVar(&f.dryRun, "dry-run", false, "show the file and the commands, and do nothing")
	cmd.AddCommand(
		serviceCommand(a, &f, "install", "Write the service's file and start it", (*app).installService),
		serviceCommand(a, &f, "uninstall", "Drain, end and remove the service; the home stays", (*app).uninstallService),
		serviceCommand(a, &f, "status", "Show what the service manager says", func(a *app, ctx context.Context, p service.Plan, f serviceFlags) error {
			return a.typePlan(ctx, p.Status, f.dryRun)
		}),
		serviceCommand(a, &f, "restart", "Start the agent anew, for an upgrade: guests and their jobs go on", func(a *app, ctx context.Context, p service.Plan, f serviceFlags) error {
			return a.startService(ctx, p, true, f.dryRun)
		}),
	)
	return cmd
}

func serviceCommand(a *app, f *serviceFlags, name, short string, run func(*app, context.Context, service.Plan, serviceFlags) error) *cobra.Command {
	return &cobra.Command{
		Use: name, Short: short, Args: cobra.NoArgs,
		Example: "  tasuki service " + name + " --config host.yaml",
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := interruptible(cmd.Context())
			defer stop()
			p, err := a.servicePlan(*f, name == "install")
			if err != nil {
				return err
			}
			if p.Root && os.Getuid() != 0 && !f.dryRun && name != "status" {
				return withHint(errors.New("cannot change a unit of the system as an ordinary user"), "run it with sudo, or leave --system out")
			}
			return run(a, ctx, p, *f)
		},
	}
}

// servicePlan plans the service of this machine. One that is installed must
// have a configuration that is well; the others do not read more than they find.
func (a *app) servicePlan(f serviceFlags, strict bool) (service.Plan, error) {
	file, err := filepath.Abs(a.configFile([]string{f.file}))
	if err != nil {
		return service.Plan{}, fmt.Errorf("cannot find the configuration: %w", err)
	}
	cfg, err := a.loadHost(file)
	if err != nil {
		if strict {
			return service.Plan{}, err
		}
		cfg = &config.Config{Host: config.Host{Home: a.home}}
	}
	self, err := os.Executable()
	if err != nil {
		return service.Plan{}, fmt.Errorf("cannot find this program's own file: %w", err)
	}
	who, err := serviceUser(f, cfg.Host.Home)
	if err != nil {
		return service.Plan{}, err
	}
	home, err := filepath.Abs(cfg.Host.Home)
	if err != nil {
		return service.Plan{}, fmt.Errorf("cannot find the agent's folder: %w", err)
	}
	args := []string{"host", "run", "--config", file}
	if a.homeGiven {
		args = append(args, "--home", home)
	}
	// For /dev/kvm. systemd starts nothing with a group that is not there.
	var groups []string
	if _, err := user.LookupGroup("kvm"); err == nil {
		groups = append(groups, "kvm")
	}
	return service.New(runtime.GOOS, service.Options{
		Groups:  groups,
		Program: self, Args: args, Reload: []string{"reload", "--home", home}, System: f.system,
		User: who.Username, UID: uid(who), HomeDir: who.HomeDir, Home: home, Drain: time.Duration(cfg.Host.DrainTimeout),
	})
}

// serviceUser is who runs the agent: we, or for a unit of the system who owns
// its home.
func serviceUser(f serviceFlags, home string) (*user.User, error) {
	if !f.system {
		if f.user != "" {
			return nil, withHint(errors.New("--user is for a unit of the system"), "add --system, or run the command as that user")
		}
		who, err := user.Current()
		if err != nil {
			return nil, fmt.Errorf("cannot say who we are: %w", err)
		}
		return who, nil
	}
	name := f.user
	if owner := ownerOf(home); name == "" && owner != "" {
		name = owner
	}
	if name == "" {
		name = "tasuki"
	}
	who, err := user.Lookup(name)
	if err != nil {
		return nil, withHint(fmt.Errorf("cannot run the agent as %q: there is no such user", name),
			"sudo useradd --system --create-home --home-dir /var/lib/tasuki --shell /usr/sbin/nologin "+name)
	}
	return who, nil
}

func (a *app) installService(ctx context.Context, p service.Plan, f serviceFlags) error {
	fmt.Fprintf(a.stdout, "write %s\n", p.Path)
	if f.dryRun {
		fmt.Fprintf(a.stdout, "%s\n", p.File)
		return a.typePlan(ctx, p.Install, true)
	}
	if err := os.MkdirAll(filepath.Dir(p.Path), 0o755); err != nil {
		return fmt.Errorf("cannot make the folder of services: %w", err)
	}
	if _, err := os.Stat(p.Path); err == nil && p.Manager == "launchd" {
		// launchd reads a changed file only anew. The agent is killed first, since
		// bootout lets it drain.
		for _, c := range slices.Concat(p.Restart, p.Uninstall) {
			_, _ = proc.Run(ctx, proc.Cmd{Path: c[0], Args: c[1:]})
		}
	}
	if err := atomicfile.Write(p.Path, p.File, fs.FileMode(p.Mode)); err != nil {
		return fmt.Errorf("cannot write the service's file: %w", err)
	}
	if err := a.startService(ctx, p, false, false); err != nil {
		return err
	}
	for _, n := range p.Notes {
		fmt.Fprintf(a.stdout, "note: %s\n", n)
	}
	fmt.Fprintf(a.stdout, "installed for %s; tasuki status shows it at work\n", p.Manager)
	return nil
}

func (a *app) uninstallService(ctx context.Context, p service.Plan, f serviceFlags) error {
	if _, err := os.Stat(p.Path); errors.Is(err, fs.ErrNotExist) && !f.dryRun {
		fmt.Fprintf(a.stdout, "nothing to do: %s is not there\n", p.Path)
		return nil
	}
	err := a.typePlan(ctx, p.Uninstall, f.dryRun)
	fmt.Fprintf(a.stdout, "remove %s\n", p.Path)
	if f.dryRun {
		return nil
	}
	return errors.Join(err, os.Remove(p.Path))
}

// startTimeout is how long a service manager and the agent that it starts may
// take until that answers.
const startTimeout = time.Minute

// startService types commands that start an agent and waits until it answers;
// anew: until one does that did not before.
func (a *app) startService(ctx context.Context, p service.Plan, anew, dryRun bool) error {
	commands := p.Install
	if anew {
		commands = p.Restart
	}
	c := client.New(p.Home)
	before, err := c.Status(ctx)
	running := err == nil
	if err := a.typePlan(ctx, commands, dryRun); err != nil || dryRun {
		return err
	}
	if running && !anew {
		fmt.Fprintf(a.stdout, "the agent runs already (pid %d); what changed in the file, tasuki service restart takes over\n", before.PID)
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for {
		now, err := c.Status(ctx)
		if err == nil && now.Started.After(before.Started) {
			fmt.Fprintf(a.stdout, "the agent answers (pid %d)\n", now.PID)
			return nil
		}
		if backoff.Sleep(ctx, 100*time.Millisecond) != nil {
			return withHint(fmt.Errorf("cannot see an agent start at %s: %w", p.Home, cmp.Or(err, context.Cause(ctx))), "its log: "+p.Log)
		}
	}
}

// typePlan shows commands and types them.
func (a *app) typePlan(ctx context.Context, commands [][]string, dryRun bool) error {
	for _, c := range commands {
		fmt.Fprintln(a.stdout, doctor.Line(c))
	}
	if dryRun {
		return nil
	}
	return a.typeCommands(ctx, commands)
}
