package cli

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/mirego/tasuki/internal/config"
)

// commandForm is a call of ours in a shell block; what comes before it is
// another program that runs it.
var commandForm = regexp.MustCompile(`(?:^|\s)(?:\S*/)?tasuki ((?:registry|image) [^|<>&]+)`)

// checkCall parses a call as the command line would, and runs nothing.
func checkCall(t *testing.T, line string, words []string) {
	t.Helper()
	root := newRoot(&app{stdin: strings.NewReader(""), stdout: io.Discard, stderr: io.Discard})
	cmd, rest, err := root.Find(words)
	if err == nil {
		err = cmd.ParseFlags(rest)
	}
	if err == nil && cmd.Args != nil {
		err = cmd.Args(cmd, cmd.Flags().Args())
	}
	if err == nil && cmd.HasSubCommands() {
		err = errors.New("it is not a whole command")
	}
	if err != nil {
		t.Errorf("%s: %v", line, err)
	}
}

// TestTheGuideOfTheRegistryCallsWhatThereIs parses every command of the guide.
func TestTheGuideOfTheRegistryCallsWhatThereIs(t *testing.T) {
	text, err := os.ReadFile("../../docs/registry.md")
	if err != nil {
		t.Fatal(err)
	}
	n, inside := 0, false
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, "```"):
			inside = line == "```sh"
			continue
		case !inside:
			continue
		}
		for _, m := range commandForm.FindAllStringSubmatch(line, -1) {
			n++
			checkCall(t, line, strings.Fields(strings.ReplaceAll(m[1], "'", "")))
		}
	}
	if n < 20 {
		t.Errorf("%d commands were found: the check checks too little", n)
	}
	for _, m := range regexp.MustCompile("`(--[a-z-]+)").FindAllStringSubmatch(string(text), -1) {
		if !bytes.Contains([]byte(reference(newRoot(&app{}))), []byte("`"+m[1])) {
			t.Errorf("no command has the flag %s", m[1])
		}
	}
}

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
	checkCall(t, m[0], strings.Fields(m[2]))
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
	} else {
		checkCall(t, strings.Join(args, " "), args[1:])
	}
	if plist.Dict.Strings[0]+".plist" != "org.tasuki.registry.plist" {
		t.Errorf("its label is %q", plist.Dict.Strings[0])
	}
}
