package service_test

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"howett.net/plist"

	"github.com/mirego/tasuki/internal/base/proc"
	"github.com/mirego/tasuki/internal/service"
)

var update = flag.Bool("update", false, "write the golden files")

func options() service.Options {
	return service.Options{
		Program: "/usr/local/bin/tasuki", Args: []string{"host", "run", "--config", "/Users/ci/my hosts/100%.yaml"},
		Reload: []string{"reload", "--home", "/Users/ci/.tasuki"},
		User:   "ci", UID: 501, HomeDir: "/Users/ci", Home: "/Users/ci/.tasuki", Drain: 30 * time.Minute,
	}
}

func plan(t *testing.T, system string, change func(*service.Options)) service.Plan {
	t.Helper()
	o := options()
	if change != nil {
		change(&o)
	}
	p, err := service.New(system, o)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func ofTheSystem(o *service.Options) { o.System, o.Groups = true, []string{"kvm"} }

func TestTheFiles(t *testing.T) {
	for file, p := range map[string]service.Plan{
		"com.mirego.tasuki.plist": plan(t, "darwin", nil),
		"user.service":            plan(t, "linux", nil),
		"system.service":          plan(t, "linux", ofTheSystem),
	} {
		path := filepath.Join("testdata", file)
		if *update {
			if err := os.WriteFile(path, p.File, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatalf("%v; run the test with -update", err)
		}
		if diff := cmp.Diff(string(want), string(p.File)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", file, diff)
		}
	}
}

// TestServiceRestartKillsGuests: what keeps guests alive when the agent ends or
// is started again stands in both files (service-restart-kills-guests).
func TestServiceRestartKillsGuests(t *testing.T) {
	var agent struct{ AbandonProcessGroup, KeepAlive bool }
	if _, err := plist.Unmarshal(plan(t, "darwin", nil).File, &agent); err != nil || !agent.AbandonProcessGroup {
		t.Errorf("launchd would end the guests: %+v, %v", agent, err)
	}
	for _, change := range []func(*service.Options){nil, ofTheSystem} {
		p := plan(t, "linux", change)
		if !strings.Contains(string(p.File), "\nKillMode=process\n") {
			t.Errorf("%s would end the guests", p.Manager)
		}
		for _, cut := range []string{"PrivateTmp", "PrivateDevices", "DynamicUser"} {
			if strings.Contains(string(p.File), "\n"+cut+"=") {
				t.Errorf("%s: %s parts guests from agents", p.Manager, cut)
			}
		}
	}
}

// TestNoKeepalive: the agent comes back after a crash (no-keepalive).
func TestNoKeepalive(t *testing.T) {
	var agent struct{ RunAtLoad, KeepAlive bool }
	if _, err := plist.Unmarshal(plan(t, "darwin", nil).File, &agent); err != nil || !agent.KeepAlive || !agent.RunAtLoad {
		t.Errorf("launchd would not start it again: %+v, %v", agent, err)
	}
	for _, change := range []func(*service.Options){nil, ofTheSystem} {
		p := plan(t, "linux", change)
		for _, line := range []string{"Restart=always", "StartLimitIntervalSec=0"} {
			if !strings.Contains(string(p.File), "\n"+line+"\n") {
				t.Errorf("%s: no %s", p.Manager, line)
			}
		}
	}
}

func TestTheManagersTakeTheFiles(t *testing.T) {
	t.Run("systemd", func(t *testing.T) {
		if _, err := proc.Look("systemd-analyze"); err != nil {
			t.Skip("needs systemd-analyze:", err)
		}
		o := options()
		self, err := os.Executable() // verify wants a program that is there
		if err != nil {
			t.Fatal(err)
		}
		for _, system := range []bool{false, true} {
			o.Program, o.System, o.User = self, system, "root"
			p, err := service.New("linux", o)
			if err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(t.TempDir(), "tasuki.service")
			if err := os.WriteFile(file, p.File, 0o644); err != nil {
				t.Fatal(err)
			}
			args := []string{"verify", "--man=no", file}
			if !system {
				args = append([]string{"--user"}, args...)
			}
			res, err := proc.Run(t.Context(), proc.Cmd{Path: "systemd-analyze", Args: args, Env: []string{"XDG_RUNTIME_DIR=" + t.TempDir()}})
			if err != nil || strings.Contains(string(res.Stderr), "tasuki.service") {
				t.Errorf("%v\n%s\n%s", err, res.Stderr, p.File)
			}
		}
	})
	t.Run("plist", func(t *testing.T) {
		if _, err := proc.Look("plistutil"); err != nil {
			t.Skip("needs plistutil:", err)
		}
		file := filepath.Join(t.TempDir(), "agent.plist")
		if err := os.WriteFile(file, plan(t, "darwin", nil).File, 0o644); err != nil {
			t.Fatal(err)
		}
		binary := file + ".bin"
		if _, err := proc.Run(t.Context(), proc.Cmd{Path: "plistutil", Args: []string{"-i", file, "-o", binary, "-f", "bin"}}); err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(binary)
		if err != nil {
			t.Fatal(err)
		}
		var read, written map[string]any
		if _, err := plist.Unmarshal(data, &read); err != nil || !strings.HasPrefix(string(data), "bplist") {
			t.Fatalf("%v: %.20q", err, data)
		}
		if _, err := plist.Unmarshal(plan(t, "darwin", nil).File, &written); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(written, read); diff != "" {
			t.Errorf("what plistutil read differs (-written +read):\n%s", diff)
		}
	})
}

func TestWhatIsRefused(t *testing.T) {
	for what, c := range map[string]struct {
		system string
		change func(*service.Options)
	}{
		"a relative program":           {"linux", func(o *service.Options) { o.Program = "tasuki" }},
		"a system service on macOS":    {"darwin", ofTheSystem},
		"root on macOS":                {"darwin", func(o *service.Options) { o.UID = 0 }},
		"another system":               {"plan9", nil},
		"a file name of two lines":     {"linux", func(o *service.Options) { o.Args = []string{"a\nExecStartPre=b"} }},
		"a home that is not an answer": {"linux", func(o *service.Options) { o.Home = "" }},
	} {
		o := options()
		if c.change != nil {
			c.change(&o)
		}
		if p, err := service.New(c.system, o); err == nil {
			t.Errorf("%s: %s", what, p.File)
		}
	}
}

func TestNoSecretInTheFiles(t *testing.T) {
	t.Setenv("GITHUB_TOKEN", "ghp_planted")
	for _, system := range []string{"darwin", "linux"} {
		if p := plan(t, system, nil); strings.Contains(string(p.File), "ghp_planted") {
			t.Errorf("%s: a secret of the environment stands in the file", system)
		}
	}
}
