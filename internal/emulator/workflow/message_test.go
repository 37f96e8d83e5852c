package workflow

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// counted makes GUIDs that a golden message can hold.
func counted() func() string {
	n := 0
	return func() string {
		n++
		return fmt.Sprintf("id-%d", n)
	}
}

// parts returns the message parts of a workflow's first job.
func parts(t *testing.T, text string, c Context) string {
	t.Helper()
	w, err := Parse(".github/workflows/emu.yml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	c.NewID = counted()
	r, err := w.NewRun(c)
	if err != nil {
		t.Fatal(err)
	}
	p, err := r.Next()[0].Parts()
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	return indented(t, b)
}

func indented(t *testing.T, b []byte) string {
	t.Helper()
	var out bytes.Buffer
	if err := json.Indent(&out, b, "", " "); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// The message that a prototype sent and that github-act-runner has executed: two steps, an output, a secret.
// The github context is longer here; everything else is the same.
func TestParts(t *testing.T) {
	const text = `
name: emu
on: push
jobs:
  build:
    runs-on: self-hosted
    outputs:
      greeting: ${{ steps.two.outputs.greeting }}
    steps:
      - id: one
        run: echo hello; uname -a
      - id: two
        name: second
        timeout-minutes: 5
        env:
          TOK: ${{ secrets.MYSECRET }}
        run: echo greeting=hi-there >> $GITHUB_OUTPUT; echo tok=$TOK
`
	got := parts(t, text, Context{
		Repository: "octo/demo", Ref: "refs/heads/main", SHA: "0123456789012345678901234567890123456789", Actor: "octocat", EventName: "push",
		ServerURL: "http://10.0.0.1:8080", APIURL: "http://10.0.0.1:8080/api/v3", GraphQLURL: "http://10.0.0.1:8080/api/graphql",
		Secrets: map[string]string{"MYSECRET": "hunter2secret"}, Event: map[string]any{"ref": "refs/heads/main"},
	})
	want := indented(t, []byte(`{
 "jobDisplayName":"build", "jobName":"build",
 "steps":[
  {"type":"action","reference":{"type":"script"},"id":"id-2","name":"__run","contextName":"one",
   "displayNameToken":"Run echo hello; uname -a","condition":"success()",
   "inputs":{"type":2,"map":[{"Key":"script","Value":"echo hello; uname -a"}]}},
  {"type":"action","reference":{"type":"script"},"id":"id-3","name":"__run","contextName":"two",
   "displayNameToken":"second","condition":"success()","timeoutInMinutes":5,
   "environment":{"type":2,"map":[{"Key":"TOK","Value":{"type":3,"expr":"secrets.MYSECRET"}}]},
   "inputs":{"type":2,"map":[{"Key":"script","Value":"echo greeting=hi-there \u003e\u003e $GITHUB_OUTPUT; echo tok=$TOK"}]}}],
 "environmentVariables":[], "defaults":[],
 "jobOutputs":{"type":2,"map":[{"Key":"greeting","Value":{"type":3,"expr":"steps.two.outputs.greeting"}}]},
 "contextData":{
  "github":{"t":2,"d":[
   {"k":"repository","v":"octo/demo"},{"k":"repository_owner","v":"octo"},{"k":"repositoryUrl","v":"git://10.0.0.1:8080/octo/demo.git"},
   {"k":"workflow","v":"emu"},{"k":"workflow_ref","v":"octo/demo/.github/workflows/emu.yml@refs/heads/main"},{"k":"workflow_sha","v":"0123456789012345678901234567890123456789"},
   {"k":"event_name","v":"push"},{"k":"event","v":{"t":2,"d":[{"k":"ref","v":"refs/heads/main"}]}},
   {"k":"server_url","v":"http://10.0.0.1:8080"},{"k":"api_url","v":"http://10.0.0.1:8080/api/v3"},{"k":"graphql_url","v":"http://10.0.0.1:8080/api/graphql"},
   {"k":"run_id","v":"1"},{"k":"run_number","v":"1"},{"k":"run_attempt","v":"1"},{"k":"actor","v":"octocat"},{"k":"triggering_actor","v":"octocat"},
   {"k":"sha","v":"0123456789012345678901234567890123456789"},{"k":"ref","v":"refs/heads/main"},{"k":"ref_name","v":"main"},{"k":"ref_type","v":"branch"},
   {"k":"ref_protected","v":false},{"k":"head_ref","v":""},{"k":"base_ref","v":""},{"k":"secret_source","v":"Actions"}]},
  "inputs":{"t":2}, "matrix":null, "needs":{"t":2},
  "strategy":{"t":2,"d":[{"k":"fail-fast","v":true},{"k":"job-index","v":0},{"k":"job-total","v":1},{"k":"max-parallel","v":1}]},
  "vars":{"t":2}},
 "variables":{"MYSECRET":{"value":"hunter2secret","isSecret":true}},
 "fileTable":[".github/workflows/emu.yml"],
 "mask":[{"type":"regex","value":"hunter2secret"}]
}`))
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// Everything else that a step, an environment and a matrix can hold.
func TestPartsInFull(t *testing.T) {
	const text = `
on: push
env: {TOP: 010, NONE: }
defaults: {run: {shell: sh, working-directory: all}}
jobs:
  test:
    runs-on: x
    env: {MATRIX: "${{ matrix.os }}'s {x}", B: true}
    defaults: {run: {working-directory: "in ${{ matrix.os }}"}}
    strategy:
      matrix: {os: [linux], list: [[1, two, {three: 3.10}]], none: [null]}
    steps:
      - run: |

          echo "${{ matrix.os }}"
          exit
        shell: bash
        if: matrix.os == 'linux' && (github.ref || true)
        continue-on-error: ${{ matrix.os == 'x' }}
      - uses: actions/checkout@v4
        with: {path: 1.10, clean: false}
        if: ${{ failure() }}
      - run: echo ${{ format('a
          b') }}
        continue-on-error: true
        name: It's ${{ matrix.os }} {0}
      - uses: ./.github/actions/x
        id: __run_2
        timeout-minutes: ${{ fromJSON('1') }}
      - run: last
`
	got := parts(t, text, Context{Repository: "octo/demo", Secrets: map[string]string{"A": "line one\n  li.ne two\n\n"}, Vars: map[string]string{"V": "1"}})
	var message map[string]any
	if err := json.Unmarshal([]byte(got), &message); err != nil {
		t.Fatal(err)
	}
	contexts := message["contextData"].(map[string]any)
	delete(contexts, "github")
	delete(message, "variables")
	b, err := json.Marshal(message)
	if err != nil {
		t.Fatal(err)
	}
	want := `{
 "contextData": {
  "inputs":{"t":2},
  "matrix":{"d":[{"k":"os","v":"linux"},{"k":"list","v":{"a":[1,"two",{"d":[{"k":"three","v":3.1}],"t":2}],"t":1}},{"k":"none","v":null}],"t":2},
  "needs":{"t":2},
  "strategy":{"d":[{"k":"fail-fast","v":true},{"k":"job-index","v":0},{"k":"job-total","v":1},{"k":"max-parallel","v":1}],"t":2},
  "vars":{"d":[{"k":"V","v":"1"}],"t":2}},
 "defaults": [
  {"map":[{"Key":"run","Value":{"map":[{"Key":"shell","Value":"sh"},{"Key":"working-directory","Value":"all"}],"type":2}}],"type":2},
  {"map":[{"Key":"run","Value":{"map":[{"Key":"working-directory","Value":{"expr":"format('in {0}', matrix.os)","type":3}}],"type":2}}],"type":2}],
 "environmentVariables": [
  {"map":[{"Key":"TOP","Value":"10"},{"Key":"NONE","Value":""}],"type":2},
  {"map":[{"Key":"MATRIX","Value":{"expr":"format('{0}''s {{x}}', matrix.os)","type":3}},{"Key":"B","Value":"true"}],"type":2}],
 "fileTable": [".github/workflows/emu.yml"],
 "jobDisplayName": "test (linux, 1, two, 3.1)",
 "jobName": "test",
 "jobOutputs": null,
 "mask": [{"type":"regex","value":"li\\.ne two"},{"type":"regex","value":"line one"}],
 "steps": [
  {"condition":"success() && (matrix.os == 'linux' && (github.ref || true))","contextName":"__run","continueOnError":{"expr":"matrix.os == 'x'","type":3},
   "displayNameToken":{"expr":"format('Run echo \"{0}\"', matrix.os)","type":3},"id":"id-2",
   "inputs":{"map":[{"Key":"script","Value":{"expr":"format('\necho \"{0}\"\nexit\n', matrix.os)","type":3}},{"Key":"shell","Value":"bash"},{"Key":"workingDirectory","Value":{"expr":"format('in {0}', matrix.os)","type":3}}],"type":2},
   "name":"__run","reference":{"type":"script"},"type":"action"},
  {"condition":"failure()","contextName":"__actions_checkout","displayNameToken":"Run actions/checkout@v4","id":"id-3",
   "inputs":{"map":[{"Key":"path","Value":"1.1"},{"Key":"clean","Value":"false"}],"type":2},
   "name":"__actions_checkout","reference":{"name":"actions/checkout","ref":"v4","repositoryType":"GitHub","type":"repository"},"type":"action"},
  {"condition":"success()","contextName":"__run_3","continueOnError":true,"displayNameToken":{"expr":"format('It''s {0} {{0}}', matrix.os)","type":3},"id":"id-4",
   "inputs":{"map":[{"Key":"script","Value":{"expr":"format('echo {0}', format('a b'))","type":3}},{"Key":"shell","Value":"sh"},{"Key":"workingDirectory","Value":{"expr":"format('in {0}', matrix.os)","type":3}}],"type":2},
   "name":"__run","reference":{"type":"script"},"type":"action"},
  {"condition":"success()","contextName":"__run_2","displayNameToken":"Run ./.github/actions/x","id":"id-5",
   "name":"__self","reference":{"path":"./.github/actions/x","repositoryType":"self","type":"repository"},"timeoutInMinutes":{"expr":"fromJSON('1')","type":3},"type":"action"},
  {"condition":"success()","contextName":"__run_4","displayNameToken":"Run last","id":"id-6",
   "inputs":{"map":[{"Key":"script","Value":"last"},{"Key":"shell","Value":"sh"},{"Key":"workingDirectory","Value":{"expr":"format('in {0}', matrix.os)","type":3}}],"type":2},
   "name":"__run","reference":{"type":"script"},"type":"action"}]
}`
	if diff := cmp.Diff(reencoded(t, want), reencoded(t, string(b))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// reencoded brings two texts of JSON to the same order of keys.
func reencoded(t *testing.T, text string) string {
	t.Helper()
	var v any
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	b, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestPartsPrintNoSecret(t *testing.T) {
	r := newRun(t, jobs("a:"), Context{Secrets: map[string]string{"S": "hunter2"}})
	p, err := r.Next()[0].Parts()
	if err != nil {
		t.Fatal(err)
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
		if text := fmt.Sprintf(verb, p); strings.Contains(text, "hunter2") || !strings.Contains(text, "[redacted]") {
			t.Errorf("%s prints %s", verb, text)
		}
	}
}

func TestGUID(t *testing.T) {
	a, b := newGUID(), newGUID()
	if len(a) != 36 || a == b || a[14] != '4' {
		t.Errorf("GUIDs %s and %s", a, b)
	}
}
