package monitoring_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mirego/tasuki/internal/base/proc"
	"github.com/mirego/tasuki/internal/monitoring"
)

// needProgram skips the test where a program is missing, unless the tests were
// told that it must be there.
func needProgram(t *testing.T, name string) {
	t.Helper()
	if _, err := proc.Look(name); err != nil {
		if os.Getenv("TASUKI_TEST_CLIENTS") != "" {
			t.Fatalf("%v; make prepare installs it", err)
		}
		t.Skipf("needs %s, which make prepare installs", name)
	}
}

const deployed = "../../deploy/monitoring"

// Prometheus's own tool takes the rules, and finds that each fires when it
// should and not before.
func TestPromtoolTestsTheRules(t *testing.T) {
	needProgram(t, "promtool")
	cases := filepath.Join(deployed, "prometheus", "tests", "tasuki_test.yml")
	for _, args := range [][]string{{"check", "rules", filepath.Join(deployed, "prometheus", "rules", "tasuki.yml")}, {"test", "rules", cases}} {
		if res, err := proc.Run(t.Context(), proc.Cmd{Path: "promtool", Args: args}); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, res.Stdout)
		}
	}
	text, err := os.ReadFile(cases)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range monitoring.Alerts(monitoring.Options{}) {
		if !strings.Contains(string(text), a.Name) {
			t.Errorf("%s has no case in %s", a.Name, cases)
		}
	}
}

// What export writes for programs without containers is taken as it is.
func TestTheProgramsTakeTheirConfiguration(t *testing.T) {
	needProgram(t, "promtool")
	needProgram(t, "amtool")
	dir := t.TempDir()
	opt := example
	opt.Folder = dir
	files, err := monitoring.Bundle(opt)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		path := filepath.Join(dir, filepath.FromSlash(f.Path))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, f.Data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []proc.Cmd{
		{Path: "promtool", Args: []string{"check", "config", filepath.Join(dir, "prometheus", "prometheus.yml")}},
		{Path: "amtool", Args: []string{"check-config", filepath.Join(dir, "alertmanager", "alertmanager.yml")}},
	} {
		if res, err := proc.Run(t.Context(), c); err != nil {
			t.Errorf("%s: %v\n%s", c.Path, err, res.Stdout)
		}
	}
}
