package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
)

// Names returns the runners that the journal in a folder names. It changes
// nothing and may be called while an agent keeps the folder: a runner is written
// down before GitHub hears of it, so one that GitHub lists, and that Names does
// not know afterwards, belongs to nobody. No folder is no runner.
func Names(dir string) (map[string]bool, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("cannot read journal: %w", err)
	}
	names := map[string]bool{}
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), ending); ok && !strings.HasPrefix(name, ".") {
			names[name] = true
		}
	}
	return names, nil
}
