package github_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mirego/tasuki/internal/emulator"
	"github.com/mirego/tasuki/internal/runner"
)

func TestEmulatorDownloads(t *testing.T) {
	for _, scope := range []string{"octo/demo", "octo", "enterprises/big"} {
		c, _ := withEmulator(t, scope, emulator.Options{RunnerRelease: emulator.RunnerRelease{Version: "2.400.1", Archive: []byte("x")}})
		got, err := c.Downloads(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var systems []string
		var mac runner.Download
		for _, d := range got {
			systems = append(systems, d.OS+"/"+d.Arch+" "+d.Version)
			if d.OS == "darwin" && d.Arch == "arm64" {
				mac = d
			}
		}
		want := []string{
			"linux/amd64 2.400.1", "linux/arm64 2.400.1", "darwin/amd64 2.400.1",
			"darwin/arm64 2.400.1", "windows/amd64 2.400.1", "windows/arm64 2.400.1",
		}
		if diff := cmp.Diff(want, systems); diff != "" {
			t.Errorf("%s (-want +got):\n%s", scope, diff)
		}
		const sum = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881" // of "x"
		if mac.SHA256 != sum || mac.File != "actions-runner-osx-arm64-2.400.1.tar.gz" || mac.URL == "" {
			t.Errorf("%s offers %+v", scope, mac)
		}
	}
}
