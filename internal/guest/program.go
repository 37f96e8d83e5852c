package guest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mirego/tasuki/internal/base/secret"
	"github.com/mirego/tasuki/internal/image"
	"github.com/mirego/tasuki/internal/runner"
)

// RunnerCommand is the kind of a program that is the executable "run" in its
// folder: a runner of tests, or one that speaks for itself. The kinds that
// images name are image.RunnerAct and image.RunnerOfficial.
const RunnerCommand = "command"

// SetupFailed is the exit status of a program that could not register itself
// (EX_CONFIG of sysexits.h).
const SetupFailed = 78

// Sentinels of runner programs.
var (
	// ErrNotLaunched: no program was launched in this guest.
	ErrNotLaunched = errors.New("no runner program was launched in the guest")
	// ErrRunning: the program has not ended yet.
	ErrRunning = errors.New("the runner program still runs")
)

// Program is the runner program of an image and what it is told.
//
// The kinds: image.RunnerAct runs DIR/github-act-runner in the user's home.
// image.RunnerOfficial runs DIR/bin/Runner.Listener in DIR, not run.sh, whose
// exit status says nothing; like run.sh we start it again 5 s after a status 2
// (no more than ten times), and a version that GitHub deprecated is told apart
// by status 7. Self-update needs run.sh, so the runner must be configured with
// updates disabled, as JIT configurations of ours are. Where only run.sh is
// there, it is run and its status taken as it is. RunnerCommand runs DIR/run
// in the user's home.
type Program struct {
	Dir  string // its folder in the guest; "~/" is the home of the user
	Kind string
	// Env is added to the environment that the channel gives.
	Env map[string]string
	// Setup, if not nil, is what the program registers itself with before it is
	// run: config.sh of an official runner, "configure" of github-act-runner,
	// DIR/configure of a RunnerCommand. They are told what config.sh is told;
	// the token is ACTIONS_RUNNER_INPUT_TOKEN of their environment alone. What
	// they write is in the log; if they fail, the exit status is SetupFailed.
	Setup *runner.Setup
	// Secrets too, the credential above all. They travel on the standard input
	// of the launch: no command line, no file and no log of ours holds them.
	Secrets map[string]secret.String
}

// relaunch is how often, and after which pause, the supervisor starts an
// official runner again that asked for it.
type relaunch struct {
	pause time.Duration
	most  int
}

// defaultRelaunch: the pause is that of the official run-helper.sh, which has
// no bound; ten tries span a short outage, then a new guest is the better cure.
var defaultRelaunch = relaunch{pause: 5 * time.Second, most: 10}

// Launch starts the program, detached, under the supervisor, and returns once
// the supervisor runs. Launching twice in one guest, at once or later, starts
// one program: that of the launch that came first. A program that is not in
// the guest is an error; one that fails at once is seen by Follow.
func Launch(ctx context.Context, ch Channel, p Program) error {
	return launch(ctx, ch, p, defaultRelaunch)
}

func launch(ctx context.Context, ch Channel, p Program, again relaunch) error {
	exports, err := exports(p)
	if err != nil {
		return fmt.Errorf("cannot launch the runner program: %w", err)
	}
	text := script("launch", map[string]string{
		"supervise": text("supervise"),
		"kind":      p.Kind,
		"dir":       strings.TrimSuffix(p.Dir, "/"),
		"pause":     strconv.FormatFloat(again.pause.Seconds(), 'f', -1, 64),
		"most":      strconv.Itoa(again.most),
		"setup":     yes(p.Setup != nil),
	})
	status, _, stderr, err := call(ctx, ch, text, strings.NewReader(exports))
	if err == nil && status != 0 {
		err = failed(status, stderr)
	}
	if err != nil {
		return fmt.Errorf("cannot launch the runner program: %w", err)
	}
	return nil
}

var envName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// maxValue is what we let one variable hold, in bytes: Linux gives 128 KiB to
// one string of the environment (MAX_ARG_STRLEN), its name included.
const maxValue = 120 << 10

