package emulator

import (
	"testing"

	"github.com/mirego/tasuki/internal/emulator/workflow"
)

// A tree that is named is checked out as deep as the workflow asks for.
func TestANamedTreeHasTheWorkflowsDepth(t *testing.T) {
	for depth, with := range map[int]string{1: "", 0: "\n        with: {fetch-depth: 0}"} {
		w, err := workflow.Parse("ci.yml", []byte("on: push\njobs:\n  a:\n    runs-on: x\n    steps:\n      - uses: actions/checkout@v4"+with+"\n"))
		if err != nil {
			t.Fatal(err)
		}
		e := New(Options{})
		if _, err := e.Submit(w, t.TempDir()); err != nil {
			t.Fatal(err)
		}
		if got := e.runs[0].tree.Depth; got != depth {
			t.Errorf("with%s: %d commits, want %d", with, got, depth)
		}
	}
}
