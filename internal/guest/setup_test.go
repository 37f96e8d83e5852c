package guest_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/mirego/tasuki/internal/base/secret"
	"github.com/mirego/tasuki/internal/guest"
	"github.com/mirego/tasuki/internal/image"
	"github.com/mirego/tasuki/internal/runner"
)

const tells = `for a in "$@"; do printf '[%s]' "$a"; done; echo " $ACTIONS_RUNNER_INPUT_TOKEN"
touch starts; n=$(wc -l <starts); echo >>starts`

// A program that gets no just-in-time configuration registers by itself, once.
func TestSetup(t *testing.T) {
	setup := runner.Setup{
		URL: "https://github.com/it's/mine", Token: secret.New("t k"), Name: "vm 1",
		Labels: []string{"self-hosted", "Linux", "ARM64", "mirego"}, Group: "iOS team",
	}
	const common = "[--unattended][--ephemeral][--disableupdate]"
	const rest = "[--runnergroup][iOS team][--work][_work] t k\n"
	for _, c := range []struct {
		kind  string
		files map[string]string
		want  string
	}{
		{image.RunnerOfficial, map[string]string{"config.sh": tells, "bin/Runner.Listener": tells + "\n[ $n -gt 1 ] || exit 2"},
			common + "[--url][https://github.com/it's/mine][--name][vm 1][--labels][mirego]" + rest + "[run] \n[run] \n"},
		{image.RunnerOfficial, map[string]string{"bin/Runner.Listener": tells},
			"[configure]" + common + "[--url][https://github.com/it's/mine][--name][vm 1][--labels][mirego]" + rest + "[run] \n"},
		{image.RunnerAct, map[string]string{"github-act-runner": tells},
			"[configure]" + common + "[--no-default-labels][--url][https://github.com/it's/mine][--name][vm 1][--labels][self-hosted,Linux,ARM64,mirego]" +
				rest + "[run][--terminal=false] \n"},
		{guest.RunnerCommand, map[string]string{"configure": tells, "run": tells},
			common + "[--no-default-labels][--url][https://github.com/it's/mine][--name][vm 1][--labels][self-hosted,Linux,ARM64,mirego]" + rest + " \n"},
	} {
		h, p := layout(t, c.files)
		p.Kind, p.Setup, p.Env = c.kind, &setup, map[string]string{"kind": "any", "state": "name", "setup": "will do"}
		if log, code := finish(t, h, p); log != c.want || code != 0 {
			t.Errorf("%s: status %d, log\n%q, want\n%q", c.kind, code, log, c.want)
		}
	}
}

// What is left of another registration in this guest goes, and a program that
// cannot register is told apart from one that ran.
func TestSetupFails(t *testing.T) {
	h, p := layout(t, map[string]string{
		"config.sh": `ls .runner .credentials 2>/dev/null; echo "Http response code: NotFound"; exit 7`, "bin/Runner.Listener": "echo ran",
		".runner": "", ".credentials": "",
	})
	p.Kind, p.Setup = image.RunnerOfficial, &runner.Setup{Token: secret.New("expired")}
	log, code := finish(t, h, p)
	if code != guest.SetupFailed || strings.TrimSpace(log) != "Http response code: NotFound" {
		t.Errorf("status %d, log %q", code, log)
	}
	if fmt.Sprint(p) == "" || strings.Contains(fmt.Sprintf("%+v", *p.Setup), "expired") {
		t.Error("the token prints itself")
	}
}
