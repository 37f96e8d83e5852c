package emulator_test

import (
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/actions/scaleset"
	gocmp "github.com/google/go-cmp/cmp"
	"github.com/hashicorp/go-retryablehttp"

	"github.com/mirego/tasuki/internal/emulator"
	"github.com/mirego/tasuki/internal/emulator/protorunner"
)

func TestRoutesOfJobsToSets(t *testing.T) {
	byName := emulator.Options{ScaleSets: emulator.ScaleSetOptions{ByName: true}}
	public := emulator.Options{Public: true}
	for name, c := range map[string]struct {
		opts   emulator.Options
		labels []string // the set's, whose name is "pool"
		runsOn string
		want   bool
	}{
		"superset":                {emulator.Options{}, []string{"self-hosted", "ARM64", "mirego", "fast"}, "[self-hosted, arm64, mirego]", true},
		"one label missing":       {emulator.Options{}, []string{"self-hosted", "mirego"}, "[self-hosted, ARM64, mirego]", false},
		"no default labels":       {emulator.Options{}, []string{"mirego"}, "[self-hosted, mirego]", false},
		"the name is no label":    {emulator.Options{}, []string{"mirego"}, "pool", false},
		"the name without labels": {emulator.Options{}, nil, "pool", true},
		"by name":                 {byName, []string{"mirego"}, "pool", true},
		"by name, not by label":   {byName, []string{"mirego"}, "mirego", false},
		"by name alone":           {byName, []string{"pool", "mirego"}, "[pool, mirego]", false},
		"its group":               {emulator.Options{}, []string{"mirego"}, "{group: Default, labels: mirego}", true},
		"another group":           {emulator.Options{Groups: []string{"fast"}}, []string{"mirego"}, "{group: fast, labels: mirego}", false},
		"public repository":       {public, []string{"mirego"}, "mirego", false},
		"public, and allowed": {emulator.Options{Public: true, GroupRules: map[string]emulator.GroupRule{"Default": {AllowPublic: true}}},
			[]string{"mirego"}, "mirego", true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, transport := piped(t, c.opts)
				cl := official(t, w, transport, "/octo")
				set := makeSet(t, cl, "pool", c.labels...)
				s := openSession(t, cl, set.ID, "host-1")
				submit(t, w.Emulator, strings.Replace(oneJob, "[self-hosted, linux]", c.runsOn, 1))
				m, err := s.GetMessage(t.Context(), 0, 1)
				if err != nil || (m != nil) != c.want {
					t.Errorf("the set is sent %+v, %v; want the job: %v", m, err, c.want)
				}
			})
		})
	}
}

func TestASetsJobsAreItsRunnersAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := listen(t, emulator.Options{})
		run := submit(t, l.Emulator, oneJob)
		l.poll(t, 1)
		_, config := jit(t, l.rest, "standby", "self-hosted", "linux")
		standby := l.program(t.Context(), config, protorunner.Options{})
		time.Sleep(time.Second)
		if got := l.State().Runs[0].Jobs[0]; got.Status != "queued" || got.ScaleSet != "pool" || got.Waiting != "for a runner of scale set pool, which it is assigned to" {
			t.Errorf("the assigned job is %s and waits %q", got.Status, got.Waiting)
		}
		if err := l.runner(t, "vm-1", protorunner.Options{})(); err != nil {
			t.Fatal(err)
		}
		finishAt(t, l.world, run)
		// Without a listener, the next job is whoever's it fits.
		l.session.Close(t.Context())
		run = submit(t, l.Emulator, oneJob)
		if err := standby(); err != nil {
			t.Fatal(err)
		}
		if got := finishAt(t, l.world, run).Jobs[0]; got.RunnerName != "standby" || got.ScaleSet != "" {
			t.Errorf("it ran on %q of set %q", got.RunnerName, got.ScaleSet)
		}
	})
}

func TestCapacityIsATotalAndTheStateSaysWhoHoldsWhat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := listen(t, emulator.Options{})
		submit(t, l.Emulator, sixtyFourJobs)
		m := l.poll(t, 2)
		if len(m.JobAssignedMessages) != 2 || m.Statistics.TotalAssignedJobs != 2 {
			t.Errorf("with a capacity of 2 are assigned %d", len(m.JobAssignedMessages))
		}
		wait := l.runner(t, "vm-1", protorunner.Options{Hold: time.Minute})
		time.Sleep(time.Second)
		if m = l.poll(t, 2); len(m.JobStartedMessages) != 1 || len(m.JobAssignedMessages) != 0 {
			t.Errorf("a running job counts: %+v", m)
		}
		got := l.State().ScaleSets[0]
		want := emulator.SetStatistics{Assigned: 2, Running: 1, Registered: 1, Busy: 1}
		if *got.Capacity != 2 || got.Owner != "host-1" || !got.Listening || got.Statistics != want || len(got.Jobs) != 2 ||
			got.Jobs[0].Runner != "vm-1" || got.Jobs[0].Status != "in_progress" || got.Jobs[1].Status != "queued" || got.Scope != "octo" {
			t.Errorf("the state is %+v", got)
		}
		if err := wait(); err != nil {
			t.Error(err)
		}
		if m = l.poll(t, 2); len(m.JobCompletedMessages)+len(m.JobAssignedMessages) != 2 {
			t.Errorf("after one has ended: %+v", m)
		}
		if m = l.poll(t, 60); len(m.JobAssignedMessages) != 50 {
			t.Errorf("one message holds %d, want 50", len(m.JobAssignedMessages))
		}
		if m = l.poll(t, 60); len(m.JobAssignedMessages) != 8 || m.Statistics.TotalAssignedJobs != 60 {
			t.Errorf("and the next %d", len(m.JobAssignedMessages))
		}
	})
}