// exports returns shell commands that set the program's environment.
func exports(p Program) (string, error) {
	all := make(map[string]string, len(p.Env)+len(p.Secrets))
	for name, value := range p.Env {
		all[name] = value
	}
	for name, value := range p.Secrets {
		all[name] = value.Reveal()
	}
	var b strings.Builder
	for _, name := range sortedKeys(all) {
		value := all[name]
		switch {
		case !envName.MatchString(name):
			return "", fmt.Errorf("%q is no name of an environment variable", name)
		case strings.ContainsRune(value, 0):
			return "", fmt.Errorf("the environment variable %q holds a NUL byte", name)
		case len(value) > maxValue:
			return "", fmt.Errorf("the environment variable %q holds %d bytes; %d are possible", name, len(value), maxValue)
		}
		fmt.Fprintf(&b, "export %s=%s\n", name, Quote(value))
	}
	b.WriteString(setup(p))
	return b.String(), nil
}

// systemLabels are those that an official runner gives itself.
var systemLabels = []string{"self-hosted", "linux", "macos", "x64", "arm64", "arm"}

// setup returns a shell function that runs its arguments, a program that
// registers itself, with what it is to be told.
func setup(p Program) string {
	if p.Setup == nil {
		return ""
	}
	s, args := p.Setup, []string{"--unattended", "--ephemeral", "--disableupdate"}
	labels := s.Labels
	if p.Kind == image.RunnerOfficial {
		labels = slices.DeleteFunc(slices.Clone(labels), func(l string) bool { return slices.Contains(systemLabels, strings.ToLower(l)) })
	} else {
		args = append(args, "--no-default-labels") // its own are spelt otherwise
	}
	for _, option := range [][2]string{
		{"--url", s.URL}, {"--name", s.Name}, {"--labels", strings.Join(labels, ",")}, {"--runnergroup", s.Group},
		{"--work", cmp.Or(s.WorkFolder, "_work")},
	} {
		if option[1] != "" {
			args = append(args, option[0], Quote(option[1]))
		}
	}
	return fmt.Sprintf("setup() { ACTIONS_RUNNER_INPUT_TOKEN=%s \"$@\" %s; }\n", Quote(s.Token.Reveal()), strings.Join(args, " "))
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return ""
}

// Launched says whether a program was launched in this guest, ended or not.
// A launch that is under way elsewhere may not count yet.
func Launched(ctx context.Context, ch Channel) (bool, error) {
	status, _, stderr, err := call(ctx, ch, text("launched"), nil)
	switch {
	case err != nil:
		return false, fmt.Errorf("cannot see whether the runner program was launched: %w", err)
	case status > 1:
		return false, fmt.Errorf("cannot see whether the runner program was launched: %w", failed(status, stderr))
	}
	return status == 0, nil
}

// Stop ends the program if it runs: it is asked, and killed 3 s later. This is
// for a program that idles on a registration that is gone, before Reset; the
// job of a busy one dies.
func Stop(ctx context.Context, ch Channel) error {
	status, _, stderr, err := call(ctx, ch, text("stop"), nil)
	if err == nil && status != 0 {
		err = failed(status, stderr)
	}
	if err != nil {
		return fmt.Errorf("cannot stop the runner program: %w", err)
	}
	return nil
}

// Reset forgets the ended program, its log and its exit status, so that
// another can be launched in this same, still unused guest; the log begins at
// offset 0 again. No program is no error. Errors: ErrRunning.
func Reset(ctx context.Context, ch Channel) error {
	status, _, stderr, err := call(ctx, ch, text("reset"), nil)
	switch {
	case err != nil:
	case status == 3:
		err = ErrRunning
	case status != 0:
		err = failed(status, stderr)
	}
	if err != nil {
		return fmt.Errorf("cannot forget the runner program: %w", err)
	}
	return nil
}
