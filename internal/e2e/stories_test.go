package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mirego/tasuki/internal/api"
	"github.com/mirego/tasuki/internal/base/proc"
	"github.com/mirego/tasuki/internal/event"
	"github.com/mirego/tasuki/internal/eventlog"
	"github.com/mirego/tasuki/internal/runner"
)

// agentKilled kills the agent while its guest boots, waits and works. The same
// guest is adopted each time; its job ends once and well, with its log whole.
// With one slot the next job waits, and status says for what; a guest that is
// held stays after its job, and opens to tasuki ssh.
func (s *site) agentKilled(t *testing.T) {
	w := s.world(t)
	w.configure(s.image, 1, "solo")
	w.start()

	booting := w.runner("solo", runner.Connecting)
	guest := w.guestProcess(booting.Name)
	w.kill()
	w.start()
	w.adopted(booting, w.runner("solo", runner.Idle), guest)

	w.kill()
	w.start()
	w.adopted(booting, w.runner("solo", runner.Idle), guest)
	if got := w.tasuki("ssh", booting.Name, "--", "uname", "-a"); !strings.HasPrefix(got, "Linux "+booting.Name+" ") {
		t.Errorf("uname in the guest says %q", got)
	}

	first := w.submit(counting("first", "solo"))
	w.runner("solo", runner.Busy)
	w.prints(first, "line 3\n")
	w.kill()
	w.prints(first, fmt.Sprintf("line %d\n", lines(w.log(first))+4)) // it goes on alone
	w.start()
	w.adopted(booting, w.runner("solo", runner.Busy), guest)
	second := w.submit(counting("second", "solo"))
	w.tasuki("hold", booting.Name, "--for", "1h")
	w.waits("solo", "slot")
	if j := w.job(second); j.Status != "queued" {
		t.Errorf("the second job is %s while the one slot is taken", j.Status)
	}
	w.release(booting.Name)
	w.whole(first, booting.Name)

	w.adopted(booting, w.runner("solo", runner.Held), guest)
	if got := w.tasuki("ssh", booting.Name, "--", "ls", release); strings.TrimSpace(got) != release {
		t.Errorf("the held guest has lost its job's traces: %q", got)
	}
	w.waits("solo", "held")
	w.tasuki("hold", booting.Name, "--release")

	next := w.runner("solo", runner.Busy)
	if guest.Alive() || next.Name == booting.Name {
		t.Errorf("%s works in the guest of an earlier job", next.Name)
	}
	w.prints(second, "line 1\n")
	w.release(next.Name)
	w.whole(second, next.Name)
	if a, b := w.job(first), w.job(second); b.Started.Before(a.Completed) {
		t.Errorf("with one slot, the second job started at %v, before the first had ended (%v)", b.Started, a.Completed)
	}
	w.term() // while the third guest is on its way
	w.nothingLeft()
}

// powerLoss lets two pools wait and one of them work, cuts the power, and then
// runs a job of each at the same time. TASUKI_TEST_IDLE=60s also takes the
// agent's figures over a minute in which both wait.
func (s *site) powerLoss(t *testing.T) {
	w := s.world(t)
	w.configure(s.image, 2, "east", "west")
	w.start()
	before := []string{w.runner("east", runner.Idle).Name, w.runner("west", runner.Idle).Name}
	if rss := w.agentRSS(); rss > 60<<20 {
		t.Errorf("the agent of two idle guests takes %d MiB, want less than 60", rss>>20)
	}
	if d, err := time.ParseDuration(os.Getenv("TASUKI_TEST_IDLE")); err == nil {
		w.agentCPU(d)
		w.agentRSS()
	}
	lost := w.submit(counting("lost", "west"))
	w.runner("west", runner.Busy)
	w.prints(lost, "line 1\n")
	w.cutPower(before)

	w.start()
	// The dead ones are idle runners in the journal until the agent has looked,
	// and before it has read the journal there are none.
	w.until("the runners without a guest are given up", func() bool {
		return len(w.status().Runners) > 0 && !slices.ContainsFunc(w.status().Runners, func(r api.Runner) bool {
			return slices.Contains(before, r.Name) && r.State != runner.Lingering
		})
	})
	east, west := w.runner("east", runner.Idle), w.runner("west", runner.Idle)
	one, two := w.submit(counting("one", "east")), w.submit(counting("two", "west"))
	w.prints(one, "line 1\n")
	w.prints(two, "line 1\n")
	w.waits("east", "slot")
	w.waits("west", "slot")
	// Neither may end before: both have printed from within a guest of their own.
	w.release(east.Name)
	w.release(west.Name)
	w.whole(one, east.Name)
	w.whole(two, west.Name)
	if a, b := w.job(one), w.job(two); !a.Started.Before(b.Completed) || !b.Started.Before(a.Completed) {
		t.Errorf("the jobs of two pools did not run at the same time: %v to %v, %v to %v", a.Started, a.Completed, b.Started, b.Completed)
	}
	// GitHub would give the lost job up after ten minutes of silence.
	if err := w.em.ForceCancel(lost); err != nil {
		t.Error(err)
	}
	if j := w.ended(lost); j.Conclusion != "cancelled" || j.Requeued != 0 {
		t.Errorf("the job that lost its guest: %s (%s), queued again %d times; want that nobody else was given it", j.Conclusion, j.Reason, j.Requeued)
	}
	w.term()
	// A registration that GitHub kept for the lost job is the next agent's, if
	// the first one's last try was before GitHub gave it up.
	w.start()
	w.until("no registration lingers", func() bool {
		return !slices.ContainsFunc(w.status().Runners, func(r api.Runner) bool { return r.State == runner.Lingering })
	})
	w.term()
	w.nothingLeft()
}

