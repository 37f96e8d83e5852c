package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/mirego/tasuki/internal/base/atomicfile"
	"github.com/mirego/tasuki/internal/base/proc"
	"github.com/mirego/tasuki/internal/base/secret"
	"github.com/mirego/tasuki/internal/config"
	"github.com/mirego/tasuki/internal/github"
)

const (
	// installPatience is how long init waits for the new App to be installed.
	installPatience = 10 * time.Minute
	// lookPatience bounds how long GitHub may take to say whose account it is.
	lookPatience = 20 * time.Second
)

// makeApp makes a GitHub App in the person's browser and writes its key beside
// the configuration, before anything else can go wrong: GitHub tells it once.
func (a *app) makeApp(ctx context.Context, f *initFlags, file string) (github.MadeApp, error) {
	log, err := a.logger()
	if err != nil {
		return github.MadeApp{}, err
	}
	account, err := github.NewAccount(github.Options{URL: f.url, UserAgent: "tasuki/" + versionName(), Log: log, HTTP: http.DefaultTransport})
	if err != nil {
		return github.MadeApp{}, err
	}
	if f.owner == "" {
		f.owner = organisation(ctx, account, f.scope)
	}
	key := filepath.Join(filepath.Dir(file), "github-app.pem")
	if err := free(key, f.force); err != nil {
		return github.MadeApp{}, withHint(fmt.Errorf("there is a key already: %s", key), "give it with --app-key and --app-id, or move it away")
	}
	l, err := listenTCP(ctx, "127.0.0.1:0")
	if err != nil {
		return github.MadeApp{}, err
	}
	owner, _, _ := strings.Cut(f.scope, "/")
	made, err := github.NewApp{Account: account, Scope: f.scope, Organisation: f.owner, Name: github.AppName(owner)}.Make(ctx, l, func(address string) {
		a.invite(ctx, "to make the App", address)
		if os.Getenv("SSH_CONNECTION") != "" {
			host := l.Addr().String()
			fmt.Fprintf(a.stderr, "  from another machine, first: ssh -L %s:%s THIS-MACHINE\n", host, host)
		}
	})
	if err != nil {
		return made, err
	}
	if err := atomicfile.Write(key, []byte(made.Key.Reveal()), 0o600); err != nil {
		return made, fmt.Errorf("the App %q was made and its key is lost: delete it at %s and try again: %w", made.Name, made.Page, err)
	}
	f.newApp, f.appID, f.appKey = true, appID(made), key
	fmt.Fprintf(a.stdout, "made the GitHub App %q, its key is in %s\n", made.Name, key)
	return made, nil
}

// appID is how the configuration names the App: older servers have no client id.
func appID(made github.MadeApp) string {
	if made.ClientID != "" {
		return made.ClientID
	}
	return fmt.Sprint(made.ID)
}

// organisation is the scope's owner if that is one; "" for a person, who owns
// the App by being signed in. Where GitHub does not say, the form of the scope does.
func organisation(ctx context.Context, account *github.Account, scope string) string {
	owner, _, two := strings.Cut(scope, "/")
	if !two {
		return owner
	}
	ctx, cancel := context.WithTimeoutCause(ctx, lookPatience, errors.New("GitHub takes too long"))
	defer cancel()
	if is, err := account.IsOrganisation(ctx, owner); err == nil && is {
		return owner
	}
	return ""
}

// invite asks the person to open a page, and opens it where there is a screen.
func (a *app) invite(ctx context.Context, what, address string) {
	fmt.Fprintf(a.stderr, "open this page %s:\n  %s\n", what, address)
	opener := ""
	switch {
	case !terminal(a.stderr) || os.Getenv("SSH_CONNECTION") != "":
	case runtime.GOOS == "darwin":
		opener = "open"
	case os.Getenv("DISPLAY") != "" || os.Getenv("WAYLAND_DISPLAY") != "":
		opener = "xdg-open"
	}
	if opener == "" {
		return
	}
	ctx, cancel := context.WithTimeoutCause(ctx, 5*time.Second, errors.New("the browser takes too long"))
	defer cancel()
	// It is a convenience: the address was said.
	_, _ = proc.Run(ctx, proc.Cmd{Path: opener, Args: []string{address}})
}

// awaitInstall waits until the new App is installed. The configuration stands
// already; what is missing is said.
func (a *app) awaitInstall(ctx context.Context, f initFlags, file string, made github.MadeApp) error {
	log, err := a.logger()
	if err != nil {
		return err
	}
	client, err := github.New(github.Options{
		URL: f.url, Scope: f.scope, UserAgent: "tasuki/" + versionName(), Log: log, HTTP: http.DefaultTransport,
		App: &github.App{ID: f.appID, Key: func(ctx context.Context) (secret.String, error) { return config.Source{File: f.appKey}.Read(ctx) }},
	})
	if err != nil {
		return err
	}
	a.invite(ctx, "to install the App", made.InstallPage())
	wait, cancel := context.WithTimeoutCause(ctx, installPatience, fmt.Errorf("not within %s", installPatience))
	defer cancel()
	if err := client.AwaitInstallation(wait); err != nil {
		return withHint(fmt.Errorf("the configuration is written, and the App is not installed yet: %w", err),
			"install it at "+made.InstallPage()+", then run tasuki github check --config "+file)
	}
	owner, _, _ := strings.Cut(f.scope, "/")
	fmt.Fprintf(a.stdout, "the App is installed for %s\n", owner)
	return nil
}
