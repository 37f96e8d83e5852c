package recipefile

import (
	"errors"
	"flag"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mirego/tasuki/internal/base/proc"
	"github.com/mirego/tasuki/internal/config"
	"github.com/mirego/tasuki/internal/recipe"
)

var update = flag.Bool("update", false, "rewrite the generated reference")

func TestReferenceIsCurrent(t *testing.T) {
	const file = "../../../docs/reference/recipe.md"
	got := Reference()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("docs/reference/recipe.md differs; renew it with: go test ./internal/config/recipefile -update\n%s", diff)
	}
}

const sum = "sha256: 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func TestMistakesAreToldWithTheirPlace(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"unknown key": {"name: x\nfrom: r.io/x\nsteps:\n  - name: a\n    rum: echo\n", `r.yaml:5:5: unknown key "rum" in "steps"; did you mean "run"?`},
		"no base":     {"name: x\nsteps: []\n", "begins with nothing; write one of from, disk and debian"},
		"two bases":   {"name: x\nfrom: r.io/x\ndebian: {release: bookworm}\nsteps: []\n", "r.yaml:2:7: the recipe begins with more than one thing"},
		"no checksum": {"name: x\ndisk: {url: a.img}\nsteps: []\n", "a file without its checksum"},
		"checksum":    {"name: x\ndisk: {url: a.img, sha256: abc}\nsteps: []\n", `"abc" is not a checksum`},
		"two kinds":   {"name: x\nfrom: r.io/x\nsteps: [{name: a, run: b, script: c}]\n", `step "a" does more than one thing`},
		"nothing":     {"name: x\nfrom: r.io/x\nsteps: [{name: a}]\n", `step "a" does nothing`},
		"condition":   {"name: x\nfrom: r.io/x\nsteps: [{name: a, run: b, when: \"a b\"}]\n", "is not a condition"},
		"variable":    {"name: x\nfrom: r.io/x\nsteps: [{name: a, run: b, when: xcode}]\n", `there is no variable "xcode"; give it a default under vars`},
		"secret":      {"name: x\nfrom: r.io/x\nsteps: [{name: a, run: b, secrets: [TOKEN]}]\n", `there is no secret "TOKEN"`},
		"in clear":    {"name: x\nfrom: r.io/x\nsecrets: {TOKEN: abc}\nsteps: []\n", "a secret must not stand in the configuration"},
		"macOS disk":  {"name: x\nos: darwin\ndisk: {url: a, " + sum + "}\nsteps: []\n", "a macOS guest begins with an image"},
		"built in":    {"name: x\nfrom: r.io/x\nvars: {arch: x}\nsteps: []\n", `variable "arch" is always there`},
		"where to":    {"name: x\nfrom: r.io/x\nsteps: [{name: a, copy: [{from: a, to: b}]}]\n", `"b" is not a path in the guest`},
		"two runners": {"name: x\nfrom: r.io/x\nsteps:\n  - {name: a, runner: {url: a, kind: act, " + sum + "}}\n  - {name: b, runner: {url: a, kind: act, " + sum + "}}\n", "a second runner program"},
	} {
		_, err := Parse("r.yaml", []byte(c.text))
		if _, ok := errors.AsType[config.Problems](err); !ok || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v; want a problem with %q", name, err, c.want)
		}
	}
}

func TestConditions(t *testing.T) {
	vars := map[string]string{"xcode": "16.2", "rosetta": "no", "empty": "", "arch": "arm64"}
	for when, want := range map[string]bool{
		"": true, "xcode": true, "!xcode": false, "rosetta": false, "!rosetta": true, "empty": false,
		"arch == arm64": true, "arch != arm64": false, `empty == ""`: true, "xcode && arch == 'arm64'": true, "xcode && rosetta": false,
	} {
		met, err := parseCondition(when)
		if err != nil {
			t.Fatal(err)
		}
		if got := met(vars); got != want {
			t.Errorf("%q: got %v, want %v", when, got, want)
		}
	}
}

const whole = `
name: x
vars: {NODE: 20, with_b: "no", where: /opt}
disk:
  amd64: {url: disk.img, ` + sum + `}
secrets:
  TOKEN: {env: RECIPE_TEST_TOKEN}
  UNUSED: {env: RECIPE_TEST_NOT_THERE}
steps:
  - name: a
    run: echo $NODE
    secrets: [TOKEN]
    env: {DIR: "${where}/x"}
  - name: b
    when: with_b
    run: "false"
    secrets: [UNUSED]
  - name: files
    copy:
      - {from: "*.txt", to: "${where}/"}
      - {from: tree, to: ~/tree}
`

