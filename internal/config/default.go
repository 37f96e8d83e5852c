package config

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/mirego/tasuki/internal/runner"
	"github.com/mirego/tasuki/internal/vm"
)

// Default returns the configuration of an empty file: all defaults there are.
func Default() Config {
	return Config{
		Host: Host{
			Name:         hostName(),
			Slots:        2,
			Home:         DefaultHome(),
			Prefix:       "tasuki",
			DrainTimeout: Duration(30 * time.Minute),
			Tick:         Duration(2 * time.Second),
			Accel:        "auto",
			Reboot:       "never",
		},
		Registry: RegistryServer{
			Listen: "127.0.0.1:5000",
			GC: GarbageCollection{
				Every: Duration(24 * time.Hour), Grace: Duration(24 * time.Hour), Untagged: Duration(7 * 24 * time.Hour),
			},
		},
		Images:   Images{Refresh: Duration(time.Minute), Tart: TartPull},
		Releases: RunnerReleases{Refresh: Duration(time.Hour)},
		History:  History{Age: Duration(90 * 24 * time.Hour), Size: 1 << 30},
		Logs:     Logs{Runs: 200, Age: Duration(7 * 24 * time.Hour)},
		GitHub:   GitHub{Account: Account{URL: "https://github.com"}},
		Defaults: Settings{
			Driver:       "qemu",
			Registration: runner.ByEither,
			Runner:       runner.FromHost,
			CPUs:         2,
			Memory:       4 << 30,
			Network:      Network{Mode: vm.Internet},
			Standby:      1,
			MaxJobTime:   Duration(6 * time.Hour),
			WorkFolder:   "_work",
		},
	}
}

// fileMode is the mode of a File that names none.
const fileMode Mode = 0o644

// DefaultHome is the agent's folder where nothing else is said: $TASUKI_HOME,
// or .tasuki in the user's home.
func DefaultHome() string {
	if home := os.Getenv("TASUKI_HOME"); home != "" {
		return home
	}
	return expandHome("~/.tasuki")
}

// expandHome replaces a leading "~/" by the user's home, if there is one.
func expandHome(path string) string {
	rest, ok := strings.CutPrefix(path, "~/")
	if !ok && path != "~" {
		return path
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return path
	}
	return filepath.Join(home, rest)
}

var notInName = regexp.MustCompile(`[^a-z0-9]+`)

// hostName makes a word of the machine's own name: its first label, lower case.
func hostName() string {
	name, err := os.Hostname()
	if err != nil {
		return "host"
	}
	name, _, _ = strings.Cut(strings.ToLower(name), ".")
	name = notInName.ReplaceAllString(name, "-")
	name = strings.Trim(name[:min(len(name), MaxHost)], "-")
	if name == "" {
		return "host"
	}
	return name
}
