package cli

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"github.com/mirego/tasuki/internal/client"
	"github.com/mirego/tasuki/internal/config"
	"github.com/mirego/tasuki/internal/daemon"
)

func TestErrorsBecomeExitStatusesAndHints(t *testing.T) {
	for name, tc := range map[string]struct {
		err    error
		status int
		stderr string
	}{
		"well":     {nil, 0, ""},
		"no":       {fmt.Errorf("checking: %w", errNo), 1, ""},
		"other":    {errors.New("cannot"), 2, "tasuki: cannot\n"},
		"hint":     {withHint(errors.New("cannot"), "try this"), 2, "tasuki: cannot\nhint: try this\n"},
		"table":    {fmt.Errorf("%w, pid 7", daemon.ErrRunning), 2, "tasuki: an agent runs already, pid 7\nhint: stop it first, or give this one another host.home; tasuki status shows what it does\n"},
		"agent":    {&client.Error{Status: 404, Message: "cannot find", Hint: "look"}, 2, "tasuki: cannot find\nhint: look\n"},
		"program":  {exitStatus(42), 42, ""},
		"problems": {config.Problems{{File: "f", Line: 1, Column: 2, What: "w", Mend: "m"}}, 2, "f:1:2: w; m\n"},
	} {
		t.Run(name, func(t *testing.T) {
			var stderr bytes.Buffer
			a := &app{stderr: &stderr}
			if got := a.exit(tc.err); got != tc.status {
				t.Errorf("status %d, want %d", got, tc.status)
			}
			if stderr.String() != tc.stderr {
				t.Errorf("stderr %q, want %q", stderr.String(), tc.stderr)
			}
		})
	}
}
