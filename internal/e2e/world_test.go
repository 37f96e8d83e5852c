package e2e

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mirego/tasuki/internal/api"
	"github.com/mirego/tasuki/internal/base/proc"
	"github.com/mirego/tasuki/internal/base/secret"
	"github.com/mirego/tasuki/internal/client"
	"github.com/mirego/tasuki/internal/emulator"
	"github.com/mirego/tasuki/internal/emulator/workflow"
	"github.com/mirego/tasuki/internal/runner"
)

const (
	// patience bounds every wait. A guest boots in 7 s; beside other tests it was
	// seen to take 150 s.
	patience = 6 * time.Minute
	// guestGitHub is where guests reach the emulator.
	guestGitHub = "10.0.2.100"
	// release is the file in a guest that ends its job.
	release = "/tmp/enough"
)

// world is one story: a home, an agent at a time, and a GitHub.
type world struct {
	t     *testing.T
	site  *site
	home  string
	em    *emulator.Emulator
	url   string
	agent proc.ID
}

func (s *site) world(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, site: s, home: t.TempDir()}
	token := rand.Text()
	w.em = emulator.New(emulator.Options{AdvertiseURL: "http://" + guestGitHub, Token: secret.New(token)})
	w.url = "http://" + serve(t, w.em.Run)
	t.Cleanup(w.endAll)
	if err := os.WriteFile(filepath.Join(w.home, "token"), []byte(token), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(s.images, filepath.Join(w.home, "images")); err != nil {
		t.Fatal(err)
	}
	return w
}

// configure writes the host's configuration: so many slots, and a pool of one
// waiting runner for each label, whose name is the label's.
func (w *world) configure(image string, slots int, labels ...string) {
	w.t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "host: {name: e2e, home: %q, slots: %d, drain_timeout: 2m}\n", w.home, slots)
	fmt.Fprintf(&b, "github: {url: %q, token: {file: token}}\n", w.url)
	fmt.Fprintf(&b, "defaults:\n  scope: octo/demo\n  image: %q\n  memory: 1GiB\n", image)
	fmt.Fprintf(&b, "  network: {mode: isolated, forwards: [{guest: %q, host: %q}]}\n", guestGitHub+":80", strings.TrimPrefix(w.url, "http://"))
	b.WriteString("pools:\n")
	for _, label := range labels {
		fmt.Fprintf(&b, "  - {name: %s, labels: [%s], standby: 1}\n", label, label)
	}
	if err := os.WriteFile(w.config(), []byte(b.String()), 0o600); err != nil {
		w.t.Fatal(err)
	}
	w.tasuki("config", "check", w.config())
}

func (w *world) config() string { return filepath.Join(w.home, "config.yaml") }

// start starts the agent.
func (w *world) start() {
	w.t.Helper()
	id, err := proc.Detach(proc.Cmd{Path: w.site.tasuki, Args: []string{"host", "run", "--config", w.config()}}, filepath.Join(w.home, "agent.log"))
	if err != nil {
		w.t.Fatal(err)
	}
	w.agent = id
	w.until("the agent answers", func() bool {
		_, err := client.New(w.home).Status(w.t.Context())
		return err == nil
	})
}

