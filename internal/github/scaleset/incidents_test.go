package scaleset_test

import (
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mirego/tasuki/internal/emulator"
	"github.com/mirego/tasuki/internal/github/scaleset"
)

// After a crash the session of before is in the way for 50 s, and meanwhile the
// jobs that were assigned go on being wanted.
func TestIncidentSessionConflict(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, emulator.Options{})
		h := w.host()
		p := w.pool(h)
		p.lame = true
		p.start()
		w.listening()
		run := w.submit(2)
		w.until("two jobs are known", func() bool { return len(p.set.Want().Jobs) == 2 })
		p.kill()

		begun := time.Now()
		again := w.listen(h)
		w.finish(run)
		if d := time.Since(begun); d > 20*time.Second {
			t.Errorf("the known jobs took %v: they waited for the session", d)
		}
		opened := func() int { return w.counted.count("POST /tenant/_apis/runtime/runnerscalesets/ID/sessions") }
		time.Sleep(time.Minute) // by then it has a session of its own
		n := opened()
		w.finish(w.submit(2))
		if time.Sleep(time.Hour); opened() != n || n < 4 || n > 12 {
			t.Errorf("a session was asked for %d times, and %d later", n, opened())
		}
		again.mu.Lock()
		defer again.mu.Unlock()
		if again.problem != "" || len(again.errs) > 0 {
			t.Errorf("problem %q, errors %v", again.problem, again.errs)
		}
	})
}

// A set that another host listens to is that host's: ours says whose it is,
// wants nothing, and asks again only rarely.
func TestIncidentSessionConflictWithAnotherHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, emulator.Options{})
		first, second := w.host(), w.host()
		first.settings.Warm, second.settings.Warm = 1, 1
		second.installation = "bbbbbb"
		a := w.listen(first)
		w.listening()
		b := w.listen(second)
		w.until("the second says whose it is", func() bool {
			b.mu.Lock()
			defer b.mu.Unlock()
			return strings.Contains(b.problem, "installation aaaaaa on host host-aaaaaa") && strings.Contains(b.problem, "standby")
		})
		before := w.counted.count("/sessions")
		w.finish(w.submit(6))
		time.Sleep(time.Hour)
		if n := w.counted.count("/sessions") - before; n > 12 {
			t.Errorf("within an hour the session was asked for %d times", n)
		}
		if b.made != 0 || b.set.Want().Runners() != 0 || !strings.Contains(b.set.Want().Why, "aaaaaa") {
			t.Errorf("it made %d runners and wants %+v", b.made, b.set.Want())
		}
		// When the first goes for good, the second takes over.
		a.end()
		w.until("the second listens", func() bool { return strings.Contains(w.theSet().Owner, "bbbbbb") })
		w.finish(w.submit(2))
		if b.problem != "" {
			t.Errorf("the problem is still %q", b.problem)
		}
	})
}

// A session that GitHub forgot is replaced, and the cursor stays.
func TestIncidentSessionEvicted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, emulator.Options{})
		p := w.listen(w.host())
		w.listening()
		w.finish(w.submit(3))
		for range 3 {
			w.EvictSessions()
			time.Sleep(10 * time.Second)
			w.finish(w.submit(3))
		}
		time.Sleep(time.Minute)
		p.end()
		p.check(t, 12)
		if p.problems != nil && p.problem != "" {
			t.Errorf("problem %q", p.problem)
		}
		if rest := w.theSet(); rest.Unread != 0 {
			t.Errorf("%d messages were not acknowledged", rest.Unread)
		}
	})
}

// A poll that is answered 200 with nothing in it is one that brought nothing, and
// many of them are no hot loop.
func TestIncidentEmpty200(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, emulator.Options{})
		p := w.listen(w.host())
		w.listening()
		w.SetFaults([]emulator.Fault{emulator.EmptyPoll(30)})
		p.set.Drain(true) // so that it polls anew
		p.set.Drain(false)
		time.Sleep(time.Millisecond)
		begun := time.Now()
		w.finish(w.submit(2))
		if d := time.Since(begun); d < 20*time.Second || d > 40*time.Second {
			t.Errorf("30 empty polls took %v", d)
		}
		time.Sleep(time.Minute)
		p.end()
		p.check(t, 2)
		if n := w.counted.count("POST /tenant/_apis/runtime/runnerscalesets/ID/sessions"); n != 1 || p.problem != "" || len(p.problems) > 1 {
			t.Errorf("%d sessions were opened, want 1; problems %q", n, p.problems)
		}
	})
}

// Jobs that were assigned before a listener that knows nothing came are told by
// its session's statistics alone.
func TestIncidentInitialStatisticsIgnored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, emulator.Options{ScaleSets: emulator.ScaleSetOptions{AssignTimeout: time.Hour}})
		h := w.host()
		p := w.pool(h)
		p.lame = true
		p.start()
		w.listening()
		run := w.submit(2)
		w.until("the jobs are known, and acknowledged", func() bool { return len(p.set.Want().Jobs) == 2 && w.theSet().Unread == 0 })
		p.end()
		if err := os.Remove(h.file); err != nil { // the home is lost
			t.Fatal(err)
		}
		begun := time.Now()
		w.listen(h)
		w.finish(run)
		if d := time.Since(begun); d > 10*time.Second {
			t.Errorf("it took %v", d)
		}
	})
}

