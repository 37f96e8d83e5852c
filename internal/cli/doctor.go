package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"runtime"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mirego/tasuki/internal/base/human"
	"github.com/mirego/tasuki/internal/base/problem"
	"github.com/mirego/tasuki/internal/config"
	"github.com/mirego/tasuki/internal/doctor"
	"github.com/mirego/tasuki/internal/github"
	"github.com/mirego/tasuki/internal/vm"
	"github.com/mirego/tasuki/internal/vm/qemu"
)

type doctorFlags struct {
	file string
	json bool
	// offline asks nobody but this machine.
	offline bool
}

func newDoctor(a *app) *cobra.Command {
	var f doctorFlags
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Say what keeps this machine from running guests well",
		Long: "Look at this machine, the configuration, GitHub and the registries, and say of each how it stands: what was\n" +
			"found, why it matters and what mends it. Nothing is changed. Without a configuration it looks at the machine\n" +
			"alone. The exit status is 1 if there is a problem; warnings leave it 0.",
		Example: "  tasuki doctor --config host.yaml\n  tasuki host setup --dry-run",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := interruptible(cmd.Context())
			defer stop()
			return a.runDoctor(ctx, f)
		},
	}
	configFlag(cmd, &f.file)
	cmd.Flags().BoolVar(&f.json, "json", false, "print the findings as JSON")
	cmd.Flags().BoolVar(&f.offline, "offline", false, "ask neither GitHub nor registries")
	return cmd
}

func (a *app) runDoctor(ctx context.Context, f doctorFlags) error {
	cfg, found, err := a.configFindings(f.file)
	if err != nil {
		return err
	}
	host, err := a.doctorHost(cfg, true)
	if err != nil {
		return err
	}
	found = append(found, doctor.Examine(ctx, doctor.Here{}, host)...)
	if cfg != nil && !f.offline {
		found = append(found, a.registryFindings(ctx, cfg)...)
		found = append(found, a.githubFindings(ctx, f.file)...)
	}
	if ctx.Err() != nil {
		return errors.New("interrupted")
	}
	if f.json {
		b, err := json.MarshalIndent(map[string]any{"findings": found}, "", "  ")
		if err != nil {
			return err
		}
		fmt.Fprintln(a.stdout, string(b))
	} else {
		fmt.Fprint(a.stdout, renderFindings(found, statusStyle{width: width(a.stdout), colour: colours(a.stdout)}))
	}
	if doctor.Worst(found) == doctor.Problem {
		return errNo
	}
	return nil
}

// configFindings reads the configuration, nil if there is none and none was
// named.
func (a *app) configFindings(file string) (*config.Config, []doctor.Finding, error) {
	path := a.configFile([]string{file})
	cfg, err := a.loadHost(path)
	problems, wrong := errors.AsType[problem.List](err)
	switch {
	case err == nil:
		return cfg, []doctor.Finding{{Check: "configuration", Level: doctor.Well, Seen: path + " is well"}}, nil
	case file == "" && errors.Is(err, fs.ErrNotExist):
		return nil, []doctor.Finding{{Check: "configuration", Level: doctor.Unknown, Seen: path + " is not there", Mend: "tasuki init writes one"}}, nil
	case !wrong:
		return nil, nil, err
	}
	var found []doctor.Finding
	for _, p := range problems {
		mend := cmp.Or(p.Mend, "correct it, then: tasuki config check "+path)
		p.Mend = ""
		found = append(found, doctor.Finding{Check: "configuration", Level: doctor.Problem, Seen: p.Error(),
			Why: "the agent does not start with it", Mend: mend})
	}
	return nil, found, nil
}

// doctorHost is what the checks must know of the agent of this machine. A
// trial boots a guest to see how guests run.
func (a *app) doctorHost(cfg *config.Config, trial bool) (doctor.Host, error) {
	me, err := user.Current()
	if err != nil {
		return doctor.Host{}, fmt.Errorf("cannot say who we are: %w", err)
	}
	h := doctor.Host{OS: runtime.GOOS, User: me.Username, UID: os.Getuid(), Home: a.home, Drivers: []string{"qemu"}, Slots: 1, Internet: true}
	if h.OS == "darwin" {
		h.Drivers, h.Internet = []string{"tart"}, false
	}
	if cfg != nil {
		describeHost(&h, cfg)
	}
	// Root looks for the one who runs the agent: who owns its home.
	if owner := ownerOf(h.Home); h.OS == "linux" && h.UID == 0 && owner != "" {
		if who, err := user.Lookup(owner); err == nil {
			h.User, h.UID = owner, uid(who)
		}
	}
	if trial && h.OS != "darwin" && slices.Contains(h.Drivers, "qemu") {
		h.Accel, h.AccelReason = trialBoot(cfg)
	}
	return h, nil
}

