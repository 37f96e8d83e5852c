package cli_test

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// TestDemoThroughTart is the end to end of the tart driver: the demo, with the
// stand-in for tart on PATH and QEMU guests behind it.
func TestDemoThroughTart(t *testing.T) {
	needsQEMU(t)
	home, bin := demoHome(t), t.TempDir()
	tasuki := build(t, "../..", "./cmd/tasuki", filepath.Join(bin, "tasuki"))
	build(t, "../..", "./internal/vm/tart/tarttest/cmd/tart", filepath.Join(bin, "tart"))
	build(t, "../../tools/demorunner", "github.com/ChristopherHX/github-act-runner",
		filepath.Join(bin, "demorunner-linux-"+runtime.GOARCH), "CGO_ENABLED=0")
	t.Setenv("PATH", bin+string(os.PathListSeparator)+os.Getenv("PATH"))
	p := start(t, tasuki, "demo", "--driver", "tart", "--home", home)
	code, out := p.end(), ""
	out = p.output()
	if code != 0 {
		t.Errorf("exit status %d, want 0:\n%s", code, out)
	}
	for _, want := range []string{"stand-in", "in tart's cache", "no virtual machine", "no process", "no disk", "no registration at GitHub"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q", want)
		}
	}
	noProcessOf(t, home)
	log, err := os.ReadFile(filepath.Join(home, "demo.log"))
	if err != nil || !strings.Contains(string(log), "guest agent, trusted by the hypervisor") {
		t.Errorf("the log does not say how guests were reached: %v", err)
	}
	if t.Failed() {
		t.Log(out)
	}
}
