package cli

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mirego/tasuki/internal/service"
)

// guideShims are what the guide types and this machine must not do, or lacks:
// the network, minutes of building, and sudo, where there is none.
var guideShims = map[string]string{
	"sudo": `if [ "$1" != -u ]; then exec "$@"; fi
user=$2
shift 2
exec setpriv --reuid "$user" --regid "$user" --init-groups "$@"`,
	"apt-get": "",
	"git":     `mkdir -p tasuki/bin && cp ../tasuki tasuki/bin/`,
	"make":    "",
}

// TestHostGuideOnLinux types the guide for a Linux machine as it stands, block
// after block, under a systemd that is not this machine's, and then what the
// guide says of upgrades and drains. GitHub is the emulator, guests are
// processes: these lines of the configuration differ, and no other.
func TestHostGuideOnLinux(t *testing.T) {
	text, err := os.ReadFile("../../docs/host.md")
	if err != nil {
		t.Fatal(err)
	}
	setting := strings.NewReplacer(
		"github:\n", "github:\n  url: http://127.0.0.1:8080\n", "scope: acme ", "scope: octo ",
		"memory: 4GiB", "memory: 256MiB", // what doctor says must not hang on this machine
		"image: registry.example.com/runners/debian:stable", "driver: fake\n    image: GUEST")
	typing := strings.NewReplacer("acme/app", "octo/demo")

	m := bootSystemd(t)
	end, types := filepath.Join(m.dir, "end"), filepath.Join(m.dir, "types")
	installPrograms(t, m.dir, end)
	writeFile(t, end, "", 0o644) // jobs end at once
	if err := os.Mkdir(types, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, script := range guideShims {
		writeFile(t, filepath.Join(types, name), "#!/bin/sh\n"+script+"\n", 0o755)
	}
	job := filepath.Join(m.dir, "job.yml")
	writeFile(t, job, "on: push\njobs:\n  hello:\n    runs-on: [self-hosted, acme-linux]\n    steps: [{run: echo}]\n", 0o644)
	m.emulate(filepath.Join(m.dir, "tasuki"), job)

	said := ""
	for _, b := range append(guidePart(t, string(text), "A Linux machine"), guidePart(t, string(text), "Drain, upgrade, reload")...) {
		switch b.language {
		case "yaml":
			m.run("mkdir", "-p", "/etc/tasuki")
			file := filepath.Join(m.dir, "host.yaml")
			writeFile(t, file, strings.ReplaceAll(setting.Replace(b.text), "GUEST", filepath.Join(m.dir, "guest")), 0o644)
			m.run("cp", file, "/etc/tasuki/host.yaml")
		case "sh":
			said = m.types(types, typing.Replace(b.text))
		case "":
			for line := range strings.Lines(b.text) {
				if !strings.Contains(said, strings.TrimSpace(line)) {
					t.Errorf("the guide promises %q, and it was said:\n%s", line, said)
				}
			}
		}
	}
	m.until(`"conclusion":"success"`, filepath.Join(m.dir, "get"), "http://127.0.0.1:8080/_emulator/state")
	m.until(`(?s)linux +2 .*idle.*idle`, "/usr/local/bin/tasuki", "status", "--home", "/var/lib/tasuki")
}

// emulate starts GitHub's stand-in inside of the machine, and waits for it.
func (m *systemd) emulate(tasuki, job string) {
	cmd := m.command(tasuki, "emulator", "--listen", "127.0.0.1:8080", job)
	if err := cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	m.until("runners", filepath.Join(m.dir, "get"), "http://127.0.0.1:8080/_emulator/state")
}

// types has a shell read a block of commands, as a person would type it: in the
// checkout, once there is one. What asks for input gets a token.
func (m *systemd) types(shims, block string) string {
	m.t.Helper()
	start := fmt.Sprintf("PATH=%s:/usr/local/bin:$PATH; cd %s/tasuki-checkout/tasuki 2>/dev/null || { mkdir -p %s/tasuki-checkout; cd %s/tasuki-checkout; }\n",
		shims, m.dir, m.dir, m.dir)
	cmd := m.command("bash", "-eu", "-c", start+block)
	cmd.Stdin = strings.NewReader("not-a-real-token\n")
	out, err := cmd.CombinedOutput()
	if err != nil {
		status, _ := m.command("systemctl", "status", "--no-pager", "tasuki").CombinedOutput()
		m.t.Fatalf("%v, after typing\n%s\n%s\n%s", err, block, out, status)
	}
	return string(out)
}

// guideBlock is a code block of a guide; one without a language is what is said.
type guideBlock struct{ language, text string }

// guidePart returns the code blocks of a section, in their order.
func guidePart(t *testing.T, text, heading string) []guideBlock {
	t.Helper()
	_, part, found := strings.Cut(text, "\n## "+heading+"\n")
	part, _, _ = strings.Cut(part, "\n## ")
	if !found {
		t.Fatalf("the guide has no section %q", heading)
	}
	var out []guideBlock
	inside := false
	for line := range strings.Lines(part) {
		language, fence := strings.CutPrefix(strings.TrimSpace(line), "```")
		switch {
		case fence && !inside:
			out = append(out, guideBlock{language: language})
			inside = true
		case fence:
			inside = false
		case inside:
			out[len(out)-1].text += line
		}
	}
	if len(out) < 2 {
		t.Fatalf("section %q has %d blocks: the test types too little", heading, len(out))
	}
	return out
}

// TestHardeningKeepsGuests starts what guests need (QEMU with its sandbox, passt
// with its user namespace) as a unit of the system starts the agent.
func TestHardeningKeepsGuests(t *testing.T) {
	m := bootSystemd(t)
	home := filepath.Join(m.dir, "home")
	installPrograms(t, m.dir, filepath.Join(m.dir, "end"))
	programs := map[string][]string{
		"qemu-system-x86_64": {"-display", "none", "-S", "-machine", "q35", "-accel", "tcg", "-m", "64", "-pidfile", home + "/qemu",
			"-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"},
		"passt": {"-f", "--no-map-gw", "-t", "2222:22", "-s", home + "/passt"},
	}
	for _, link := range []string{"link add v0 type veth peer name v1", "addr add 192.0.2.2/24 dev v0", "link set v0 up", "link set v1 up",
		"route add default via 192.0.2.1 dev v0"} {
		if out, err := m.command(append([]string{"ip"}, strings.Fields(link)...)...).CombinedOutput(); err != nil {
			t.Logf("passt is not tried, which wants a network: ip %s: %v: %s", link, err, out)
			delete(programs, "passt")
			break
		}
	}
	for name, args := range programs {
		program, err := exec.LookPath(name)
		if err != nil {
			t.Logf("%s is not tried: %v", name, err)
			continue
		}
		plan, err := service.New("linux", service.Options{Program: program, Args: args, System: true, User: "nobody", UID: 65534, HomeDir: "/nonexistent", Home: home})
		if err != nil {
			t.Fatal(err)
		}
		unit := filepath.Join(m.dir, "unit")
		writeFile(t, unit, string(plan.File), 0o644)
		m.run("cp", unit, plan.Path)
		m.run("systemctl", "daemon-reload")
		m.run("systemctl", "start", "tasuki")
		m.until("there", "sh", "-c", "test -e "+home+"/"+strings.TrimSuffix(name, "-system-x86_64")+" && echo there")
		if state := m.run("systemctl", "show", "--property=NRestarts,ActiveState", "tasuki"); !strings.Contains(state, "NRestarts=0") || !strings.Contains(state, "ActiveState=active") {
			t.Errorf("%s does not live under the unit: %s", name, state)
		}
		m.run("systemctl", "kill", "--signal=KILL", "tasuki")
		m.run("systemctl", "stop", "tasuki")
	}
}
