package cli

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mirego/tasuki/internal/doctor"
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
