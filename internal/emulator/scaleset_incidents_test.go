package emulator_test

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/actions/scaleset"
	"github.com/actions/scaleset/listener"
	gocmp "github.com/google/go-cmp/cmp"

	"github.com/mirego/tasuki/internal/emulator"
	"github.com/mirego/tasuki/internal/emulator/protorunner"
)

// These tests prove that the emulator does to a client what the incidents of their names did to others.

// listening is a bubble with one scale set and its session.
type listening struct {
	*world
	transport *http.Transport
	client    *scaleset.Client
	set       *scaleset.RunnerScaleSet
	session   *scaleset.MessageSessionClient
}

func listen(t *testing.T, opts emulator.Options) *listening {
	t.Helper()
	w, transport := piped(t, opts)
	l := &listening{world: w, transport: transport, client: official(t, w, transport, "/octo")}
	l.set = makeSet(t, l.client, "pool", "self-hosted", "linux")
	l.session = openSession(t, l.client, l.set.ID, "host-1")
	return l
}

// poll gets a message and acknowledges it; nil if none came.
func (l *listening) poll(t *testing.T, capacity int) *scaleset.RunnerScaleSetMessage {
	t.Helper()
	m, err := l.session.GetMessage(t.Context(), 0, capacity)
	if err != nil {
		t.Fatal(err)
	}
	if m != nil {
		if err := l.session.DeleteMessage(t.Context(), m.MessageID); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

// runner makes a runner of the set and lets it execute a job.
func (l *listening) runner(t *testing.T, name string, opts protorunner.Options) (wait func() error) {
	t.Helper()
	config, err := l.client.GenerateJitRunnerConfig(t.Context(), &scaleset.RunnerScaleSetJitRunnerSetting{Name: name}, l.set.ID)
	if err != nil {
		t.Fatal(err)
	}
	return l.program(t.Context(), config.EncodedJITConfig, opts)
}

func TestIncidentSessionConflict(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := listen(t, emulator.Options{})
		if l.poll(t, 1) != nil {
			t.Error("a message out of nothing")
		}
		// The listener dies here. Whoever starts it again meets its session for 50 s.
		begun := time.Now()
		for {
			s, err := l.client.MessageSessionClient(t.Context(), l.set.ID, "host-1")
			if err == nil {
				s.Close(t.Context())
				break
			}
			if text := err.Error(); !strings.Contains(text, "409 Conflict") ||
				!strings.Contains(text, "GitHub.Actions.Runtime.WebApi.RunnerScaleSetSessionConflictException") ||
				!strings.Contains(text, "already has an active session for owner host-1") {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		if d := time.Since(begun); d != 50*time.Second {
			t.Errorf("the session is in the way for %v, want 50s", d)
		}
		l.SetFaults([]emulator.Fault{emulator.SessionConflict(1)})
		for want := range 2 {
			s, err := l.client.MessageSessionClient(t.Context(), l.set.ID, "host-1")
			if conflict := err != nil && strings.Contains(err.Error(), "SessionConflictException"); conflict != (want == 0) {
				t.Errorf("try %d: %v", want, err)
			}
			if err == nil {
				s.Close(t.Context())
			}
		}
	})
}

func TestIncidentSessionEvicted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := listen(t, emulator.Options{Faults: []emulator.Fault{emulator.SessionEvicted(1)}})
		lis, err := listener.New(l.session, listener.Config{ScaleSetID: l.set.ID, MaxRunners: 1})
		if err != nil {
			t.Fatal(err)
		}
		err = lis.Run(t.Context(), newScaler(t, l.client, l.set.ID, 1, l.transport))
		if err == nil || !strings.Contains(err.Error(), "404 Not Found") || !strings.Contains(err.Error(), "session ID that doesn't exist in redis") {
			t.Errorf("the official listener ends with %v, want the refresh's 404", err)
		}
		if err := l.session.Close(t.Context()); err == nil || !strings.Contains(err.Error(), "RunnerScaleSetSessionExpiredException") {
			t.Errorf("closing it: %v", err)
		}
		openSession(t, l.client, l.set.ID, "host-1") // at once: there is no conflict
		// One that is evicted while its poll is held hears of it at once.
		l.session = nil
		s := openSessionAfterEviction(t, l)
		go func() { time.Sleep(time.Second); l.EvictSessions() }()
		begun := time.Now()
		if _, err := s.GetMessage(t.Context(), 0, 1); err == nil || time.Since(begun) != time.Second {
			t.Errorf("the held poll ends after %v with %v", time.Since(begun), err)
		}
	})
}

func openSessionAfterEviction(t *testing.T, l *listening) *scaleset.MessageSessionClient {
	t.Helper()
	l.EvictSessions()
	return openSession(t, l.client, l.set.ID, "host-1")
}