// kill ends the agent as the kernel would for want of memory.
func (w *world) kill() {
	w.t.Helper()
	if err := w.agent.Kill(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	w.agent = proc.ID{}
}

// term asks the agent to end and waits until it has.
func (w *world) term() {
	w.t.Helper()
	if err := w.agent.Signal(syscall.SIGTERM, false); err != nil {
		w.t.Fatalf("cannot ask the agent to end: %v", err)
	}
	end := w.agent
	w.agent = proc.ID{}
	w.until("the agent has ended", func() bool { return !end.Alive() })
}

// tasuki runs the program on this home and returns its output; it must succeed.
func (w *world) tasuki(args ...string) string {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	res, err := proc.Run(ctx, proc.Cmd{Path: w.site.tasuki, Args: append([]string{"--home", w.home}, args...)})
	if err != nil {
		w.t.Fatalf("tasuki %s: %v\n%s", strings.Join(args, " "), err, w.story())
	}
	return string(res.Stdout)
}

// status is what tasuki status says.
func (w *world) status() api.Status {
	w.t.Helper()
	var s api.Status
	if err := json.Unmarshal([]byte(w.tasuki("status", "--json")), &s); err != nil {
		w.t.Fatal(err)
	}
	return s
}

// runner waits until a pool has a runner in a state, and returns it. One that
// is there already counts.
func (w *world) runner(pool string, state runner.State) api.Runner {
	w.t.Helper()
	var found api.Runner
	c := client.New(w.home)
	w.until(fmt.Sprintf("a runner of pool %s is %s", pool, state), func() bool {
		s, err := c.Status(w.t.Context())
		for _, r := range s.Runners {
			if err == nil && r.Pool == pool && r.State == state {
				found = r
				return true
			}
		}
		return false
	})
	return found
}

// submit queues a workflow and returns its run.
func (w *world) submit(text string) int64 {
	w.t.Helper()
	wf, err := workflow.Parse("e2e.yml", []byte("on: push\njobs:\n"+text))
	if err != nil {
		w.t.Fatal(err)
	}
	id, err := w.em.Submit(wf, w.t.TempDir())
	if err != nil {
		w.t.Fatal(err)
	}
	return id
}

// counting is a job that counts until it is released.
func counting(key, label string) string {
	return "  " + key + ":\n    runs-on: [self-hosted, " + label + "]\n    steps:\n" +
		"      - run: for i in 1 2 3 4 5 6 7 8 9; do echo \"before $i\"; done\n" +
		"      - run: i=0; until [ -e " + release + " ]; do i=$((i+1)); echo \"line $i\"; sleep 0.5; done; echo \"last $i\"\n" +
		"      - run: echo after\n"
}

// release lets the job of a runner end.
func (w *world) release(runner string) { w.tasuki("ssh", runner, "--", "touch", release) }

// job is the one job of a run.
func (w *world) job(run int64) emulator.JobState {
	w.t.Helper()
	r, ok := w.em.RunState(run)
	if !ok || len(r.Jobs) != 1 {
		w.t.Fatalf("run %d has %d jobs, want 1", run, len(r.Jobs))
	}
	return r.Jobs[0]
}

// log is what the job has printed so far.
func (w *world) log(run int64) string {
	text, _ := w.em.JobLog(w.job(run).GUID)
	return emulator.TrimTimestamps(text)
}

// ended waits for the end of a run's job and returns it.
func (w *world) ended(run int64) emulator.JobState {
	w.t.Helper()
	w.until("the job ends", func() bool { return w.job(run).Status == "completed" })
	return w.job(run)
}

// succeeded waits for the end of a run's job: a success, at the first try.
func (w *world) succeeded(run int64) emulator.JobState {
	w.t.Helper()
	j := w.ended(run)
	if j.Conclusion != "success" || j.Requeued != 0 {
		w.t.Errorf("job %s: %s (%s), queued again %d times; want one success\n%s", j.Name, j.Conclusion, j.Reason, j.Requeued, w.story())
	}
	return j
}

func (w *world) until(what string, f func() bool) {
	w.t.Helper()
	for end := time.Now().Add(patience); !f(); time.Sleep(20 * time.Millisecond) {
		if w.agent.PID != 0 && !w.agent.Alive() {
			// An agent that ended by itself does nothing more; f may have its last word.
			time.Sleep(time.Second)
			if !f() {
				w.t.Fatalf("the agent ended, and waited until %s\n%s", what, w.story())
			}
			return
		}
		if time.Now().After(end) {
			w.t.Fatalf("waited %v until %s\n%s", patience, what, w.story())
		}
	}
}

// story is all that helps to understand a failure.
func (w *world) story() string {
	state, _ := json.MarshalIndent(w.em.State(), "", " ")
	log, _ := os.ReadFile(filepath.Join(w.home, "agent.log"))
	var b strings.Builder
	fmt.Fprintf(&b, "GitHub: %s\nagent:\n%s\n", state[max(0, len(state)-6000):], log[max(0, len(log)-8000):])
	consoles, _ := filepath.Glob(filepath.Join(w.home, "guests", "*", "console.log"))
	for _, path := range consoles {
		text, _ := os.ReadFile(path)
		fmt.Fprintf(&b, "%s:\n%s\n", path, text[max(0, len(text)-1000):])
	}
	return b.String()
}

// guestProcess is the process of a runner's guest.
func (w *world) guestProcess(name string) proc.ID {
	w.t.Helper()
	data, err := os.ReadFile(w.runFile(name))
	if err != nil {
		w.t.Fatal(err)
	}
	var run struct{ QEMU proc.ID }
	if err := json.Unmarshal(data, &run); err != nil {
		w.t.Fatal(err)
	}
	if !run.QEMU.Alive() {
		w.t.Fatalf("the guest %s does not run\n%s", name, w.story())
	}
	return run.QEMU
}

func (w *world) runFile(name string) string {
	return filepath.Join(w.home, "guests", name, "run.json")
}

// processes are those that work in this home or run this story's program, and
// how they were started.
func (w *world) processes() map[int]string {
	found := map[int]string{}
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		pid, _ := strconv.Atoi(filepath.Base(dir))
		line, err := os.ReadFile(filepath.Join(dir, "cmdline"))
		if err != nil || len(line) == 0 || pid == os.Getpid() {
			continue // it ended, or is the kernel's
		}
		cwd, _ := os.Readlink(filepath.Join(dir, "cwd"))
		if strings.HasPrefix(cwd, w.home+"/") || bytes.Contains(line, []byte(w.home)) || bytes.HasPrefix(line, []byte(w.site.tasuki)) {
			found[pid] = string(bytes.ReplaceAll(line, []byte{0}, []byte{' '}))
		}
	}
	return found
}

// nothingLeft checks that after its agent's end nothing is left of the story.
func (w *world) nothingLeft() {
	w.t.Helper()
	for pid, line := range w.processes() {
		w.t.Errorf("process %d is left: %s", pid, line)
	}
	for _, dir := range []string{"guests", "journal", "keys"} {
		left, _ := os.ReadDir(filepath.Join(w.home, dir))
		for _, e := range left {
			if e.Name() != ".accel.json" { // how guests are run here
				w.t.Errorf("left in %s: %s", dir, e.Name())
			}
		}
	}
	if left := w.em.State().Runners; len(left) > 0 {
		w.t.Errorf("registrations are left: %+v", left)
	}
	w.logSteps()
	if w.t.Failed() {
		w.t.Log(w.story())
	}
}

// endAll ends what a story that failed has left running.
func (w *world) endAll() {
	for pid := range w.processes() {
		if id, err := proc.Identify(pid); err == nil {
			_ = id.Signal(syscall.SIGKILL, false)
		}
	}
	w.agent = proc.ID{}
	for end := time.Now().Add(patience); len(w.processes()) > 0 && time.Now().Before(end); {
		time.Sleep(20 * time.Millisecond)
	}
}
