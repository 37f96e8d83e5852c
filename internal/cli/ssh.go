package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/mirego/tasuki/internal/api"
	"github.com/mirego/tasuki/internal/base/proc"
)

func newSSH(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "ssh RUNNER [-- COMMAND...]",
		Short: "Open a shell in a runner's guest, or run a command there",
		Long: "Open a shell in a runner's guest with this machine's ssh, as the user that jobs run as.\n" +
			"The guest must present the host key that its image names. To keep a guest after its job, see tasuki hold.",
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			login, err := a.client().Login(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return sshInto(cmd.Context(), login, args[0], args[1:])
		},
	}
}

// sshInto runs the system's ssh and returns its status as an exitStatus.
func sshInto(_ context.Context, login api.Login, name string, command []string) error {
	if login.HostKey == "" {
		return withHint(fmt.Errorf("cannot log in to %q: its image names no host key, so that any machine could answer in its place", name), "build the image with Tasuki's recipe, which writes one down")
	}
	dir, err := os.MkdirTemp("", "tasuki-ssh-")
	if err != nil {
		return fmt.Errorf("cannot log in to %q: %w", name, err)
	}
	defer os.RemoveAll(dir)
	hosts := filepath.Join(dir, "known_hosts")
	if err := os.WriteFile(hosts, []byte(name+" "+login.HostKey+"\n"), 0o600); err != nil {
		return fmt.Errorf("cannot log in to %q: %w", name, err)
	}
	args, err := sshArgs(login, name, hosts)
	if err != nil {
		return err
	}
	// Ctrl-C is for the program in the guest, and hanging up must not leave
	// our folder behind.
	signal.Ignore(os.Interrupt, syscall.SIGHUP)
	defer signal.Reset(os.Interrupt, syscall.SIGHUP)
	status, err := proc.Foreground(proc.Cmd{Path: "ssh", Args: append(args, command...)})
	switch {
	case errors.Is(err, proc.ErrNotInstalled):
		return withHint(err, "install an SSH client: sudo apt-get install openssh-client")
	case err != nil:
		return fmt.Errorf("cannot log in to %q: %w", name, err)
	case status != 0:
		return exitStatus(status)
	}
	return nil
}

// sshArgs makes the system's ssh accept this one host key and use this one
// login key, whatever the user's own configuration says.
func sshArgs(login api.Login, name, hosts string) ([]string, error) {
	host, port, err := net.SplitHostPort(login.Address)
	if err != nil || strings.HasPrefix(host, "-") || strings.HasPrefix(login.User, "-") {
		return nil, fmt.Errorf("cannot log in to %q: the agent gave the address %q", name, login.Address)
	}
	return []string{
		"-F", "none",
		"-i", login.KeyFile,
		"-p", port,
		"-o", "IdentitiesOnly=yes",
		"-o", "HostKeyAlias=" + name,
		"-o", "StrictHostKeyChecking=yes",
		"-o", "CheckHostIP=no",
		"-o", "UserKnownHostsFile=" + hosts,
		"-o", "GlobalKnownHostsFile=none",
		"-o", "PasswordAuthentication=no",
		"-o", "LogLevel=ERROR",
		"-l", login.User,
		"--", host,
	}, nil
}
