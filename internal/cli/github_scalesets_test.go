package cli

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// say runs a command and returns what it printed.
func (w *setWorld) say(home, pool string, args ...string) (string, error) {
	w.t.Helper()
	file := filepath.Join(w.t.TempDir(), "host.yaml")
	text := fmt.Sprintf("host: {name: mini, slots: 2, home: %s}\ngithub: {url: %q, token: {env: TASUKI_TEST_TOKEN}}\n"+
		"pools:\n  - {name: ios, driver: fake, image: %s, scope: octo, %s}\n", home, w.url, w.t.TempDir(), pool)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
	var out bytes.Buffer
	a := &app{stdout: &out, stderr: &out, logLevel: "error"}
	cmd := newGitHubGroup(a)
	cmd.SetArgs(append(args, "--config", file))
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	err := cmd.ExecuteContext(w.t.Context())
	return out.String(), err
}

func TestScaleSetsAreListedCheckedAndPruned(t *testing.T) {
	w := newSetWorld(t)
	const pool = "labels: [mirego], scaleset: {name: macs}"
	home := filepath.Join(t.TempDir(), "home")
	expect := func(home, pool, args string, want ...string) {
		t.Helper()
		out, err := w.say(home, pool, strings.Fields(args)...)
		if err != nil && !errors.Is(err, errNo) {
			t.Errorf("%s: %v", args, err)
		}
		for _, word := range want {
			if !strings.Contains(out, word) {
				t.Errorf("%s does not say %q:\n%s", args, word, out)
			}
		}
	}
	expect(home, pool, "check", "macs is not there yet")
	h := w.run(home, pool)
	w.until("it listens", func() bool { return w.listens("macs") })
	expect(home, pool, "check", "macs (1): labels self-hosted, Linux, X64, mirego, macs", "this host listens")
	expect(home, "labels: [more], scaleset: {name: macs}", "check", "it lacks more", "another one")
	expect(home, pool, "scalesets", "macs", "pool ios", "mirego")
	expect(home, pool, "scalesets --json", `"waiting": 0`, `"pool": "ios"`)
	expect(filepath.Join(t.TempDir(), "home"), pool, "scalesets", "others'")
	expect(filepath.Join(t.TempDir(), "home"), pool, "check", "installation "+h.agent.Status().Installation+" on host mini listens", "standby")
	expect(home, pool, "scalesets prune", "nothing to delete")
	h.end()
	expect(home, pool, "check", "nobody listens now")
	expect(home, "standby: 1", "scalesets prune --dry-run", "would be deleted: macs (1) of octo, once of pool ios")
	expect(home, "standby: 1", "scalesets prune", "deleted: macs (1)")
	expect(home, "standby: 1", "scalesets prune", "nothing to delete")
	if sets := w.State().ScaleSets; len(sets) != 0 {
		t.Errorf("left are %+v", sets)
	}
}
