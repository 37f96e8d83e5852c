package workflow

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// play runs a workflow; ends says what jobs come to by name, "failure" or "success o=v p=w"; success where it
// says nothing. The result has one line for each round of Next, then one for each job that the run concluded
// itself, then what the run came to.
func play(t *testing.T, text string, ends map[string]string) []string {
	t.Helper()
	r := newRun(t, text, Context{})
	var log []string
	for range 100 {
		ready := r.Next()
		if len(ready) == 0 {
			break
		}
		log = append(log, "ready: "+nameList(ready))
		for _, j := range ready {
			if j.State != Queued {
				continue // fail-fast was quicker
			}
			conclusion, rest, _ := strings.Cut(ends[j.Name], " ")
			if conclusion == "" {
				conclusion = Success
			}
			outputs := map[string]string{}
			for _, pair := range strings.Fields(rest) {
				k, v, _ := strings.Cut(pair, "=")
				outputs[k] = v
			}
			if _, err := j.Parts(); err != nil {
				t.Errorf("Parts of %s: %v", j.Name, err)
			}
			for _, c := range r.Conclude(j.ID, conclusion, outputs) {
				log = append(log, "cancel: "+c.Name)
				r.Conclude(c.ID, Cancelled, nil)
			}
		}
	}
	for _, j := range r.Jobs() {
		if j.Reason != "" {
			log = append(log, fmt.Sprintf("%s: %s: %s", j.Name, j.Conclusion, j.Reason))
		}
	}
	if !r.Done() {
		t.Error("the run is not done")
	}
	return append(log, "run: "+r.Conclusion())
}

func nameList(jobs []*Job) string {
	var names []string
	for _, j := range jobs {
		names = append(names, j.Name)
	}
	return strings.Join(names, ", ")
}