// officialLayout runs a job through an image that carries its runner program as
// actions/runner lies in a folder, with that program's lines and exit statuses.
func (s *site) officialLayout(t *testing.T) {
	w := s.world(t)
	w.configure(s.push(t, s.officialFolder(t), "official"), 1, "official")
	w.start()
	idle := w.runner("official", runner.Idle)
	run := w.submit(counting("layout", "official"))
	busy := w.runner("official", runner.Busy)
	w.prints(run, "line 1\n")
	w.tasuki("hold", busy.Name, "--for", "1h")
	w.release(busy.Name)
	w.whole(run, idle.Name)
	w.runner("official", runner.Held)
	log := w.tasuki("logs", busy.Name)
	at := 0
	for _, want := range []string{
		"Retrying until reconnected", "√ Connected to GitHub", "Current runner version: '2.330.0'",
		"Listening for Jobs", "Running job: layout", "Job layout completed with result: Succeeded", "√ Removed .runner",
	} {
		i := strings.Index(log[at:], want)
		if i < 0 {
			t.Fatalf("the runner program did not say %q, or not in its turn:\n%s", want, log)
		}
		at += i
	}
	w.tasuki("hold", busy.Name, "--release")
	w.term()
	w.nothingLeft()
}

// adopted checks that a runner is the same as before, in the same guest.
func (w *world) adopted(before, now api.Runner, guest proc.ID) {
	w.t.Helper()
	if now.Name != before.Name || !now.Created.Equal(before.Created) {
		w.t.Errorf("the runner is %s of %v, want %s of %v adopted", now.Name, now.Created, before.Name, before.Created)
	}
	if w.guestProcess(now.Name) != guest {
		w.t.Errorf("the guest of %s was started again", now.Name)
	}
}

// prints waits until a job has printed a line.
func (w *world) prints(run int64, line string) {
	w.t.Helper()
	w.until(fmt.Sprintf("the job prints %q", line), func() bool { return strings.Contains(w.log(run), line) })
}

// lines is how far a counting job has come.
func lines(log string) int {
	n := 0
	for line := range strings.Lines(log) {
		if rest, ok := strings.CutPrefix(line, "line "); ok {
			n, _ = strconv.Atoi(strings.TrimSpace(rest))
		}
	}
	return n
}

// waits checks that status gives a reason for a pool that lacks a runner.
func (w *world) waits(pool, reason string) {
	w.t.Helper()
	var said string
	w.until(fmt.Sprintf("pool %s waits for a %s", pool, reason), func() bool {
		for _, p := range w.status().Pools {
			if p.Name == pool {
				said = p.Waits.Text
			}
		}
		return strings.Contains(said, reason)
	})
	w.t.Logf("pool %s waits: %s", pool, said)
}

// whole waits for the end of a counting job in the guest of a runner, and
// checks that each line is in its log once, in order, and that its runner
// program told of it once.
func (w *world) whole(run int64, name string) {
	w.t.Helper()
	j := w.succeeded(run)
	if j.RunnerName != name {
		w.t.Errorf("job %s was executed by %s, want %s", j.Name, j.RunnerName, name)
	}
	var got []string
	for line := range strings.Lines(w.log(run)) {
		word, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		if word == "before" || word == "line" || word == "last" || word == "after" {
			got = append(got, strings.TrimSpace(line))
		}
	}
	var want []string
	for i := 1; i <= 9; i++ {
		want = append(want, fmt.Sprint("before ", i))
	}
	n := lines(w.log(run))
	for i := 1; i <= n; i++ {
		want = append(want, fmt.Sprint("line ", i))
	}
	want = append(want, fmt.Sprint("last ", n), "after")
	if diff := cmp.Diff(want, got); diff != "" {
		w.t.Errorf("lines of job %s (-want +got):\n%s", j.Name, diff)
	}
	text, err := os.ReadFile(filepath.Join(w.home, "logs", name+".log"))
	if err != nil {
		w.t.Error(err)
	}
	if n := strings.Count(string(text), "Listening for Jobs"); n != 1 {
		w.t.Errorf("the log of %s has its runner program listen %d times, want once:\n%s", name, n, text)
	}
}

