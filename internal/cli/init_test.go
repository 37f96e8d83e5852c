package cli

import (
	"bytes"
	"context"
	"html"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mirego/tasuki/internal/base/secret"
	"github.com/mirego/tasuki/internal/config"
	"github.com/mirego/tasuki/internal/emulator"
)

// pages is a stderr that gives each page that a person is asked to open.
type pages struct {
	text bytes.Buffer
	seen int
	open chan string
}

var pageForm = regexp.MustCompile(`(?m)^  (http\S+)$`)

func (p *pages) Write(b []byte) (int, error) {
	p.text.Write(b)
	found := pageForm.FindAllStringSubmatch(p.text.String(), -1)
	for ; p.seen < len(found); p.seen++ {
		p.open <- found[p.seen][1]
	}
	return len(b), nil
}

// agree does what a person does who agrees to everything on a page.
func agree(t *testing.T, address string) {
	t.Helper()
	res, err := http.Get(address)
	if err != nil {
		t.Error(err)
		return
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		t.Errorf("%s: %s, %v", address, res.Status, err)
		return
	}
	target, form := address, url.Values{}
	if m := regexp.MustCompile(`action="([^"]*)"`).FindSubmatch(body); m != nil {
		target = html.UnescapeString(string(m[1]))
	}
	for _, m := range regexp.MustCompile(`name="(\w+)" value="([^"]*)"`).FindAllSubmatch(body, -1) {
		form.Set(string(m[1]), html.UnescapeString(string(m[2])))
	}
	sent, err := http.PostForm(target, form) // and back to where it is sent
	if err != nil {
		t.Error(err)
		return
	}
	defer sent.Body.Close()
	if text, _ := io.ReadAll(sent.Body); sent.StatusCode != http.StatusOK {
		t.Errorf("%s: %s %s", target, sent.Status, text)
	}
}

// TestInitMakesAnApp goes the whole way, from nothing to a registration.
func TestInitMakesAnApp(t *testing.T) {
	for _, scope := range []string{"octo", "octo/demo"} {
		t.Run(scope, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			ctx, end := context.WithCancel(t.Context())
			served := make(chan error, 1)
			go func() { served <- emulator.New(emulator.Options{Token: secret.New("ghp_x")}).Run(ctx, l) }()

			dir := t.TempDir()
			file := filepath.Join(dir, "etc", "config.yaml")
			var out bytes.Buffer
			person := &pages{open: make(chan string, 8)}
			a := &app{stdin: strings.NewReader(""), stdout: &out, stderr: person, home: dir, logLevel: "warn"}
			root := newRoot(a)
			root.SetArgs([]string{"init", "--config", file, "--url", "http://" + l.Addr().String(), "--scope", scope, "--new-app", "--driver", "fake", "--image", dir})
			done := make(chan error, 1)
			go func() { done <- root.ExecuteContext(t.Context()) }()
			for range 2 { // make it, install it
				select {
				case address := <-person.open:
					agree(t, address)
				case err := <-done:
					t.Fatalf("init ended: %v\n%s%s", err, out.String(), person.text.String())
				}
			}
			if err := <-done; err != nil {
				t.Fatalf("init: %v\n%s", err, person.text.String())
			}
			for _, want := range []string{"made the GitHub App \"tasuki-octo-", "the App is installed for octo", "next:\n  tasuki github check"} {
				if !strings.Contains(out.String(), want) {
					t.Errorf("it does not say %q:\n%s", want, out.String())
				}
			}
			checkWritten(t, a, file)
			end()
			if err := <-served; err != nil {
				t.Error(err)
			}
		})
	}
}

// checkWritten looks at what init left, and tries it.
func checkWritten(t *testing.T, a *app, file string) {
	t.Helper()
	key := filepath.Join(filepath.Dir(file), "github-app.pem")
	for _, path := range []string{file, key} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v; want mode 0600", path, info, err)
		}
	}
	if text, _ := os.ReadFile(file); bytes.Contains(text, []byte("PRIVATE KEY")) {
		t.Error("the key stands in the configuration")
	}
	var out bytes.Buffer
	a.stdout = &out
	root := newRoot(a)
	root.SetArgs([]string{"github", "check", "--config", file})
	if err := root.ExecuteContext(t.Context()); err != nil || !strings.Contains(out.String(), "registration    a runner was registered") {
		t.Errorf("github check: %v\n%s", err, out.String())
	}
}

