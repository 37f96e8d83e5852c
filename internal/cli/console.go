package cli

import (
	"errors"
	"fmt"
	"html"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/spf13/cobra"

	"github.com/mirego/tasuki/internal/api"
	"github.com/mirego/tasuki/internal/base/atomicfile"
	"github.com/mirego/tasuki/internal/base/proc"
)

func newConsole(a *app) *cobra.Command {
	var show bool
	cmd := &cobra.Command{
		Use:   "console",
		Short: "Open the web console of this host",
		Long: "Open the web console of this host in a browser: what its slots do now, what waits and why, past runs with their\n" +
			"logs, images. The address that is printed lets one browser in, once, and for two minutes; nobody gets in without.\n" +
			"The console listens on this machine alone. From another one: ssh -L, or a reverse proxy (docs/monitoring.md).",
		Example: "  tasuki console\n  tasuki console --print",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			link, err := a.client().ConsoleLink(cmd.Context())
			if err != nil {
				return err
			}
			fmt.Fprintln(a.stdout, link.URL)
			if show {
				return nil
			}
			a.adviseConsole(link)
			if opener := browserOpener(os.Getenv); opener != "" && terminal(a.stdout) {
				return a.openConsole(opener, link)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&show, "print", false, "print the address alone, and open no browser")
	return cmd
}

// adviseConsole says how long the link is good, and how to use it from afar.
func (a *app) adviseConsole(link api.ConsoleLink) {
	fmt.Fprintf(a.stderr, "this address works once, until %s\n", link.Ends.Local().Format(time.TimeOnly))
	for _, name := range link.Hosts {
		fmt.Fprintf(a.stderr, "through the proxy: https://%s%s\n", name, link.Path)
	}
	if os.Getenv("SSH_CONNECTION") == "" {
		return
	}
	if _, port, err := net.SplitHostPort(link.Address); err == nil {
		host, _ := os.Hostname()
		fmt.Fprintf(a.stderr, "from where you sit: ssh -N -L %s:%s %s, then open it there\n", port, link.Address, host)
	}
}

// browserOpener is the program that opens a page for the person who sits at
// this machine; "" if nobody seems to.
func browserOpener(env func(string) string) string {
	switch {
	case env("SSH_CONNECTION") != "":
		return ""
	case runtime.GOOS == "darwin":
		return "/usr/bin/open"
	case env("DISPLAY") == "" && env("WAYLAND_DISPLAY") == "":
		return ""
	}
	path, err := proc.Look("xdg-open")
	if err != nil {
		return ""
	}
	return path
}

// openConsole opens the link by a page on the disk: a command line can be read
// by every user of the machine.
func (a *app) openConsole(opener string, link api.ConsoleLink) error {
	page := filepath.Join(a.home, "console.html")
	text := `<!doctype html><meta charset="utf-8"><title>Tasuki</title><meta http-equiv="refresh" content="0; url=` +
		html.EscapeString(link.URL) + `"><p><a href="` + html.EscapeString(link.URL) + `">Open the console</a></p>` + "\n"
	if err := atomicfile.Write(page, []byte(text), 0o600); err != nil {
		return fmt.Errorf("cannot open a browser: %w", err)
	}
	if _, err := proc.Detach(proc.Cmd{Path: opener, Args: []string{page}}, os.DevNull); err != nil && !errors.Is(err, fs.ErrNotExist) { // one that is done already is well
		return withHint(fmt.Errorf("cannot open a browser: %w", err), "open the address yourself")
	}
	return nil
}