// Messages that never come, come late, twice or without a name leak nothing.
func TestIncidentLostCompletedLateStarted(t *testing.T) {
	for name, faults := range map[string][]emulator.Fault{
		"completed is lost":       {emulator.LostCompleted(0)},
		"started is late":         {emulator.LateStarted(0, 10*time.Minute)},
		"started is lost":         {{Message: "JobStarted", Lose: true}},
		"both are lost":           {{Message: "JobStarted", Lose: true}, emulator.LostCompleted(0)},
		"each comes twice":        {{Message: "JobStarted", Twice: true}, {Message: "JobCompleted", Twice: true}, {Message: "JobAssigned", Twice: true}},
		"completed has no name":   {{Message: "JobCompleted", Nameless: true}},
		"neither has a name":      {{Message: "JobStarted", Nameless: true}, {Message: "JobCompleted", Nameless: true}},
		"assigned comes too late": {{Message: "JobAssigned", Delay: 2 * time.Minute}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, emulator.Options{Faults: faults})
				p := w.pool(w.host())
				p.hold = time.Minute
				p.start()
				w.listening()
				for range 2 {
					w.finish(w.submit(3))
				}
				time.Sleep(20 * time.Minute)
				if d := p.set.Want(); d.Runners() != 0 {
					t.Errorf("when all is over it wants %+v", d)
				}
				p.end()
				if p.made > 2*6 || p.most > 2 {
					t.Errorf("6 jobs took %d runners, %d at once", p.made, p.most)
				}
			})
		})
	}
}

// A job was cancelled before any runner came, and nobody says so.
func TestIncidentLostCompletedOfAJobThatNeverRan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, emulator.Options{Faults: []emulator.Fault{emulator.LostCompleted(0)}})
		p := w.pool(w.host())
		p.lame = true
		p.start()
		w.listening()
		run := w.submit(2)
		w.until("both are known", func() bool { return len(p.set.Want().Jobs) == 2 })
		if err := w.Cancel(run); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Minute)
		if jobs := p.set.Want().Jobs; len(jobs) > 1 {
			t.Errorf("%d jobs that are over are still wanted, want one runner to see whether any waits", len(jobs))
		}
		time.Sleep(25 * time.Hour)
		if jobs := p.set.Want().Jobs; len(jobs) != 0 {
			t.Errorf("%d jobs that are over are wanted a day later", len(jobs))
		}
		p.end()
	})
}

// Statistics that stay high for days cost runners for some minutes; those that
// stay 0 cost nothing.
func TestIncidentStaleStatistics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, emulator.Options{Faults: []emulator.Fault{emulator.StaleStatistics(34, 0)}})
		p := w.pool(w.host())
		p.lame = true
		p.start()
		w.listening()
		w.until("they are believed", func() bool { return len(p.set.Want().Jobs) == 2 }) // no more than the capacity
		time.Sleep(15 * time.Minute)
		for range 48 {
			if n := len(p.set.Want().Jobs); n != 0 {
				t.Fatalf("it still wants %d runners for jobs that are not there", n)
			}
			time.Sleep(time.Hour)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, emulator.Options{Faults: []emulator.Fault{emulator.StaleStatistics(0, 0)}})
		p := w.listen(w.host())
		w.listening()
		begun := time.Now()
		w.finish(w.submit(4))
		if d := time.Since(begun); d > 10*time.Second {
			t.Errorf("it took %v", d)
		}
		p.end()
	})
}

// The set announces the same total however many jobs it has: what is queued
// while it announces 0 would never be given to it.
func TestIncidentCapacityZeroTrapdoor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, emulator.Options{ScaleSets: emulator.ScaleSetOptions{ZeroTrapdoor: true}})
		var announced []string
		w.counted.before(func(r *http.Request) error {
			if c := r.Header.Get("X-ScaleSetMaxCapacity"); c != "" && !slices.Contains(announced, c) {
				announced = append(announced, c)
			}
			return nil
		})
		h := w.host()
		h.settings.Warm = 1
		p := w.pool(h)
		p.hold = time.Minute
		p.start()
		w.listening()
		var runs []int64
		for range 10 {
			runs = append(runs, w.submit(2))
			time.Sleep(20 * time.Second)
		}
		for _, run := range runs {
			w.finish(run)
		}
		p.end()
		w.counted.before(nil)
		if !slices.Equal(announced, []string{"2"}) {
			t.Errorf("it announced %v, want 2 alone", announced)
		}
	})
}

