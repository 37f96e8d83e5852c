package cli

import (
	"bytes"
	"encoding/xml"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mirego/tasuki/internal/config"
	"github.com/mirego/tasuki/internal/registry"
)

func TestTheExampleOfARegistryIsWell(t *testing.T) {
	c, err := config.LoadRegistry("../../examples/registry.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if c.Registry.GC.KeepLast == 0 || len(c.Registry.Mirrors) == 0 || !c.Registry.TLS.Generate {
		t.Errorf("it says less than it shows: %+v", c.Registry)
	}
}

func TestTheUnitOfTheRegistry(t *testing.T) {
	unit, err := os.ReadFile("../../deploy/registry/tasuki-registry.service")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`(?m)^ExecStart=(\S+) (.*)$`).FindStringSubmatch(string(unit))
	if m == nil {
		t.Fatal("it starts nothing")
	}
	if err := checkCall(strings.Fields(m[2])); err != nil {
		t.Errorf("%s: %v", m[0], err)
	}
	path, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("systemd-analyze is not installed")
	}
	file := filepath.Join(t.TempDir(), "tasuki-registry.service")
	// The program is not installed here; that is not the unit's fault.
	if err := os.WriteFile(file, bytes.ReplaceAll(unit, []byte(m[1]), []byte("/bin/true")), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), path, "verify", file).CombinedOutput(); err != nil || bytes.Contains(out, []byte("tasuki-registry")) {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
}

func TestThePlistOfTheRegistry(t *testing.T) {
	text, err := os.ReadFile("../../deploy/registry/org.tasuki.registry.plist")
	if err != nil {
		t.Fatal(err)
	}
	var plist struct {
		Dict struct {
			Keys    []string `xml:"key"`
			Strings []string `xml:"string"`
			Array   struct {
				Strings []string `xml:"string"`
			} `xml:"array"`
		} `xml:"dict"`
	}
	d := xml.NewDecoder(bytes.NewReader(text))
	d.Strict = true
	if err := d.Decode(&plist); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"Label", "UserName", "ProgramArguments", "RunAtLoad", "KeepAlive", "StandardErrorPath"} {
		if !slices.Contains(plist.Dict.Keys, want) {
			t.Errorf("the key %s is missing", want)
		}
	}
	if args := plist.Dict.Array.Strings; len(args) < 3 || filepath.Base(args[0]) != "tasuki" {
		t.Errorf("it runs %q", args)
	} else if err := checkCall(args[1:]); err != nil {
		t.Errorf("%q: %v", args, err)
	}
	if plist.Dict.Strings[0]+".plist" != "org.tasuki.registry.plist" {
		t.Errorf("its label is %q", plist.Dict.Strings[0])
	}
}

// What the file says of a mirror reaches it: whom it trusts, and a password
// that is read when it is asked for.
func TestAMirrorOfTheFile(t *testing.T) {
	dir := t.TempDir()
	if _, _, err := registry.OpenAuthority(filepath.Join(dir, "tls"), []string{"localhost"}); err != nil {
		t.Fatal(err)
	}
	file, password := filepath.Join(dir, "registry.yaml"), filepath.Join(dir, "password")
	text := "registry:\n  mirrors:\n    - {upstream: up.example.com, username: robot, password: {file: password}, ca: tls/ca.pem, keep: 2d}\n"
	for path, content := range map[string]string{file: text, password: "first"} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c, err := config.LoadRegistry(file)
	if err != nil {
		t.Fatal(err)
	}
	opt, err := registryOptions(t.Context(), c.Registry, slog.New(slog.DiscardHandler))
	if err != nil || len(opt.Mirrors) != 1 {
		t.Fatal(opt.Mirrors, err)
	}
	m := opt.Mirrors[0]
	if m.Upstream != "up.example.com" || m.Username != "robot" || m.Roots == nil || m.Keep != 48*time.Hour {
		t.Errorf("the mirror is %+v", m)
	}
	if err := os.WriteFile(password, []byte("second"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := m.Password(t.Context()); err != nil || got.Reveal() != "second" {
		t.Errorf("its password is %q, %v", got.Reveal(), err)
	}
	if err := os.Remove(filepath.Join(dir, "tls", "ca.pem")); err != nil {
		t.Fatal(err)
	}
	if _, err := config.LoadRegistry(file); err == nil || !strings.Contains(err.Error(), "ca.pem") {
		t.Errorf("an authority that is not there: %v", err)
	}
}