func newRun(t *testing.T, text string, c Context) *Run {
	t.Helper()
	w, err := Parse("test.yml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	c.Repository, c.Ref = "octo/demo", "refs/heads/main"
	r, err := w.NewRun(c)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// jobs makes a workflow of jobs written short: "name: more yaml lines".
func jobs(list ...string) string {
	text := "on: push\njobs:\n"
	for _, j := range list {
		key, rest, _ := strings.Cut(j, ":")
		text += "  " + key + ":\n    runs-on: x\n    steps: [{run: 'true'}]\n"
		for line := range strings.SplitSeq(strings.TrimSpace(rest), "\n") {
			if line != "" {
				text += "    " + line + "\n"
			}
		}
	}
	return text
}

func TestRun(t *testing.T) {
	tests := []struct {
		name string
		text string
		ends map[string]string
		want []string
	}{
		{"needs order the jobs", jobs("c: needs: [a, b]", "a:", "b: needs: a"), nil,
			[]string{"ready: a", "ready: b", "ready: c", "run: success"}},
		// https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-syntax#jobsjob_idneeds: "a failure or
		// skip applies to all jobs in the dependency chain from the point of failure or skip onwards"
		{"a failure skips the chain", jobs("a:", "b: needs: a", "c: needs: b"), map[string]string{"a": "failure"},
			[]string{"ready: a", `b: skipped: job "a", which it needs, was concluded as failure`, `c: skipped: job "b", which it needs, was concluded as skipped`, "run: failure"}},
		{"always runs after a failure, what needs it does not", jobs("a:", "b: needs: a\nif: always()", "c: needs: b", "d: needs: b\nif: needs.b.result == 'success'", "e: needs: b\nif: ${{ !cancelled() && needs.b.result == 'success' }}"),
			map[string]string{"a": "failure"},
			[]string{"ready: a", "ready: b", "ready: e", `c: skipped: job "a", which it needs, was concluded as failure`, `d: skipped: job "a", which it needs, was concluded as failure`, "run: failure"}},
		{"a skip is no success for descendants (actions/runner issue 491)", jobs("a: if: false", "b: needs: a\nif: always()", "c: needs: b"), nil,
			[]string{"ready: b", "a: skipped: its if is false: false", `c: skipped: job "a", which it needs, was concluded as skipped`, "run: success"}},
		{"failure() looks at all ancestors", jobs("a:", "b: needs: a\nif: always()", "c: needs: b\nif: failure()", "d: needs: b\nif: failure() && needs.a.result == 'failure'"), map[string]string{"a": "failure"},
			[]string{"ready: a", "ready: b", "ready: c", "d: skipped: its if is false: failure() && needs.a.result == 'failure'", "run: failure"}},
		{"outputs go to those that need them", jobs("a: outputs: {o: '${{ steps.x.outputs.o }}'}", "b: needs: a\nif: needs.a.outputs.o == 'V'\nname: b-${{ needs.a.outputs.o }}"), map[string]string{"a": "success o=v"},
			[]string{"ready: a", "ready: b-v", "run: success"}},
		{"a matrix from an output", jobs("a:", "b: needs: a\nstrategy: {matrix: '${{ fromJSON(needs.a.outputs.m) }}'}"),
			map[string]string{"a": `success m={"v":[1,2]}`},
			[]string{"ready: a", "ready: b (1), b (2)", "run: success"}},
		{"a matrix that cannot be made", jobs("a:", "b: needs: a\nstrategy: {matrix: {v: '${{ fromJSON(needs.a.outputs.m) }}'}}"), nil,
			[]string{"ready: a", `b: failure: strategy.matrix: cannot evaluate "fromJSON(needs.a.outputs.m)": cannot read JSON "": the text ends too early`, "run: failure"}},
		{"names of a matrix", jobs("a: strategy: {matrix: {os: [linux, mac], v: [3.10]}}", "b: name: Test\nstrategy: {matrix: {v: ['3.10']}}", "c: name: On ${{ matrix.v }}\nstrategy: {matrix: {v: [1]}}"), nil,
			[]string{"ready: a (linux, 3.1), a (mac, 3.1), Test (3.10), On 1", "run: success"}},
		{"max-parallel admits one after the other", jobs("a: strategy: {max-parallel: 2, matrix: {v: [1, 2, 3]}}"), nil,
			[]string{"ready: a (1), a (2)", "ready: a (3)", "run: success"}},
		{"fail-fast cancels siblings", jobs("a: strategy: {max-parallel: 2, matrix: {v: [1, 2, 3]}}", "b: needs: a\nif: always() && needs.a.result == 'failure'"), map[string]string{"a (1)": "failure"},
			[]string{"ready: a (1), a (2)", "cancel: a (2)", "ready: b", `a (3): cancelled: fail-fast: job "a (1)" failed`, "run: failure"}},
		{"without fail-fast they go on", jobs("a: strategy: {fail-fast: false, matrix: {v: [1, 2]}}"), map[string]string{"a (1)": "failure"},
			[]string{"ready: a (1), a (2)", "run: failure"}},
		// https://github.com/actions/runner/issues/1161: the result of a job with continue-on-error is success
		{"continue-on-error counts as success", jobs("a: continue-on-error: '${{ matrix.v == 1 }}'\nstrategy: {matrix: {v: [1, 2]}}", "b: needs: a"), map[string]string{"a (1)": "failure"},
			[]string{"ready: a (1), a (2)", "ready: b", "run: success"}},
		{"a cancelled job cancels the run's conclusion", jobs("a:", "b: needs: a"), map[string]string{"a": "cancelled"},
			[]string{"ready: a", `b: skipped: job "a", which it needs, was concluded as cancelled`, "run: cancelled"}},
		{"an unknown conclusion is a failure", jobs("a:"), map[string]string{"a": "abandoned"},
			[]string{"ready: a", `a: failure: the runner concluded it as "abandoned"`, "run: failure"}},
		{"all skipped", jobs("a: if: github.ref == 'refs/heads/other'"), nil,
			[]string{"a: skipped: its if is false: github.ref == 'refs/heads/other'", "run: skipped"}},
		{"text around an expression in if is always true", jobs("a: if: ${{ false }} || ${{ false }}"), nil, []string{"ready: a", "run: success"}},
		{"expressions that fail conclude the job", jobs("a: name: ${{ fromJSON('x') }}", "b: timeout-minutes: ${{ fromJSON('\"soon\"') }}", "c: strategy: {max-parallel: '${{ fromJSON(0) }}'}", "d: if: fromJSON('')"), nil,
			[]string{
				`a: failure: name: cannot evaluate "fromJSON('x')": cannot read JSON "x": invalid character 'x' looking for beginning of value`,
				`b: failure: timeout-minutes: the text "soon" is no number`,
				`c: failure: strategy.max-parallel: 0 is less than 1`,
				`d: failure: if: cannot evaluate "fromJSON('')": cannot read JSON "": the text ends too early`, "run: failure"}},
		{"one job of a matrix that cannot be made", jobs("a: strategy: {matrix: {v: [a, '{}', b]}}\nname: on ${{ matrix.v }}\ncontinue-on-error: ${{ matrix.v == '{}' && fromJSON(matrix.v) }}"), nil,
			[]string{
				`on a: cancelled: fail-fast: job "on {}" failed`, "on {}: failure: continue-on-error: a mapping is neither true nor false",
				`on b: cancelled: fail-fast: job "on {}" failed`, "run: failure"}},
		{"a matrix output: the first that sets it", jobs("a: strategy: {matrix: {v: [1, 2]}}", "b: needs: a\nname: b-${{ needs.a.outputs.o }}"), map[string]string{"a (2)": "success o=two"},
			[]string{"ready: a (1), a (2)", "ready: b-two", "run: success"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, play(t, tt.text, tt.ends)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestRunsOn(t *testing.T) {
	tests := []struct {
		runsOn string
		want   RunsOn
	}{
		{"linux", RunsOn{Labels: []string{"linux"}}},
		{"[self-hosted, ARM64, mirego]", RunsOn{Labels: []string{"self-hosted", "ARM64", "mirego"}}},
		{"{group: macs}", RunsOn{Group: "macs"}},
		{"{group: macs, labels: [a, b]}", RunsOn{Labels: []string{"a", "b"}, Group: "macs"}},
		{"{labels: a}", RunsOn{Labels: []string{"a"}}},
		{"'${{ github.ref_name }}-${{ matrix.os }}'", RunsOn{Labels: []string{"main-linux"}}},
		{"['${{ matrix.os }}', x]", RunsOn{Labels: []string{"linux", "x"}}},
		{`"${{ fromJSON('[\"a\", \"b\"]') }}"`, RunsOn{Labels: []string{"a", "b"}}},
		{`"${{ fromJSON('{\"group\": \"g\", \"labels\": \"l\"}') }}"`, RunsOn{Labels: []string{"l"}, Group: "g"}},
	}
	for _, tt := range tests {
		text := "on: push\njobs:\n  a:\n    strategy: {matrix: {os: [linux]}}\n    runs-on: " + tt.runsOn + "\n    steps: [{run: 'true'}]\n"
		r := newRun(t, text, Context{})
		ready := r.Next()
		if len(ready) != 1 {
			t.Errorf("runs-on: %s: %s", tt.runsOn, r.Jobs()[0].Reason)
			continue
		}
		if diff := cmp.Diff(tt.want, ready[0].RunsOn); diff != "" {
			t.Errorf("runs-on: %s (-want +got):\n%s", tt.runsOn, diff)
		}
	}
}

// https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-cancellation
func TestCancel(t *testing.T) {
	r := newRun(t, jobs("a:", "b: if: always()", "c: needs: a", "d: needs: a\nif: cancelled()", "e: strategy: {max-parallel: 1, matrix: {v: [1, 2]}}"), Context{})
	if got, want := nameList(r.Next()), "a, b, e (1)"; got != want {
		t.Fatalf("ready: %s, want %s", got, want)
	}
	cancel := r.Cancel()
	if got, want := nameList(cancel), "a, e (1)"; got != want {
		t.Fatalf("to cancel: %s, want %s", got, want)
	}
	for _, j := range cancel {
		r.Conclude(j.ID, Cancelled, nil)
	}
	ready := r.Next()
	if got, want := nameList(ready), "d"; got != want {
		t.Fatalf("ready after the cancellation: %s, want %s", got, want)
	}
	if r.Done() || r.Conclusion() != "" {
		t.Error("the run is done while b and d are not")
	}
	r.Conclude(ready[0].ID, Success, nil)
	r.Conclude(r.Jobs()[1].ID, Success, nil)
	var got []string
	for _, j := range r.Jobs() {
		got = append(got, j.Name+" "+j.Conclusion)
	}
	want := []string{"a cancelled", "b success", "c cancelled", "d success", "e (1) cancelled", "e (2) cancelled"}
	if diff := cmp.Diff(want, got); diff != "" || r.Conclusion() != Cancelled {
		t.Errorf("run %s (-want +got):\n%s", r.Conclusion(), diff)
	}
}

func TestConcludeTwice(t *testing.T) {
	r := newRun(t, jobs("a:", "b: needs: a"), Context{})
	a, b := r.Next()[0], r.Jobs()[1]
	r.Conclude(b.ID, Failure, nil) // not handed out yet
	r.Conclude(a.ID, Success, map[string]string{"o": "1"})
	r.Conclude(a.ID, Failure, nil)
	r.Conclude("no such job", Failure, nil)
	if a.Conclusion != Success || a.Outputs["o"] != "1" || b.State != Pending {
		t.Errorf("a is %s with %v, b is %s", a.Conclusion, a.Outputs, b.State)
	}
	if _, err := b.Parts(); err == nil {
		t.Error("a pending job has a message")
	}
}

// The job that stands for a definition until it is expanded stays the same job.
func TestJobsKeepTheirIdentity(t *testing.T) {
	r := newRun(t, jobs("a:", "b: needs: a\nname: b ${{ matrix.v }}\nstrategy: {matrix: {v: [1, 2]}}", "c: name: on ${{ github.ref_name }}"), Context{})
	before := slices.Clone(r.Jobs())
	if got, want := nameList(before), "a, b ${{ matrix.v }}, on main"; got != want {
		t.Errorf("names before: %s, want %s", got, want)
	}
	r.Conclude(r.Next()[0].ID, Success, nil)
	r.Next()
	after := r.Jobs()
	if got, want := nameList(after), "a, b 1, b 2, on main"; got != want {
		t.Errorf("names after: %s, want %s", got, want)
	}
	if after[1] != before[1] || after[1].ID == after[2].ID {
		t.Error("the job that stood for b is not its first job")
	}
}

func TestInputs(t *testing.T) {
	const text = `
on:
  workflow_dispatch:
    inputs:
      who: {required: true}
      count: {type: number, default: 3}
      loud: {type: boolean}
      size: {type: choice, options: [small, large]}
jobs:
  a:
    name: ${{ inputs.who }} ${{ inputs.count }} ${{ inputs.loud }} ${{ inputs.size }} ${{ github.event.inputs.count }}
    runs-on: x
    steps: [{run: 'true'}]
`
	w, err := Parse("in.yml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	r, err := w.NewRun(Context{EventName: "workflow_dispatch", Inputs: map[string]string{"WHO": "me", "loud": "true"}})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := r.Next()[0].Name, "me 3 true small 3"; got != want {
		t.Errorf("name %q, want %q", got, want)
	}
	_, err = w.NewRun(Context{EventName: "workflow_dispatch", Inputs: map[string]string{"count": "x", "loud": "perhaps", "size": "huge", "more": ""}})
	want := `cannot take input "who": it is required and was not given
cannot take input "count": it is no number: "x"
cannot take input "loud": it is neither true nor false: "perhaps"
cannot take input "size": "huge" is none of small, large
cannot take input "more": the workflow has none of that name under on.workflow_dispatch.inputs`
	if err == nil || err.Error() != want {
		t.Errorf("got %v\nwant %s", err, want)
	}
	if _, err := w.NewRun(Context{Inputs: map[string]string{"who": "x"}}); err == nil {
		t.Error("a push took inputs")
	}
}