// cutPower ends the agent and every guest at once, and leaves their folders as
// a reboot would find them: the numbers of the processes belong to others.
func (w *world) cutPower(guests []string) {
	w.t.Helper()
	var all []proc.ID
	for _, name := range guests {
		all = append(all, w.guestProcess(name))
	}
	w.kill()
	for _, id := range all {
		if err := id.Kill(w.t.Context()); err != nil {
			w.t.Fatal(err)
		}
	}
	other := proc.ID{PID: os.Getpid(), Start: "another boot/1"}
	for _, name := range guests {
		var run map[string]any
		data, err := os.ReadFile(w.runFile(name))
		if err == nil {
			err = json.Unmarshal(data, &run)
		}
		if err != nil {
			w.t.Fatal(err)
		}
		run["qemu"] = other
		if data, err = json.Marshal(run); err != nil {
			w.t.Fatal(err)
		}
		pid := []byte(strconv.Itoa(other.PID))
		for path, text := range map[string][]byte{
			w.runFile(name): data, filepath.Join(w.home, "guests", name, "qemu.pid"): pid, filepath.Join(w.home, "tasuki.lock"): pid,
		} {
			if err := os.WriteFile(path, text, 0o600); err != nil {
				w.t.Fatal(err)
			}
		}
		for _, socket := range []string{filepath.Join(w.home, "guests", name, "qmp.sock"), filepath.Join(w.home, "tasuki.sock")} {
			if _, err := os.Lstat(socket); err != nil {
				w.t.Errorf("a stale socket is part of the story: %v", err)
			}
		}
	}
	w.until("the dead guests' helpers have ended too", func() bool { return len(w.processes()) == 0 })
}

// agentRSS is the agent's resident memory in bytes.
func (w *world) agentRSS() int {
	w.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", w.agent.PID))
	if err != nil {
		w.t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "VmRSS:")
	kib, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Logf("the agent's resident memory: %.1f MiB", float64(kib)/1024)
	return kib << 10
}

// agentCPU is how much of one processor's time the agent takes over d.
func (w *world) agentCPU(d time.Duration) float64 {
	w.t.Helper()
	ticks := func() float64 {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", w.agent.PID))
		if err != nil {
			w.t.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(text), ") ") // the name may hold spaces
		f := strings.Fields(rest)
		user, err1 := strconv.Atoi(f[11])
		system, err2 := strconv.Atoi(f[12])
		if err := errors.Join(err1, err2); err != nil {
			w.t.Fatal(err)
		}
		return float64(user + system)
	}
	before := ticks()
	time.Sleep(d)
	share := (ticks() - before) / 100 / d.Seconds() // Linux tells the time in hundredths, whatever its own tick is
	w.t.Logf("the agent's share of one processor over %v: %.2f %%", d, 100*share)
	return share
}

// logSteps writes how long each step of each finished runner took, as the
// events tell it.
func (w *world) logSteps() {
	w.t.Helper()
	steps := map[string]*[10]time.Duration{}
	var order []string
	for e, err := range eventlog.Read(filepath.Join(w.home, "events"), time.Time{}) {
		if err != nil {
			w.t.Fatal(err)
		}
		if e.Kind != event.RunnerMoved || e.From == "" {
			continue
		}
		if steps[e.Runner] == nil {
			steps[e.Runner] = &[10]time.Duration{}
		}
		steps[e.Runner][e.From.Step()-1] += time.Duration(e.Took * float64(time.Second))
		if e.To == runner.Gone {
			order = append(order, e.Runner)
		}
	}
	var b strings.Builder
	for _, name := range order {
		fmt.Fprintf(&b, "%s:", name)
		for i, took := range steps[name][:9] {
			fmt.Fprintf(&b, " %s %.3fs", runner.StepNames[i], took.Seconds())
		}
		b.WriteString("\n")
	}
	w.t.Logf("steps of the runners' lives:\n%s", b.String())
}