func TestIncidentEmpty200(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := listen(t, emulator.Options{Faults: []emulator.Fault{emulator.EmptyPoll(1)}})
		submit(t, l.Emulator, oneJob)
		if _, err := l.session.GetMessage(t.Context(), 0, 1); err == nil || !strings.Contains(err.Error(), "200 OK") || !strings.Contains(err.Error(), "EOF") {
			t.Errorf("the official client says %v", err)
		}
		if m := l.poll(t, 1); len(m.JobAssignedMessages) != 1 {
			t.Errorf("the next poll has %+v", m)
		}
	})
}

func TestIncidentInitialStatisticsIgnored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := listen(t, emulator.Options{ScaleSets: emulator.ScaleSetOptions{AssignTimeout: time.Hour}})
		run := submit(t, l.Emulator, oneJob)
		l.poll(t, 2)
		time.Sleep(time.Minute) // the listener died after it had acknowledged
		s := openSession(t, l.client, l.set.ID, "host-1")
		if got := s.Session().Statistics.TotalAssignedJobs; got != 1 {
			t.Errorf("the new session begins with %d assigned jobs, want 1", got)
		}
		if m, err := s.GetMessage(t.Context(), 0, 2); m != nil || err != nil {
			t.Errorf("a message comes all the same: %+v, %v", m, err)
		}
		if err := l.runner(t, "vm-1", protorunner.Options{})(); err != nil {
			t.Error(err)
		}
		finishAt(t, l.world, run)
	})
}

func TestIncidentLostCompletedLateStarted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := listen(t, emulator.Options{Faults: []emulator.Fault{
			emulator.LostCompleted(1), emulator.LateStarted(1, 10*time.Minute),
			{Message: "JobCompleted", Skip: 1, Twice: true, Nameless: true},
		}})
		begun := time.Now()
		var started []time.Duration
		var completed []string
		for _, name := range []string{"vm-1", "vm-2"} {
			submit(t, l.Emulator, oneJob)
			l.poll(t, 1)
			if err := l.runner(t, name, protorunner.Options{})(); err != nil {
				t.Fatal(err)
			}
			for range 15 {
				m := l.poll(t, 1)
				if m == nil {
					continue
				}
				for _, j := range m.JobStartedMessages {
					started = append(started, time.Since(begun).Truncate(10*time.Minute))
					if j.RunnerName != name {
						t.Errorf("started on %q, want %q", j.RunnerName, name)
					}
				}
				for _, j := range m.JobCompletedMessages {
					completed = append(completed, j.RunnerName+":"+j.Result)
				}
			}
		}
		if diff := gocmp.Diff([]time.Duration{10 * time.Minute, 10 * time.Minute}, started); diff != "" {
			t.Error(diff)
		}
		if diff := gocmp.Diff([]string{":succeeded", ":succeeded"}, completed); diff != "" {
			t.Errorf("the first is lost, the second comes twice without a name: %s", diff)
		}
	})
}

func TestIncidentStaleStatistics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := listen(t, emulator.Options{Faults: []emulator.Fault{emulator.StaleStatistics(34, time.Hour)}})
		submit(t, l.Emulator, oneJob)
		if m := l.poll(t, 5); m.Statistics.TotalAssignedJobs != 34 || len(m.JobAssignedMessages) != 1 {
			t.Errorf("told %+v", m.Statistics)
		}
		if got := l.State().ScaleSets[0].Statistics.Assigned; got != 1 {
			t.Errorf("the state says %d, want the truth", got)
		}
		l.SetFaults([]emulator.Fault{emulator.StaleStatistics(0, time.Minute)})
		submit(t, l.Emulator, oneJob)
		if m := l.poll(t, 5); m.Statistics.TotalAssignedJobs != 0 || len(m.JobAssignedMessages) != 1 {
			t.Errorf("0 while a job is assigned: told %+v", m.Statistics)
		}
		time.Sleep(time.Minute)
		submit(t, l.Emulator, oneJob)
		if m := l.poll(t, 5); m.Statistics.TotalAssignedJobs != 3 {
			t.Errorf("afterwards told %+v", m.Statistics)
		}
	})
}

func TestIncidentCapacityZeroTrapdoor(t *testing.T) {
	for name, trapdoor := range map[string]bool{"trapdoor": true, "zero is only a number": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := listen(t, emulator.Options{ScaleSets: emulator.ScaleSetOptions{ZeroTrapdoor: trapdoor}})
				l.poll(t, 0)
				run := submit(t, l.Emulator, oneJob)
				if m := l.poll(t, 0); m != nil {
					t.Errorf("with a capacity of 0 comes %+v", m)
				}
				if m := l.poll(t, 4); (m == nil) != trapdoor {
					t.Errorf("with a capacity of 4 comes %+v", m)
				}
				if !trapdoor {
					return
				}
				if why := l.State().Runs[0].Jobs[0].Waiting; !strings.Contains(why, "announced a capacity of 0") {
					t.Errorf("the job waits %q", why)
				}
				l.Cancel(run)
				submit(t, l.Emulator, oneJob)
				if m := l.poll(t, 4); len(m.JobAssignedMessages) != 1 {
					t.Errorf("dispatched again: %+v", m)
				}
			})
		})
	}
}

