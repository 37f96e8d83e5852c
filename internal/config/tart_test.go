package config_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mirego/tasuki/internal/config"
)

// tartPool parses a configuration with one pool, whose settings are given, and
// more at the top of the file.
func tartPool(t *testing.T, top, settings string) (*config.Config, error) {
	t.Helper()
	dir := t.TempDir()
	return config.Parse(filepath.Join(dir, "c.yaml"), fmt.Appendf(nil, `
host: {name: h, home: %s/home}
github: {url: "http://127.0.0.1:1"}
%s
pools:
  - {name: p, driver: tart, image: r.test/mac:1, scope: octo/demo, %s}
`, dir, top, settings))
}

func TestMistakesOfTart(t *testing.T) {
	shared, home := t.TempDir(), t.TempDir()
	t.Setenv("TART_HOME", filepath.Join(home, "tart"))
	odd := filepath.Join(shared, "a:b")
	if err := os.Mkdir(odd, 0o700); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(shared, "link")
	if err := os.Symlink(home, link); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ top, settings, want string }{
		{"", "tart: {nested: true}", "nested"},
		{"", "tart: {os: linux, gui: required}", "no GUI session"},
		{"", "tart: {display: big}", "size of a screen"},
		{"", "tart: {disk_sync: often}", "unknown disk_sync"},
		{"", "tart: {disk_cache: no}", "unknown disk_cache"},
		{"", "tart: {channel: telnet}", "unknown channel"},
		{"", "tart: {filter: none}, network: {mode: isolated}", "needs the filter"},
		{"", "network: {allow: [10.1.2.3/16]}", "not an IPv4 network"},
		{"", "network: {block: [\"2001:db8::/32\"]}", "not an IPv4 network"},
		{"", fmt.Sprintf("tart: {shares: [{name: a, path: %s/none}]}", shared), "not a folder"},
		{"", fmt.Sprintf("tart: {shares: [{name: a, path: %q}]}", odd), "colon or a comma"},
		{"", fmt.Sprintf("tart: {shares: [{name: a/b, path: %s}]}", shared), "not a name for a share"},
		{"", fmt.Sprintf("tart: {shares: [{name: a, path: %s}, {name: a, path: %s}]}", shared, shared), "a second time"},
		{"", fmt.Sprintf("tart: {shares: [{name: a, path: %s}]}", home), "holds, tart's folder"},
		{"", fmt.Sprintf("tart: {shares: [{name: a, path: %s}]}", link), "holds, tart's folder"},
		{"", "standby: 3", "a Mac may run 2"},
		{"defaults: {driver: qemu, tart: {display: 1920x1080}}", "driver: qemu", "driver tart"},
		{"", "driver: qemu, tart: {display: 1920x1080}", "does not know these settings"},
		{"", "driver: qemu, network: {block: [10.0.0.0/8]}", "no filter"},
	} {
		settings := c.settings
		_, err := tartPool(t, c.top, settings)
		if strings.Contains(settings, "driver: qemu") {
			_, err = config.Parse(filepath.Join(t.TempDir(), "c.yaml"), fmt.Appendf(nil,
				"host: {name: h, home: /h}\ngithub: {url: \"http://127.0.0.1:1\"}\n%s\npools: [{name: p, image: r.test/x:1, scope: o/r, %s}]\n", c.top, settings))
		}
		if _, ok := errors.AsType[config.Problems](err); !ok || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s %s: %v; want %q", c.top, settings, err, c.want)
		}
	}
}

// Settings of tart among the defaults serve the pools of that driver, beside
// pools of others.
func TestTartAmongTheDefaults(t *testing.T) {
	c, err := tartPool(t, "defaults: {tart: {display: 1920x1080}}", "standby: 1}\n  - {name: q, image: r.test/linux:1, scope: octo/demo")
	if err != nil {
		t.Fatal(err)
	}
	specs := c.Specs()
	if mac, linux := specs[0].Machine.Display, specs[1].Machine.Display; mac != "1920x1080" || linux != "" {
		t.Errorf("displays %q and %q", mac, linux)
	}
}

func TestProcessorsOfAMac(t *testing.T) {
	for settings, want := range map[string]int{"standby: 1": 4, "cpus: 6": 6, "cpus: 2": 2, "tart: {os: linux}": 2} {
		c, err := tartPool(t, "", settings)
		if err != nil {
			t.Fatal(err)
		}
		if got := c.Specs()[0].CPUs; got != want {
			t.Errorf("%s: %d processors, want %d", settings, got, want)
		}
	}
	if c, err := tartPool(t, "defaults: {cpus: 8}", "standby: 1"); err != nil || c.Specs()[0].CPUs != 8 {
		t.Errorf("the defaults' processors are not taken: %v", err)
	}
}

func TestWarningsOfTart(t *testing.T) {
	shared := t.TempDir()
	for settings, want := range map[string]string{
		"standby: 1": "",
		"cpus: 2":    "freeze",
		fmt.Sprintf("tart: {shares: [{name: a, path: %s}]}", shared):                 "",
		fmt.Sprintf("tart: {shares: [{name: a, path: %s, writable: true}]}", shared): "all that follow read",
		"tart: {filter: none}": "password everybody knows",
	} {
		c, err := tartPool(t, "", settings)
		if err != nil {
			t.Fatal(err)
		}
		got := c.Warnings()
		if (len(got) > 0) != (want != "") || !strings.Contains(got.Error(), want) {
			t.Errorf("%s: warnings %v, want %q", settings, got, want)
		}
	}
}
