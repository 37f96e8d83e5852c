package archtest

import (
	"debug/macho"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"

	"github.com/mirego/tasuki/internal/base/proc"
)

// release is what we check of .goreleaser.yaml; goreleaser itself checks the
// whole (CONTRIBUTING.md).
type release struct {
	Before struct {
		Hooks []string
	}
	Builds []struct {
		Main    string
		Env     []string
		Targets []string
		Flags   []string
		Ldflags []string
	}
	Archives []struct{ Files []any }
	Notarize struct {
		MacOS []struct{ Enabled string }
	}
	Homebrew []struct{ Completions, Repository map[string]string } `yaml:"homebrew_casks"`
}

func readRelease(t *testing.T) release {
	t.Helper()
	var r release
	text, err := os.ReadFile(filepath.Join(house, ".goreleaser.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(text, &r); err != nil {
		t.Fatal(err)
	}
	if len(r.Builds) != 1 || len(r.Archives) != 1 || len(r.Homebrew) != 1 || len(r.Notarize.MacOS) != 1 {
		t.Fatalf("the release has other parts than this test knows: %+v", r)
	}
	return r
}

// TestReleaseNamesWhatThereIs looks at every file that the release's
// configuration names, and at the variable that carries the version: the linker
// says nothing when it is not there.
func TestReleaseNamesWhatThereIs(t *testing.T) {
	r := readRelease(t)
	paths := []string{r.Builds[0].Main}
	for _, h := range r.Before.Hooks {
		for word := range strings.FieldsSeq(h) {
			if strings.HasPrefix(word, "scripts/") {
				paths = append(paths, word)
			}
		}
	}
	for _, f := range r.Archives[0].Files {
		if path, ok := f.(string); ok {
			folder, _, _ := strings.Cut(path, "/*")
			paths = append(paths, folder)
		}
	}
	for _, path := range paths {
		if _, err := os.Stat(filepath.Join(house, path)); err != nil {
			t.Errorf("the release names %s: %v", path, err)
		}
	}
	variable := regexp.MustCompile(`-X ` + regexp.QuoteMeta(module) + `/(\S+)\.(\w+)=`)
	formula, err := os.ReadFile(filepath.Join(house, "deploy/homebrew/tasuki.rb"))
	if err != nil {
		t.Fatal(err)
	}
	for where, text := range map[string]string{".goreleaser.yaml": strings.Join(r.Builds[0].Ldflags, " "), "deploy/homebrew/tasuki.rb": string(formula)} {
		m := variable.FindStringSubmatch(text)
		if m == nil {
			t.Errorf("%s: no version is linked in: %q", where, text)
			continue
		}
		source, err := os.ReadFile(filepath.Join(house, m[1], "version.go"))
		if err != nil || !strings.Contains(string(source), "\nvar "+m[2]+" ") {
			t.Errorf("%s: there is no variable %s in %s: %v", where, m[2], m[1], err)
		}
	}
	if got := strings.Join(r.Builds[0].Targets, " "); got != "darwin_arm64 linux_amd64_v1 linux_arm64_v8.0" {
		t.Errorf("the release is for %s", got)
	}
}

// TestReleaseKeepsItsUUID builds a small program for macOS as the release builds
// ours. macOS knows a program by its LC_UUID when it remembers who may use the
// local network (local-network-privacy).
func TestReleaseKeepsItsUUID(t *testing.T) {
	build := readRelease(t).Builds[0]
	linker, _, _ := strings.Cut(strings.Join(build.Ldflags, " "), "-X ")
	dir := t.TempDir()
	for name, text := range map[string]string{"go.mod": "module hello\n\ngo 1.26\n", "main.go": "package main\n\nfunc main() {}\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		ldflags string
		want    bool
	}{{linker, true}, {linker + " -buildid=", false}} {
		args := append([]string{"build", "-o", "hello", "-ldflags", c.ldflags}, build.Flags...)
		_, err := proc.Run(t.Context(), proc.Cmd{
			Path: "go", Dir: dir, Args: args, Env: append(build.Env, "GOOS=darwin", "GOARCH=arm64", "GOTOOLCHAIN=local", "GOFLAGS=", "GOWORK=off"),
		})
		if err != nil {
			t.Fatal(err)
		}
		if got := hasUUID(t, filepath.Join(dir, "hello")); got != c.want {
			t.Errorf("with -ldflags %q: LC_UUID %v, want %v", c.ldflags, got, c.want)
		}
	}
}

func hasUUID(t *testing.T, path string) bool {
	t.Helper()
	f, err := macho.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const loadUUID = 0x1b
	for _, l := range f.Loads {
		if raw := l.Raw(); f.ByteOrder.Uint32(raw) == loadUUID {
			return true
		}
	}
	return false
}