func TestInitAsks(t *testing.T) {
	key := filepath.Join(t.TempDir(), "key.pem")
	if err := os.WriteFile(key, []byte("a key"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		answers string
		want    []string // in the file
	}{
		"an App that there is": {"https://github.com/acme/app\n2\nIv23li\n/nowhere\n" + key + "\nr.example/x:1\nbig, gpu\n",
			[]string{`scope: "acme/app"`, `id: "Iv23li"`, `labels: ["big", "gpu"]`, "Administration"}},
		"a token of gh":  {"acme\n5\n\nr.example/x:1\n\n", []string{`token: {command: ["gh", "auth", "token"]}`, "# labels:"}},
		"an enterprise":  {"a b\nenterprises/big\n2\n\nx\nr.example/x:1\n\n", []string{`scope: "enterprises/big"`, `token: {env: "GITHUB_TOKEN"}`}},
		"an emulator":    {"http://127.0.0.1:8080/octo/demo\n6\nr.example/x:1\n\n", []string{`url: "http://127.0.0.1:8080"`, `scope: "octo/demo"`}},
		"another GitHub": {"https://github.acme.example/tools\n4\nTOKEN\nr.example/x:1\n\n", []string{`url: "https://github.acme.example"`, `scope: "tools"`}},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "config.yaml")
			var out, asked bytes.Buffer
			a := &app{stdout: &out, stderr: &asked, logLevel: "warn"}
			err := a.init(t.Context(), initFlags{file: file, initAnswers: initAnswers{standby: 1, driver: "qemu"}}, newAsker(strings.NewReader(tt.answers), &asked))
			if err != nil {
				t.Fatalf("%v\n%s", err, asked.String())
			}
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range tt.want {
				if !strings.Contains(string(text), want) {
					t.Errorf("the file lacks %q:\n%s", want, text)
				}
			}
		})
	}
	t.Run("nobody answers", func(t *testing.T) {
		a := &app{stdout: io.Discard, stderr: io.Discard, logLevel: "warn"}
		file := filepath.Join(t.TempDir(), "config.yaml")
		if err := a.init(t.Context(), initFlags{file: file}, newAsker(strings.NewReader("acme\n9\n9\n9\n9\n9\n9\n"), io.Discard)); err == nil {
			t.Error("it took 9 for one of five")
		}
		if _, err := os.Stat(file); err == nil {
			t.Error("a file was written")
		}
	})
}

func TestInitFitsTheMachine(t *testing.T) {
	const gib = 1 << 30
	type fit struct {
		Driver, Pool           string
		Slots, CPUs, MemoryGiB int
	}
	for name, tt := range map[string]struct {
		system     string
		processors int
		memory     int64
		given      initAnswers
		want       fit
	}{
		"a small server":      {"linux", 2, 4 * gib, initAnswers{}, fit{"qemu", "linux", 2, 1, 1}},
		"a server":            {"linux", 16, 64 * gib, initAnswers{}, fit{"qemu", "linux", 8, 2, 4}},
		"little memory":       {"linux", 16, 16 * gib, initAnswers{}, fit{"qemu", "linux", 3, 2, 4}},
		"memory not known":    {"linux", 8, 0, initAnswers{}, fit{"qemu", "linux", 4, 2, 4}},
		"a Mac mini":          {"darwin", 10, 24 * gib, initAnswers{}, fit{"tart", "macos", 2, 5, 11}},
		"a Mac Studio":        {"darwin", 32, 128 * gib, initAnswers{}, fit{"tart", "macos", 2, 16, 16}},
		"a small Mac":         {"darwin", 8, 8 * gib, initAnswers{}, fit{"tart", "macos", 2, 4, 3}},
		"it was said":         {"linux", 16, 64 * gib, initAnswers{slots: 3, pool: "x"}, fit{"qemu", "x", 3, 2, 4}},
		"a Mac, Linux guests": {"darwin", 8, 32 * gib, initAnswers{driver: "qemu"}, fit{"qemu", "linux", 4, 2, 4}},
	} {
		t.Run(name, func(t *testing.T) {
			f := tt.given
			f.fit(tt.system, tt.processors, tt.memory)
			if diff := cmp.Diff(tt.want, fit{f.driver, f.pool, f.slots, f.cpus, f.memoryGiB}); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// TestInitQuotes: env-quoting. Whatever is answered arrives as it was, or is refused.
func TestInitQuotes(t *testing.T) {
	for _, command := range []string{`pass show a#b`, `x {y} [z]`, `vault kv get -field="t" it's`} {
		f := initAnswers{scope: "acme", tokenCommand: command, image: "r.example/x:1", standby: 1, labels: []string{"a: b #c", `q"uote`}}
		f.fit("linux", 4, 0)
		cfg, err := config.Parse("config.yaml", f.yaml())
		if err != nil {
			t.Errorf("%q: %v\n%s", command, err, f.yaml())
			continue
		}
		if diff := cmp.Diff(strings.Fields(command), []string(cfg.GitHub.Token.Command)); diff != "" {
			t.Errorf("%q (-want +got):\n%s", command, diff)
		}
		if diff := cmp.Diff(f.labels, cfg.Pools[0].Labels); diff != "" {
			t.Errorf("labels (-want +got):\n%s", diff)
		}
	}
}
