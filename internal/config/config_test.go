package config_test

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mirego/tasuki/internal/config"
	"github.com/mirego/tasuki/internal/pool"
	"github.com/mirego/tasuki/internal/runner"
	"github.com/mirego/tasuki/internal/vm"
)

var update = flag.Bool("update", false, "write the generated documents and golden files")

// write puts a file into a new folder and returns its path.
func write(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestDefaultsArePutUnderEveryPool(t *testing.T) {
	path := write(t, "c.yaml", `
host: {name: h, slots: 3, home: /srv/tasuki}
github: {url: "http://127.0.0.1:1", token: {env: T}}
defaults:
  scope: acme/app
  image: r.example.com/linux:stable
  labels: [base]
  memory: 1GiB
  env: {A: "1", B: "2"}
  deadlines: {connecting: 10m}
  hooks: {before_job: {content: "echo default\n"}}
pools:
  - name: one
  - name: two
    labels: [big, gpu]
    memory: 1.5GiB
    disk: 20GB
    env: {B: 3}
    max: 2
    network: {mode: isolated, forwards: [{guest: "10.0.2.100:80", host: "127.0.0.1:8080"}]}
    deadlines: {idle: 2d}
    files: [{path: ~/x, content: "x", mode: 0600}]
    hold_after_failure: 30m
`)
	c, err := config.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	one := pool.Spec{
		Name: "one", Image: "r.example.com/linux:stable", Driver: "qemu", Scope: "acme/app", Labels: []string{"base"},
		CPUs: 2, MemoryMiB: 1024, Network: vm.Network{Mode: vm.Internet}, Standby: 1, MaxJob: 6 * time.Hour,
		Env: map[string]string{"A": "1", "B": "2"}, BeforeJob: "echo default\n", Registration: runner.ByEither, Runner: runner.FromHost, WorkFolder: "_work",
		Deadlines: map[runner.State]time.Duration{runner.Connecting: 10 * time.Minute},
	}
	two := one
	two.Name, two.Labels, two.MemoryMiB, two.DiskGB, two.Most = "two", []string{"big", "gpu"}, 1536, 20, 2
	two.Env = map[string]string{"A": "1", "B": "3"}
	two.Network = vm.Network{Mode: vm.Isolated, Forwards: []vm.Forward{{Guest: "10.0.2.100:80", Host: "127.0.0.1:8080"}}}
	two.Deadlines = map[runner.State]time.Duration{runner.Connecting: 10 * time.Minute, runner.Idle: 48 * time.Hour}
	two.Files = []pool.File{{Path: "~/x", Content: []byte("x"), Mode: 0o600}}
	two.HoldAfterFailure = 30 * time.Minute
	if diff := cmp.Diff([]pool.Spec{one, two}, c.Specs()); diff != "" {
		t.Errorf("Specs (-want +got):\n%s", diff)
	}
}

// TestEveryMistake runs each testdata/bad/*.yaml and compares all its problems
// with the .want file beside it.
func TestEveryMistake(t *testing.T) {
	files, err := filepath.Glob("testdata/bad/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no test data: %v", err)
	}
	t.Setenv("HOME", "/home/someone")
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			_, err := config.Load(file)
			problems, ok := errors.AsType[config.Problems](err)
			if !ok {
				t.Fatalf("got error %v, want Problems", err)
			}
			here, _ := filepath.Abs("testdata/bad")
			got := strings.ReplaceAll(problems.Error(), here, "DIR") + "\n"
			golden(t, strings.TrimSuffix(file, ".yaml")+".want", got)
		})
	}
}

func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v; run the test with -update", err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s differs (-want +got); run the test with -update if that is right:\n%s", file, diff)
	}
}

func TestReferenceIsGenerated(t *testing.T) {
	golden(t, "../../docs/reference/config.md", config.Reference())
}

func TestExamplesAreValid(t *testing.T) {
	t.Setenv("GITHUB_TOKEN", "x")
	files, err := filepath.Glob("../../examples/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no examples: %v", err)
	}
	for _, file := range files {
		load := config.Load
		if filepath.Base(file) == "registry.yaml" { // a machine that only serves a registry
			load = config.LoadRegistry
		}
		if _, err := load(file); err != nil {
			t.Error(err)
		}
	}
}

