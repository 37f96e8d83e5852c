package runnerdist_test

import (
	"testing"

	"github.com/mirego/tasuki/internal/emulator"
	"github.com/mirego/tasuki/internal/github"
	"github.com/mirego/tasuki/internal/runnerdist"
)

func TestEmulatorsReleaseIsKept(t *testing.T) {
	e := emulator.New(emulator.Options{RunnerRelease: emulator.RunnerRelease{Version: "2.400.1", Archive: archiveOf("demo")}})
	carrier := emulator.Transport{Handler: e.Handler()}
	gh, err := github.New(github.Options{URL: "http://127.0.0.1:1", Scope: "octo/demo", HTTP: carrier})
	if err != nil {
		t.Fatal(err)
	}
	c, _ := open(t, t.TempDir(), nil, func(o *runnerdist.Options) {
		o.Sources, o.HTTP = func() []runnerdist.Source { return []runnerdist.Source{gh} }, carrier
		o.Platforms = []runnerdist.Platform{{OS: "darwin", Arch: "arm64"}, linux}
	})
	until(t, c, "both releases", func() bool {
		mac, ok := c.Latest("darwin", "arm64")
		return ok && mac.Version == "2.400.1" && has(c, "2.400.1")()
	})
}
