package cli_test

import (
	"archive/tar"
	"compress/gzip"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/mirego/tasuki/internal/base/proc"
	"github.com/mirego/tasuki/internal/image/cloud/cloudtest"
)

// TestTheLinuxRecipe builds recipes/linux-runner.yaml as a person would and runs
// a job in the image: Debian's packages come from its mirror, into a guest on
// the internet. What cloud.debian.org and github.com publish comes from stand-ins
// on this host: a cloud image that the test made, as qcow2, and an archive in the
// layout of actions/runner around another program.
func TestTheLinuxRecipe(t *testing.T) {
	if os.Getenv("TASUKI_SOAK") == "" {
		t.Skip("builds for many minutes, with hundreds of packages: set TASUKI_SOAK=1")
	}
	needsQEMU(t)
	home, bin, files := t.TempDir(), t.TempDir(), t.TempDir()
	tasuki := build(t, "../..", "./cmd/tasuki", filepath.Join(bin, "tasuki"))
	act := build(t, "../../tools/demorunner", "github.com/ChristopherHX/github-act-runner", filepath.Join(bin, "act"), "CGO_ENABLED=0")
	raw, _ := cloudtest.Disk(t, runtime.GOARCH)
	disk, archive := filepath.Join(files, "disk.qcow2"), filepath.Join(files, "runner.tar.gz")
	if _, err := proc.Run(t.Context(), proc.Cmd{Path: "qemu-img", Args: []string{"convert", "-q", "-f", "raw", "-O", "qcow2", raw, disk}}); err != nil {
		t.Fatal(err)
	}
	packOfficial(t, archive, act)
	web := httptest.NewServer(http.FileServer(http.Dir(files)))
	defer web.Close()

	text, err := os.ReadFile("../../recipes/linux-runner.yaml")
	if err != nil {
		t.Fatal(err)
	}
	replace := func(pattern, with string) {
		t.Helper()
		was := string(text)
		if text = regexp.MustCompile(pattern).ReplaceAll(text, []byte(with)); string(text) == was {
			t.Fatalf("the recipe has no %s", pattern)
		}
	}
	replace(`https://cloud\.debian\.org/\S+`, web.URL+"/disk.qcow2")
	replace(`sha512: [0-9a-f]{128}`, "sha512: "+sha512Of(t, disk))
	replace(`https://github\.com/\S+`, web.URL+"/runner.tar.gz")
	recipe := filepath.Join(t.TempDir(), "linux-runner.yaml")
	if err := os.WriteFile(recipe, text, 0o600); err != nil {
		t.Fatal(err)
	}
	sum := sha256Of(t, archive)
	vars := []string{"--var", "RUNNER_SHA256_AMD64=" + sum, "--var", "RUNNER_SHA256_ARM64=" + sum, "--var", "PACKAGES=hello"}

	began := time.Now()
	res, err := proc.Run(t.Context(), proc.Cmd{Path: tasuki, Stderr: t.Output(), Args: append([]string{"image", "build", recipe, "--home", home}, vars...)})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("built in %v", time.Since(began).Round(time.Second))
	if _, err := os.Stat(filepath.Join(strings.TrimSpace(string(res.Stdout)), "image.json")); err != nil {
		t.Errorf("it names no image: %q, %v", res.Stdout, err)
	}

	// A demo in the same home takes what is built there, and runs a job in it.
	job := filepath.Join(t.TempDir(), "job.yml")
	steps := "on: push\njobs:\n  in-it:\n    runs-on: [self-hosted, Linux]\n    steps:\n" +
		"      - run: hello && git --version && gcc --version && jq --version && sudo -n id -u\n"
	if err := errors.Join(os.WriteFile(job, []byte(steps), 0o600), os.WriteFile(filepath.Join(home, "this-is-a-demo"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	began = time.Now()
	p := start(t, tasuki, append([]string{"demo", "--slots", "1", "--home", home, "--image-from", recipe, job}, vars...)...)
	code, out := p.end(), ""
	out = p.output()
	t.Logf("the demo took %v", time.Since(began).Round(time.Second))
	if code != 0 || !strings.Contains(out, "built before") || !strings.Contains(out, "Jobs: 1 success") {
		t.Errorf("exit status %d:\n%s", code, out)
	}
	noProcessOf(t, home)
}

// packOfficial makes an archive in the layout of actions/runner. Its listener is
// a script around github-act-runner, and takes "warmup".
func packOfficial(t *testing.T, path, act string) {
	t.Helper()
	const from = "../e2e/testdata/official/"
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	zip := gzip.NewWriter(f)
	w := tar.NewWriter(zip)
	add := func(name string, data []byte) {
		err := w.WriteHeader(&tar.Header{Name: "./" + name, Mode: 0o755, Size: int64(len(data))})
		if err == nil {
			_, err = w.Write(data)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"run.sh", "run-helper.sh", "bin/Runner.Listener", act} {
		file := from + name
		if name == act {
			file, name = act, "bin/github-act-runner"
		}
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if name == "bin/Runner.Listener" {
			data = []byte(strings.Replace(string(data), "if [ ", "[ \"$1\" != warmup ] || exit 0\nif [ ", 1))
		}
		add(name, data)
	}
	add("VERSION", []byte("2.335.1\n"))
	if err := errors.Join(w.Close(), zip.Close(), f.Close()); err != nil {
		t.Fatal(err)
	}
}

func sha256Of(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return sum256(data)
}

func sha512Of(t *testing.T, path string) string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha512.New()
	if _, err := io.Copy(h, f); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(h.Sum(nil))
}
