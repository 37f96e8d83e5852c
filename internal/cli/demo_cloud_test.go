package cli_test

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"github.com/mirego/tasuki/internal/image/cloud/cloudtest"
)

// TestDemoFromACloudImage is the demo as a Mac has it: its image is made of a
// cloud image, here of one that the test made, and a job runs in it.
func TestDemoFromACloudImage(t *testing.T) {
	needsQEMU(t)
	home, bin := t.TempDir(), t.TempDir()
	tasuki := build(t, "../..", "./cmd/tasuki", filepath.Join(bin, "tasuki"))
	build(t, "../../tools/demorunner", "github.com/ChristopherHX/github-act-runner",
		filepath.Join(bin, "demorunner-linux-"+runtime.GOARCH), "CGO_ENABLED=0")
	disk, sum := cloudtest.Disk(t, runtime.GOARCH)
	shipped, err := os.ReadFile("demo_cloud.yaml")
	if err != nil {
		t.Fatal(err)
	}
	text := regexp.MustCompile(`(?s)\ndisk:\n.*?\n\n`).ReplaceAllString(string(shipped), "\ndisk: {url: "+disk+", "+strings.Replace(sum, ":", ": ", 1)+"}\n\n")
	file := filepath.Join(t.TempDir(), "cloud.yaml")
	job := filepath.Join(t.TempDir(), "job.yml")
	one := "on: push\njobs:\n  in-it:\n    runs-on: [self-hosted, Linux]\n    steps:\n      - run: test -d /run/systemd/system && echo a cloud image\n"
	if err := errors.Join(os.WriteFile(file, []byte(text), 0o600), os.WriteFile(job, []byte(one), 0o600)); err != nil {
		t.Fatal(err)
	}
	p := start(t, tasuki, "demo", "--slots", "1", "--home", home, "--image-from", file, job)
	code, out := p.endWithin(2*demoPatience), "" // the image is built, too
	out = p.output()
	for _, want := range []string{"guest image of recipe demo-cloud, built ", "by its digest", "Jobs: 1 success", "no virtual machine", "no process", "no disk"} {
		if code != 0 || !strings.Contains(out, want) {
			t.Fatalf("exit status %d, no %q:\n%s", code, want, out)
		}
	}
	noProcessOf(t, home)
}
