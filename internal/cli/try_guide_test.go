package cli

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
)

// trial is the terminals of somebody who follows a guide.
type trial struct {
	t    *testing.T
	dir  string
	port string // in place of the guide's 8080
}

// start types a line of the guide in a terminal of its own.
func (tr *trial) start(line string) *exec.Cmd {
	tr.t.Helper()
	cmd := tr.command(line)
	if err := cmd.Start(); err != nil {
		tr.t.Fatal(err)
	}
	tr.t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return cmd
}

// command is a line of the guide. Guests are processes of this machine, which
// need no address of their own for the emulator.
func (tr *trial) command(line string) *exec.Cmd {
	line = strings.NewReplacer("127.0.0.1:8080", "127.0.0.1:"+tr.port, " --advertise http://10.0.2.100", "", "~", tr.dir, " --watch", "").Replace(line)
	words := strings.Fields(line)
	cmd := exec.Command(filepath.Join(tr.dir, words[0]), words[1:]...)
	cmd.Dir, cmd.Env = tr.dir, append(os.Environ(), "HOME="+tr.dir)
	return cmd
}

// until repeats a line until it says a pattern.
func (tr *trial) until(pattern, line string) string {
	tr.t.Helper()
	form := regexp.MustCompile("(?m)" + pattern)
	for deadline := time.Now().Add(untilTimeout); ; time.Sleep(50 * time.Millisecond) {
		out, err := tr.command(line).CombinedOutput()
		if err == nil && form.Match(out) {
			return string(out)
		}
		if time.Now().After(deadline) {
			tr.t.Fatalf("%s never said %s: %v\n%s", line, pattern, err, out)
		}
	}
}

// TestGuideWithoutGitHub follows "Try it without GitHub" of docs/host.md, its
// files and its commands, with processes for guests.
func TestGuideWithoutGitHub(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("fake guests need /proc")
	}
	text, err := os.ReadFile("../../docs/host.md")
	if err != nil {
		t.Fatal(err)
	}
	all := guidePart(t, string(text), "Try it without GitHub")
	if len(all) < 6 || all[0].language != "yaml" || all[1].language != "sh" || all[3].language != "yaml" || all[4].language != "sh" {
		t.Fatalf("the section has other blocks than this test knows: %+v", all)
	}
	lines := strings.Split(strings.TrimSpace(all[4].text), "\n")
	if len(lines) != 3 {
		t.Fatalf("three terminals, and there are %d: %q", len(lines), lines)
	}
	tr := prepareTrial(t, all[0].text, all[3].text)

	said, err := tr.command(all[1].text).CombinedOutput()
	if err != nil || string(said) != all[2].text {
		t.Errorf("%s says %q, and the guide %q: %v", all[1].text, said, all[2].text, err)
	}
	tr.start(lines[0])
	tr.until("runners", "get http://127.0.0.1:8080/_emulator/state")
	agent := tr.start(lines[1])
	busy := regexp.MustCompile(`(?m)^tasuki-rack-1-\S+ +linux +busy .*greet`)
	who := strings.Fields(busy.FindString(tr.until(busy.String(), lines[2])))[0]

	_ = agent.Process.Kill()
	_ = agent.Wait()
	agent = tr.start(lines[1])
	tr.until(`^`+regexp.QuoteMeta(who)+` +linux +busy .*greet`, lines[2])
	writeFile(t, filepath.Join(tr.dir, "end"), "", 0o600)
	tr.until(`"conclusion":"success"`, "get http://127.0.0.1:8080/_emulator/state")
	if err := agent.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	_ = agent.Wait()
	if left, _ := filepath.Glob(filepath.Join(tr.dir, "tasuki-try", "journal", "*.json")); len(left) > 0 {
		t.Errorf("after Ctrl-C the agent left %v", left)
	}
}

// prepareTrial writes the guide's two files, and a guest that is a process; its
// job runs until there is a file end.
func prepareTrial(t *testing.T, host, job string) *trial {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	tr := &trial{t: t, dir: t.TempDir(), port: strconv.Itoa(l.Addr().(*net.TCPAddr).Port)}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"tasuki", "protorunner", "get"} {
		if err := os.Symlink(self, filepath.Join(tr.dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	host, _, _ = strings.Cut(host, "    network:")
	image := regexp.MustCompile(`(?m)^    image: .*$`)
	host = image.ReplaceAllString(host, "    driver: fake\n    image: "+filepath.Join(tr.dir, "guest"))
	writeFile(t, filepath.Join(tr.dir, "try.yaml"), strings.ReplaceAll(host, "8080", tr.port), 0o600)
	writeFile(t, filepath.Join(tr.dir, "hello.yml"), job, 0o600)
	if err := os.Mkdir(filepath.Join(tr.dir, "guest"), 0o700); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(tr.dir, "guest", "run"),
		"#!/bin/sh\nexec "+tr.dir+"/protorunner -until "+tr.dir+"/end\n", 0o700)
	return tr
}
