package cli

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mirego/tasuki/internal/config"
	"github.com/mirego/tasuki/internal/github"
	"github.com/mirego/tasuki/internal/github/scaleset"
)

type githubCheckFlags struct {
	file, repository string
	json, readOnly   bool
}

func newGitHubCheck(a *app) *cobra.Command {
	var f githubCheckFlags
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Walk the way of a registration, and say what is wrong with it",
		Long: "Walk the way that a registration takes, for every scope and runner group of the configuration: connection,\n" +
			"authentication, scope, permissions, repository, runner group, registration, rate limit. Each step is told\n" +
			"with what is wrong, how to mend it and the page to open. A runner is registered for a moment and removed\n" +
			"again, since GitHub has no other way to try it. The exit status is 1 if something is wrong.",
		Example: "  tasuki github check --config host.yaml --repository acme/app",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := interruptible(cmd.Context())
			defer stop()
			return a.checkGitHub(ctx, f)
		},
	}
	configFlag(cmd, &f.file)
	flags := cmd.Flags()
	flags.StringVar(&f.repository, "repository", "", "`owner/name` of a repository: do the runners of its organisation serve it?")
	flags.BoolVar(&f.readOnly, "read-only", false, "register no runner")
	flags.BoolVar(&f.json, "json", false, "print the findings as JSON")
	return cmd
}

// checked is what a check found at one place.
type checked struct {
	Account  string           `json:"account"`
	URL      string           `json:"url"`
	Scope    string           `json:"scope"`
	Group    string           `json:"group,omitempty"`
	Pools    []string         `json:"pools"`
	Findings []github.Finding `json:"findings"`
}

func (a *app) checkGitHub(ctx context.Context, f githubCheckFlags) error {
	if owner, name, ok := strings.Cut(f.repository, "/"); f.repository != "" && (!ok || owner == "" || name == "") {
		return withHint(fmt.Errorf("%q is not a repository", f.repository), "write --repository owner/name")
	}
	cfg, places, err := a.loadPlaces(f.file, true)
	if err != nil {
		return err
	}
	installation, err := installationThere(cfg.Host.Home)
	if err != nil {
		return err
	}
	listener := ""
	if !f.readOnly {
		listener = cmp.Or(installation, "check")
	}
	var all []checked
	wrong := false
	for _, p := range places {
		trial := github.Trial{Group: p.group, Labels: p.labels}
		if owner, _, _ := strings.Cut(f.repository, "/"); strings.EqualFold(owner, p.scope) {
			trial.Repository = f.repository
		}
		if !f.readOnly {
			trial.Runner = checkRunner(cfg, installation, func() string { return strings.ToLower(rand.Text()[:6]) })
		}
		c := checked{p.account, p.config.URL, p.scope, p.group, p.pools, p.client.Check(ctx, trial)}
		c.Findings = append(c.Findings, checkScaleSets(ctx, cfg, p, c.Findings, listener)...)
		if ctx.Err() != nil {
			return errors.New("interrupted")
		}
		for _, found := range c.Findings {
			wrong = wrong || found.Verdict == github.Wrong
		}
		all = append(all, c)
		if !f.json {
			fmt.Fprint(a.stdout, renderCheck(p, c, statusStyle{width: width(a.stdout), colour: colours(a.stdout)}))
		}
	}
	if f.json {
		b, err := json.MarshalIndent(map[string]any{"checks": all}, "", "  ")
		if err != nil {
			return err
		}
		fmt.Fprintln(a.stdout, string(b))
	}
	if wrong {
		return errNo
	}
	return nil
}

var verdictColours = map[github.Verdict]string{github.OK: green, github.Warning: yellow, github.Wrong: red, github.Unknown: dim}

func renderCheck(p *place, c checked, style statusStyle) string {
	var b strings.Builder
	b.WriteString(style.paint(bold, p.where()) + "\n")
	for _, f := range c.Findings {
		head := fmt.Sprintf("  %-7s  %-14s  ", f.Verdict, f.Step)
		b.WriteString(style.paint(verdictColours[f.Verdict], head) + oneLine(f.Text) + "\n")
		for _, more := range []struct{ label, text string }{{"mend: ", f.Mend}, {"page: ", f.Page}} {
			if more.text != "" {
				b.WriteString(strings.Repeat(" ", len(head)) + more.label + oneLine(more.text) + "\n")
			}
		}
	}
	return b.String()
}

// checkScaleSets looks at the scale sets of a place's pools, unless the way there
// is barred. With an installation it also sees who listens.
func checkScaleSets(ctx context.Context, cfg *config.Config, p *place, before []github.Finding, installation string) (all []github.Finding) {
	for _, f := range before {
		if f.Verdict == github.Wrong {
			return nil
		}
	}
	kept, err := scaleset.Read(scaleSetsDir(cfg.Host.Home))
	if err != nil {
		return []github.Finding{{Step: "scale set", Verdict: github.Wrong, Text: err.Error()}}
	}
	service := scaleset.NewService(p.client)
	for _, of := range cfg.Pools {
		if of.ScaleSet == nil || !slices.Contains(p.pools, of.Name) {
			continue
		}
		t := scaleset.Trial{Name: of.ScaleSet.Name, Group: of.Group, Labels: of.Labels, Installation: installation, Host: cfg.Host.Name}
		for _, k := range kept {
			if k.Pool == of.Name && !k.Draining && k.URL == p.client.Web() && k.Scope == p.scope {
				t.Kept = &k
			}
		}
		all = append(all, service.Check(ctx, t)...)
	}
	return all
}