func TestIncidentRequestIDZero(t *testing.T) {
	for name, acquire := range map[string]bool{"direct": false, "acquire": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := listen(t, emulator.Options{ScaleSets: emulator.ScaleSetOptions{ZeroIDs: true, Acquire: acquire}})
				submit(t, l.Emulator, oneJob)
				submit(t, l.Emulator, oneJob)
				m := l.poll(t, 2)
				if acquire {
					for range m.JobAvailableMessages {
						if got, err := l.session.AcquireJobs(t.Context(), []int64{0}); err != nil || !slices.Equal(got, []int64{0}) {
							t.Errorf("acquired %v, %v", got, err)
						}
					}
					m = l.poll(t, 2)
				}
				a, b := m.JobAssignedMessages[0], m.JobAssignedMessages[1]
				if a.RunnerRequestID != 0 || a.WorkflowRunID != 0 || b.RunnerRequestID != 0 || a.JobID == b.JobID {
					t.Errorf("assigned %+v and %+v", a, b)
				}
			})
		})
	}
}

func TestIncidentSetDeletedOnExit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := listen(t, emulator.Options{})
		var out bytes.Buffer
		wait := l.runner(t, "vm-1", protorunner.Options{Output: &out})
		time.Sleep(time.Second)
		if err := l.client.DeleteRunnerScaleSet(t.Context(), l.set.ID); err != nil {
			t.Fatal(err)
		}
		if err := wait(); !errors.Is(err, protorunner.ErrGone) {
			t.Errorf("the orphan ends with %v, want ErrGone", err)
		}
	})
}

func TestIncidentJWTWithoutExp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, transport := piped(t, emulator.Options{ScaleSets: emulator.ScaleSetOptions{NoExpiry: true}})
		defer func() {
			if recover() == nil {
				t.Error("the official client did not panic")
			}
		}()
		official(t, w, transport, "/octo").GetRunnerScaleSet(t.Context(), 1, "pool")
	})
}

func TestIncidentUnboundRunner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := listen(t, emulator.Options{})
		first, second := submit(t, l.Emulator, oneJob), submit(t, l.Emulator, oneJob)
		m := l.poll(t, 2)
		if m.JobAssignedMessages[0].WorkflowRunID != first || m.JobAssignedMessages[1].WorkflowRunID != second {
			t.Errorf("assigned %+v", m.JobAssignedMessages)
		}
		// The runner that was made for the second job appears first, and has the first.
		if err := l.runner(t, "for-second", protorunner.Options{})(); err != nil {
			t.Fatal(err)
		}
		if got := finishAt(t, l.world, first).Jobs[0].RunnerName; got != "for-second" {
			t.Errorf("the oldest job ran on %q", got)
		}
		l.Cancel(second)
	})
}

func TestIncidentJITLostReplyOfAScaleSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := listen(t, emulator.Options{Faults: []emulator.Fault{emulator.JITLostReply(1)}})
		setting := &scaleset.RunnerScaleSetJitRunnerSetting{Name: "vm-1"}
		if _, err := l.client.GenerateJitRunnerConfig(t.Context(), setting, l.set.ID); err == nil {
			t.Fatal("the reply was not lost")
		}
		if _, err := l.client.GenerateJitRunnerConfig(t.Context(), setting, l.set.ID); !errors.Is(err, scaleset.RunnerExistsError) {
			t.Errorf("the same name again: %v, want RunnerExistsError", err)
		}
		l.SetFaults([]emulator.Fault{{Route: "POST generatejitconfig", Twice: true}})
		if _, err := l.client.GenerateJitRunnerConfig(t.Context(), &scaleset.RunnerScaleSetJitRunnerSetting{Name: "vm-2"}, l.set.ID); !errors.Is(err, scaleset.RunnerExistsError) {
			t.Errorf("sent twice by the network: %v, want RunnerExistsError", err)
		}
	})
}

