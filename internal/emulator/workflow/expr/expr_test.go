package expr_test

import (
	"encoding/json"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mirego/tasuki/internal/emulator/workflow/expr"
)

// scope has what the examples of GitHub's page on expressions and contexts use.
func scope(t *testing.T) expr.Scope {
	t.Helper()
	contexts, err := expr.FromJSON(`{
		"github": {"event": {"issue": {"labels": [{"name": "bug", "id": 1}, {"name": "help wanted"}, {"id": 3}]}}, "ref": "refs/heads/Main", "EMPTY": ""},
		"matrix": {"node": 3.10, "list": [1, "two", null, true], "nested": {"a": {"x": 1}, "b": {"x": [2, 3]}, "c": 4}},
		"needs": {}
	}`)
	if err != nil {
		t.Fatal(err)
	}
	return expr.Scope{
		Contexts: contexts.(*expr.Object),
		Status:   func(f string) bool { return f == "success" || f == "always" },
	}
}

// Sources: https://docs.github.com/en/actions/reference/workflows-and-actions/expressions, sections Literals,
// Operators, Functions, Object filters.
func TestEval(t *testing.T) {
	tests := []struct{ src, want string }{
		// literals
		{`null`, `null`}, {`true`, `true`}, {`711`, `711`}, {`-9.2`, `-9.2`}, {`0xff`, `255`}, {`-2.99e-2`, `-0.0299`}, {`'It''s'`, `"It's"`},
		// loose equality: other kinds become numbers
		{`null == 0`, `true`}, {`null == ''`, `true`}, {`true == 1`, `true`}, {`'' == 0`, `true`}, {`' 12 ' == 12`, `true`}, {`'0x10' == 16`, `true`},
		{`'abc' == 0`, `false`}, {`'true' == true`, `false`}, {`'1' == true`, `true`}, {`null == false`, `true`}, {`'Infinity' == 'infinity'`, `true`},
		{`'nope' != 'nope'`, `false`}, {`fromJSON('NaN') == 1`, `error`},
		// relational operators on what is no number are false both ways
		{`'abc' < 1`, `false`}, {`'abc' >= 1`, `false`}, {`'b' > 'A'`, `true`}, {`'a' <= 'A'`, `true`}, {`true > false`, `true`}, {`2 > true`, `true`}, {`null < 1`, `true`},
		// texts compare without regard to case
		{`github.ref == 'REFS/heads/main'`, `true`},
		// lists and objects are equal only to themselves
		{`matrix.list == matrix.list`, `true`}, {`fromJSON('[1]') == fromJSON('[1]')`, `false`}, {`matrix.nested == matrix.nested`, `true`}, {`matrix.list == 'Array'`, `false`},
		// logical operators return an operand
		{`'' || 'default'`, `"default"`}, {`0 && 'x'`, `0`}, {`'a' && 'b'`, `"b"`}, {`!'' `, `true`}, {`!!matrix.list`, `true`}, {`false || false && true || 7`, `7`},
		// access
		{`github.event.issue.labels[1].name`, `"help wanted"`}, {`github['REF']`, `"refs/heads/Main"`}, {`GitHub.Ref`, `"refs/heads/Main"`},
		{`github.nothing.at.all`, `null`}, {`matrix.list[9]`, `null`}, {`matrix.list[-1]`, `null`}, {`matrix.list['1']`, `"two"`}, {`matrix.list[1.9]`, `"two"`},
		{`github.ref.length`, `null`}, {`matrix[matrix.list]`, `null`},
		// object filters
		{`github.event.issue.labels.*.name`, `["bug","help wanted"]`}, {`github.event.issue.labels.*.id`, `[1,3]`}, {`matrix.nested.*.x`, `[1,[2,3]]`},
		{`matrix.nested.*.x.*`, `[2,3]`}, {`matrix.nested.*`, `[{"x":1},{"x":[2,3]},4]`}, {`github.ref.*`, `[]`}, {`contains(github.event.issue.labels.*.name, 'BUG')`, `true`},
		{`github.event.issue.labels.*.name[0]`, `[]`},
		// contains
		{`contains('Hello world', 'LLO')`, `true`}, {`contains(fromJSON('["push", "pull_request"]'), 'Push')`, `true`}, {`contains(matrix.list, 2)`, `false`},
		{`contains(matrix.list, '1')`, `true`}, {`contains(711, '1')`, `true`}, {`contains(matrix.nested, 'a')`, `false`}, {`contains('abc', '')`, `true`},
		{`startsWith('Hello world', 'he')`, `true`}, {`endsWith('Hello world', 'LD')`, `true`}, {`startsWith(matrix.list, 'A')`, `false`},
		// format
		{`format('Hello {0} {1} {2}', 'Mona', 'the', 'Octocat')`, `"Hello Mona the Octocat"`}, {`format('{{Hello {0}}}', 'x')`, `"{Hello x}"`},
		{`format('{0}{0}', null, 1)`, `""`}, {`format('{1}', 1)`, `error`}, {`format('{', 1)`, `error`}, {`format('}', 1)`, `error`}, {`format('{x}', 1)`, `error`},
		// join
		{`join(github.event.issue.labels.*.name, ', ')`, `"bug, help wanted"`}, {`join(matrix.list)`, `"1,two,,true"`}, {`join('a', '-')`, `"a"`}, {`join(matrix.nested)`, `""`},
		// JSON
		{`toJSON(matrix.list)`, `"[\n  1,\n  \"two\",\n  null,\n  true\n]"`}, {`toJSON(needs)`, `"{}"`}, {`toJSON('a<b')`, `"\"a<b\""`},
		{`fromJSON('{"b":1,"a":[true]}')`, `{"b":1,"a":[true]}`}, {`fromJSON(toJSON(matrix.nested)).B.x[1]`, `3`}, {`fromJSON('')`, `error`}, {`fromJSON('1 2')`, `error`}, {`fromJSON('{"a":')`, `error`},
		// case
		{`case(1 == 2, 'a', true, 'b', 'c')`, `"b"`}, {`case(false, 'a', 'c')`, `"c"`}, {`case(false, fromJSON(''), 1)`, `1`}, {`case('x', 1, 2)`, `error`},
		// numbers as text
		{`format('{0}', 3.10)`, `"3.1"`}, {`format('{0}', 1e20)`, `"1E+20"`}, {`format('{0}', 0.00001)`, `"1E-05"`}, {`format('{0}', 123456789012345.0)`, `"123456789012345"`},
		{`format('{0} {1} {2}', matrix.nested, matrix.list, true)`, `"Object Array true"`}, {`format('{0}', 0.1)`, `"0.1"`},
		// status
		{`success() && !failure()`, `true`}, {`Always()`, `true`}, {`cancelled()`, `false`},
		{`hashFiles('x')`, `error`}, {`unknown.x`, `error`},
	}
	for _, tt := range tests {
		e, err := expr.Parse(tt.src)
		if err != nil {
			t.Errorf("Parse(%s): %v", tt.src, err)
			continue
		}
		got := "error"
		if v, err := e.Eval(scope(t)); err == nil {
			got = compact(t, v)
		}
		if got != tt.want {
			t.Errorf("%s = %s, want %s", tt.src, got, tt.want)
		}
	}
}

