package emulator_test

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/actions/scaleset"
	"github.com/actions/scaleset/listener"
	gocmp "github.com/google/go-cmp/cmp"
	"github.com/hashicorp/go-retryablehttp"

	"github.com/mirego/tasuki/internal/base/secret"
	"github.com/mirego/tasuki/internal/emulator"
	"github.com/mirego/tasuki/internal/emulator/protorunner"
)

// These tests are driven by GitHub's own client for scale sets, which we did not write.

// piped is an emulator in memory that serves clients with a transport of their own, for tests of time.
func piped(t *testing.T, opts emulator.Options) (*world, *http.Transport) {
	t.Helper()
	w, p := bubble(t, opts), emulator.NewPipe()
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx, p) }()
	transport := &http.Transport{DialContext: p.DialContext}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		stop()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return w, transport
}

// over makes the official client use a transport, without retries: its policy is not what is tested.
func over(transport *http.Transport) scaleset.HTTPOption {
	c := retryablehttp.NewClient()
	c.RetryMax, c.Logger = 0, nil
	c.ErrorHandler = func(resp *http.Response, err error, _ int) (*http.Response, error) { return resp, err }
	c.HTTPClient.Transport = transport
	return scaleset.WithRetryableHTTPClint(c)
}

// official is the client with a personal access token; without one it panics.
func official(t *testing.T, w *world, transport *http.Transport, path string) *scaleset.Client {
	t.Helper()
	c, err := scaleset.NewClientWithPersonalAccessToken(scaleset.NewClientWithPersonalAccessTokenConfig{
		GitHubConfigURL: w.base + path, PersonalAccessToken: cmp.Or(w.token, "any"), SystemInfo: scaleset.SystemInfo{System: "test"},
	}, over(transport))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func makeSet(t *testing.T, c *scaleset.Client, name string, labels ...string) *scaleset.RunnerScaleSet {
	t.Helper()
	in := &scaleset.RunnerScaleSet{Name: name, RunnerGroupID: 1, RunnerSetting: scaleset.RunnerSetting{DisableUpdate: true}}
	for _, l := range labels {
		in.Labels = append(in.Labels, scaleset.Label{Type: "System", Name: l})
	}
	out, err := c.CreateRunnerScaleSet(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func openSession(t *testing.T, c *scaleset.Client, set int, owner string) *scaleset.MessageSessionClient {
	t.Helper()
	s, err := c.MessageSessionClient(t.Context(), set, owner)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// scaler runs a protorunner for each assigned job, as the official example does with containers.
type scaler struct {
	t         *testing.T
	client    *scaleset.Client
	set       int
	programs  *http.Client
	most      int
	prefix    string // of its runners' names
	hold      time.Duration
	work      sync.WaitGroup
	mu        sync.Mutex
	made      int
	alive     int
	started   map[string]string // runner by jobId
	completed map[string]string // result by jobId
	heard     chan struct{}     // one for each completion
}

func newScaler(t *testing.T, c *scaleset.Client, set, most int, transport http.RoundTripper) *scaler {
	return &scaler{t: t, client: c, set: set, most: most, programs: &http.Client{Transport: transport},
		started: map[string]string{}, completed: map[string]string{}, heard: make(chan struct{}, 1000)}
}

func (s *scaler) HandleDesiredRunnerCount(ctx context.Context, assigned int) (int, error) {
	want := min(assigned, s.most)
	for {
		s.mu.Lock()
		if s.alive >= want {
			s.mu.Unlock()
			return want, nil
		}
		s.made++
		s.alive++
		name := fmt.Sprintf("%s-%d", cmp.Or(s.prefix, "vm"), s.made)
		s.mu.Unlock()
		config, err := s.client.GenerateJitRunnerConfig(ctx, &scaleset.RunnerScaleSetJitRunnerSetting{Name: name}, s.set)
		if err != nil {
			return 0, err
		}
		s.work.Go(func() {
			if err := protorunner.Run(ctx, config.EncodedJITConfig, protorunner.Options{Client: s.programs, Hold: s.hold}); err != nil {
				s.t.Errorf("runner %s: %v", name, err)
			}
		})
	}
}

func (s *scaler) HandleJobStarted(_ context.Context, m *scaleset.JobStarted) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.started[m.JobID] = m.RunnerName
	return nil
}

func (s *scaler) HandleJobCompleted(_ context.Context, m *scaleset.JobCompleted) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, again := s.completed[m.JobID]; again {
		s.t.Errorf("job %s is completed twice", m.JobID)
	}
	s.completed[m.JobID] = m.Result
	s.alive--
	s.heard <- struct{}{}
	return nil
}

const manyJobs = `
on: push
jobs:
  test:
    runs-on: [self-hosted, mirego]
    strategy:
      matrix: {n: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]}
    steps:
      - run: echo ${{ matrix.n }}
`

// serveAll lets the official listener serve a run to its end and checks that nothing is left over.
func serveAll(t *testing.T, w *world, c *scaleset.Client, transport *http.Transport, hold time.Duration) {
	t.Helper()
	set := makeSet(t, c, "pool", "self-hosted", "Linux", "mirego")
	session := openSession(t, c, set.ID, "host-1")
	scaler := newScaler(t, c, set.ID, 3, transport)
	scaler.hold = hold
	l, err := listener.New(session, listener.Config{ScaleSetID: set.ID, MaxRunners: 3})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- l.Run(ctx, scaler) }()
	patient, cancel := context.WithTimeout(t.Context(), patience+12*hold)
	defer cancel()
	state, err := w.WaitRun(patient, submit(t, w.Emulator, manyJobs))
	if err != nil {
		t.Error(err)
	}
	for range 12 {
		select {
		case <-scaler.heard:
		case <-patient.Done():
			t.Error("the listener did not hear of all completions")
		}
	}
	stop()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the listener ended with %v", err)
	}
	scaler.work.Wait()
	if err := session.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if state.Conclusion != "success" || scaler.made != 12 {
		t.Errorf("the run is %q with %d runners, want success with 12", state.Conclusion, scaler.made)
	}
	for _, j := range state.Jobs {
		if got := scaler.started[j.GUID]; got != j.RunnerName || scaler.completed[j.GUID] != "succeeded" || j.ScaleSet != "pool" {
			t.Errorf("job %s ran on %q of set %q; the listener heard of %q and %q", j.Name, j.RunnerName, j.ScaleSet, got, scaler.completed[j.GUID])
		}
	}
	rest := w.State()
	if len(rest.Runners) != 0 || rest.ScaleSets[0].Owner != "" || rest.ScaleSets[0].Statistics != (emulator.SetStatistics{}) {
		t.Errorf("left over: runners %+v, set %+v", rest.Runners, rest.ScaleSets[0])
	}
}

