package qemu_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/mirego/tasuki/internal/image"
	"github.com/mirego/tasuki/internal/image/debian"
	"github.com/mirego/tasuki/internal/vm/qemu"
)

// guestImage builds the image that we ship, with a runner program that does
// nothing, and keeps it for the next time in the user's cache folder.
func guestImage(t *testing.T) image.Local {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	runner := t.TempDir()
	for name, content := range map[string]string{"run.sh": "#!/bin/sh\n", "bin/Runner.Listener": "#!/bin/sh\n"} {
		path := filepath.Join(runner, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	src, err := debian.Build(t.Context(), debian.Options{CacheDir: filepath.Join(cache, "tasuki", "test-images"), Runner: runner})
	if err != nil {
		t.Fatal(err)
	}
	return image.Local{
		Digest: "sha256:test", Dir: filepath.Dir(src.Disk), Disk: src.Disk,
		Kernel: src.Kernel, Initrd: src.Initrd, Labels: src.Labels,
	}
}

// relayProgram is a relay that QEMU starts for each connection.
func relayProgram(t *testing.T) []string {
	t.Helper()
	return []string{qemu.RoleScript(t, "relay", ""), "a word with 'quotes', and a comma"}
}
