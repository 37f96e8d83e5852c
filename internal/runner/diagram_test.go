package runner_test

import (
	"os"
	"strings"
	"testing"

	"github.com/mirego/tasuki/internal/runner"
)

func TestTheGuideShowsTheTable(t *testing.T) {
	const page = "../../docs/how-it-works.md"
	b, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	if want := "```mermaid\n" + runner.Diagram() + "```"; !strings.Contains(string(b), want) {
		t.Errorf("%s does not show the transition table; put this there:\n%s", page, want)
	}
}
