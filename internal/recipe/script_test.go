package recipe_test

import (
	"errors"
	"path/filepath"
	"testing"

	"github.com/mirego/tasuki/internal/base/proc"
)

// The scripts that run in guests are POSIX shell: Debian's dash and the old
// bash of macOS read them.
func TestScriptsPassShellcheck(t *testing.T) {
	files, err := filepath.Glob("script/*.sh")
	if err != nil || len(files) != 5 {
		t.Fatalf("scripts: %v, %v", files, err)
	}
	_, err = proc.Run(t.Context(), proc.Cmd{Path: "shellcheck", Args: append([]string{"-s", "sh"}, files...), Stdout: t.Output(), Stderr: t.Output()})
	if errors.Is(err, proc.ErrNotInstalled) {
		t.Skip("needs shellcheck: sudo apt-get install shellcheck")
	}
	if err != nil {
		t.Error(err)
	}
}
