package cli

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"net/http"
	"os"

	"github.com/mirego/tasuki/internal/config"
	"github.com/mirego/tasuki/internal/github"
)

// gitHubs makes the clients of scopes, and gives the same again where nothing
// has changed. Scopes of one account share its tokens and its limits.
type gitHubs struct {
	log      *slog.Logger
	accounts map[string]*github.Account
	scopes   map[string]*github.Client
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
	opt := github.Options{URL: of.URL, UserAgent: "tasuki/" + versionName(), Log: g.log, HTTP: http.DefaultTransport}
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
