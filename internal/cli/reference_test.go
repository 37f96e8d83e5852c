package cli

import (
	"io"
	"testing"
)

func TestReferenceIsGenerated(t *testing.T) {
	a := &app{stdout: io.Discard, stderr: io.Discard}
	golden(t, "../../docs/reference/cli.md", reference(newRoot(a)))
}

func TestEveryCommandSaysWhatItDoes(t *testing.T) {
	a := &app{stdout: io.Discard, stderr: io.Discard}
	for _, cmd := range allCommands(newRoot(a)) {
		if cmd.Short == "" || cmd.RunE == nil {
			t.Errorf("%s: no short text, or it does nothing", cmd.CommandPath())
		}
	}
}