// describeHost takes over what the configuration says. Each slot may hold the
// largest guest.
func describeHost(h *doctor.Host, cfg *config.Config) {
	h.Home, h.Slots, h.Drivers, h.Internet = cfg.Host.Home, cfg.Host.Slots, nil, false
	var largest int64
	for _, s := range cfg.Specs() {
		if !slices.Contains(h.Drivers, s.Driver) {
			h.Drivers = append(h.Drivers, s.Driver)
		}
		h.Internet = h.Internet || s.Driver == "qemu" && s.Network.Mode == vm.Internet
		h.Softnet = h.Softnet || s.Driver == "tart" && !s.Machine.OpenNetwork
		h.Open = h.Open || s.Driver == "tart" && s.Machine.OpenNetwork
		largest = max(largest, int64(s.MemoryMiB)<<20)
	}
	h.GuestMemory = largest * int64(h.Slots)
	h.Secrets = secretFiles(cfg)
}

// secretFiles are the files that a configuration names for what is secret.
func secretFiles(cfg *config.Config) []string {
	var out []string
	add := func(s config.Source) {
		if s.File != "" && !slices.Contains(out, s.File) {
			out = append(out, s.File)
		}
	}
	add(cfg.GitHub.Token)
	add(cfg.GitHub.App.Key)
	for _, acc := range cfg.GitHub.Accounts {
		add(acc.Token)
		add(acc.App.Key)
	}
	add(cfg.Metrics.Token)
	for _, r := range cfg.Registries {
		add(r.Password)
	}
	return out
}

// trialBoot lets the driver find out how guests run here.
func trialBoot(cfg *config.Config) (accel, reason string) {
	dir, err := os.MkdirTemp("", "tasuki-doctor-")
	if err != nil {
		return "", ""
	}
	defer func() { _ = os.RemoveAll(dir) }()
	want := "auto"
	if cfg != nil {
		want = cfg.Host.Accel
	}
	d, err := qemu.New(qemu.Options{Home: dir, Installation: "doctor", Prefix: "doctor-", Accel: want})
	if err != nil {
		return "", "" // what is missing, a check of its own says
	}
	c := d.Capabilities()
	return c.Accel, c.AccelReason
}

var githubLevels = map[github.Verdict]doctor.Level{
	github.OK: doctor.Well, github.Warning: doctor.Warning, github.Wrong: doctor.Problem, github.Unknown: doctor.Unknown,
}

// githubFindings walks the way of a registration for each scope, without
// registering.
func (a *app) githubFindings(ctx context.Context, file string) []doctor.Finding {
	_, places, err := a.loadPlaces(file, true)
	if err != nil {
		return []doctor.Finding{{Check: "github", Level: doctor.Problem, Seen: err.Error(), Mend: "tasuki github check"}}
	}
	var out []doctor.Finding
	for _, p := range places {
		for _, g := range p.client.Check(ctx, github.Trial{Group: p.group, Labels: p.labels}) {
			mend := g.Mend
			if g.Page != "" {
				mend = strings.TrimPrefix(mend+"\n"+g.Page, "\n")
			}
			out = append(out, doctor.Finding{Check: "github: " + g.Step, Level: githubLevels[g.Verdict],
				Seen: p.where() + ": " + g.Text, Mend: mend})
		}
	}
	return out
}

var levelColours = map[doctor.Level]string{doctor.Well: green, doctor.Warning: yellow, doctor.Problem: red, doctor.Unknown: dim}

func renderFindings(found []doctor.Finding, style statusStyle) string {
	var b strings.Builder
	counts := map[doctor.Level]int{}
	widest := 0
	for _, f := range found {
		widest = max(widest, len(f.Check))
	}
	for _, f := range found {
		counts[f.Level]++
		head := fmt.Sprintf("%-7s  %-*s  ", f.Level, widest, f.Check)
		b.WriteString(style.paint(levelColours[f.Level], head) + oneLine(f.Seen) + "\n")
		indent := strings.Repeat(" ", len(head))
		if f.Why != "" {
			b.WriteString(indent + "why:  " + oneLine(f.Why) + "\n")
		}
		label := "mend: "
		for line := range strings.Lines(f.Mend) {
			b.WriteString(indent + label + strings.TrimSpace(line) + "\n")
			label = "      "
		}
	}
	fmt.Fprintf(&b, "\n%s, %s, %d not known, %d well\n", human.Count(counts[doctor.Problem], "problem"), human.Count(counts[doctor.Warning], "warning"),
		counts[doctor.Unknown], counts[doctor.Well])
	return b.String()
}
