package cli

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/mirego/tasuki/internal/config"
	"github.com/mirego/tasuki/internal/github"
	"github.com/mirego/tasuki/internal/metrics"
	"github.com/mirego/tasuki/internal/runnerdist"
)

// gitHubs makes the clients of scopes, and gives the same again where nothing
// has changed. Scopes of one account share its tokens and its limits.
type gitHubs struct {
	log      *slog.Logger
	accounts map[string]*github.Account
	scopes   map[string]*github.Client

	mu     sync.Mutex
	used   map[string]*github.Client // by scope, those of the present configuration
	listen func(method, route string, status int, took time.Duration)
}

func newGitHubs(log *slog.Logger) *gitHubs {
	return &gitHubs{log: log, accounts: map[string]*github.Account{}, scopes: map[string]*github.Client{}}
}

// scope returns the client of one scope of an account.
func (g *gitHubs) scope(of config.Account, scope string) (*github.Client, error) {
	ca, err := readCA(of)
	if err != nil {
		return nil, err
	}
	key := fmt.Sprintf("%+v %x", of, sha256.Sum256(ca))
	account, ok := g.accounts[key]
	if !ok {
		if account, err = g.account(of, ca); err != nil {
			return nil, err
		}
		g.accounts[key] = account
	}
	key += " " + scope
	if c, ok := g.scopes[key]; ok {
		return c, nil
	}
	c, err := account.Scope(scope)
	if err == nil {
		g.scopes[key] = c
	}
	return c, err
}

func (g *gitHubs) account(of config.Account, ca []byte) (*github.Account, error) {
	opt := github.Options{Observe: g.observe, URL: of.URL, UserAgent: "tasuki/" + versionName(), Log: g.log, HTTP: http.DefaultTransport}
	if of.Proxy != "" || len(ca) > 0 {
		var err error
		if opt.HTTP, err = github.NewHTTP(github.Network{Proxy: of.Proxy, CA: ca}); err != nil {
			return nil, err
		}
	}
	switch {
	case !of.App.IsZero():
		opt.App = &github.App{ID: of.App.ID, Key: of.App.Key.Read, Installation: int64(of.App.Installation)}
	case !of.Token.IsZero():
		opt.Token = of.Token.Read
	}
	return github.NewAccount(opt)
}

func readCA(of config.Account) ([]byte, error) {
	if of.CA == "" {
		return nil, nil
	}
	ca, err := os.ReadFile(of.CA)
	if err != nil {
		return nil, fmt.Errorf("cannot read the authorities for GitHub: %w", err)
	}
	return bytes.TrimSpace(ca), nil
}

// readable says whether the account's secret can be read now.
func readable(ctx context.Context, of config.Account) error {
	if _, err := of.Token.Read(ctx); err != nil {
		return fmt.Errorf("github token: %w", err)
	}
	if _, err := of.App.Key.Read(ctx); err != nil {
		return fmt.Errorf("github app key: %w", err)
	}
	return nil
}

// accountName is what people call an account.
func accountName(p config.Pool) string {
	if p.GitHub == "" {
		return "github"
	}
	return p.GitHub
}

// use names the scopes of the present configuration.
func (g *gitHubs) use(scopes map[string]*github.Client) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.used = scopes
}

// tell names who hears of each request.
func (g *gitHubs) tell(listen func(method, route string, status int, took time.Duration)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.listen = listen
}

func (g *gitHubs) observe(c github.Call) {
	g.mu.Lock()
	listen := g.listen
	g.mu.Unlock()
	if listen != nil {
		listen(c.Method, c.Route, c.Status, c.Took)
	}
}

// inUse returns the present scopes with their names, in order.
func (g *gitHubs) inUse() (names []string, clients []*github.Client) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(g.used)) {
		names, clients = append(names, name), append(clients, g.used[name])
	}
	return names, clients
}

// sources are the GitHubs to ask for releases of the runner program.
func (g *gitHubs) sources() []runnerdist.Source {
	var out []runnerdist.Source
	_, clients := g.inUse()
	for _, c := range clients {
		out = append(out, c)
	}
	return out
}

// quotas returns what is left of GitHub's limits in every scope.
func (g *gitHubs) quotas() []metrics.Quota {
	var out []metrics.Quota
	names, clients := g.inUse()
	for i, c := range clients {
		for _, q := range c.Quota() {
			out = append(out, metrics.Quota{Scope: names[i], Resource: q.Bucket, Limit: q.Limit, Remaining: q.Remaining, Reset: q.Reset})
		}
	}
	return out
}