// sixtyFourJobs has 64 jobs.
const sixtyFourJobs = `
on: push
jobs:
  test:
    runs-on: [self-hosted, linux]
    strategy:
      matrix: {a: [1, 2, 3, 4, 5, 6, 7, 8], b: [1, 2, 3, 4, 5, 6, 7, 8]}
    steps:
      - run: echo
`

func TestJobsAreAcquiredByWhoeverComesFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, transport := piped(t, emulator.Options{ScaleSets: emulator.ScaleSetOptions{Acquire: true}})
		c := official(t, w, transport, "/octo")
		var sessions []*scaleset.MessageSessionClient
		for _, name := range []string{"a", "b"} {
			set := makeSet(t, c, name, "self-hosted", "linux")
			s := openSession(t, c, set.ID, name)
			if m, err := s.GetMessage(t.Context(), 0, 5); m != nil || err != nil {
				t.Errorf("%+v, %v", m, err)
			}
			sessions = append(sessions, s)
		}
		submit(t, w.Emulator, oneJob)
		var ids []int64
		for _, s := range sessions {
			m, err := s.GetMessage(t.Context(), 0, 5)
			if err != nil || len(m.JobAvailableMessages) != 1 || m.Statistics.TotalAvailableJobs != 1 || !strings.Contains(m.JobAvailableMessages[0].AcquireJobURL, "acquirejobs") {
				t.Fatalf("offered %+v, %v", m, err)
			}
			ids = append(ids, m.JobAvailableMessages[0].RunnerRequestID)
		}
		if ids[0] == 0 || ids[0] != ids[1] {
			t.Errorf("the request ids are %v", ids)
		}
		list := acquirable(t, w)
		if !strings.Contains(list, `"count":1`) || !strings.Contains(list, `"requestLabels":["self-hosted","linux"]`) {
			t.Errorf("acquirable are %s", list)
		}
		for i, want := range [][]int64{ids[:1], {}, ids[:1]} { // the first may ask again
			got, err := sessions[i%2].AcquireJobs(t.Context(), []int64{ids[0], 4711})
			if err != nil || !slices.Equal(got, want) {
				t.Errorf("acquiring for %d: %v, %v; want %v", i, got, err, want)
			}
		}
		if list := acquirable(t, w); list != "" {
			t.Errorf("acquirable afterwards are %s", list)
		}
	})
}

// acquirable asks for the acquirable jobs of a set, which the official client cannot.
func acquirable(t *testing.T, w *world) string {
	t.Helper()
	admin := adminToken(t, w)
	req, err := http.NewRequestWithContext(t.Context(), "GET", w.base+"/tenant/_apis/runtime/runnerscalesets/1/acquirablejobs", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+admin)
	resp, err := w.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(resp.Body)
	if (resp.StatusCode == http.StatusNoContent) != (len(body) == 0) {
		t.Errorf("answered %d %q", resp.StatusCode, body)
	}
	return string(body)
}