func TestTheOfficialListenerServesARun(t *testing.T) {
	for name, acquire := range map[string]bool{"assigned directly": false, "available, then acquired": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, transport := piped(t, emulator.Options{
					Token:     secret.New("github_pat_x"),
					ScaleSets: emulator.ScaleSetOptions{Acquire: acquire, AdminTokenLife: 10 * time.Minute, QueueTokenLife: 2 * time.Minute},
				})
				serveAll(t, w, official(t, w, transport, "/octo"), transport, 7*time.Minute)
			})
		})
	}
}

// appKey makes the key of an App, and its PEM.
func appKey(t *testing.T) (*rsa.PrivateKey, string) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return key, string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}))
}

func TestTheOfficialListenerServesARunAsAnAppOverTheNetwork(t *testing.T) {
	key, text := appKey(t)
	w := start(t, emulator.Options{App: &emulator.App{PublicKey: &key.PublicKey, Elsewhere: []string{"other"}}})
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	c, err := scaleset.NewClientWithGitHubApp(scaleset.ClientWithGitHubAppConfig{
		GitHubConfigURL: w.base + "/octo/demo", GitHubAppAuth: scaleset.GitHubAppAuth{ClientID: "1", InstallationID: 9002, PrivateKey: text},
	}, over(transport))
	if err != nil {
		t.Fatal(err)
	}
	serveAll(t, w, c, transport, 0)
	foreign, err := scaleset.NewClientWithGitHubApp(scaleset.ClientWithGitHubAppConfig{
		GitHubConfigURL: w.base + "/octo/demo", GitHubAppAuth: scaleset.GitHubAppAuth{ClientID: "Iv23.tasuki", InstallationID: 9001, PrivateKey: text},
	}, over(transport))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := foreign.GetRunnerScaleSet(t.Context(), 1, "pool"); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("another account's installation: %v, want 404", err)
	}
}