func TestIncidentVersionDeprecated(t *testing.T) {
	for name, opts := range map[string]emulator.Options{
		"by its version": {MinRunnerVersion: "2.329.0"},
		"by a fault":     {Faults: []emulator.Fault{emulator.VersionDeprecated(0)}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := listen(t, opts)
				run := submit(t, l.Emulator, oneJob)
				l.poll(t, 1)
				var out bytes.Buffer
				err := l.runner(t, "vm-1", protorunner.Options{Version: "2.328.0", Output: &out})()
				const line = "An error occured: Runner version v2.328.0 is deprecated and cannot receive messages.\n"
				if !errors.Is(err, protorunner.ErrDeprecated) || !strings.Contains(out.String(), line) {
					t.Errorf("the runner ends with %v and says %q", err, out.String())
				}
				l.SetFaults(nil)
				if err := l.runner(t, "vm-2", protorunner.Options{Version: "2.329.0"})(); err != nil {
					t.Error(err)
				}
				finishAt(t, l.world, run)
			})
		})
	}
}

func TestIncidentIdleRegistrationCollected(t *testing.T) {
	for name, opts := range map[string]emulator.Options{
		"after idle time": {CollectIdle: 51 * time.Minute},
		"by a fault":      {Faults: []emulator.Fault{{Route: "GET /broker/message", Collect: true, Skip: 61}}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l, begun := listen(t, opts), time.Now()
				err := l.runner(t, "vm-1", protorunner.Options{})()
				if d := time.Since(begun).Round(time.Minute); !errors.Is(err, protorunner.ErrGone) || d != 51*time.Minute {
					t.Errorf("the runner ends after %v with %v", d, err)
				}
				if _, err := l.client.GetRunnerByName(t.Context(), "vm-1"); err != nil || len(l.State().Runners) != 0 {
					t.Errorf("it is still registered: %+v, %v", l.State().Runners, err)
				}
			})
		})
	}
}

func TestIncidentOfflineOrphans(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := bubble(t, emulator.Options{})
		jit(t, w.rest, "vm-1", "self-hosted")
		time.Sleep(24*time.Hour - time.Second)
		if len(w.State().Runners) != 1 {
			t.Error("an orphan is gone before a day has passed")
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if got := w.State().Runners; len(got) != 0 {
			t.Errorf("after a day there are %+v", got)
		}
	})
}

func TestIncidentOfflineButBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := listen(t, emulator.Options{})
		submit(t, l.Emulator, oneJob)
		l.poll(t, 1)
		config, err := l.client.GenerateJitRunnerConfig(t.Context(), &scaleset.RunnerScaleSetJitRunnerSetting{Name: "vm-1"}, l.set.ID)
		if err != nil {
			t.Fatal(err)
		}
		ctx, kill := context.WithCancel(t.Context())
		wait := l.program(ctx, config.EncodedJITConfig, protorunner.Options{Hold: time.Hour, Abrupt: true})
		time.Sleep(time.Second)
		kill()
		wait()
		time.Sleep(5 * time.Minute)
		list, _, err := l.rest.Actions.ListOrganizationRunners(t.Context(), owner, nil)
		if err != nil || list.Runners[0].GetStatus() != "offline" || !list.Runners[0].GetBusy() {
			t.Errorf("REST lists %+v, %v", list, err)
		}
		if s := l.State().ScaleSets[0].Statistics; s.Running != 1 || s.Busy != 1 {
			t.Errorf("the statistics are %+v", s)
		}
		l.ForceCancel(1001)
	})
}

func TestIncidentUnservableJob(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, transport := piped(t, emulator.Options{
			Groups: []string{"closed"}, GroupRules: map[string]emulator.GroupRule{"closed": {Closed: true}},
		})
		c := official(t, w, transport, "/octo")
		set, err := c.CreateRunnerScaleSet(t.Context(), &scaleset.RunnerScaleSet{
			Name: "shut", RunnerGroupID: 2, Labels: []scaleset.Label{{Name: "self-hosted"}, {Name: "linux"}},
		})
		if err != nil {
			t.Fatal(err)
		}
		s := openSession(t, c, set.ID, "host-1")
		run := submit(t, w.Emulator, oneJob)
		if m, err := s.GetMessage(t.Context(), 0, 5); m != nil || err != nil {
			t.Errorf("a group that does not admit the repository is sent %+v, %v", m, err)
		}
		state, _ := w.RunState(run)
		if got := state.Jobs[0].Waiting; got != `for a scale set: none fits (shut: its group "closed" does not admit octo/demo)` {
			t.Errorf("the job waits %q", got)
		}
		groups, _, err := w.rest.Actions.ListOrganizationRunnerGroups(t.Context(), owner, nil)
		if err != nil || groups.RunnerGroups[1].GetVisibility() != "selected" || groups.RunnerGroups[0].GetVisibility() != "all" {
			t.Errorf("the groups are %+v, %v", groups, err)
		}
		repos, _, err := w.rest.Actions.ListRepositoryAccessRunnerGroup(t.Context(), owner, 2, nil)
		if err != nil || repos.GetTotalCount() != 0 {
			t.Errorf("it admits %+v, %v", repos, err)
		}
	})
}