// Only a drain announces 0, and that at once.
func TestADrainAnnouncesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, emulator.Options{})
		p := w.listen(w.host())
		w.listening()
		p.set.Drain(true)
		begun := time.Now()
		w.until("it announces 0", func() bool { return *w.theSet().Capacity == 0 })
		if d := time.Since(begun); d > time.Second {
			t.Errorf("it took %v", d)
		}
		run := w.submit(1)
		time.Sleep(time.Minute)
		if got := w.theSet().Jobs; len(got) != 0 {
			t.Errorf("a drained set has %+v", got)
		}
		p.set.Drain(false)
		w.finish(run)
		p.end()
	})
}

// Jobs are told apart by their job id alone.
func TestIncidentRequestIDZero(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, emulator.Options{ScaleSets: emulator.ScaleSetOptions{ZeroIDs: true}})
		p := w.pool(w.host())
		p.hold = time.Minute
		p.start()
		w.listening()
		w.finish(w.submit(6))
		time.Sleep(time.Minute)
		p.end()
		p.check(t, 6)
	})
}

// A token that does not say when it expires is one, and is replaced in time.
func TestIncidentJWTWithoutExp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, emulator.Options{ScaleSets: emulator.ScaleSetOptions{NoExpiry: true}})
		p := w.listen(w.host())
		w.listening()
		w.finish(w.submit(2))
		time.Sleep(2 * time.Hour)
		w.finish(w.submit(2))
		time.Sleep(time.Minute)
		p.end()
		p.check(t, 4)
	})
}

// An agent that ends leaves the set, and the runners that execute jobs in it.
func TestIncidentSetDeletedOnExit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, emulator.Options{})
		h := w.host()
		p := w.pool(h)
		p.lame = true
		p.start()
		w.listening()
		before := w.theSet()
		if before.Owner == "" {
			t.Fatal("nobody listens")
		}
		p.end()
		if after := w.theSet(); after.ID != before.ID || after.Owner != "" {
			t.Errorf("it leaves %+v; want its set, and no session", after)
		}
		again := w.listen(h)
		w.listening()
		w.finish(w.submit(1))
		again.end()
		if w.theSet().ID != before.ID {
			t.Error("another set was made")
		}
	})
}

// A runner's registration that nobody heard of is in the way of its name.
func TestIncidentJITLostReply(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, emulator.Options{Faults: []emulator.Fault{emulator.JITLostReply(1)}})
		w.listen(w.host())
		w.listening()
		w.finish(w.submit(2))
	})
}

// A limit is honoured, by every call.
func TestIncidentRateLimitBurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, emulator.Options{})
		p := w.listen(w.host())
		w.listening()
		w.SetFaults([]emulator.Fault{emulator.RateLimited("", 1, 10*time.Minute)})
		run := w.submit(1)
		time.Sleep(time.Second)
		before := w.counted.count("_apis") + w.counted.count("/queue")
		time.Sleep(5 * time.Minute)
		if n := w.counted.count("_apis") + w.counted.count("/queue") - before; n > 1 {
			t.Errorf("%d calls were made while GitHub wanted to be left alone", n)
		}
		w.finish(run)
		p.end()
	})
}

// The errors that a person can mend say how.
func TestWhatPeopleAreTold(t *testing.T) {
	for name, c := range map[string]struct {
		opt    emulator.Options
		change func(*scaleset.Settings)
		want   []string
	}{
		"no such group": {emulator.Options{}, func(s *scaleset.Settings) { s.Group = "Macs & more #1" }, []string{`no runner group "Macs & more #1"`}},
		"refused": {emulator.Options{Faults: []emulator.Fault{{Route: "POST registration-token", Status: http.StatusForbidden}}},
			nil, []string{"admin:org", "octo"}},
		"not admitted yet": {emulator.Options{Faults: []emulator.Fault{{Route: "POST runner-registration", Status: http.StatusForbidden}}},
			nil, []string{"GitHub refuses us"}},
		"a page of a proxy": {emulator.Options{Faults: []emulator.Fault{emulator.TokenCallFails(0)}}, nil, []string{"log in to the Actions service"}},
		"trouble":           {emulator.Options{Faults: []emulator.Fault{emulator.ServerError("_apis", 0)}}, nil, []string{"502"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, c.opt)
				h := w.host()
				h.settings.Warm = 1
				if c.change != nil {
					c.change(&h.settings)
				}
				p := w.listen(h)
				time.Sleep(time.Hour)
				p.end()
				for _, want := range c.want {
					if !strings.Contains(p.problem, want) {
						t.Errorf("the problem is %q, want %q in it", p.problem, want)
					}
				}
				if p.made != 0 || p.set.Want().Runners() != 0 {
					t.Errorf("it made %d runners and wants %+v", p.made, p.set.Want())
				}
				for key, n := range w.counted.seen {
					if n > 150 {
						t.Errorf("%s was called %d times within an hour", key, n)
					}
				}
				if strings.Contains(p.problem, token) {
					t.Error("the token is in it")
				}
			})
		})
	}
}