func TestShowIsReadAgainToTheSame(t *testing.T) {
	c, err := config.Load("../../examples/host.yaml")
	if err != nil {
		t.Fatal(err)
	}
	shown, err := c.Show()
	if err != nil {
		t.Fatal(err)
	}
	again, err := config.Parse(c.File(), shown)
	if err != nil {
		t.Fatalf("%v\n%s", err, shown)
	}
	if diff := cmp.Diff(c.Specs(), again.Specs()); diff != "" {
		t.Errorf("pools changed (-first +second):\n%s\n%s", diff, shown)
	}
}

func TestShowRedacts(t *testing.T) {
	c, err := config.Parse("/x/c.yaml", []byte(`
github: {url: "http://127.0.0.1:1"}
pools: [{name: a, image: r.example.com/x, scope: o/r, env: {MY_PASSWORD: hunter2, PLAIN: seen}}]
`))
	if err != nil {
		t.Fatal(err)
	}
	shown, err := c.Show()
	if err != nil {
		t.Fatal(err)
	}
	if s := string(shown); strings.Contains(s, "hunter2") || !strings.Contains(s, "seen") {
		t.Errorf("shown:\n%s", s)
	}
	if c.Pools[0].Env["MY_PASSWORD"] != "hunter2" {
		t.Error("Show changed the configuration")
	}
}

func TestSourceReads(t *testing.T) {
	dir := t.TempDir()
	private, open := filepath.Join(dir, "private"), filepath.Join(dir, "open")
	for path, mode := range map[string]os.FileMode{private: 0o600, open: 0o644} {
		if err := os.WriteFile(path, []byte("s3cret\n"), mode); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("SOME_TOKEN", "s3cret")
	for name, tc := range map[string]struct {
		source config.Source
		want   string // part of the error
	}{
		"env":        {source: config.Source{Env: "SOME_TOKEN"}},
		"file":       {source: config.Source{File: private}},
		"command":    {source: config.Source{Command: config.Command{"echo", "s3cret"}}},
		"env unset":  {config.Source{Env: "NOT_SET_AT_ALL"}, `"NOT_SET_AT_ALL": it is empty or not there`},
		"open file":  {config.Source{File: open}, "others can read it (mode 0644); run chmod 600"},
		"no file":    {config.Source{File: filepath.Join(dir, "none")}, "no such file"},
		"no command": {config.Source{Command: config.Command{"no-such-program-at-all"}}, "not installed"},
		"bad status": {config.Source{Command: config.Command{"false"}}, "exit status 1"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := tc.source.Read(t.Context())
			if tc.want == "" {
				if err != nil || got.Reveal() != "s3cret" {
					t.Fatalf("got %q, %v", got.Reveal(), err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "s3cret") {
				t.Errorf("got error %v, want one with %q and without the secret", err, tc.want)
			}
		})
	}
}

func TestValuesSurviveTheirText(t *testing.T) {
	for text, want := range map[string]string{"90s": "1m30s", "6h": "6h", "2d": "48h", "0": "0s", "30m": "30m"} {
		var d config.Duration
		if err := d.UnmarshalText([]byte(text)); err != nil || d.String() != want {
			t.Errorf("duration %q: got %q, %v; want %q", text, d, err, want)
		}
	}
	for text, want := range map[string]string{"4GiB": "4GiB", "80GB": "80GB", "1.5GiB": "1536MiB", "512 MiB": "512MiB", "1024MiB": "1GiB"} {
		var s config.Size
		if err := s.UnmarshalText([]byte(text)); err != nil || s.String() != want {
			t.Errorf("size %q: got %q, %v; want %q", text, s, err, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, glob := range []string{"testdata/bad/*.yaml", "../../examples/*.yaml"} {
		files, err := filepath.Glob(glob)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data)
		}
	}
	f.Add([]byte("a: &a [*a, *a]\npools: *a\n<<: *a\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := config.Parse("/nowhere/c.yaml", data)
		if err == nil {
			c.Specs()
			if _, err := c.Show(); err != nil {
				t.Error(err)
			}
			return
		}
		problems, ok := errors.AsType[config.Problems](err)
		if !ok || len(problems) == 0 {
			t.Fatalf("got %v, want Problems", err)
		}
		for _, p := range problems {
			if p.Line < 1 || p.Column < 1 || p.What == "" {
				t.Errorf("problem without a place: %+v", p)
			}
		}
	})
}
