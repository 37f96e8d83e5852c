package workflow

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// one makes a workflow of one job with more lines in the job and one step.
func one(job, step string) string {
	text := "on: push\njobs:\n  a:\n    runs-on: x\n"
	for line := range strings.SplitSeq(job, "\n") {
		if line != "" {
			text += "    " + line + "\n"
		}
	}
	if step == "" {
		step = "run: 'true'"
	}
	return text + "    steps:\n      - " + strings.ReplaceAll(step, "\n", "\n        ") + "\n"
}

func TestProblems(t *testing.T) {
	tests := []struct {
		name, text string
		want       []string
	}{
		{"no YAML", "on: [push\njobs: {}", []string{"w.yml:1:5: cannot parse as YAML: did not find expected ',' or ']'"}},
		{"an unknown anchor", "on: push\njobs: *all\n", []string{"w.yml:2:7: cannot parse as YAML: unknown anchor 'all' referenced"}},
		{"empty", "", []string{"w.yml:1:1: workflow is empty"}},
		{"no mapping", "- a", []string{`w.yml:1:1: "workflow" section is sequence node but mapping node is expected`, `w.yml:1:1: "on" section is missing in workflow`, `w.yml:1:1: "jobs" section is missing in workflow`}},
		{"a cycle of needs", jobs("a: needs: b", "b: needs: a"), []string{"w.yml:3:3: cyclic dependencies in \"needs\" job configurations are detected. detected cycle is \"a\" -> \"b\" -> \"a\""}},
		{"unknown needs", jobs("a: needs: [b, c]", "b:"), []string{`w.yml:3:3: job "a" needs job "c" which does not exist in this workflow`}},
		{"nothing where something must be", "on: push\njobs:\n  a:\n    runs-on: ~\n    steps:\n      - run: null\n      - uses: ~\n", []string{
			"w.yml:4:5: jobs.a.runs-on: it names no label or group", "w.yml:6:9: jobs.a.steps[0].run: it is empty", "w.yml:7:9: jobs.a.steps[1].uses: it is empty"}},
		{"an unknown key", one("step-defaults: x", ""), []string{`w.yml:5:5: unexpected key "step-defaults" for "job" section. expected one of "concurrency", "container", "continue-on-error", "defaults", "env", "environment", "if", "name", "needs", "outputs", "permissions", "runs-on", "secrets", "services", "snapshot", "steps", "strategy", "timeout-minutes", "uses", "with"`}},
		{"duplicate steps", one("", "run: x\nid: s\n") + "      - run: y\n        id: S\n", []string{`w.yml:10:13: step ID "S" duplicates. previously defined at line:7,col:13. step ID must be unique within a job. note that step ID is case insensitive`}},
		{"environment of a step", one("", "run: x\nenv: {A=B: 1}"), []string{`w.yml:7:15: environment variable name "A=B" is invalid. '&', '=' and spaces should not be contained`}},
		{"contexts where they are not", one("if: matrix.x\nname: ${{ secrets.S }}\ntimeout-minutes: ${{ env.T }}", ""), []string{
			`w.yml:5:9: jobs.a.if: context "matrix" is not available here: only github, inputs, needs, vars are`,
			`w.yml:6:15: jobs.a.name: context "secrets" is not available here: only github, inputs, matrix, needs, strategy, vars are`,
			`w.yml:7:26: jobs.a.timeout-minutes: context "env" is not available here: only github, inputs, matrix, needs, strategy, vars are`}},
		{"in a block", one("", "run: |\n  one\n  two ${{ github.ref }} ${{ nope.x }}"), []string{
			`w.yml:8:37: jobs.a.steps[0].run: unknown context "nope": there are env, github, inputs, job, matrix, needs, runner, secrets, steps, strategy, vars`}},
		{"in quotes", one("", `name: "${{ github. }}"`+"\nrun: x"), []string{
			`w.yml:6:28: jobs.a.steps[0].name: unexpected end of input while parsing object property dereference like 'a.b' or array element dereference like 'a.*'. expecting "IDENT", "*"`}},
		{"a condition", one("if: a ||", ""), []string{
			`w.yml:5:13: jobs.a.if: unexpected end of input while parsing variable access, function call, null, bool, int, float or string. expecting "IDENT", "(", "INTEGER", "FLOAT", "STRING"`}},
		{"hashFiles above the steps", one("env: {K: \"${{ hashFiles('x') }}\"}", ""), []string{`w.yml:5:19: jobs.a.env.K: function "hashFiles" is not available here`}},
		{"defaults of the workflow", "defaults: {run: {shell: '${{ github.ref }}'}}\n" + one("", ""), []string{`w.yml:1:30: defaults.run.shell: context "github" is not available: no context is here`}},
		{"expressions as keys", one("env: {'${{ insert }}': x}", ""), []string{"w.yml:5:11: jobs.a.env: expressions in keys are not supported"}},
		{"a matrix that makes nothing", one("strategy: {matrix: {v: [1], exclude: [{v: 1}]}}", ""), []string{"w.yml:5:16: jobs.a.strategy.matrix: the matrix makes no job"}},
		{"concurrency of a job", one("concurrency: g", ""), []string{"w.yml:5:5: jobs.a.concurrency: not supported: only a concurrency of the whole workflow is accepted, without effect; use needs or max-parallel"}},
		{"an action without a version", one("", "uses: actions/checkout"), []string{`w.yml:6:15: jobs.a.steps[0].uses: "actions/checkout" names no version: write actions/checkout@v4`}},
		{"a part of the checkout", one("", "uses: actions/checkout/sub@v4"), []string{`w.yml:6:15: jobs.a.steps[0].uses: not supported: action "actions/checkout/sub@v4"; there are actions/checkout and composite actions of the tree (./path)`}},
		{"a checkout of something else", one("", "uses: actions/checkout@v4\nwith: {ref: v1, path: ../x, submodules: true, fetch-depth: all, ssh-key: k}"), []string{
			`w.yml:7:21: jobs.a.steps[0].with.ref: not supported: "v1"; the checkout always brings the tree that the workflow lies in`,
			`w.yml:7:31: jobs.a.steps[0].with.path: "../x" lies outside the workspace`,
			`w.yml:7:37: jobs.a.steps[0].with.submodules: not supported by the checkout of this emulator`,
			`w.yml:7:68: jobs.a.steps[0].with.fetch-depth: not supported: a depth other than a plain number: "all"`,
			`w.yml:7:73: jobs.a.steps[0].with.ssh-key: not supported by the checkout of this emulator`}},
		{"an alias within itself", "on: push\njobs: &a\n  x: *a\n", []string{"w.yml:1:1: the file has more than 50000 values with its aliases expanded, or one that contains itself"}},
		{"aliases that explode", bomb(), []string{"w.yml:1:1: the file has more than 50000 values with its aliases expanded, or one that contains itself"}},
		{"a large file", "#" + strings.Repeat("x", 1<<20), []string{"w.yml:1:1: the file is larger than 1048576 bytes"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Parse("w.yml", []byte(tt.text))
			problems, _ := errors.AsType[Problems](err)
			var got []string
			for _, p := range problems {
				got = append(got, p.Error())
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func bomb() string {
	text := "on: push\nx0: &x0 [1, 2]\n"
	for i := range 30 {
		n, m := string(rune('a'+i%26))+strings.Repeat("y", i/26+1), "x0"
		if i > 0 {
			m = string(rune('a'+(i-1)%26)) + strings.Repeat("y", (i-1)/26+1)
		}
		text += n + ": &" + n + " [*" + m + ", *" + m + "]\n"
	}
	return text
}

// What is in ordinary use and has no effect here, or needs none, is accepted.
func TestAccepted(t *testing.T) {
	const text = `
name: everything
run-name: by ${{ github.actor }}
on:
  push: {branches: [main]}
  pull_request:
  schedule: [{cron: '0 4 * * *'}]
permissions: {contents: read}
concurrency: {group: '${{ github.workflow }}-${{ github.ref }}', cancel-in-progress: true}
env: &env {A: 1, B: yes}
defaults: {run: {shell: bash}}
jobs:
  Build:
    runs-on: ubuntu-latest
    permissions: write-all
    env: *env
    steps:
      - uses: Actions/Checkout@8e5e7e5ab8b370d6c329ec480221332ada57f0ab
        with: {fetch-depth: 0, token: '${{ secrets.GITHUB_TOKEN }}', ref: '${{ github.sha }}', repository: '${{github.repository}}', submodules: false, lfs: true, clean: false, path: 'a/${{ github.run_id }}'}
      - run: &unused echo ${{ matrix.undefined }} ${{ needs.build }} ${{ toJSON(github) }}
      - if: "!cancelled()"
        run: make
  test:
    needs: [build]
    runs-on: x
    steps: [{run: 'true'}]
`
	w, err := Parse("w.yml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if w.Name != "everything" || w.Tree().Depth != 0 {
		t.Errorf("name %q, depth %d", w.Name, w.Tree().Depth)
	}
	r, err := w.NewRun(Context{Repository: "octo/demo"})
	if err != nil {
		t.Fatal(err)
	}
	if got := r.Next(); len(got) != 1 || got[0].Key != "Build" || r.Jobs()[1].Needs[0] != "Build" {
		t.Errorf("ready: %s, test needs %v", nameList(got), r.Jobs()[1].Needs)
	}
}

func TestExamples(t *testing.T) {
	t.Chdir("../../..")
	want := map[string][]string{
		"relay.yml": nil,
		"fails.yml": nil,
		"broken.yml": {"6:3 ", "8:22 ", "9:5 ", "11:3 ", "15:20 jobs.test.steps[0].run", "16:24 jobs.test.steps[1].run",
			"17:13 jobs.test.steps[2].if"},
		"unsupported.yml": {"8:5 jobs.database.container", "9:5 jobs.database.services", "12:5 jobs.database.environment",
			"16:23 jobs.database.steps[0].with.repository", "17:11 jobs.database.steps[0].with.sparse-checkout", "18:15 jobs.database.steps[1].uses",
			"19:15 jobs.database.steps[2].uses", "20:15 jobs.database.steps[3].uses", "22:5 jobs.shared.uses"},
	}
	files, err := filepath.Glob("examples/workflows/*.yml")
	if err != nil || len(files) < len(want) {
		t.Fatalf("%d example workflows, %v", len(files), err)
	}
	for _, file := range files {
		_, err := Load(file)
		problems, ok := errors.AsType[Problems](err)
		if err != nil && !ok {
			t.Errorf("Load(%s): %v", file, err)
		}
		var got []string
		for _, p := range problems {
			if p.File != file {
				t.Errorf("a problem of %s is said to be in %s", file, p.File)
			}
			got = append(got, fmt.Sprintf("%d:%d %s", p.Line, p.Column, p.Key))
		}
		if diff := cmp.Diff(want[filepath.Base(file)], got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", file, diff)
		}
	}
}

func TestRelayExample(t *testing.T) {
	t.Chdir("../../..")
	w, err := Load("examples/workflows/relay.yml")
	if err != nil {
		t.Fatal(err)
	}
	r, err := w.NewRun(Context{Repository: "octo/demo"})
	if err != nil {
		t.Fatal(err)
	}
	var rounds []string
	for ready := r.Next(); len(ready) > 0; ready = r.Next() {
		rounds = append(rounds, nameList(ready))
		for _, j := range ready {
			r.Conclude(j.ID, Success, nil)
		}
	}
	want := []string{"leave, build the left one of 2, build the right one of 2", "find-nothing", "finish"}
	if diff := cmp.Diff(want, rounds); diff != "" || r.Conclusion() != Success {
		t.Errorf("run %s (-want +got):\n%s", r.Conclusion(), diff)
	}
}

func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		file := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestLocalActions(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{
		"good/action.yml":   "runs: {using: composite, steps: [{run: 'echo ${{ inputs.x }}', shell: sh}, {uses: ./deep}, {uses: actions/checkout@v4}]}",
		"deep/action.yaml":  "runs: {using: composite, steps: [{uses: ./bad}]}",
		"bad/action.yml":    "runs:\n  using: composite\n  steps:\n    - run: echo ${{ secrets.X }}\n    - uses: actions/cache@v4\n    - if: nope(1)\n      shell: sh\n      run: x\n      timeout-minutes: 3\n",
		"node/action.yml":   "runs: {using: node20, main: index.js}",
		"loop/action.yml":   "runs: {using: composite, steps: [{uses: ./loop}]}",
		"empty/action.yml":  "name: x",
		"broken/action.yml": "runs: [",
		".github/workflows/w.yml": one("", "uses: ./good") + `      - uses: actions/checkout@v4
        with: {path: sub/dir}
      - uses: ./sub/dir/node
      - uses: ./loop
      - uses: ./empty
      - uses: ./broken
      - uses: ./../outside
      - uses: ./${{ github.ref }}
`})
	t.Chdir(dir)
	_, err := Load(".github/workflows/w.yml")
	want := `.github/workflows/w.yml:13:15: jobs.a.steps[6].uses: action "./../outside" lies outside the tree
.github/workflows/w.yml:14:15: jobs.a.steps[7].uses: an expression cannot name an action: "./${{ github.ref }}"
bad/action.yml:4:12: runs.steps[0].run: a run step of a composite action needs a shell
bad/action.yml:4:21: runs.steps[0].run: context "secrets" is not available here: only env, github, inputs, job, matrix, needs, runner, steps, strategy, vars are
bad/action.yml:5:13: runs.steps[1].uses: not supported: action "actions/cache@v4"; there are actions/checkout and composite actions of the tree (./path)
bad/action.yml:6:11: runs.steps[2].if: unknown function "nope"
bad/action.yml:9:7: runs.steps[2].timeout-minutes: unknown key of a composite action's step
broken/action.yml:1:1: cannot parse as YAML: did not find expected node content
empty/action.yml:1:1: runs.using: action "./empty" does not say how it runs
loop/action.yml:1:41: runs.steps[0].uses: action "./loop" uses itself, or actions nest deeper than 10
node/action.yml:1:15: runs.using: not supported: an action that uses "node20"; only composite ones are`
	if err == nil {
		t.Fatal("the workflow was accepted")
	}
	if diff := cmp.Diff(want, err.Error()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func FuzzParse(f *testing.F) {
	for _, name := range []string{"relay", "fails", "broken", "unsupported"} {
		text, err := os.ReadFile("../../../examples/workflows/" + name + ".yml")
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Add([]byte(one("strategy: {matrix: {v: [1, {a: b}], include: [{v: 1}], exclude: [{v: {a: b}}]}}\noutputs: {a: '${{ 1 }}'}\nneeds: a", "uses: actions/checkout@v4\nwith: {path: x}")))
	f.Add([]byte(bomb()))
	f.Fuzz(func(t *testing.T, text []byte) {
		w, err := Parse("w.yml", text)
		if err != nil {
			_ = err.Error()
			return
		}
		r, err := w.NewRun(Context{Repository: "octo/demo"})
		if err != nil {
			t.Fatal(err)
		}
		for ready := r.Next(); len(ready) > 0; ready = r.Next() {
			for _, j := range ready {
				p, err := j.Parts()
				if err != nil {
					t.Fatal(err)
				}
				if _, err := encode(p); err != nil {
					t.Fatal(err)
				}
				r.Conclude(j.ID, Success, nil)
			}
		}
		if !r.Done() {
			t.Fatal("the run does not end")
		}
	})
}
