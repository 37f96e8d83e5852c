package scaleset_test

import (
	"errors"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mirego/tasuki/internal/emulator"
	"github.com/mirego/tasuki/internal/runner"
)

// A message that was not acknowledged comes again, to the next agent too, and
// changes nothing: each job is known once.
func TestAMessageThatComesAgainChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, emulator.Options{})
		h := w.host()
		p := w.pool(h)
		p.lame = true
		p.start()
		w.listening()
		w.counted.before(func(r *http.Request) error {
			if r.Method == http.MethodDelete && strings.HasPrefix(r.URL.Path, "/queue/") {
				return errors.New("cut off")
			}
			return nil
		})
		run := w.submit(2)
		w.until("both are known", func() bool { return len(p.set.Want().Jobs) == 2 })
		time.Sleep(3 * time.Second)
		if n := len(p.set.Want().Jobs); n != 2 || w.theSet().Unread != 1 {
			t.Errorf("%d jobs, %d messages unread; want 2 and 1", n, w.theSet().Unread)
		}
		p.kill()
		if data, err := os.ReadFile(h.file); err != nil || strings.Count(string(data), `"heard": "`) != 2 {
			t.Fatalf("the book has not both jobs: %v\n%s", err, data)
		}
		again := w.pool(h)
		if n := len(again.set.Want().Jobs); n != 2 {
			t.Errorf("the next agent begins with %d jobs, want 2", n)
		}
		again.start()
		w.finish(run)
		w.until("the message is acknowledged", func() bool { return w.theSet().Unread == 0 })
		again.end()
		again.check(t, 2)
	})
}

// A book that cannot be written keeps the message at GitHub.
func TestNothingIsAcknowledgedThatWasNotWrittenDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, emulator.Options{})
		h := w.host()
		p := w.pool(h)
		p.lame = true
		p.start()
		w.listening()
		data, err := os.ReadFile(h.file)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(os.Remove(h.file), os.MkdirAll(h.file+"/in/the/way", 0o700)); err != nil {
			t.Fatal(err)
		}
		w.submit(1)
		time.Sleep(2 * time.Minute)
		p.mu.Lock()
		problem := p.problem
		p.mu.Unlock()
		if w.theSet().Unread != 1 || !strings.Contains(problem, "book") {
			t.Errorf("%d messages unread, problem %q", w.theSet().Unread, problem)
		}
		if err := errors.Join(os.RemoveAll(h.file), os.WriteFile(h.file, data, 0o600)); err != nil {
			t.Fatal(err)
		}
		w.until("it is acknowledged", func() bool { return w.theSet().Unread == 0 })
		p.end()
		if p.problem != "" {
			t.Errorf("the problem is still %q", p.problem)
		}
	})
}

// A set whose labels are no more the pool's serves what it has, and goes; jobs
// meanwhile go to the next one.
func TestAChangeOfLabelsIsAnotherSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, emulator.Options{})
		h := w.host()
		p := w.pool(h)
		p.hold = 3 * time.Minute
		p.lame = true
		p.start()
		w.listening()
		old := w.theSet()
		run := w.submit(2)
		w.until("the old set has both", func() bool { return len(w.theSet().Jobs) == 2 })

		next := h.settings
		next.Labels = append(slices.Clone(next.Labels), "fast")
		p.set.Configure(next)
		w.until("there are two sets", func() bool { return len(w.State().ScaleSets) == 2 && w.State().ScaleSets[1].Listening })
		if got := w.State().ScaleSets[1]; !strings.HasPrefix(got.Name, "pool-") || !slices.Contains(got.Labels, "fast") || !slices.Contains(got.Labels, "pool") {
			t.Errorf("the new set is %+v", got)
		}
		more := w.submit(2)
		p.mu.Lock()
		p.lame = false
		p.mu.Unlock()
		for _, j := range w.finish(run).Jobs {
			if j.ScaleSet != old.Name {
				t.Errorf("job %s was served by set %q, want the old one, %q", j.Name, j.ScaleSet, old.Name)
			}
		}
		w.finish(more)
		w.until("the old set is gone", func() bool { return len(w.State().ScaleSets) == 1 })
		if w.theSet().ID == old.ID {
			t.Error("the wrong set went")
		}
		// And back: the name is free again.
		p.set.Configure(h.settings)
		w.until("the pool's set has its name again", func() bool { return len(w.State().ScaleSets) == 1 && w.theSet().Name == "pool" })
		w.finish(w.submit(1))
		time.Sleep(time.Minute)
		p.end()
		p.check(t, 5)
	})
}

