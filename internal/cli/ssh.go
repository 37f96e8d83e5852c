package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/mirego/tasuki/internal/api"
	"github.com/mirego/tasuki/internal/base/proc"
	"github.com/mirego/tasuki/internal/guest"
)

func newSSH(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "ssh RUNNER [-- COMMAND...]",
		Short: "Open a shell in a runner's guest, or run a command there",
		Long: "Open a shell in a runner's guest with this machine's ssh, as the user that jobs run as.\n" +
			"The guest must present the host key that its image names or that the agent saw; where neither is known, the first\n" +
			"one that it shows is trusted, and only that from then on. A guest of tart without an address is reached through its\n" +
			"guest agent. To keep a guest after its job, see tasuki hold.",
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
	hosts, done, err := hostsFile(login, name)
	if err != nil {
		return fmt.Errorf("cannot log in to %q: %w", name, err)
	}
	defer done()
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

// hostsFile returns the file of host keys that ssh shall believe. One for a key
// that is known is removed by done; one that ssh fills stays beside the guest's
// login key, for as long as the guest does.
func hostsFile(login api.Login, name string) (path string, done func(), err error) {
	if login.HostKey == "" {
		return login.KeyFile + api.HostsSuffix, func() {}, nil
	}
	dir, err := os.MkdirTemp("", "tasuki-ssh-")
	if err != nil {
		return "", nil, err
	}
	done = func() { _ = os.RemoveAll(dir) }
	path = filepath.Join(dir, "known_hosts")
	if err := os.WriteFile(path, []byte(name+" "+login.HostKey+"\n"), 0o600); err != nil {
		done()
		return "", nil, err
	}
	return path, done, nil
}

// sshArgs makes the system's ssh accept one host key, the known one or else the
// one that was shown first, and use one login key, whatever the user's own
// configuration says.
func sshArgs(login api.Login, name, hosts string) ([]string, error) {
	host, port, way := name, "", []string(nil)
	switch {
	case login.Address != "":
		var err error
		if host, port, err = net.SplitHostPort(login.Address); err != nil || strings.HasPrefix(host, "-") {
			return nil, fmt.Errorf("cannot log in to %q: the agent gave the address %q", name, login.Address)
		}
		way = []string{"-p", port}
	case len(login.Tunnel) > 0:
		way = []string{"-o", "ProxyCommand=" + proxyCommand(login.Tunnel)}
	default:
		return nil, fmt.Errorf("cannot log in to %q: the agent gave no way to it", name)
	}
	if login.User == "" || strings.HasPrefix(login.User, "-") {
		return nil, fmt.Errorf("cannot log in to %q: the agent gave the user %q", name, login.User)
	}
	check, level := "yes", "ERROR"
	if login.HostKey == "" {
		check, level = "accept-new", "INFO" // it says which key it believes from now on
	}
	return slices.Concat([]string{"-F", "none", "-i", login.KeyFile}, way, []string{
		"-o", "IdentitiesOnly=yes",
		"-o", "HostKeyAlias=" + name,
		"-o", "StrictHostKeyChecking=" + check,
		"-o", "CheckHostIP=no",
		"-o", "UserKnownHostsFile=" + hosts,
		"-o", "GlobalKnownHostsFile=none",
		"-o", "PasswordAuthentication=no",
		"-o", "LogLevel=" + level,
		"-l", login.User,
		"--", host,
	}), nil
}

// proxyCommand writes a tunnel to the SSH server as ssh takes it: for a shell,
// with what ssh would replace kept.
func proxyCommand(tunnel []string) string {
	words := []string{"exec"}
	for _, w := range tunnel {
		words = append(words, guest.Quote(w))
	}
	return strings.ReplaceAll(strings.Join(append(words, "22"), " "), "%", "%%")
}
