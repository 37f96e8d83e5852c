package problem

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestError(t *testing.T) {
	for want, p := range map[string]Problem{
		"a.yaml:3:5: wrong":                  {File: "a.yaml", Line: 3, Column: 5, What: "wrong"},
		"a.yaml:3:5: wrong; mend it":         {File: "a.yaml", Line: 3, Column: 5, What: "wrong", Mend: "mend it"},
		"a.yaml:3:5: jobs.x: wrong; mend it": {File: "a.yaml", Line: 3, Column: 5, Key: "jobs.x", What: "wrong", Mend: "mend it"},
	} {
		if got := p.Error(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestSorted(t *testing.T) {
	got := List{{File: "b", Line: 1}, {File: "a", Line: 9, Column: 2}, {File: "a", Line: 9, Column: 1, What: "x"}, {File: "a", Line: 9, Column: 1, What: "x"}}.Sorted()
	want := List{{File: "a", Line: 9, Column: 1, What: "x"}, {File: "a", Line: 9, Column: 2}, {File: "b", Line: 1}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("sorted (-want +got):\n%s", diff)
	}
}

func TestNearest(t *testing.T) {
	known := []string{"times", "delay", "lose_reply", "for", "version-deprecated"}
	for word, want := range map[string]string{
		"time": "times", "Delay": "delay", "loseReply": "lose_reply", "lose-reply": "lose_reply", "banana": "",
		"version-depricated": "version-deprecated",
	} {
		if got := Nearest(word, known); got != want {
			t.Errorf("nearest to %q: %q, want %q", word, got, want)
		}
	}
}