// A set that a person made is served, and never deleted.
func TestASetOfOthersIsNeverDeleted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, emulator.Options{})
		h := w.host()
		first := w.listen(h)
		w.listening()
		first.end()
		theirs := w.theSet().ID
		other := w.host() // another home: it finds the set by its name
		p := w.listen(other)
		w.until("it listens", func() bool { return w.theSet().Listening })
		next := other.settings
		next.Labels = []string{"elsewhere"}
		p.set.Configure(next)
		w.until("it has another one", func() bool { return len(w.State().ScaleSets) == 2 && w.State().ScaleSets[1].Listening })
		w.until("the session of the first ends", func() bool { return w.State().ScaleSets[0].Owner == "" })
		time.Sleep(time.Hour)
		p.end()
		if sets := w.State().ScaleSets; len(sets) != 2 || sets[0].ID != theirs {
			t.Errorf("left are %+v", sets)
		}
	})
}

// A set that somebody deleted is made anew.
func TestASetThatIsGoneIsMadeAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, emulator.Options{})
		p := w.listen(w.host())
		w.listening()
		was := w.theSet().ID
		w.finish(w.submit(1))
		if err := w.service.Delete(t.Context(), int(was)); err != nil {
			t.Fatal(err)
		}
		w.until("there is another", func() bool { s := w.State().ScaleSets; return len(s) == 1 && s[0].ID != was && s[0].Listening })
		w.finish(w.submit(2))
		p.end()
	})
}

// The answer to making a set is lost: the set is ours all the same, once.
func TestASetWhoseMakingWasNotAnsweredIsOurs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, emulator.Options{Faults: []emulator.Fault{{Route: "POST /runnerscalesets", Times: 1, LoseReply: true}}})
		h := w.host()
		p := w.listen(h)
		w.listening()
		w.theSet()
		data, err := os.ReadFile(h.file)
		if err != nil || !strings.Contains(string(data), `"made": true`) {
			t.Errorf("%v\n%s", err, data)
		}
		p.end()
	})
}

// A poll that nobody answers ends by itself.
func TestAPollThatNeverReturns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, emulator.Options{Faults: []emulator.Fault{{Route: "GET /queue/", Times: 2, Delay: 24 * time.Hour}}})
		p := w.listen(w.host())
		run := int64(0)
		time.Sleep(time.Second)
		run = w.submit(1)
		begun := time.Now()
		w.finish(run)
		if d := time.Since(begun); d > 150*time.Second {
			t.Errorf("it took %v", d)
		}
		p.end()
	})
}

// The queue's token is refused: the session is refreshed, and kept.
func TestAQueueTokenThatExpired(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, emulator.Options{Faults: []emulator.Fault{emulator.QueueTokenExpired(2)}})
		p := w.listen(w.host())
		w.listening()
		w.finish(w.submit(2))
		time.Sleep(time.Minute)
		p.end()
		p.check(t, 2)
		if n := w.counted.count("POST /tenant/_apis/runtime/runnerscalesets/ID/sessions"); n > 2 {
			t.Errorf("%d sessions were opened", n)
		}
	})
}

// What a job was is known from the messages where the REST API cannot tell it.
func TestTheJobOfARunner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, emulator.Options{})
		p := w.listen(w.host())
		w.listening()
		run := w.submit(1)
		w.finish(run)
		time.Sleep(time.Minute)
		p.end()
		if len(p.started) != 1 {
			t.Fatalf("started: %v", p.started)
		}
		job, found, err := p.set.Job(t.Context(), p.started[0], time.Time{})
		if err != nil || !found {
			t.Fatalf("%v, %v", found, err)
		}
		want := runner.Job{
			Name: job.Name, Repository: "octo/demo", Workflow: "ci.yml", RunID: run, Conclusion: "success",
			URL: "http://127.0.0.1:1/octo/demo/actions/runs/1001", Queued: job.Queued, Started: job.Started, Completed: job.Completed,
		}
		if job != want || job.Name == "" || job.Queued.IsZero() || job.Started.IsZero() || job.Completed.IsZero() {
			t.Errorf("the job is %+v", job)
		}
	})
}

// How many calls a job costs, in bursts of 50 over two slots.
func TestCallsPerJob(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, emulator.Options{})
		p := w.pool(w.host())
		p.hold = 2 * time.Minute
		p.start()
		w.listening()
		const jobs = 100
		begun := time.Now()
		for range jobs / 50 {
			w.finish(w.submit(50))
		}
		took := time.Since(begun)
		p.end()
		w.counted.mu.Lock()
		rest, service := 0, 0
		for key, n := range w.counted.seen {
			t.Logf("%5d  %s", n, key)
			if strings.Contains(key, "_apis") || strings.Contains(key, "/queue/") {
				service += n
			} else {
				rest += n
			}
		}
		w.counted.mu.Unlock()
		t.Logf("%d jobs in %v: %.2f calls of the REST API and %.2f of the Actions service for each", jobs, took, float64(rest)/jobs, float64(service)/jobs)
		if float64(service)/jobs > 8 || float64(rest)/jobs > 5 {
			t.Error("these are more than there should be")
		}
	})
}
