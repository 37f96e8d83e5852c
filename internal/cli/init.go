package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mirego/tasuki/internal/base/atomicfile"
	"github.com/mirego/tasuki/internal/base/human"
	"github.com/mirego/tasuki/internal/base/machine"
	"github.com/mirego/tasuki/internal/config"
	"github.com/mirego/tasuki/internal/github"
)

// initAnswers are what a first configuration is made from.
type initAnswers struct {
	url, scope string

	tokenEnv, tokenFile, tokenCommand string
	appID, appKey                     string
	newApp                            bool
	owner                             string // of the new App

	pool, image, driver string
	labels              []string
	slots, standby      int
	cpus, memoryGiB     int
}

type initFlags struct {
	initAnswers
	file       string
	force, yes bool
	noWait     bool
}

func newInit(a *app) *cobra.Command {
	var f initFlags
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Write a first configuration",
		Long: "Write a first configuration, with comments, for this machine. On a terminal it asks what the flags do not say;\n" +
			"otherwise, or with --yes, the flags say everything. --new-app makes a GitHub App in your browser: GitHub shows what\n" +
			"it may do, you agree, its key is written beside the configuration, and you install it.",
		Example: "  tasuki init\n" +
			"  tasuki init --scope acme --new-app --image registry.example.com/runners/debian:stable\n" +
			"  tasuki init --yes --scope acme/app --token-file /etc/tasuki/token --image registry.example.com/runners/debian:stable",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := interruptible(cmd.Context())
			defer stop()
			var ask *asker
			if !f.yes && terminal(a.stdout) && terminalIn(a.stdin) {
				ask = newAsker(a.stdin, a.stderr)
			}
			return a.init(ctx, f, ask)
		},
	}
	configFlag(cmd, &f.file)
	flags := cmd.Flags()
	flags.BoolVar(&f.force, "force", false, "replace a configuration that is there")
	flags.BoolVarP(&f.yes, "yes", "y", false, "ask nothing")
	flags.StringVar(&f.url, "url", "", "GitHub's `address` (default https://github.com)")
	flags.StringVar(&f.scope, "scope", "", "where runners register: `owner/repository`, organisation or enterprises/name; an address does too")
	flags.StringVar(&f.tokenEnv, "token-env", "", "environment `variable` with a token")
	flags.StringVar(&f.tokenFile, "token-file", "", "`file` with a token, mode 0600")
	flags.StringVar(&f.tokenCommand, "token-command", "", "`program`, with arguments, that prints a token: \"gh auth token\"")
	flags.StringVar(&f.appID, "app-id", "", "`id` of a GitHub App, or its client id")
	flags.StringVar(&f.appKey, "app-key", "", "`file` with the App's private key, mode 0600")
	flags.BoolVar(&f.newApp, "new-app", false, "make a GitHub App in your browser")
	flags.StringVar(&f.owner, "app-owner", "", "`organisation` that shall own the new App (default: the scope's owner, if it is one)")
	flags.BoolVar(&f.noWait, "no-wait", false, "do not wait until the new App is installed")
	flags.StringVar(&f.pool, "pool", "", "`name` of the pool (default linux, or macos)")
	flags.StringVar(&f.image, "image", "", "guest image: `host/name:tag`")
	flags.StringVar(&f.driver, "driver", "", "what runs the guests: qemu, tart or fake")
	flags.StringSliceVar(&f.labels, "label", nil, "`labels` beside self-hosted, the system and the architecture")
	flags.IntVar(&f.slots, "slots", 0, "guests at once; 0: what fits this machine")
	flags.IntVar(&f.standby, "standby", 1, "how many runners wait for a job")
	return cmd
}

