package recipe

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"

	"github.com/mirego/tasuki/internal/guest"
	"github.com/mirego/tasuki/internal/image"
)

// Where the parts of a step lie in the guest while it runs. A fake guest is a
// folder of this host, so its files stay within it.
const (
	scratch     = "/tmp/tasuki-build"
	scratchFake = "~/.tasuki-build"
)

func (g *machine) scratch(file string) string {
	dir := scratch
	if g.b.fake() {
		dir = scratchFake
	}
	return path.Join(dir, file)
}

// run does one step. A failure is a *StepError.
func (g *machine) run(ctx context.Context, s Step, out *output) error {
	out.begin(s.Name)
	ctx, cancel := context.WithTimeoutCause(ctx, s.timeout(), fmt.Errorf("it is not done after %v", s.timeout()))
	defer cancel()
	err := g.do(ctx, s, out)
	if err == nil && s.Restart && !g.b.fake() {
		if err = g.off(ctx); err == nil {
			err = g.boot(ctx)
		}
	}
	if err == nil {
		return nil
	}
	if dead := g.dead(context.WithoutCancel(ctx)); dead != nil {
		err = errors.Join(err, dead)
	}
	return &StepError{Step: s.Name, Place: s.Place, Last: out.tail(), Cause: err}
}

func (g *machine) do(ctx context.Context, s Step, out *output) error {
	for _, c := range s.Copies {
		if err := g.copy(ctx, c); err != nil {
			return err
		}
	}
	if s.Runner != nil {
		if err := g.installRunner(ctx, s, out); err != nil {
			return err
		}
	}
	if s.Script == "" {
		return nil
	}
	return g.script(ctx, s, out)
}

func (g *machine) copy(ctx context.Context, c Copy) error {
	f, err := os.Open(c.From)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	mode := c.Mode
	if mode == 0 {
		mode = info.Mode().Perm()
	}
	return guest.Put(ctx, g.channel, c.To, mode, f)
}

// installRunner puts the runner program into its folder, of an archive or of a
// single executable.
func (g *machine) installRunner(ctx context.Context, s Step, out *output) error {
	p := s.Runner
	file, err := g.b.opt.Sources.File(ctx, p.Archive, func(done, total int64) { g.b.opt.View.Bring(p.Archive.URL, done, total) })
	if err != nil {
		return err
	}
	there := g.scratch("runner")
	if err := g.copy(ctx, Copy{From: file, To: there, Mode: 0o755}); err != nil {
		return err
	}
	s.Script = script("runner.sh")
	s.Env = map[string]string{
		"TASUKI_RUNNER": there, "TASUKI_RUNNER_DIR": p.Dir, "TASUKI_RUNNER_KIND": p.Kind, "TASUKI_RUNNER_WARMUP": fmt.Sprint(p.Warmup),
	}
	return g.script(ctx, s, out)
}

// script runs a step's script and streams what it prints.
func (g *machine) script(ctx context.Context, s Step, out *output) error {
	file := g.scratch("step")
	if err := guest.Put(ctx, g.channel, file, fs.FileMode(0o755), strings.NewReader(s.Script)); err != nil {
		return err
	}
	env := g.r.env(s)
	for _, name := range s.Secrets {
		env[name] = g.r.Secrets[name].Reveal()
	}
	stdout, stderr := out.stream(), out.stream()
	status, err := g.channel.Run(ctx, guest.Command{
		Script: g.launch(s, file), Stdin: strings.NewReader(exports(env, guest.Quote)), Stdout: stdout, Stderr: stderr,
	})
	stdout.Flush()
	stderr.Flush()
	switch {
	case err != nil:
		return err
	case status != 0:
		return fmt.Errorf("it ended with status %d", status)
	}
	return nil
}

// launch is the command that runs a script file as who the step says, with
// the environment that comes on standard input.
func (g *machine) launch(s Step, file string) string {
	if rest, ok := strings.CutPrefix(file, "~/"); ok {
		file = `"$HOME"/` + guest.Quote(rest)
	} else {
		file = guest.Quote(file)
	}
	run := "exec sh -e " + file
	if strings.HasPrefix(s.Script, "#!") {
		run = "exec " + file
	}
	inner := `eval "$(cat)"; cd; ` + run + " </dev/null"
	switch {
	case g.b.fake():
		return inner
	case s.Root:
		return asRoot("sh -c " + guest.Quote(inner))
	case g.r.User != g.r.Login:
		return "exec sudo -n -H -u " + guest.Quote(g.r.User) + " sh -c " + guest.Quote(inner)
	}
	return inner
}

// prepare is the step before the recipe's own.
func (b *Builder) prepare(r *Recipe) (Step, error) {
	s := Step{Name: "prepare", Root: true, Env: map[string]string{"TASUKI_USER": r.User}}
	if b.fake() {
		return s, nil
	}
	switch r.OS {
	case image.OSLinux, image.OSDarwin:
		s.Script = script("prepare-" + r.OS + ".sh")
		return s, nil
	}
	return s, fmt.Errorf("nothing is known of system %q: %w", r.OS, ErrRecipe)
}

// finishScript is what makes a guest image of the machine.
func (b *Builder) finishScript(r *Recipe) (string, error) {
	if b.fake() {
		return "", nil
	}
	return script("finish-" + r.OS + ".sh"), nil
}

// finishSystem runs it and returns the host key that guests will present.
func (g *machine) finishSystem(ctx context.Context, out *output) (hostKey string, err error) {
	text, err := g.b.finishScript(g.r)
	if err != nil || text == "" {
		return "", err
	}
	s := Step{Name: "finish", Script: text, Root: true, Env: map[string]string{
		"TASUKI_USER": g.r.User, "TASUKI_LOGIN": g.r.Login, "TASUKI_HOST_KEY": fmt.Sprint(g.r.Clean.HostKey),
	}}
	if err := g.run(ctx, s, out); err != nil {
		return "", err
	}
	if !g.r.Clean.HostKey {
		return "", nil
	}
	line, err := g.ask(ctx, "cat /etc/ssh/ssh_host_ed25519_key.pub")
	fields := strings.Fields(line)
	if err != nil || len(fields) < 2 {
		return "", cmp.Or(err, fmt.Errorf("cannot read the guest's host key: %q is none", line))
	}
	return fields[0] + " " + fields[1], nil
}