func compact(t *testing.T, v any) string {
	t.Helper()
	text, err := expr.ToJSON(v)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	// json.Compact keeps the order of keys, which decoding would lose.
	var raw json.RawMessage
	if err := d.Decode(&raw); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	inString := false
	for i, r := range string(raw) {
		if r == '"' && (i == 0 || raw[i-1] != '\\') {
			inString = !inString
		}
		if inString || !strings.ContainsRune(" \n", r) {
			b.WriteRune(r)
		}
	}
	return b.String()
}

func TestParseRefuses(t *testing.T) {
	for _, src := range []string{
		``, `github.`, `'open`, `"double"`, `1 +1`, `a b`, `a }} b`, `foo(`, `True x`, `a == b == c`,
		strings.Repeat("!", 60) + "true",
		strings.Repeat("(", 200000) + "1" + strings.Repeat(")", 200000),
	} {
		if _, err := expr.Parse(src); err == nil {
			t.Errorf("Parse(%.40q) succeeded", src)
		}
	}
}

func TestParseEmbedded(t *testing.T) {
	e, n, err := expr.ParseEmbedded(` format('}} {0}', github.ref) }} rest`)
	if err != nil {
		t.Fatal(err)
	}
	if want := len(` format('}} {0}', github.ref) }}`); n != want {
		t.Errorf("the expression ends at %d, want %d", n, want)
	}
	if want := `format('}} {0}', github.ref)`; e.Source() != want {
		t.Errorf("Source() = %q, want %q", e.Source(), want)
	}
}