// init writes a configuration; ask is nil where nobody is there to answer.
func (a *app) init(ctx context.Context, f initFlags, ask *asker) error {
	file := a.configFile([]string{f.file})
	if err := free(file, f.force); err != nil {
		return err
	}
	if err := f.fromAddress(); err != nil {
		return err
	}
	if ask != nil {
		if err := f.ask(ask); err != nil {
			return err
		}
	}
	f.fit(runtime.GOOS, runtime.NumCPU(), machine.Memory())
	if err := f.complete(); err != nil {
		return err
	}
	// What is wrong is found before anything is written, and before GitHub is
	// asked for an App.
	trial := f.initAnswers
	if trial.newApp {
		trial.tokenEnv = "TOKEN"
	}
	if err := trial.check(file); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return fmt.Errorf("cannot make the folder of the configuration: %w", err)
	}
	var made github.MadeApp
	if f.newApp {
		var err error
		if made, err = a.makeApp(ctx, &f, file); err != nil {
			return err
		}
	}
	if err := a.writeConfig(f, file); err != nil {
		return err
	}
	if f.newApp && !f.noWait {
		if err := a.awaitInstall(ctx, f, file, made); err != nil {
			return err
		}
	}
	fmt.Fprint(a.stdout, nextCommands(a, file))
	return nil
}

func (a *app) writeConfig(f initFlags, file string) error {
	if err := free(file, f.force); err != nil {
		return err
	}
	if err := atomicfile.Write(file, f.yaml(), 0o600); err != nil {
		return err
	}
	cfg, err := config.Load(file)
	if err != nil {
		return err
	}
	p := cfg.Pools[0]
	fmt.Fprintf(a.stdout, "wrote %s: pool %q for %s, %s of %s and %s each\n",
		file, p.Name, p.Scope, human.Count(cfg.Host.Slots, "slot"), human.Count(p.CPUs, "processor"), p.Memory)
	return nil
}

// free returns an error if the file is there and shall stay.
func free(file string, force bool) error {
	_, err := os.Lstat(file)
	switch {
	case errors.Is(err, fs.ErrNotExist) || err == nil && force:
		return nil
	case err != nil:
		return fmt.Errorf("cannot look at %q: %w", file, err)
	}
	return withHint(fmt.Errorf("there is a configuration already: %s", file), "--force replaces it, --config writes another")
}

// nextCommands are what to type now.
func nextCommands(a *app, file string) string {
	flag := ""
	if file != filepath.Join(a.home, "config.yaml") || a.homeGiven {
		flag = " --config " + file
	}
	return "next:\n  tasuki github check" + flag + "\n  tasuki host run" + flag + "\n"
}

// fromAddress takes the scope out of an address, as a browser shows it.
func (f *initAnswers) fromAddress() error {
	if !strings.Contains(f.scope, "://") {
		return nil
	}
	u, err := url.Parse(f.scope)
	scope := ""
	if err == nil {
		scope = strings.Trim(u.Path, "/")
		if u.Path = ""; f.url == "" {
			f.url = (&url.URL{Scheme: u.Scheme, Host: u.Host}).String()
		}
	}
	if err != nil || scope == "" {
		return withHint(fmt.Errorf("%q names no organisation and no repository", f.scope), "write --scope https://github.com/acme, or acme/app")
	}
	f.scope = strings.TrimPrefix(strings.TrimPrefix(scope, "orgs/"), "organizations/")
	return nil
}

// credentials counts the credentials that were given.
func (f *initAnswers) credentials() int {
	n := 0
	for _, given := range []bool{f.tokenEnv != "", f.tokenFile != "", f.tokenCommand != "", f.appID != "" || f.appKey != "", f.newApp} {
		if given {
			n++
		}
	}
	return n
}

// complete says what is missing or does not go together.
func (f *initAnswers) complete() error {
	switch {
	case f.scope == "":
		return withHint(errors.New("it is not said where the runners register"), "add --scope owner/repository, or an organisation")
	case f.image == "":
		return withHint(errors.New("it is not said what the guests are made from"), "add --image host/name:tag; docs/guest.md says how to get one")
	case f.credentials() > 1:
		return withHint(errors.New("more than one credential is given"), "keep one of --new-app, --app-id with --app-key, --token-env, --token-file and --token-command")
	case (f.appID == "") != (f.appKey == ""):
		return withHint(errors.New("a GitHub App has an id and a key"), "give both --app-id and --app-key")
	case f.credentials() == 0 && !strings.HasPrefix(f.url, "http://"):
		return withHint(errors.New("there is no credential for GitHub"), "add --new-app, --app-id with --app-key, --token-env, --token-file or --token-command")
	}
	return nil
}
