package cli

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// systemd is one that runs as the first process of namespaces, over a
// view of this machine.
type systemd struct {
	t   *testing.T
	dir string // the same inside and outside
	pid string // of systemd, as we see it
}

// bootSystemd skips the test where systemd cannot run so.
func bootSystemd(t *testing.T) *systemd {
	t.Helper()
	if os.Getenv("TASUKI_TEST_QEMU") == "" {
		t.Skip("starts a whole systemd: set TASUKI_TEST_QEMU=1, as make test does")
	}
	if os.Getuid() != 0 {
		t.Skip("needs root, who may run systemd in namespaces")
	}
	for _, program := range []string{"/lib/systemd/systemd", "unshare", "nsenter"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skip("needs systemd:", err)
		}
	}
	m := &systemd{t: t, dir: t.TempDir()}
	// The agent is another user's, and root's folders are closed to others.
	for above := m.dir; above != os.TempDir() && above != "/"; above = filepath.Dir(above) {
		if err := os.Chmod(above, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	script, err := filepath.Abs("testdata/systemd/boot.sh")
	if err != nil {
		t.Fatal(err)
	}
	said, err := os.Create(filepath.Join(m.dir, "boot.log"))
	if err != nil {
		t.Fatal(err)
	}
	defer said.Close()
	cmd := exec.Command(script, m.dir)
	cmd.Stdout, cmd.Stderr = said, said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // unshare takes the namespaces with it
		<-ended
		m.removeGroups()
	})
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		children, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", cmd.Process.Pid, cmd.Process.Pid))
		if m.pid = strings.TrimSpace(string(children)); m.pid != "" && m.state() {
			return m
		}
		log, _ := os.ReadFile(said.Name())
		select {
		case err := <-ended:
			ended <- err
			t.Skipf("needs namespaces, overlayfs and control groups, which this machine does not give: %v\n%s", err, log)
		default:
		}
		if time.Now().After(deadline) {
			t.Skipf("needs systemd in namespaces, and it does not come up here:\n%s", log)
		}
	}
}

// state says whether systemd has started what it shall.
func (m *systemd) state() bool {
	out, _ := m.command("systemctl", "is-system-running").Output()
	return slices.Contains([]string{"running", "degraded"}, strings.TrimSpace(string(out)))
}

// command is one inside of the machine.
func (m *systemd) command(words ...string) *exec.Cmd {
	args := []string{"--target", m.pid, "--mount", "--pid", "--cgroup", "--ipc", "--uts", "--net", "--root", "--wd", "--"}
	cmd := exec.Command("nsenter", append(args, words...)...)
	cmd.WaitDelay = 10 * time.Second
	return cmd
}

// run runs a command inside that must succeed, and returns what it said.
func (m *systemd) run(words ...string) string {
	m.t.Helper()
	out, err := m.command(words...).CombinedOutput()
	if err != nil {
		journal, _ := m.command("journalctl", "--no-pager", "-u", "tasuki").Output()
		m.t.Fatalf("%s: %v\n%s\n%s", strings.Join(words, " "), err, out, journal)
	}
	return string(out)
}

// until repeats a command until it says a pattern.
func (m *systemd) until(pattern string, words ...string) string {
	m.t.Helper()
	form := regexp.MustCompile("(?m)" + pattern)
	for deadline := time.Now().Add(untilTimeout); ; time.Sleep(50 * time.Millisecond) {
		out, err := m.command(words...).CombinedOutput()
		if err == nil && form.Match(out) {
			return string(out)
		}
		if time.Now().After(deadline) {
			journal, _ := m.command("systemctl", "status", "--no-pager", "tasuki").CombinedOutput()
			m.t.Fatalf("%s never said %s: %v\n%s\n%s", strings.Join(words, " "), pattern, err, out, journal)
		}
	}
}

// programs returns the numbers, as we see them, of the processes that run a
// program of the machine's folder.
func (m *systemd) programs(name string) []string {
	m.t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		m.t.Fatal(err)
	}
	var out []string
	for _, file := range files {
		line, _ := os.ReadFile(file) // one that has ended meanwhile is none
		if program, _, _ := strings.Cut(string(line), "\x00"); program == filepath.Join(m.dir, name) {
			out = append(out, filepath.Base(filepath.Dir(file)))
		}
	}
	return out
}

// removeGroups removes the control groups that the machine left, deepest first.
func (m *systemd) removeGroups() {
	list, err := os.ReadFile(filepath.Join(m.dir, "groups"))
	if err != nil {
		return
	}
	for group := range strings.Lines(string(list)) {
		var dirs []string
		_ = filepath.WalkDir(strings.TrimSpace(group), func(path string, d os.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				dirs = append(dirs, path)
			}
			return nil
		})
		for _, dir := range slices.Backward(dirs) {
			for range 100 { // what was killed leaves its group a moment later
				if err := os.Remove(dir); err == nil || errors.Is(err, os.ErrNotExist) {
					break
				}
				time.Sleep(20 * time.Millisecond)
			}
		}
	}
}

