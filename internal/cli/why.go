package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mirego/tasuki/internal/config"
	"github.com/mirego/tasuki/internal/why"
)

type whyFlags struct {
	file, repository string
	json             bool
}

func newWhy(a *app) *cobra.Command {
	var f whyFlags
	cmd := &cobra.Command{
		Use:   "why [JOB|POOL]",
		Short: "Say why a job or a pool waits",
		Long: "Say why a job or a pool of this host waits, and what to do about it. A job is the address of a job or of a run\n" +
			"at GitHub, owner/repository#ID, or an ID where the repository is clear. Without an argument: every pool.\n" +
			"For a job GitHub is asked with the configuration's credential, which needs Actions: read in its repository.",
		Example: "  tasuki why https://github.com/acme/app/actions/runs/123/job/456\n" +
			"  tasuki why acme/app#456\n" +
			"  tasuki why linux",
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop := interruptible(cmd.Context())
			defer stop()
			return a.why(ctx, f, strings.Join(args, ""))
		},
	}
	configFlag(cmd, &f.file)
	cmd.Flags().StringVar(&f.repository, "repository", "", "`owner/name` of the repository that a bare ID is of")
	cmd.Flags().BoolVar(&f.json, "json", false, "print the answers as JSON")
	return cmd
}

func (a *app) why(ctx context.Context, f whyFlags, arg string) error {
	cfg, err := a.loadHost(a.configFile([]string{f.file}))
	if err != nil {
		return err
	}
	t, err := whatFor(arg, f.repository, cfg)
	if err != nil {
		return err
	}
	g, err := a.newWhyFacts(ctx, cfg)
	if err != nil {
		return err
	}
	var answers []why.Answer
	if t.repository == "" {
		for _, p := range cfg.Pools {
			if t.pool == "" || t.pool == p.Name {
				answers = append(answers, g.pool(p.Name))
			}
		}
	} else if answers, err = g.jobs(ctx, t); err != nil {
		return err
	}
	return a.tellWhy(answers, f.json)
}

func (a *app) tellWhy(answers []why.Answer, asJSON bool) error {
	if asJSON {
		b, err := json.MarshalIndent(map[string]any{"answers": answers}, "", "  ")
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(a.stdout, string(b))
		return err
	}
	style := statusStyle{width: width(a.stdout), colour: colours(a.stdout)}
	for _, answer := range answers {
		if _, err := fmt.Fprint(a.stdout, renderWhy(answer, style)); err != nil {
			return err
		}
	}
	return nil
}

func renderWhy(answer why.Answer, style statusStyle) string {
	colour := green
	if answer.Waits {
		colour = yellow
	}
	var b strings.Builder
	b.WriteString(style.paint(bold, oneLine(answer.Subject)) + ": " + style.paint(colour, oneLine(answer.Text)) + "\n")
	for _, d := range answer.Details {
		b.WriteString("  " + oneLine(d) + "\n")
	}
	for _, more := range []struct{ label, text string }{{"mend: ", answer.Mend}, {"page: ", answer.Page}} {
		if more.text != "" {
			b.WriteString("  " + more.label + oneLine(more.text) + "\n")
		}
	}
	return b.String()
}

// asked is what somebody asks for: the pool of that name, all pools, or a job
// or a run of a repository.
type asked struct {
	pool       string
	host       string // of GitHub, where an address named it
	repository string
	run, job   int64
	either     bool // job may be a run's id
}

// whatFor reads what somebody asks for.
func whatFor(arg, repository string, cfg *config.Config) (asked, error) {
	if arg == "" || slices.ContainsFunc(cfg.Pools, func(p config.Pool) bool { return p.Name == arg }) {
		return asked{pool: arg}, nil
	}
	if strings.Contains(arg, "://") {
		return fromAddress(arg)
	}
	t := asked{repository: repository, either: true}
	id := arg
	if name, after, ok := strings.Cut(arg, "#"); ok {
		t.repository, id = name, after
	}
	n, err := strconv.ParseInt(id, 10, 64)
	if err != nil || n <= 0 {
		var names []string
		for _, p := range cfg.Pools {
			names = append(names, p.Name)
		}
		return asked{}, withHint(fmt.Errorf("%q is neither a pool nor a job", arg),
			"name a pool ("+strings.Join(names, ", ")+"), the address of a job, or owner/repository#ID")
	}
	t.job = n
	if t.repository == "" {
		t.repository = onlyRepository(cfg)
	}
	if owner, name, ok := strings.Cut(t.repository, "/"); !ok || owner == "" || name == "" || strings.Contains(name, "/") {
		return asked{}, withHint(fmt.Errorf("it is not clear of which repository job %d is", n), "write owner/repository#ID, or the job's address")
	}
	return t, nil
}

// onlyRepository is the one repository that the pools are for; "" if there is
// another scope.
func onlyRepository(cfg *config.Config) string {
	only := ""
	for _, p := range cfg.Pools {
		if !strings.Contains(p.Scope, "/") || strings.HasPrefix(p.Scope, "enterprises/") || only != "" && only != p.Scope {
			return ""
		}
		only = p.Scope
	}
	return only
}

// fromAddress reads the address of a job or a run, as a browser shows it:
// https://HOST/OWNER/REPOSITORY/actions/runs/RUN[/attempts/N][/job/JOB].
func fromAddress(address string) (asked, error) {
	bad := withHint(fmt.Errorf("%q is not the address of a job or a run", address),
		"copy it from the browser: https://github.com/OWNER/REPOSITORY/actions/runs/RUN/job/JOB")
	u, err := url.Parse(address)
	if err != nil || u.Host == "" {
		return asked{}, bad
	}
	parts := strings.Split(strings.Trim(u.Path, "/"), "/")
	if len(parts) < 4 {
		return asked{}, bad
	}
	t := asked{host: u.Host, repository: parts[0] + "/" + parts[1]}
	for i := 2; i+1 < len(parts); i++ {
		n, err := strconv.ParseInt(parts[i+1], 10, 64)
		if err != nil || n <= 0 {
			continue
		}
		switch parts[i] {
		case "runs":
			t.run = n
		case "job", "jobs":
			t.job = n
		}
	}
	if t.run == 0 && t.job == 0 {
		return asked{}, bad
	}
	return t, nil
}
