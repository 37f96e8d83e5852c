package guest

import (
	"context"
	"fmt"
	"io"
	"strings"
)

// RunnerVersion asks an official runner program for its version; empty: it does
// not say.
func RunnerVersion(ctx context.Context, ch Channel, p Program) (string, error) {
	status, stdout, _, err := call(ctx, ch, script("version", map[string]string{"dir": strings.TrimSuffix(p.Dir, "/")}), nil)
	if err != nil {
		return "", fmt.Errorf("cannot ask the runner program for its version: %w", err)
	}
	if status != 0 {
		return "", nil
	}
	return strings.TrimSpace(stdout), nil
}

// Unpack puts another release of an official runner program into the guest,
// beside the image's, and returns its folder. The image's settings (.env and
// .path) go with it. A release that is there already is not read again; half a
// release is never left at its place.
func Unpack(ctx context.Context, ch Channel, p Program, version string, archive io.Reader) (dir string, err error) {
	dir = "~/.tasuki/actions-runner-" + version
	vars := map[string]string{"dir": dir, "from": strings.TrimSuffix(p.Dir, "/")}
	status, stdout, stderr, err := call(ctx, ch, script("unpacked", vars), nil)
	if err == nil && status == 0 && strings.TrimSpace(stdout) != "yes" {
		status, _, stderr, err = call(ctx, ch, script("unpack", vars), archive)
	}
	if err == nil && status != 0 {
		err = failed(status, stderr)
	}
	if err != nil {
		return "", fmt.Errorf("cannot unpack the runner program: %w", err)
	}
	return dir, nil
}
