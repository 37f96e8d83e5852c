package workflow

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mirego/tasuki/internal/emulator/workflow/expr"
)

// The first cases are the examples of GitHub's page, with what it says they make:
// https://docs.github.com/en/actions/how-tos/write-workflows/choose-what-workflows-do/run-job-variations
func TestExpandMatrix(t *testing.T) {
	tests := []struct {
		name, matrix string
		want         []string
	}{
		{"two lists, the first varying slowest", `{"version": [10, 12], "os": ["a", "b"]}`,
			[]string{"version=10 os=a", "version=10 os=b", "version=12 os=a", "version=12 os=b"}},
		{"include adds where it changes no original value", `{"fruit": ["apple", "pear"], "animal": ["cat", "dog"], "include": [
			{"color": "green"}, {"color": "pink", "animal": "cat"}, {"fruit": "apple", "shape": "circle"}, {"fruit": "banana"}, {"fruit": "banana", "animal": "cat"}]}`,
			[]string{
				"fruit=apple animal=cat color=pink shape=circle", "fruit=apple animal=dog color=green shape=circle",
				"fruit=pear animal=cat color=pink", "fruit=pear animal=dog color=green", "fruit=banana", "fruit=banana animal=cat"}},
		{"include adds a combination", `{"os": ["macos", "windows"], "version": [12], "include": [{"os": "windows", "version": 17}]}`,
			[]string{"os=macos version=12", "os=windows version=12", "os=windows version=17"}},
		{"include alone", `{"include": [{"site": "production", "datacenter": "a"}, {"site": "staging", "datacenter": "b"}]}`,
			[]string{"site=production datacenter=a", "site=staging datacenter=b"}},
		{"exclude needs to match in part", `{"os": ["macos", "windows"], "version": [12, 14, 16], "environment": ["staging", "production"], "exclude": [
			{"os": "macos", "version": 12, "environment": "production"}, {"os": "windows", "version": 16}]}`,
			[]string{
				"os=macos version=12 environment=staging", "os=macos version=14 environment=staging", "os=macos version=14 environment=production",
				"os=macos version=16 environment=staging", "os=macos version=16 environment=production",
				"os=windows version=12 environment=staging", "os=windows version=12 environment=production",
				"os=windows version=14 environment=staging", "os=windows version=14 environment=production"}},
		{"include comes after exclude", `{"v": [1, 2], "exclude": [{"v": 1}], "include": [{"v": 1, "x": "y"}]}`, []string{"v=2", "v=1 x=y"}},
		{"an include without keys of the lists, after all was excluded", `{"v": [1], "exclude": [{"v": 1}], "include": [{"x": 2}]}`, []string{"x=2"}},
		{"values compare loosely", `{"v": [1, "a"], "exclude": [{"v": "1"}]}`, []string{"v=a"}},
		{"lists of mappings", `{"c": [{"n": 1, "os": "x"}, {"n": 2, "os": "x"}], "exclude": [{"c": {"n": 1}}]}`, []string{"c.n=2 c.os=x"}},
		{"keys compare without case", `{"OS": ["a"], "include": [{"os": "a", "x": 1}]}`, []string{"OS=a x=1"}},
		{"nothing left", `{"v": [1], "exclude": [{"v": 1}]}`, []string{"error: the matrix makes no job"}},
		{"unknown exclude", `{"v": [1], "exclude": [{"w": 1}]}`, []string{`error: matrix exclude key "w" does not match any key within the matrix`}},
		{"no list", `{"v": "x"}`, []string{`error: matrix vector "v" is not a list with values but the text "x"`}},
		{"empty list", `{"v": []}`, []string{`error: matrix vector "v" is not a list with values but an empty list`}},
		{"include of texts", `{"include": ["x"]}`, []string{`error: matrix include has something other than a mapping: the text "x"`}},
		{"no mapping", `[1]`, []string{"error: the matrix is not a mapping but a list"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			v, err := expr.FromJSON(tt.matrix)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, expanded(v)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func expanded(matrix any) []string {
	combinations, err := expandMatrix(matrix)
	if err != nil {
		return []string{"error: " + err.Error()}
	}
	var out []string
	for _, c := range combinations {
		out = append(out, strings.TrimSpace(flat("", c)))
	}
	return out
}

func flat(prefix string, o *expr.Object) string {
	var b strings.Builder
	for _, k := range o.Keys() {
		v, _ := o.Get(k)
		if inner, ok := v.(*expr.Object); ok {
			b.WriteString(flat(prefix+k+".", inner))
			continue
		}
		fmt.Fprintf(&b, "%s%s=%s ", prefix, k, expr.String(v))
	}
	return b.String()
}

func TestMatrixLimit(t *testing.T) {
	list := func(n int) []any {
		out := make([]any, n)
		for i := range out {
			out[i] = float64(i)
		}
		return out
	}
	if got := expanded(expr.NewObject("a", list(16), "b", list(16))); len(got) != 256 {
		t.Errorf("16 by 16 make %d jobs: %.200v", len(got), got)
	}
	if got, want := expanded(expr.NewObject("a", list(257)))[0], "error: the matrix makes 257 jobs, at most 256 are allowed"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	// A product that would not fit in memory is refused before it is made.
	big := list(1000)
	if got := expanded(expr.NewObject("a", big, "b", big, "c", big, "d", big))[0]; !strings.HasPrefix(got, "error: the matrix has more than") {
		t.Errorf("got %q", got)
	}
}

func TestMatrixName(t *testing.T) {
	nested := expr.NewObject("os", "linux", "cfg", expr.NewObject("cc", "gcc", "flags", []any{"-O2", float64(3.1)}), "empty", "", "none", nil, "yes", true)
	if got, want := matrixName("test", nested), "test (linux, gcc, -O2, 3.1, true)"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	long := matrixName("test", expr.NewObject("x", strings.Repeat("ü", 200)))
	if n := len([]rune(long)); n != 100 || !strings.HasSuffix(long, "ü...") {
		t.Errorf("a long name has %d characters: %s", n, long)
	}
}