func TestTheOfficialClientKnowsEveryCallAndRefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, transport := piped(t, emulator.Options{Groups: []string{"my group"}})
		c, ctx := official(t, w, transport, "/octo/demo"), t.Context()
		if got, err := c.GetRunnerScaleSet(ctx, 1, "mac 15"); got != nil || err != nil {
			t.Errorf("a set that is not there: %+v, %v", got, err)
		}
		g, err := c.GetRunnerGroupByName(ctx, "my group")
		if err != nil || g.ID != 2 || g.IsDefault {
			t.Errorf("the group is %+v, %v", g, err)
		}
		if _, err := c.GetRunnerGroupByName(ctx, "nobody"); err == nil {
			t.Error("a group that is not there is found")
		}
		plain := makeSet(t, c, "mac 15")
		if diff := gocmp.Diff([]scaleset.Label{{Type: "system", Name: "mac 15"}}, plain.Labels); diff != "" || !plain.RunnerSetting.DisableUpdate {
			t.Errorf("the set is %+v: %s", plain, diff)
		}
		if _, err := c.CreateRunnerScaleSet(ctx, &scaleset.RunnerScaleSet{Name: "MAC 15", RunnerGroupID: 1}); err == nil || !strings.Contains(err.Error(), "400 Bad Request") || !strings.Contains(err.Error(), "activity_id=") {
			t.Errorf("a second set of that name: %v", err)
		}
		if _, err := c.CreateRunnerScaleSet(ctx, &scaleset.RunnerScaleSet{Name: "MAC 15", RunnerGroupID: 2}); err != nil {
			t.Errorf("the name in another group: %v", err)
		}
		renamed, err := c.UpdateRunnerScaleSet(ctx, plain.ID, &scaleset.RunnerScaleSet{Name: "mac 16", Labels: []scaleset.Label{{Name: "new"}}})
		if err != nil || renamed.Name != "mac 16" || renamed.Labels[0].Name != "mac 15" || !renamed.RunnerSetting.DisableUpdate {
			t.Errorf("renamed: %+v, %v; labels stay", renamed, err)
		}
		if got, err := c.GetRunnerScaleSet(ctx, 1, "mac 16"); err != nil || got.ID != plain.ID {
			t.Errorf("by name: %+v, %v", got, err)
		}
		if got, err := c.GetRunnerScaleSetByID(ctx, plain.ID); err != nil || got.Name != "mac 16" {
			t.Errorf("by id: %+v, %v", got, err)
		}
		jit := &scaleset.RunnerScaleSetJitRunnerSetting{Name: "vm-1", WorkFolder: "_work"}
		config, err := c.GenerateJitRunnerConfig(ctx, jit, plain.ID)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.GenerateJitRunnerConfig(ctx, jit, plain.ID); !errors.Is(err, scaleset.RunnerExistsError) {
			t.Errorf("the same name again: %v, want RunnerExistsError", err)
		}
		byName, err := c.GetRunnerByName(ctx, "vm-1")
		if err != nil || *byName != *config.Runner || byName.RunnerScaleSetID != plain.ID {
			t.Errorf("the runner is %+v by name, %+v by its creation, %v", byName, config.Runner, err)
		}
		if _, err := c.GetRunner(ctx, 4711); !errors.Is(err, scaleset.RunnerNotFoundError) {
			t.Errorf("a runner that is not there: %v, want RunnerNotFoundError", err)
		}
		if err := c.RemoveRunner(ctx, 4711); !errors.Is(err, scaleset.RunnerNotFoundError) {
			t.Errorf("removing a runner that never was: %v, want RunnerNotFoundError", err)
		}
		listed, _, err := w.rest.Actions.ListRunners(ctx, owner, repo, nil)
		if err != nil || listed.TotalCount != 1 || listed.Runners[0].GetName() != "vm-1" {
			t.Errorf("REST lists %+v, %v", listed, err)
		}
		testBusyRunner(t, w, c, plain.ID, config)
		if err := c.DeleteRunnerScaleSet(ctx, plain.ID); err != nil {
			t.Error(err)
		}
		if _, err := c.GetRunnerScaleSetByID(ctx, plain.ID); err == nil || !strings.Contains(err.Error(), "404") {
			t.Errorf("the deleted set: %v, want 404", err)
		}
	})
}