func TestCheck(t *testing.T) {
	tests := []struct {
		src, key string
		want     []string
	}{
		{`github.ref`, "jobs.<job_id>.if", nil},
		{`secrets.X || nope.y`, "jobs.<job_id>.if", []string{
			`context "secrets" is not available here: only github, inputs, needs, vars are`,
			`unknown context "nope": there are github, inputs, needs, vars`}},
		{`matrix.x`, "jobs.<job_id>.if", []string{`context "matrix" is not available here: only github, inputs, needs, vars are`}},
		{`success()`, "jobs.<job_id>.name", []string{`function "success" is not available here`}},
		{`hashFiles('a')`, "jobs.<job_id>.steps.env", nil},
		{`nope('a')`, "jobs.<job_id>.steps.env", []string{`unknown function "nope"`}},
		{`contains('a')`, "env", []string{`function "contains" has too few parameters: 1, needed are 2`}},
		{`always(1)`, "jobs.<job_id>.if", []string{`function "always" has too many parameters: 1, at most 0`}},
		{`case(true, 1, false, 2)`, "env", []string{`function "case" needs pairs of condition and value, and a default: 4 parameters are even`}},
	}
	for _, tt := range tests {
		e, err := expr.Parse(tt.src)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, e := range e.Check(expr.At(tt.key)) {
			got = append(got, e.Message)
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("Check(%s) at %s (-want +got):\n%s", tt.src, tt.key, diff)
		}
	}
}

func TestCallsStatusAndUses(t *testing.T) {
	tests := []struct {
		src          string
		status, need bool
	}{
		{`needs.a.result == 'success'`, false, true},
		{`github.x && !(FAILURE() || true)`, true, false},
		{`contains(fromJSON(needs.a.outputs.x), 'success()')`, false, true},
	}
	for _, tt := range tests {
		e, err := expr.Parse(tt.src)
		if err != nil {
			t.Fatal(err)
		}
		if e.CallsStatus() != tt.status || e.Uses("needs") != tt.need {
			t.Errorf("%s: CallsStatus %v, Uses(needs) %v", tt.src, e.CallsStatus(), e.Uses("needs"))
		}
	}
}

func TestResultIsBounded(t *testing.T) {
	src := `'x'`
	for range 40 {
		src = `format('{0}{0}', ` + src + `)`
	}
	e, err := expr.Parse(src)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.Eval(expr.Scope{}); err == nil {
		t.Error("an expression of a terabyte was evaluated")
	}
}

func TestNumber(t *testing.T) {
	for in, want := range map[string]float64{"": 0, " ": 0, "-1.5e2": -150, ".5": .5, "0o17": 15, "0x1F": 31, "1_000": math.NaN(), "abc": math.NaN(), "1e999": math.NaN()} {
		if got := expr.Number(in); got != want && !(math.IsNaN(got) && math.IsNaN(want)) {
			t.Errorf("Number(%q) = %v, want %v", in, got, want)
		}
	}
}

func FuzzEval(f *testing.F) {
	for _, s := range []string{`a.b[0].*.c == 'x' && !format('{0}', 1)`, `fromJSON('[{}]')[0]`, `case(true,1,2)`, `join(github.*, 0x1)`, `github.*[0].*`} {
		f.Add(s)
	}
	contexts := expr.NewObject("github", expr.FromGo(map[string]any{"a": []any{1, "b"}}))
	f.Fuzz(func(t *testing.T, src string) {
		e, err := expr.Parse(src)
		if err != nil {
			return
		}
		e.Check(expr.At("env"))
		v, err := e.Eval(expr.Scope{Contexts: contexts, Status: func(string) bool { return true }})
		if err == nil {
			_ = expr.String(v)
			_, _ = expr.ToJSON(v)
		}
	})
}
