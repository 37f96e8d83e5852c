package cli

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"github.com/mirego/tasuki/internal/config"
	"github.com/mirego/tasuki/internal/github"
)

func newGitHubGroup(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "github",
		Short: "Check the way to GitHub, and look at its runners",
	}
	cmd.AddCommand(newGitHubCheck(a), newGitHubRunners(a), newGitHubScaleSets(a))
	return cmd
}

// place is one scope of one account, with the pools that register there.
type place struct {
	account string // "github", or the account's name
	config  config.Account
	scope   string
	group   string
	labels  []string // of the first pool
	pools   []string
	client  *github.Client
}

// places returns where the configured pools register, each once. With groups,
// a scope counts once for each runner group.
func (a *app) places(cfg *config.Config, groups bool) ([]*place, error) {
	log, err := a.logger()
	if err != nil {
		return nil, err
	}
	clients := newGitHubs(log)
	var out []*place
	for _, p := range cfg.Pools {
		group := ""
		if groups {
			group = p.Group
		}
		i := slices.IndexFunc(out, func(o *place) bool {
			return o.account == accountName(p) && o.scope == p.Scope && o.group == group
		})
		if i >= 0 {
			out[i].pools = append(out[i].pools, p.Name)
			continue
		}
		o := &place{account: accountName(p), config: *cfg.Account(p.GitHub), scope: p.Scope, group: group, labels: p.Labels, pools: []string{p.Name}}
		if o.client, err = clients.scope(o.config, p.Scope); err != nil {
			return nil, err
		}
		out = append(out, o)
	}
	slices.SortStableFunc(out, func(x, y *place) int {
		return cmp.Or(cmp.Compare(x.account, y.account), cmp.Compare(x.scope, y.scope), cmp.Compare(x.group, y.group))
	})
	return out, nil
}

// loadPlaces reads the configuration and where its pools register.
func (a *app) loadPlaces(file string, groups bool) (*config.Config, []*place, error) {
	cfg, err := a.loadHost(a.configFile([]string{file}))
	if err != nil {
		return nil, nil, err
	}
	places, err := a.places(cfg, groups)
	return cfg, places, err
}

// installationThere returns the installation of a home, "" if it never had an
// agent. Unlike installationOf it makes none.
func installationThere(home string) (string, error) {
	if _, err := os.Stat(filepath.Join(home, "installation")); errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return installationOf(home)
}

func configFlag(cmd *cobra.Command, file *string) {
	cmd.Flags().StringVarP(file, "config", "c", "", "configuration `file` (default config.yaml in --home)")
}

// where is how people tell places apart.
func (p *place) where() string {
	text := p.scope
	if p.group != "" {
		text += ", group " + p.group
	}
	return fmt.Sprintf("%s at %s", text, p.config.URL)
}

// checkRunner is the name of the runner that a check registers for a moment. It
// is ours, so that an agent takes it away should the check be cut off.
func checkRunner(cfg *config.Config, installation string, random func() string) string {
	return fmt.Sprintf("%s-%s-%s-check-%s", cfg.Host.Prefix, cfg.Host.Name, cmp.Or(installation, "check"), random())
}