func TestResolve(t *testing.T) {
	t.Setenv("RECIPE_TEST_TOKEN", "geheim")
	dir := t.TempDir()
	for _, name := range []string{"one.txt", "two.txt", "tree/sub/file"} {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(name), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	f, err := Parse(filepath.Join(dir, "r.yaml"), []byte(whole))
	if err != nil {
		t.Fatal(err)
	}
	r, err := f.Resolve(t.Context(), Target{Arch: "amd64", Driver: "qemu"}, map[string]string{"NODE": "22"})
	if err != nil {
		t.Fatal(err)
	}
	if got := r.Base.Disk.URL; got != filepath.Join(dir, "disk.img") {
		t.Errorf("disk: got %q", got)
	}
	if r.Vars["NODE"] != "22" || r.Steps[0].Env["DIR"] != "/opt/x" || r.Secrets["TOKEN"].Reveal() != "geheim" {
		t.Errorf("got %+v", r)
	}
	var names, copies []string
	for _, s := range r.Steps {
		names = append(names, s.Name)
		for _, c := range s.Copies {
			copies = append(copies, c.To)
		}
	}
	if diff := cmp.Diff([]string{"a", "files"}, names); diff != "" {
		t.Errorf("steps (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"/opt/one.txt", "/opt/two.txt", "~/tree/sub/file"}, copies); diff != "" {
		t.Errorf("copies (-want +got):\n%s", diff)
	}
	if _, err := f.Resolve(t.Context(), Target{Arch: "arm64", Driver: "qemu"}, nil); err == nil || !strings.Contains(err.Error(), "no file for arm64") {
		t.Errorf("for arm64: got %v", err)
	}
	if _, err := f.Resolve(t.Context(), Target{Arch: "amd64"}, map[string]string{"NOD": "1"}); err == nil || !strings.Contains(err.Error(), "NODE, where, with_b") {
		t.Errorf("with an unknown variable: got %v", err)
	}
}

// TestOurRecipes resolves what we ship, as it is and with every step, and has
// shellcheck read the scripts where it is installed.
func TestOurRecipes(t *testing.T) {
	files, err := filepath.Glob("../../../recipes/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("there are no recipes: %v", err)
	}
	archive := filepath.Join(t.TempDir(), "archive")
	if err := os.WriteFile(archive, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			f, err := Load(file)
			if err != nil {
				t.Fatal(err)
			}
			all := map[string]string{}
			for name, value := range f.Vars {
				switch {
				case name == "XCODES", name == "RUNTIMES":
					all[name] = archive
				case !truth(value):
					all[name] = "1"
				}
			}
			for _, vars := range []map[string]string{nil, all} {
				for _, arch := range []string{"amd64", "arm64"} {
					if f.OS == "darwin" && arch == "amd64" {
						continue
					}
					r, err := f.Resolve(t.Context(), Target{Arch: arch, Driver: "qemu"}, vars)
					if err != nil {
						t.Fatal(err)
					}
					if vars != nil && len(r.Steps) != len(f.Steps) {
						t.Errorf("%d of %d steps take part with %v", len(r.Steps), len(f.Steps), vars)
					}
					checkSteps(t, r)
				}
			}
		})
	}
}

func checkSteps(t *testing.T, r recipe.Recipe) {
	t.Helper()
	if !slices.ContainsFunc(r.Steps, func(s recipe.Step) bool { return s.Runner != nil }) {
		t.Error("it installs no runner")
	}
	for _, s := range r.Steps {
		if s.Script == "" {
			continue
		}
		_, err := proc.Run(t.Context(), proc.Cmd{
			// What a step mentions is in its environment: SC2154 does not know.
			Path: "shellcheck", Args: []string{"-s", "sh", "-e", "SC2154,SC2016", "-"}, Stdin: strings.NewReader("set -e\n" + s.Script + "\n"),
			Stderr: t.Output(), Stdout: t.Output(),
		})
		if errors.Is(err, proc.ErrNotInstalled) {
			continue
		}
		if err != nil {
			t.Errorf("step %q: %v", s.Name, err)
		}
	}
}

// Each tool of a Mac is a step of its own, which its variable leaves out.
func TestEachToolOfTheMacRecipeIsOptional(t *testing.T) {
	f, err := Load("../../../recipes/macos-runner.yaml")
	if err != nil {
		t.Fatal(err)
	}
	archive := filepath.Join(t.TempDir(), "archive")
	if err := os.WriteFile(archive, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	all := map[string]string{"ANDROID": "yes", "XCODES": archive, "XCODE": "16.4", "RUNTIMES": archive}
	names := func(vars map[string]string) (names []string) {
		t.Helper()
		r, err := f.Resolve(t.Context(), Target{Arch: "arm64", Driver: "tart"}, vars)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range r.Steps {
			names = append(names, s.Name)
		}
		return names
	}
	whole := names(all)
	for variable, step := range map[string]string{
		"HOMEBREW": "homebrew", "FORMULAE": "formulae", "ASDF": "asdf", "NODE": "node", "JAVA": "java", "RUBY": "ruby", "PYTHON": "python",
		"ROSETTA": "rosetta", "ANDROID": "android", "XCODES": "xcode", "XCODE": "select xcode", "RUNTIMES": "simulator runtimes", "WWDR": "certificates",
	} {
		without := maps.Clone(all)
		without[variable] = ""
		if got := names(without); !slices.Contains(whole, step) || slices.Contains(got, step) {
			t.Errorf("step %q: there %v, and with %s empty still there %v", step, slices.Contains(whole, step), variable, slices.Contains(got, step))
		}
	}
	for _, s := range f.Steps {
		if s.Runner != nil && (!s.Runner.Warmup || s.Runner.Kind != "official") {
			t.Errorf("the runner: %+v; want the official one, warmed up", s.Runner)
		}
	}
	if !strings.Contains(f.Vars["FORMULAE"], "git-lfs") || !strings.Contains(f.Vars["FORMULAE"], "jq") {
		t.Errorf("formulae: %q", f.Vars["FORMULAE"])
	}
}
