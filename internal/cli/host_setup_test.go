package cli

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mirego/tasuki/internal/doctor"
	"github.com/mirego/tasuki/internal/doctor/doctortest"
)

// openHome is a machine on which nothing is wrong but the mode of one folder.
type openHome struct{ doctor.Here }

func (openHome) Run(context.Context, string, ...string) (doctor.Output, error) {
	return doctor.Output{}, errors.New("not asked in this test")
}

func (openHome) Space(string) (int64, error) { return 1e12, nil }

func (h openHome) ReadFile(string) (string, error) { return "", fs.ErrNotExist }

func TestSetupTypesWhatItWasToldTo(t *testing.T) {
	home := filepath.Join(t.TempDir(), "open")
	mode := func() fs.FileMode {
		info, err := os.Stat(home)
		if err != nil {
			t.Fatal(err)
		}
		return info.Mode().Perm()
	}
	config := filepath.Join(t.TempDir(), "host.yaml")
	write := func(path, text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(home, 0o755); err != nil {
		t.Fatal(err)
	}
	write(config, "host: {name: h, slots: 1, home: "+home+"}\ngithub: {url: \"http://127.0.0.1:1\"}\n"+
		"pools: [{name: p, driver: fake, image: "+home+", scope: a/b}]\n")
	for _, c := range []struct {
		what  string
		flags setupFlags
		input string
		mode  fs.FileMode
		err   bool
		says  string
	}{
		{"dry run", setupFlags{dryRun: true}, "", 0o755, false, "  chmod 700 " + home},
		{"told no", setupFlags{}, "no\n", 0o755, true, "Type it? [y/N]"},
		{"nobody there", setupFlags{}, "", 0o755, true, ""},
		{"told yes", setupFlags{}, "y\n", 0o700, false, "This machine is set up"},
		{"again", setupFlags{yes: true}, "", 0o700, false, "nothing to type"},
	} {
		var out bytes.Buffer
		a := &app{stdin: strings.NewReader(c.input), stdout: &out, stderr: &out}
		c.flags.file = config
		err := a.setupHost(t.Context(), c.flags, openHome{})
		if (err != nil) != c.err || mode() != c.mode || !strings.Contains(out.String(), c.says) {
			t.Errorf("%s: %v, mode %o, said:\n%s", c.what, err, mode(), out.String())
		}
	}
}

// TestSetupOfAMacFromItsBox shows what setup would type on a Mac that was just
// unpacked. docs/host.md quotes it.
func TestSetupOfAMacFromItsBox(t *testing.T) {
	const machines = "../doctor/testdata/darwin/"
	host := doctor.Host{OS: "darwin", User: "ci", UID: 501, Home: "/Users/ci/.tasuki", Drivers: []string{"tart"}, Slots: 2, Softnet: true}
	var out bytes.Buffer
	a := &app{stdin: strings.NewReader(""), stdout: &out, stderr: &out}
	m := doctortest.Load(t, machines+"good.txtar", machines+"fresh.txtar")
	if err := a.setUp(t.Context(), setupFlags{name: "mac-mini-1", dryRun: true}, m, host); err != nil {
		t.Fatal(err)
	}
	quotedIn(t, "../../docs/host.md", "tasuki host setup --name mac-mini-1 --dry-run", out.String())

	out.Reset()
	well := doctortest.Load(t, machines+"good.txtar")
	if err := a.setUp(t.Context(), setupFlags{dryRun: true}, well, host); err != nil || !strings.Contains(out.String(), "nothing to type") {
		t.Errorf("a Mac that is set up: %v, said:\n%s", err, out.String())
	}
	if got := doctor.Examine(t.Context(), well, host); doctor.Worst(got) != doctor.Well {
		t.Errorf("the good Mac has trouble: %+v", got)
	}
}

// TestRootLooksForTheAgent: what is well for the agent's user must not be told
// to belong to root.
func TestRootLooksForTheAgent(t *testing.T) {
	if os.Getuid() != 0 || runtime.GOOS != "linux" {
		t.Skip("needs root on Linux")
	}
	const nobody = 65534
	home := t.TempDir()
	if err := errors.Join(os.Chmod(home, 0o700), os.Chown(home, nobody, nobody)); err != nil {
		t.Fatal(err)
	}
	host, err := (&app{home: home}).doctorHost(nil, false)
	if err != nil || host.User != "nobody" || host.UID != nobody {
		t.Fatalf("the agent's user is %s (%d), %v", host.User, host.UID, err)
	}
	for _, f := range doctor.Examine(t.Context(), openHome{}, host) {
		if f.Check == "home" && f.Level != doctor.Well {
			t.Errorf("%+v", f)
		}
	}
}

// quotedIn compares what a command said with the block that follows it in a
// document; -update writes it there.
func quotedIn(t *testing.T, file, command, said string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(text), command+"\n```\n")
	_, rest, open := strings.Cut(rest, "```\n")
	got, after, closed := strings.Cut(rest, "```\n")
	if !found || !open || !closed {
		t.Fatalf("%s does not show what %q says", file, command)
	}
	said = strings.TrimPrefix(said, "\n")
	if *update {
		before := strings.TrimSuffix(string(text), got+"```\n"+after)
		if err := os.WriteFile(file, []byte(before+said+"```\n"+after), 0o644); err != nil {
			t.Fatal(err)
		}
		got = said
	}
	if diff := cmp.Diff(said, got); diff != "" {
		t.Errorf("%s differs from what %q says (-said +document); go test ./internal/cli -update writes it:\n%s", file, command, diff)
	}
}
