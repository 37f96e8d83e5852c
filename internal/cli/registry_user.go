package cli

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/mirego/tasuki/internal/base/secret"
	"github.com/mirego/tasuki/internal/registry"
)

func newRegistryUser(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "user",
		Short: "Who may use this machine's registry",
	}
	cmd.AddCommand(newRegistryUserAdd(a), newRegistryUserRm(a), newRegistryUserLs(a))
	return cmd
}

func newRegistryUserAdd(a *app) *cobra.Command {
	var dir string
	var write bool
	cmd := &cobra.Command{
		Use:   "add NAME",
		Short: "Add a user, or change one's password",
		Long: "Add a user, or give the one of this name another password and role. The password is asked for\n" +
			"on a terminal, else read from stdin: its first line. A registry that runs takes it over at once.",
		Example: "  tasuki registry user add ci --write\n  tasuki registry user add mac-mini-3 < password-file",
		Args:    cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			dir, err := a.registryDir(dir)
			if err != nil {
				return err
			}
			password, err := a.readPassword(args[0])
			if err != nil {
				return err
			}
			role := registry.Reader
			if write {
				role = registry.Writer
			}
			if err := registry.AddUser(registryUsers(dir), args[0], password, role); err != nil {
				return err
			}
			fmt.Fprintf(a.stderr, "%s may use the registry in %s as a %s\n", args[0], dir, role)
			return nil
		},
	}
	cmd.Flags().BoolVar(&write, "write", false, "a writer, who may push and delete; otherwise a reader, who may pull")
	dirFlag(cmd, &dir)
	return cmd
}

// readPassword asks twice on a terminal, else reads one line.
func (a *app) readPassword(name string) (secret.String, error) {
	f, ok := a.stdin.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		line, err := bufio.NewReader(io.LimitReader(a.stdin, 4096)).ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return secret.String{}, fmt.Errorf("cannot read the password from stdin: %w", err)
		}
		return secret.New(strings.TrimRight(line, "\r\n")), nil
	}
	ask := func(prompt string) (string, error) {
		fmt.Fprint(a.stderr, prompt)
		b, err := term.ReadPassword(int(f.Fd()))
		fmt.Fprintln(a.stderr)
		return string(b), err
	}
	first, err := ask(fmt.Sprintf("password for %s: ", name))
	if err != nil {
		return secret.String{}, fmt.Errorf("cannot read the password: %w", err)
	}
	second, err := ask("once more: ")
	if err != nil {
		return secret.String{}, fmt.Errorf("cannot read the password: %w", err)
	}
	if first != second {
		return secret.String{}, errors.New("the two passwords differ")
	}
	return secret.New(first), nil
}

func newRegistryUserRm(a *app) *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "rm NAME",
		Short: "Remove a user",
		Args:  cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			dir, err := a.registryDir(dir)
			if err != nil {
				return err
			}
			err = registry.RemoveUser(registryUsers(dir), args[0])
			if errors.Is(err, registry.ErrNoUser) {
				return withHint(err, "tasuki registry user ls --dir "+dir)
			}
			return err
		},
	}
	dirFlag(cmd, &dir)
	return cmd
}

func newRegistryUserLs(a *app) *cobra.Command {
	var dir string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List the users and what they may do",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			dir, err := a.registryDir(dir)
			if err != nil {
				return err
			}
			users, err := registry.ReadUsers(registryUsers(dir))
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			if asJSON {
				return json.NewEncoder(a.stdout).Encode(append([]registry.User{}, users...))
			}
			rows := [][]cell{header("USER", "ROLE")}
			for _, u := range users {
				rows = append(rows, []cell{{text: u.Name}, {text: string(u.Role)}})
			}
			style := statusStyle{width: width(a.stdout), colour: colours(a.stdout)}
			_, err = fmt.Fprint(a.stdout, style.table(rows))
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print it as JSON")
	dirFlag(cmd, &dir)
	return cmd
}
