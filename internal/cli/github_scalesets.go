package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mirego/tasuki/internal/config"
	"github.com/mirego/tasuki/internal/github/scaleset"
	"github.com/mirego/tasuki/internal/runner"
)

func newGitHubScaleSets(a *app) *cobra.Command {
	var file string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "scalesets",
		Short: "List the scale sets that GitHub knows in the scopes of the pools",
		Long: "List the scale sets that GitHub knows in the scopes of the pools, with the jobs and runners of each. \"pool\n" +
			"NAME\" is served by that pool of this home; the others are of other hosts.",
		Example: "  tasuki github scalesets --config host.yaml",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := interruptible(cmd.Context())
			defer stop()
			return a.listScaleSets(ctx, file, asJSON)
		},
	}
	configFlag(cmd, &file)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print them as JSON")
	cmd.AddCommand(newScaleSetPrune(a))
	return cmd
}

func newScaleSetPrune(a *app) *cobra.Command {
	var file string
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "prune",
		Short: "Delete scale sets that this home made and no pool serves any more",
		Long: "Delete scale sets that this home made and no pool of the configuration serves any more: the pool was removed,\n" +
			"is on standby now, or registers elsewhere. A set whose runners execute jobs stays. Jobs that are assigned to\n" +
			"it and did not start are queued again.",
		Example: "  tasuki github scalesets prune --dry-run",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := interruptible(cmd.Context())
			defer stop()
			return a.pruneScaleSets(ctx, file, dryRun)
		},
	}
	configFlag(cmd, &file)
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only say what would be deleted")
	return cmd
}

// listedSet is a scale set that GitHub lists.
type listedSet struct {
	URL   string `json:"url"`
	Scope string `json:"scope"`
	Pool  string `json:"pool,omitempty"` // of this home; empty: it is others'
	scaleset.Figure
}

func (a *app) listScaleSets(ctx context.Context, file string, asJSON bool) error {
	cfg, places, err := a.loadPlaces(file, false)
	if err != nil {
		return err
	}
	kept, err := scaleset.Read(scaleSetsDir(cfg.Host.Home))
	if err != nil {
		return err
	}
	all := []listedSet{}
	var errs []error
	for _, p := range places {
		sets, err := scaleset.NewService(p.client).List(ctx)
		errs = append(errs, err)
		for _, f := range sets {
			l := listedSet{URL: p.client.Web(), Scope: p.scope, Figure: f}
			for _, k := range kept {
				if k.ID == f.ID && k.URL == l.URL && strings.EqualFold(k.Scope, l.Scope) {
					l.Pool = k.Pool
				}
			}
			all = append(all, l)
		}
	}
	slices.SortStableFunc(all, func(x, y listedSet) int { return cmp.Or(cmp.Compare(x.Scope, y.Scope), cmp.Compare(x.Name, y.Name)) })
	if asJSON {
		b, err := json.MarshalIndent(map[string]any{"scalesets": all}, "", "  ")
		if err != nil {
			return err
		}
		fmt.Fprintln(a.stdout, string(b))
		return errors.Join(errs...)
	}
	style := statusStyle{width: width(a.stdout), colour: colours(a.stdout)}
	rows := [][]cell{header("SET", "ID", "SCOPE", "GROUP", "WHOSE", "WAITING", "RUNNING", "IDLE", "LABELS")}
	for _, l := range all {
		whose, colour := "others'", dim
		if l.Pool != "" {
			whose, colour = "pool "+l.Pool, ""
		}
		rows = append(rows, []cell{
			{text: oneLine(l.Name)}, {text: fmt.Sprint(l.ID)}, {text: l.Scope}, {text: oneLine(l.Group)}, {text: whose, colour: colour},
			{text: fmt.Sprint(l.Waiting)}, {text: fmt.Sprint(l.Running)}, {text: fmt.Sprint(l.Idle)}, {text: oneLine(strings.Join(l.Labels, ", ")), colour: dim},
		})
	}
	fmt.Fprint(a.stdout, style.table(rows))
	return errors.Join(errs...)
}

func (a *app) pruneScaleSets(ctx context.Context, file string, dryRun bool) error {
	cfg, places, err := a.loadPlaces(file, false)
	if err != nil {
		return err
	}
	kept, err := scaleset.Read(scaleSetsDir(cfg.Host.Home))
	if err != nil {
		return err
	}
	var errs []error
	found := false
	for _, k := range kept {
		if !k.Made || served(cfg, places, k) {
			continue
		}
		found = true
		words := fmt.Sprintf("%s (%d) of %s, once of pool %s", k.Name, k.ID, k.Scope, k.Pool)
		if dryRun {
			fmt.Fprintln(a.stdout, "would be deleted: "+words)
			continue
		}
		errs = append(errs, a.deleteSet(ctx, cfg, k, words))
	}
	if !found {
		fmt.Fprintln(a.stderr, "nothing to delete")
	}
	return errors.Join(errs...)
}

// served says whether a pool of the configuration serves the set, or lets it
// drain.
func served(cfg *config.Config, places []*place, k scaleset.Kept) bool {
	for _, p := range cfg.Pools {
		if p.Name != k.Pool || p.ScaleSet == nil || !strings.EqualFold(p.Scope, k.Scope) {
			continue
		}
		for _, at := range places {
			if at.account == accountName(p) && at.scope == p.Scope {
				return at.client.Web() == k.URL
			}
		}
	}
	return false
}

// deleteSet deletes a set with the credential of an account that is configured
// for its GitHub.
func (a *app) deleteSet(ctx context.Context, cfg *config.Config, k scaleset.Kept, words string) error {
	log, err := a.logger()
	if err != nil {
		return err
	}
	accounts := []config.Account{cfg.GitHub.Account}
	for _, n := range cfg.GitHub.Accounts {
		accounts = append(accounts, n.Account)
	}
	clients := newGitHubs(log)
	last := withHint(fmt.Errorf("cannot delete scale set %s: no account is configured for %s", words, k.URL), "add one under github.accounts")
	for _, account := range accounts {
		client, err := clients.scope(account, k.Scope)
		if err != nil || client.Web() != k.URL {
			continue
		}
		switch err := scaleset.NewService(client).Delete(ctx, k.ID); {
		case errors.Is(err, runner.ErrBusy):
			fmt.Fprintln(a.stdout, "stays, since its runners execute jobs: "+words)
			return nil
		case err == nil:
			fmt.Fprintln(a.stdout, "deleted: "+words)
			return scaleset.Forget(k)
		default:
			last = err
		}
	}
	return last
}
