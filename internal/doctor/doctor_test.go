package doctor_test

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"

	"github.com/mirego/tasuki/internal/doctor"
	"github.com/mirego/tasuki/internal/doctor/doctortest"
)

var update = flag.Bool("update", false, "write the golden files")

var hosts = map[string]doctor.Host{
	"darwin": {OS: "darwin", User: "ci", UID: 501, Home: "/Users/ci/.tasuki", Drivers: []string{"tart"}, Slots: 2,
		GuestMemory: 12 << 30, Softnet: true, Secrets: []string{"/Users/ci/github-token"}},
	"linux": {OS: "linux", User: "ci", UID: 1000, Home: "/home/ci/.tasuki", Drivers: []string{"qemu"}, Slots: 4,
		GuestMemory: 16 << 30, Internet: true, Accel: "kvm", Secrets: []string{"/etc/tasuki/github-token"}},
}

func examine(t *testing.T, host string, archives ...string) []doctor.Finding {
	t.Helper()
	r := doctortest.Load(t, archives...)
	var out []doctor.Finding
	synctest.Test(t, func(t *testing.T) { out = doctor.Examine(t.Context(), r, hosts[host]) })
	return out
}

// TestEachCheckKnowsGoodFromBad examines a good machine, and the same one with
// one trouble after the other: only the check that the file is named after may
// notice it, and says what the golden file holds.
func TestEachCheckKnowsGoodFromBad(t *testing.T) {
	for host := range hosts {
		good := filepath.Join("testdata", host, "good.txtar")
		found := examine(t, host, good)
		if len(found) < 10 {
			t.Fatalf("%s: only %d findings", host, len(found))
		}
		for _, f := range found {
			if f.Level != doctor.Well || f.Mend != "" || f.Why != "" {
				t.Errorf("%s is good, and %+v", host, f)
			}
		}
		files, err := filepath.Glob(filepath.Join("testdata", host, "bad", "*.txtar"))
		if err != nil || len(files) == 0 {
			t.Fatalf("no trouble recorded for %s: %v", host, err)
		}
		noticed := map[string]bool{}
		for _, file := range files {
			name := strings.TrimSuffix(filepath.Base(file), ".txtar")
			t.Run(host+"/"+name, func(t *testing.T) {
				text := ""
				for _, f := range examine(t, host, good, file) {
					if f.Level == doctor.Well {
						continue
					}
					noticed[f.Check] = true
					if name != f.Check && !strings.HasPrefix(name, f.Check+"-") {
						t.Errorf("check %s noticed it: %+v", f.Check, f)
					}
					text += fmt.Sprintf("%s: %s: %s\nwhy: %s\nmend: %s\n", f.Check, f.Level, f.Seen, f.Why, f.Mend)
				}
				golden(t, strings.TrimSuffix(file, ".txtar")+".want", text)
			})
		}
		for _, f := range found {
			if !noticed[f.Check] && !slices.Contains([]string{"root", "acceleration", "reflink"}, f.Check) {
				t.Errorf("no trouble is recorded for check %s of %s", f.Check, host)
			}
		}
	}
}

func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v; run the test with -update", err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", file, diff)
	}
}

func TestWhatTheHostItselfMakesBad(t *testing.T) {
	for name, change := range map[string]func(*doctor.Host){
		"root":          func(h *doctor.Host) { h.UID = 0 },
		"guest-network": func(h *doctor.Host) { h.Open = true },
		"slots":         func(h *doctor.Host) { h.Slots = 3 },
		"acceleration":  func(h *doctor.Host) { h.Accel, h.AccelReason = "tcg", "a trial boot failed" },
	} {
		host := "darwin"
		if name == "acceleration" {
			host = "linux"
		}
		t.Run(name, func(t *testing.T) {
			h := hosts[host]
			change(&h)
			r := doctortest.Load(t, filepath.Join("testdata", host, "good.txtar"))
			i := slices.IndexFunc(doctor.Examine(t.Context(), r, h), func(f doctor.Finding) bool {
				return f.Check == name && f.Level != doctor.Well && f.Mend != ""
			})
			if i < 0 {
				t.Errorf("check %s does not notice", name)
			}
		})
	}
}

func TestLineIsForAShell(t *testing.T) {
	got := doctor.Line([]string{"sudo", "defaults", "write", "a b", "it's", "x"})
	if want := `sudo defaults write 'a b' 'it'\''s' x`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// TestHere asks the machine that the test runs on: nothing may fail to be
// asked that this system offers.
func TestHere(t *testing.T) {
	var m doctor.Here
	dir := t.TempDir()
	if free, err := m.Space(filepath.Join(dir, "not", "there")); err != nil || free <= 0 {
		t.Errorf("Space: %d, %v", free, err)
	}
	_ = m.Clones(filepath.Join(dir, "not")) // either answer is right
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("the trial left %v, %v", left, err)
	}
	if _, err := m.Run(t.Context(), "no-such-program-here"); !errors.Is(err, doctor.ErrMissing) {
		t.Errorf("a missing program: %v", err)
	}
	if out, err := m.Run(t.Context(), "sh", "-c", "echo out; echo err >&2; exit 36"); err != nil || out.Status != 36 || out.Text != "out\nerr\n" {
		t.Errorf("got %+v, %v", out, err)
	}
	if f, err := m.Stat(dir); err != nil || !f.Mode.IsDir() || f.UID != os.Getuid() {
		t.Errorf("Stat: %+v, %v", f, err)
	}
}
