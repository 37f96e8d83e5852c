package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mirego/tasuki/internal/agent"
	"github.com/mirego/tasuki/internal/config"
	"github.com/mirego/tasuki/internal/journal"
	"github.com/mirego/tasuki/internal/runner"
)

func newGitHubRunners(a *app) *cobra.Command {
	var file string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "runners",
		Short: "List the runners that GitHub knows in the scopes of the pools",
		Long: "List the runners that GitHub knows in the scopes of the pools. \"ours\" were registered from this home;\n" +
			"one without a record is backed by no guest.",
		Example: "  tasuki github runners --config host.yaml",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := interruptible(cmd.Context())
			defer stop()
			return a.listGitHubRunners(ctx, file, asJSON)
		},
	}
	configFlag(cmd, &file)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print them as JSON")
	cmd.AddCommand(newGitHubPrune(a))
	return cmd
}

func newGitHubPrune(a *app) *cobra.Command {
	var file string
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "prune",
		Short: "Remove registrations of this home that no record backs",
		Long: "Remove registrations of this home that no record backs, as a crash or a lost reply leaves them. Busy runners\n" +
			"stay, and so do those of others. An agent that runs does the same by itself after some minutes.",
		Example: "  tasuki github runners prune --dry-run",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := interruptible(cmd.Context())
			defer stop()
			return a.pruneGitHubRunners(ctx, file, dryRun)
		},
	}
	configFlag(cmd, &file)
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only say what would be removed")
	return cmd
}

// listed is a runner that GitHub lists, and what we know of it.
type listed struct {
	Scope    string   `json:"scope"`
	URL      string   `json:"url"`
	ID       int64    `json:"id"`
	Name     string   `json:"name"`
	State    string   `json:"state"` // busy, idle or offline
	Ours     bool     `json:"ours"`
	Recorded bool     `json:"recorded"` // a record of this home backs it
	Version  string   `json:"version,omitempty"`
	Labels   []string `json:"labels"`

	at *place
}

// orphan says whether it is ours and nobody keeps it.
func (l listed) orphan() bool { return l.Ours && !l.Recorded }

const stateBusy = "busy"

// stateOf is a runner's state in a word. One that is offline and busy executes
// a job: GitHub loses sight of runners (incident offline-but-busy).
func stateOf(r runner.Remote) string {
	switch {
	case r.Busy:
		return stateBusy
	case r.Online:
		return "idle"
	}
	return "offline"
}

// gitHubRunners lists the runners of all places. Those of a place that does not
// answer are missing, and the error says so.
func gitHubRunners(ctx context.Context, cfg *config.Config, places []*place) (all []listed, err error) {
	installation, err := installationThere(cfg.Host.Home)
	if err != nil {
		return nil, err
	}
	var errs []error
	type key struct {
		url, scope string
		id         int64
	}
	seen := map[key]bool{} // two accounts may share a scope
	for _, p := range places {
		remotes, err := p.client.Runners(ctx)
		errs = append(errs, err)
		for _, r := range remotes {
			if k := (key{p.config.URL, strings.ToLower(p.scope), r.ID}); seen[k] {
				continue
			} else {
				seen[k] = true
			}
			all = append(all, listed{
				Scope: p.scope, URL: p.config.URL, ID: r.ID, Name: r.Name, State: stateOf(r), Version: r.Version, Labels: r.Labels, at: p,
				Ours: installation != "" && agent.Named(cfg.Host.Prefix, installation, r.Name),
			})
		}
	}
	// After the list: a runner is written down before GitHub hears of it.
	names, err := journal.Names(filepath.Join(cfg.Host.Home, "journal"))
	if err != nil {
		return nil, err
	}
	for i := range all {
		all[i].Recorded = all[i].Ours && names[all[i].Name]
	}
	slices.SortStableFunc(all, func(x, y listed) int {
		return strings.Compare(x.Scope+" "+x.Name, y.Scope+" "+y.Name)
	})
	return all, errors.Join(errs...)
}

func (a *app) listGitHubRunners(ctx context.Context, file string, asJSON bool) error {
	cfg, places, err := a.loadPlaces(file, false)
	if err != nil {
		return err
	}
	all, err := gitHubRunners(ctx, cfg, places)
	if err != nil && all == nil {
		return err
	}
	if asJSON {
		b, jsonErr := json.MarshalIndent(map[string]any{"runners": append([]listed{}, all...)}, "", "  ")
		if jsonErr != nil {
			return jsonErr
		}
		fmt.Fprintln(a.stdout, string(b))
		return err
	}
	style := statusStyle{width: width(a.stdout), colour: colours(a.stdout)}
	rows := [][]cell{header("RUNNER", "SCOPE", "STATE", "WHOSE", "VERSION", "LABELS")}
	for _, l := range all {
		whose, colour := "others'", dim
		switch {
		case l.Recorded:
			whose, colour = "ours", ""
		case l.Ours:
			whose, colour = "ours, no record", yellow
		}
		version := l.Version
		if version == "" {
			version = "-"
		}
		rows = append(rows, []cell{
			{text: oneLine(l.Name)}, {text: l.Scope}, {text: l.State}, {text: whose, colour: colour}, {text: oneLine(version)},
			{text: oneLine(strings.Join(l.Labels, ", ")), colour: dim},
		})
	}
	fmt.Fprint(a.stdout, style.table(rows))
	return err
}

func (a *app) pruneGitHubRunners(ctx context.Context, file string, dryRun bool) error {
	cfg, places, err := a.loadPlaces(file, false)
	if err != nil {
		return err
	}
	all, err := gitHubRunners(ctx, cfg, places)
	errs := []error{err}
	removed := 0
	for _, l := range all {
		switch {
		case !l.orphan():
		case l.State == stateBusy:
			fmt.Fprintf(a.stdout, "stays, since it is busy: %s (%s)\n", l.Name, l.Scope)
		case dryRun:
			removed++
			fmt.Fprintf(a.stdout, "would be removed: %s (%s, %s)\n", l.Name, l.Scope, l.State)
		default:
			switch err := l.at.client.Remove(ctx, l.ID); {
			case errors.Is(err, runner.ErrBusy):
				fmt.Fprintf(a.stdout, "stays, since it is busy: %s (%s)\n", l.Name, l.Scope)
			case err != nil:
				errs = append(errs, err)
			default:
				removed++
				fmt.Fprintf(a.stdout, "removed: %s (%s)\n", l.Name, l.Scope)
			}
		}
	}
	if removed == 0 && errors.Join(errs...) == nil {
		fmt.Fprintln(a.stderr, "nothing to remove")
	}
	return errors.Join(errs...)
}