// testBusyRunner lets the runner have a job and tries to remove it, and its set, meanwhile.
func testBusyRunner(t *testing.T, w *world, c *scaleset.Client, set int, config *scaleset.RunnerScaleSetJitRunnerConfig) {
	t.Helper()
	session := openSession(t, c, set, "host-1")
	run := submit(t, w.Emulator, strings.Replace(oneJob, "[self-hosted, linux]", "mac 15", 1))
	if m, err := session.GetMessage(t.Context(), 0, 1); err != nil || len(m.JobAssignedMessages) != 1 {
		t.Fatalf("the message is %+v, %v", m, err)
	}
	wait := w.program(t.Context(), config.EncodedJITConfig, protorunner.Options{Hold: time.Minute})
	time.Sleep(time.Second)
	if err := c.RemoveRunner(t.Context(), int64(config.Runner.ID)); !errors.Is(err, scaleset.JobStillRunningError) {
		t.Errorf("removing a busy runner: %v, want JobStillRunningError", err)
	}
	if err := c.DeleteRunnerScaleSet(t.Context(), set); !errors.Is(err, scaleset.JobStillRunningError) {
		t.Errorf("deleting its set: %v, want JobStillRunningError", err)
	}
	if err := wait(); err != nil {
		t.Error(err)
	}
	if got := finish(t, w.Emulator, run).Conclusion; got != "success" {
		t.Errorf("the run is %q", got)
	}
	if err := c.RemoveRunner(t.Context(), int64(config.Runner.ID)); err != nil {
		t.Errorf("removing a runner that has left: %v", err)
	}
}

func TestAMessageIsTheSameUntilItIsAcknowledged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, transport := piped(t, emulator.Options{})
		c, ctx := official(t, w, transport, "/octo"), t.Context()
		set := makeSet(t, c, "pool", "self-hosted", "linux")
		session := openSession(t, c, set.ID, "host-1")
		if m, err := session.GetMessage(ctx, 0, 2); m != nil || err != nil {
			t.Errorf("an empty queue: %+v, %v", m, err)
		}
		submit(t, w.Emulator, oneJob)
		first, err := session.GetMessage(ctx, 0, 2)
		if err != nil {
			t.Fatal(err)
		}
		job := first.JobAssignedMessages[0]
		if first.MessageID < 100_000_000 || job.RunnerRequestID != 0 || job.WorkflowRunID != 1001 || job.RepositoryName != "demo" ||
			job.OwnerName != "octo" || !slices.Equal(job.RequestLabels, []string{"self-hosted", "linux"}) || job.QueueTime.IsZero() || !job.FinishTime.IsZero() {
			t.Errorf("the message is %d: %+v", first.MessageID, job)
		}
		run := submit(t, w.Emulator, oneJob)
		w.EvictSessions()
		session = openSession(t, c, set.ID, "host-2")
		again, err := session.GetMessage(ctx, 0, 2)
		if diff := gocmp.Diff(first, again); err != nil || diff != "" {
			t.Errorf("redelivered: %v, %s", err, diff)
		}
		second, err := session.GetMessage(ctx, first.MessageID, 2)
		if err != nil || second.MessageID <= first.MessageID || second.JobAssignedMessages[0].WorkflowRunID != run || second.Statistics.TotalAssignedJobs != 2 {
			t.Errorf("after the first comes %+v, %v", second, err)
		}
		for _, m := range []*scaleset.RunnerScaleSetMessage{first, second, first} {
			if err := session.DeleteMessage(ctx, m.MessageID); err != nil {
				t.Error(err)
			}
		}
		if m, err := session.GetMessage(ctx, 0, 2); m != nil || err != nil {
			t.Errorf("after both were acknowledged: %+v, %v", m, err)
		}
	})
}