// TestServiceRestartKeepsTheJob installs the service under a real systemd and
// restarts, kills and stops it while a job runs: the runner program lives on, and
// the agent that comes next sees the job to its end (service-restart-kills-guests).
func TestServiceRestartKeepsTheJob(t *testing.T) {
	m := bootSystemd(t)
	home, end := filepath.Join(m.dir, "home"), filepath.Join(m.dir, "end")
	tasuki := installPrograms(t, m.dir, end)
	config := filepath.Join(m.dir, "host.yaml")
	writeFile(t, config, "host: {name: h, home: "+home+", slots: 1, tick: 100ms, drain_timeout: 1s}\ngithub: {url: \"http://127.0.0.1:8080\"}\n"+
		"pools:\n  - {name: p, driver: fake, image: "+filepath.Join(m.dir, "guest")+", scope: octo/demo}\n", 0o644)
	job := filepath.Join(m.dir, "job.yml")
	writeFile(t, job, "on: push\njobs:\n  long:\n    runs-on: [self-hosted]\n    steps: [{run: echo}]\n", 0o644)

	m.emulate(tasuki, job)
	get := filepath.Join(m.dir, "get")

	m.run(tasuki, "service", "install", "--system", "--user", "nobody", "--config", config)
	agent := func() string { return m.run("systemctl", "show", "--property=MainPID", "--value", "tasuki") }
	status := []string{tasuki, "status", "--home", home}
	busy := regexp.MustCompile(`(?m)^tasuki-h-\S+ +p +busy `)
	who := strings.Fields(busy.FindString(m.until(busy.String(), status...)))[0]
	program := m.programs("protorunner")
	if len(program) != 1 {
		t.Fatalf("one runner program should run: %v", program)
	}
	if again := m.run(tasuki, "service", "install", "--system", "--user", "nobody", "--config", config); !strings.Contains(again, "the agent runs already") {
		t.Errorf("installed again, it says:\n%s", again)
	}

	for _, restart := range [][]string{
		{tasuki, "service", "restart", "--system", "--config", config},
		{"systemctl", "kill", "--kill-whom=main", "--signal=SEGV", "tasuki"},
		{"systemctl", "restart", "tasuki"}, // SIGTERM: it drains, and gives up after drain_timeout
	} {
		before := agent()
		m.run(restart...)
		if slices.Contains(restart, "service") && (agent() == before || agent() == "0\n") {
			t.Errorf("%v came back before another agent ran", restart)
		}
		for deadline := time.Now().Add(untilTimeout); agent() == before || agent() == "0\n"; time.Sleep(20 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%v: systemd did not start another agent", restart)
			}
		}
		m.until(`^`+regexp.QuoteMeta(who)+` +p +busy `, status...)
		if got := m.programs("protorunner"); !slices.Equal(got, program) {
			t.Errorf("%v: the runner program was %v and is %v", restart, program, got)
		}
	}
	writeFile(t, end, "", 0o644)
	m.until(`"conclusion":"success"`, get, "http://127.0.0.1:8080/_emulator/state")
	m.until(`runner.moved +`+regexp.QuoteMeta(who)+` +deleting → gone`, tasuki, "events", "--home", home)
	m.run(tasuki, "service", "uninstall", "--system", "--config", config)
	if out, err := m.command("systemctl", "cat", "tasuki").CombinedOutput(); err == nil {
		t.Errorf("after uninstall the unit is still there:\n%s", out)
	}
}

// installPrograms puts this program into dir under the names that the machine
// knows it by, and a guest whose job runs until the file end is there.
func installPrograms(t *testing.T, dir, end string) (tasuki string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	// A unit names a program by its own file, and its name says what it is.
	tasuki = filepath.Join(dir, "tasuki")
	writeFile(t, tasuki, string(program), 0o755)
	for _, name := range []string{"protorunner", "get"} {
		if err := os.Link(tasuki, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	for _, folder := range []string{"guest", "home"} {
		if err := os.Mkdir(filepath.Join(dir, folder), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	writeFile(t, filepath.Join(dir, "guest", "run"), "#!/bin/sh\nexec "+dir+"/protorunner -until "+end+"\n", 0o755)
	const nobody = 65534
	if err := errors.Join(os.Chown(filepath.Join(dir, "home"), nobody, nobody), os.Chmod(filepath.Join(dir, "home"), 0o700)); err != nil {
		t.Fatal(err)
	}
	return tasuki
}

func writeFile(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}
