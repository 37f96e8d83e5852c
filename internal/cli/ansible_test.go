package cli

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"

	"github.com/mirego/tasuki/internal/base/problem"
	"github.com/mirego/tasuki/internal/base/proc"
	"github.com/mirego/tasuki/internal/config"
)

const ansible = "../../examples/ansible"

// play is what we check of a play; ansible-playbook checks its form.
type play struct {
	Hosts    string
	Serial   int
	Tasks    []map[string]any
	Handlers []map[string]any
}

func readPlays(t *testing.T, name string) []play {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(ansible, name))
	if err != nil {
		t.Fatal(err)
	}
	var out []play
	if err := yaml.Unmarshal(text, &out); err != nil || len(out) == 0 {
		t.Fatalf("%s: %v", name, err)
	}
	return out
}

// TestPlaysTypeWhatThereIs parses the commands of ours in the plays, and looks
// for the handlers that tasks notify.
func TestPlaysTypeWhatThereIs(t *testing.T) {
	typed := map[string]bool{}
	for _, name := range []string{"playbook.yml", "upgrade.yml"} {
		for _, p := range readPlays(t, name) {
			var handlers []string
			for _, h := range p.Handlers {
				handlers = append(handlers, h["name"].(string))
			}
			for _, task := range append(p.Tasks, p.Handlers...) {
				if wants, ok := task["notify"].(string); ok && !slices.Contains(handlers, wants) {
					t.Errorf("%s: %q notifies %q, who is not there", name, task["name"], wants)
				}
				command, _ := task["ansible.builtin.command"].(string)
				copied, _ := task["ansible.builtin.copy"].(map[string]any)
				validate, _ := copied["validate"].(string)
				for _, line := range []string{command, strings.ReplaceAll(validate, "%s", "FILE")} {
					words := strings.Fields(strings.ReplaceAll(line, "{{ inventory_hostname_short }}", "mac-mini-1"))
					if len(words) == 0 || words[0] != "tasuki" {
						continue
					}
					typed[strings.Join(words[1:min(3, len(words))], " ")] = true
					if err := checkCall(words[1:]); err != nil {
						t.Errorf("%s: %q: %v", name, line, err)
					}
				}
			}
		}
	}
	for _, want := range []string{"host setup", "service install", "service restart", "config check", "drain", "resume", "doctor", "status --json"} {
		if !typed[want] {
			t.Errorf("no play types tasuki %s: %v", want, typed)
		}
	}
	if p := readPlays(t, "upgrade.yml")[0]; p.Serial < 1 || p.Serial > 15 {
		t.Errorf("so many hosts are upgraded at once: %d", p.Serial)
	}
}

// TestPlaysAreWell lets ansible-playbook read the plays and the inventory, and
// loads the configuration that they copy; only its token is not there.
func TestPlaysAreWell(t *testing.T) {
	t.Setenv("HOME", t.TempDir())
	all, ok := errors.AsType[problem.List](errOf(config.Load(filepath.Join(ansible, "files", "config.yaml"))))
	if !ok || len(all) != 1 || !strings.Contains(all[0].What, "github-token") {
		t.Errorf("files/config.yaml: %v", all)
	}
	if _, err := proc.Look("ansible-playbook"); err != nil {
		if os.Getenv("TASUKI_TEST_CLIENTS") != "" {
			t.Fatal("make prepare installs ansible-core: ", err)
		}
		t.Skip("needs ansible-playbook:", err)
	}
	for _, args := range [][]string{
		{"ansible-playbook", "-i", "inventory.yml", "--syntax-check", "playbook.yml", "upgrade.yml"},
		{"ansible-inventory", "-i", "inventory.yml", "--graph"},
	} {
		res, err := proc.Run(t.Context(), proc.Cmd{Path: args[0], Args: args[1:], Dir: ansible, Env: []string{"LC_ALL=C.UTF-8"}})
		if said := string(res.Stdout) + string(res.Stderr); err != nil || strings.Contains(said, "WARNING") {
			t.Errorf("%v: %v\n%s", args, err, said)
		} else if args[0] == "ansible-inventory" && strings.Count(said, "mac-mini-") != 30 {
			t.Errorf("the inventory does not name thirty hosts:\n%s", said)
		}
	}
}

func errOf[T any](_ T, err error) error { return err }