func TestALapsedAssignmentIsCancelledAndMadeAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, transport := piped(t, emulator.Options{})
		c, ctx := official(t, w, transport, "/octo"), t.Context()
		set := makeSet(t, c, "pool", "self-hosted", "linux")
		session := openSession(t, c, set.ID, "host-1")
		begun := time.Now()
		run := submit(t, w.Emulator, oneJob)
		var assigned, lapsed []string
		var at []time.Duration
		last := 0
		for time.Since(begun) < time.Hour {
			m, err := session.GetMessage(ctx, last, 2)
			if err != nil {
				t.Fatal(err)
			}
			if m == nil {
				continue
			}
			last = m.MessageID
			for _, j := range m.JobCompletedMessages {
				lapsed = append(lapsed, j.JobID)
				if j.Result != "canceled" || j.RunnerName != "" || j.RunnerID != 0 || j.WorkflowRunID != run {
					t.Errorf("the lapse is told as %+v", j)
				}
			}
			for _, j := range m.JobAssignedMessages {
				assigned, at = append(assigned, j.JobID), append(at, time.Since(begun))
			}
		}
		if diff := gocmp.Diff([]time.Duration{0, 5 * time.Minute, 10 * time.Minute}, at); diff != "" {
			t.Error(diff)
		}
		if !slices.Equal(assigned, lapsed) || assigned[0] == assigned[1] {
			t.Errorf("assigned %v, lapsed %v: want the same, each job id another", assigned, lapsed)
		}
		state, _ := w.RunState(run)
		if got := state.Jobs[0]; got.Lapses != 3 || !strings.Contains(got.Waiting, "3 assignments lapsed") {
			t.Errorf("the job is %+v", got)
		}
		// Whichever runner of the set comes now drains it.
		config, err := c.GenerateJitRunnerConfig(ctx, &scaleset.RunnerScaleSetJitRunnerSetting{Name: "vm-1"}, set.ID)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.program(ctx, config.EncodedJITConfig, protorunner.Options{})(); err != nil {
			t.Fatal(err)
		}
		if got := finishAt(t, w, run); got.Conclusion != "success" || got.Jobs[0].ScaleSet != "pool" {
			t.Errorf("the run is %+v", got)
		}
		m, err := session.GetMessage(ctx, last, 2)
		if err != nil || len(m.JobStartedMessages) != 1 || len(m.JobCompletedMessages) != 1 || m.JobCompletedMessages[0].RunnerName != "vm-1" {
			t.Errorf("its end is told as %+v, %v", m, err)
		}
	})
}

// adminToken gets a token of the scale-set service by hand.
func adminToken(t *testing.T, w *world) string {
	t.Helper()
	token, _, err := w.rest.Actions.CreateOrganizationRegistrationToken(t.Context(), owner)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), "POST", w.base+"/actions/runner-registration",
		strings.NewReader(`{"url":"`+w.base+`/octo","runner_event":"register"}`))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "RemoteAuth "+token.GetToken())
	resp, err := w.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	var out struct{ Token, URL string }
	if err := json.NewDecoder(resp.Body).Decode(&out); err != nil || out.URL != w.base+"/tenant/" {
		t.Fatalf("the admin connection is %+v, %v", out, err)
	}
	return out.Token
}