func TestOptionsOfScaleSets(t *testing.T) {
	t.Run("assignment timeout and number", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			l := listen(t, emulator.Options{ScaleSets: emulator.ScaleSetOptions{AssignTimeout: time.Minute, Assignments: 1}})
			submit(t, l.Emulator, oneJob)
			l.poll(t, 1)
			begun := time.Now()
			var m *scaleset.RunnerScaleSetMessage
			for m == nil {
				m = l.poll(t, 1)
			}
			if time.Since(begun) != time.Minute || len(m.JobCompletedMessages) != 1 || len(m.JobAssignedMessages) != 0 {
				t.Errorf("after %v: %+v", time.Since(begun), m)
			}
		})
	})
	t.Run("session timeout", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			l := listen(t, emulator.Options{ScaleSets: emulator.ScaleSetOptions{SessionTimeout: time.Hour}})
			time.Sleep(time.Hour - time.Second)
			if _, err := l.client.MessageSessionClient(t.Context(), l.set.ID, "x"); err == nil {
				t.Error("the session is gone too early")
			}
			time.Sleep(time.Second)
			openSession(t, l.client, l.set.ID, "x")
		})
	})
	t.Run("queue token", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			l := listen(t, emulator.Options{ScaleSets: emulator.ScaleSetOptions{QueueTokenLife: time.Minute}})
			before := l.session.Session().MessageQueueAccessToken
			time.Sleep(time.Minute)
			l.poll(t, 1)
			if after := l.session.Session().MessageQueueAccessToken; after == before {
				t.Error("the token was not refreshed")
			}
			l.SetFaults([]emulator.Fault{emulator.QueueTokenExpired(1)})
			before = l.session.Session().MessageQueueAccessToken
			time.Sleep(time.Second)
			l.poll(t, 1)
			if after := l.session.Session().MessageQueueAccessToken; after == before {
				t.Error("the token was not refreshed after the fault")
			}
		})
	})
	t.Run("dormant sets", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			l := listen(t, emulator.Options{})
			time.Sleep(7*24*time.Hour - time.Second)
			if len(l.State().ScaleSets) != 1 {
				t.Error("the set is gone too early")
			}
			time.Sleep(2 * time.Second)
			if got, err := l.client.GetRunnerScaleSet(t.Context(), 1, "pool"); got != nil || err != nil {
				t.Errorf("after a week: %+v, %v", got, err)
			}
		})
	})
	t.Run("dormancy", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			l := listen(t, emulator.Options{ScaleSets: emulator.ScaleSetOptions{DormantAfter: time.Hour}})
			for range 100 { // a set that is polled lives on
				l.poll(t, 1)
			}
			if len(l.State().ScaleSets) != 1 {
				t.Error("a set that is in use is gone")
			}
		})
	})
}

func TestABadCapacityIsRefusedInPlainText(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := listen(t, emulator.Options{})
		s := l.session.Session()
		req, err := http.NewRequestWithContext(t.Context(), "GET", s.MessageQueueURL, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+s.MessageQueueAccessToken)
		req.Header.Set(emulator.HeaderCapacity, "-1")
		resp, err := l.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode != http.StatusBadRequest || !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/plain") {
			t.Errorf("answered %d as %q", resp.StatusCode, resp.Header.Get("Content-Type"))
		}
	})
}

func TestSomeRepliesBeginWithAByteOrderMark(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := listen(t, emulator.Options{Faults: []emulator.Fault{{Route: "POST generatejitconfig", BOM: true}}})
		req, err := http.NewRequestWithContext(t.Context(), "GET", l.base+"/tenant/_apis/runtime/runnerscalesets", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+adminToken(t, l.world))
		resp, err := l.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if body, _ := io.ReadAll(resp.Body); !strings.HasPrefix(string(body), "\xef\xbb\xbf{") {
			t.Errorf("the list begins %q", body[:10])
		}
		if err := l.session.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if _, err := l.client.GenerateJitRunnerConfig(t.Context(), &scaleset.RunnerScaleSetJitRunnerSetting{Name: "vm"}, l.set.ID); err != nil {
			t.Errorf("the official client minds the mark: %v", err)
		}
	})
}

func TestTheOfficialClientRetriesWhatFails(t *testing.T) {
	for name, f := range map[string]emulator.Fault{
		"registration not replicated yet": {Route: "POST runner-registration", Times: 3, Status: 401},
		"forbidden for a moment":          {Route: "POST runner-registration", Times: 3, Status: 403},
		"bad gateway":                     emulator.ServerError("_apis", 3),
		"too many requests":               emulator.RateLimited("_apis", 1, 30*time.Second),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, transport := piped(t, emulator.Options{Faults: []emulator.Fault{f}})
				retrying := retryablehttp.NewClient()
				retrying.Logger, retrying.HTTPClient.Transport = nil, transport
				c, err := scaleset.NewClientWithPersonalAccessToken(scaleset.NewClientWithPersonalAccessTokenConfig{
					GitHubConfigURL: w.base + "/octo", PersonalAccessToken: "x",
				}, scaleset.WithRetryableHTTPClint(retrying))
				if err != nil {
					t.Fatal(err)
				}
				begun := time.Now()
				makeSet(t, c, "pool")
				if d := time.Since(begun); d < time.Second || f.RetryAfter != 0 && d != f.RetryAfter {
					t.Errorf("it took %v", d)
				}
			})
		})
	}
}

func TestEveryIncidentIsDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/emulator.md")
	if err != nil {
		t.Fatal(err)
	}
	_, err = emulator.Incident("")
	_, names, _ := strings.Cut(err.Error(), "there are ")
	for name := range strings.SplitSeq(names, ", ") {
		if f, err := emulator.Incident(name); err != nil || gocmp.Equal(f, emulator.Fault{}) || !strings.Contains(string(page), "| `"+name+"` |") {
			t.Errorf("incident %q: %+v, %v; is it in docs/emulator.md?", name, f, err)
		}
	}
}
