package metrics_test

import (
	"errors"
	"flag"
	"fmt"
	"net/http/httptest"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/mirego/tasuki/internal/api"
	"github.com/mirego/tasuki/internal/event"
	"github.com/mirego/tasuki/internal/metrics"
	"github.com/mirego/tasuki/internal/runner"
	"github.com/mirego/tasuki/internal/wait"
)

var update = flag.Bool("update", false, "write docs/reference/metrics.md")

func TestTheReferenceIsTheTable(t *testing.T) {
	const page = "../../docs/reference/metrics.md"
	if *update {
		if err := os.WriteFile(page, []byte(metrics.Reference()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(b), metrics.Reference()); diff != "" {
		t.Errorf("%s differs (-page +table); run the test with -update:\n%s", page, diff)
	}
}

func TestNamesKeepPrometheusConventions(t *testing.T) {
	for _, m := range metrics.Table() {
		if !strings.HasPrefix(m.Name, "tasuki_") || m.Name != strings.ToLower(m.Name) {
			t.Errorf("%s is not a name of ours", m.Name)
		}
		if (m.Kind == metrics.Counter) != strings.HasSuffix(m.Name, "_total") {
			t.Errorf("%s is a %s: counters, and only they, end in _total", m.Name, m.Kind)
		}
		if m.Kind == metrics.Histogram && m.Unit() != "seconds" {
			t.Errorf("%s is a histogram of %q", m.Name, m.Unit())
		}
		if m.Help == "" || strings.HasSuffix(m.Help, ".") {
			t.Errorf("%s: help %q", m.Name, m.Help)
		}
	}
}

// at is the time of the tests' events.
var at = time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)

// life emits the moves of one runner, each some seconds after the other.
func life(m *metrics.Metrics, name string, from time.Time, each time.Duration, states ...runner.State) time.Time {
	rec := runner.Record{Name: name, Pool: "linux"}
	for i, to := range states {
		e := event.Event{Time: from, Kind: event.RunnerMoved, Pool: "linux", Runner: name, To: to}
		if i > 0 {
			e.From, e.Took = states[i-1], each.Seconds()
		}
		rec.Move(to, "", from)
		r := rec
		e.Record = &r
		m.Emit(e)
		from = from.Add(each)
	}
	return from
}

var whole = []runner.State{
	runner.Preparing, runner.Requesting, runner.Cloning, runner.Connecting, runner.Launching, runner.Registering,
	runner.Idle, runner.Busy, runner.Leaving, runner.Stopping, runner.Deleting, runner.Gone,
}

// everything returns a registry in which each metric has a value.
func everything() *metrics.Metrics {
	m := metrics.New(metrics.Options{
		Version: "1.2.3", GoVersion: "go1.26",
		Quotas: func() []metrics.Quota {
			return []metrics.Quota{{Scope: "acme", Resource: "core", Limit: 5000, Remaining: 4711, Reset: at}}
		},
		Releases: func() []api.RunnerRelease {
			return []api.RunnerRelease{{OS: "linux", Arch: "amd64", Version: "2.336.0", Published: at, Checked: at}}
		},
		Disk:   func() (metrics.Disk, error) { return metrics.Disk{Size: 1000, Free: 10}, nil },
		Lost:   func() map[string]int64 { return map[string]int64{"log": 2} },
		Leaked: func() int { return 1 },
	})
	m.Watch(func() api.Status {
		return api.Status{
			Host: "h", Now: at.Add(time.Hour), Slots: 3, Taken: 1, Problems: []string{"journal: no room"},
			Pools: []api.Pool{
				{Name: "linux", Image: "r/linux:stable", Digest: "sha256:abc", ImageArrived: at, Rejected: "sha256:def",
					Pulling: &api.Pull{Image: "r/linux:stable", Done: 1000, Total: 2000}, Standby: 2, Jobs: 2, OldestJob: at, Waits: wait.Reason{Code: wait.Pulling, Text: "image is being brought to this host: r/linux:stable"}},
			},
			Runners: []api.Runner{{Name: "z", Pool: "linux", State: runner.Busy, Since: at}},
		}
	})
	end := life(m, "a", at, time.Second, whole...)
	m.Emit(event.Event{Time: end, Kind: event.RunnerJob, Pool: "linux", Runner: "b",
		Job: runner.Job{Conclusion: "success", Queued: at, Started: at.Add(4 * time.Hour)}})
	life(m, "b", end, time.Second, whole...)
	for _, done := range []int64{0, 400, 1000, 0, 300} { // cut, and begun again
		m.Emit(event.Event{Time: end, Kind: event.ImagePulling, Pool: "linux", Image: "r/linux:stable", Done: done, Total: 2000 - done, Reused: done / 4})
	}
	m.Emit(event.Event{Time: end, Kind: event.ImageProven, Pool: "linux"})
	m.Emit(event.Event{Time: end, Kind: event.ImageRejected, Pool: "linux"})
	m.Emit(event.Event{Time: end, Kind: event.ImagePruned, Done: 77})
	m.Emit(event.Event{Time: end, Kind: event.OrphanRemoved, Pool: "linux"})
	m.Emit(event.Event{Time: end, Kind: event.RunnerDeprecated, Pool: "linux"})
	m.Emit(event.Event{Time: end, Kind: event.ImageFailed, Pool: "other"})
	m.GitHubCall("GET", "orgs/{org}/actions/runners", 200, time.Second)
	return m
}

// scrape returns what a Prometheus without native histograms is told.
func scrape(t *testing.T, m *metrics.Metrics) map[string]float64 {
	t.Helper()
	res := httptest.NewRecorder()
	m.Handler().ServeHTTP(res, httptest.NewRequest("GET", "/metrics", nil))
	if res.Code != 200 {
		t.Fatalf("status %d: %s", res.Code, res.Body)
	}
	out := map[string]float64{}
	for line := range strings.Lines(res.Body.String()) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		i := strings.LastIndexByte(line, ' ')
		v, err := strconv.ParseFloat(strings.TrimSpace(line[i:]), 64)
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		out[line[:i]] = v
	}
	return out
}

// expect compares some series.
func expect(t *testing.T, got map[string]float64, want map[string]float64) {
	t.Helper()
	for series, v := range want {
		if have, there := got[series]; !there || have != v {
			t.Errorf("%s is %v (there: %v), want %v", series, have, there, v)
		}
	}
}

// family is the metric that a series belongs to.
func family(series string) string {
	name, _, _ := strings.Cut(series, "{")
	for _, m := range metrics.Table() {
		if m.Kind == metrics.Histogram && strings.HasPrefix(name, m.Name) {
			return m.Name
		}
	}
	return name
}

// Prometheus's own linter finds nothing to say.
func TestTheLinterIsContent(t *testing.T) {
	res := httptest.NewRecorder()
	everything().Handler().ServeHTTP(res, httptest.NewRequest("GET", "/metrics", nil))
	problems, err := promlint.New(res.Body).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if strings.HasPrefix(p.Metric, "tasuki_") {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
}

func TestEveryMetricOfTheTableIsServedAndNoOther(t *testing.T) {
	got := map[string]bool{}
	for series := range scrape(t, everything()) {
		if strings.HasPrefix(series, "tasuki_") {
			got[family(series)] = true
		}
	}
	for _, m := range metrics.Table() {
		if !got[m.Name] {
			t.Errorf("%s is in the table and not served", m.Name)
		}
		delete(got, m.Name)
	}
	for name := range got {
		t.Errorf("%s is served and not in the table", name)
	}
}

func TestWhatIsCounted(t *testing.T) {
	expect(t, scrape(t, everything()), map[string]float64{
		`tasuki_slots{reason="",state="busy"}`:                                                       1,
		`tasuki_slots{reason="pulling",state="free"}`:                                                2,
		`tasuki_pool_waiting{pool="linux",reason="pulling"}`:                                         1,
		`tasuki_runners{pool="linux",state="busy"}`:                                                  1,
		`tasuki_runners{pool="linux",state="idle"}`:                                                  0,
		`tasuki_jobs_total{conclusion="success",pool="linux"}`:                                       1,
		`tasuki_jobs_total{conclusion="unknown",pool="linux"}`:                                       1,
		`tasuki_job_oldest_waiting_seconds{pool="linux"}`:                                            3600,
		`tasuki_jobs_waiting{pool="linux"}`:                                                          2,
		`tasuki_slot_turnaround_seconds_count{pool="linux"}`:                                         1,
		`tasuki_slot_turnaround_seconds_sum{pool="linux"}`:                                           10, // 3 to end, 1 gone, 6 to idle
		`tasuki_runner_step_seconds_count{pool="linux",state="connecting"}`:                          2,
		`tasuki_runners_ended_total{pool="linux",result="well",state=""}`:                            2,
		`tasuki_runners_deprecated_total{pool="linux"}`:                                              1,
		`tasuki_image_pull_bytes_total{pool="linux"}`:                                                975,
		`tasuki_image_reused_bytes_total{pool="linux"}`:                                              325,
		`tasuki_image_rolls_total{pool="linux",result="proven"}`:                                     1,
		`tasuki_image_rolls_total{pool="linux",result="rejected"}`:                                   1,
		`tasuki_image_rejected{pool="linux"}`:                                                        1,
		`tasuki_image_trying{pool="linux"}`:                                                          0,
		`tasuki_image_pinned{pool="linux"}`:                                                          0,
		`tasuki_images_pruned_total`:                                                                 1,
		`tasuki_image_pruned_bytes_total`:                                                            77,
		`tasuki_image_pull_progress_ratio{pool="linux"}`:                                             0.5,
		`tasuki_github_requests_total{method="GET",route="orgs/{org}/actions/runners",status="200"}`: 1,
		`tasuki_github_quota_remaining{resource="core",scope="acme"}`:                                4711,
		`tasuki_runner_release_info{arch="amd64",os="linux",version="2.336.0"}`:                      1,
		`tasuki_events_lost_total{reader="log"}`:                                                     2,
		`tasuki_disk_free_bytes`:                                                                     10,
		`tasuki_image_info{digest="sha256:abc",image="r/linux:stable",pool="linux"}`:                 1,
		`tasuki_build_info{go_version="go1.26",version="1.2.3"}`:                                     1,
	})
}

// A job that waited for four hours must not hide in a bucket that has no end.
func TestIncidentHistogramLies(t *testing.T) {
	got := scrape(t, everything())
	finite := got[`tasuki_job_queue_seconds_bucket{pool="linux",le="14400"}`]
	if all := got[`tasuki_job_queue_seconds_bucket{pool="linux",le="+Inf"}`]; all != 1 || finite != all {
		t.Errorf("of %v jobs %v are in a bucket up to 4 h", all, finite)
	}
	if below := got[`tasuki_job_queue_seconds_bucket{pool="linux",le="7200"}`]; below != 0 {
		t.Errorf("a wait of 4 h counts as one of up to 2 h")
	}
	// One that still waits is in no histogram: the oldest is told as it grows.
	if oldest := got[`tasuki_job_oldest_waiting_seconds{pool="linux"}`]; oldest != 3600 {
		t.Errorf("the oldest waits for %v s", oldest)
	}
	if last := metrics.Buckets[len(metrics.Buckets)-1]; last < 24*3600 {
		t.Errorf("the last bucket ends at %v s", last)
	}
}

// Whatever waits says why, in words of a list.
func TestIncidentSilentPending(t *testing.T) {
	for _, code := range []wait.Code{wait.NoSlot, wait.NoImage, wait.Pulling, wait.Other, wait.Deprecated} {
		m := metrics.New(metrics.Options{})
		m.Watch(func() api.Status {
			return api.Status{Slots: 2, Now: at, Pools: []api.Pool{{Name: "linux", Standby: 1, Waits: wait.Reason{Code: code, Text: "words"}}}}
		})
		deprecated := 0.0
		if code == wait.Deprecated {
			deprecated = 1
		}
		expect(t, scrape(t, m), map[string]float64{
			fmt.Sprintf(`tasuki_pool_waiting{pool="linux",reason=%q}`, code): 1,
			fmt.Sprintf(`tasuki_slots{reason=%q,state="free"}`, code):        2,
			`tasuki_runner_version_deprecated{pool="linux"}`:                 deprecated,
		})
	}
}

func TestASlotsTimeWithJobsGrowsWhileAJobRuns(t *testing.T) {
	m := metrics.New(metrics.Options{})
	now := time.Now() // a registry counts from when it began
	status := api.Status{Slots: 2, Pools: []api.Pool{{Name: "linux"}}}
	m.Watch(func() api.Status { return status })
	end := life(m, "a", now, time.Minute, whole[:8]...) // the last: busy, a minute before end
	busy := end.Add(-time.Minute)
	status.Now, status.Runners = busy.Add(10*time.Second), []api.Runner{{Name: "a", Pool: "linux", State: runner.Busy, Since: busy}}
	const slot0, slot1 = `tasuki_slot_busy_seconds_total{slot="0"}`, `tasuki_slot_busy_seconds_total{slot="1"}`
	expect(t, scrape(t, m), map[string]float64{slot0: 10, slot1: 0})
	m.Emit(event.Event{Time: busy.Add(30 * time.Second), Kind: event.RunnerMoved, Pool: "linux", Runner: "a", From: runner.Busy, To: runner.Leaving, Took: 30})
	// A status that is older than the event counts nothing twice.
	expect(t, scrape(t, m), map[string]float64{slot0: 30, slot1: 0})
	status.Runners = nil
	expect(t, scrape(t, m), map[string]float64{slot0: 30, slot1: 0})
}

// What is not counted yet is 0: a counter that appears with its first count has
// not grown as far as Prometheus knows.
func TestCountersOfAPoolBeginAtZero(t *testing.T) {
	m := metrics.New(metrics.Options{})
	m.Watch(func() api.Status { return api.Status{Slots: 1, Pools: []api.Pool{{Name: "linux"}}} })
	expect(t, scrape(t, m), map[string]float64{
		`tasuki_runners_ended_total{pool="linux",result="failed",state="registering"}`: 0,
		`tasuki_runners_ended_total{pool="linux",result="well",state=""}`:              0,
		`tasuki_jobs_total{conclusion="failure",pool="linux"}`:                         0,
		`tasuki_image_failures_total{pool="linux"}`:                                    0,
		`tasuki_job_queue_seconds_count{pool="linux"}`:                                 0,
		`tasuki_image_rejected{pool="linux"}`:                                          0,
		`tasuki_github_refusals_total{status="403"}`:                                   0,
		`tasuki_slots_leaked`:                                                          0,
	})
	for _, status := range []int{200, 403, 403, 404} {
		m.GitHubCall("GET", "orgs/{org}", status, time.Second)
	}
	expect(t, scrape(t, m), map[string]float64{
		`tasuki_github_refusals_total{status="401"}`: 0,
		`tasuki_github_refusals_total{status="403"}`: 2,
	})
}

// Slots that the hypervisor lost stand behind those that are left, and are told
// apart from free ones (incident leaked-vm-slot).
func TestWhatEachSlotDoes(t *testing.T) {
	leaked, now := 0, time.Now()
	m := metrics.New(metrics.Options{Leaked: func() int { return leaked }})
	status := api.Status{Slots: 3, Now: now, Runners: []api.Runner{
		{Name: "a", Pool: "p", State: runner.Busy, Since: now}, {Name: "b", Pool: "p", State: runner.Connecting, Since: now},
	}}
	m.Watch(func() api.Status { return status })
	state := func(slot int) string { return fmt.Sprintf(`tasuki_slot_state{slot="%d"}`, slot) }
	number := func(name string) float64 { return float64(slices.Index(metrics.SlotNumbers(), name)) }
	expect(t, scrape(t, m), map[string]float64{state(0): number("busy"), state(1): number("starting"), state(2): number("free")})
	status.Slots, leaked = 2, 1 // as the agent counts those that are left
	got := scrape(t, m)
	expect(t, got, map[string]float64{state(0): number("busy"), state(1): number("starting"), state(2): number("leaked"), `tasuki_slots_leaked`: 1})
	if _, there := got[state(3)]; there {
		t.Error("there is a fourth slot")
	}
}

// A release that was checked is good for 30 days from then on; one that nobody
// checked, from when it came out.
func TestUntilWhenARunnerReleaseIsGood(t *testing.T) {
	for name, c := range map[string]struct{ published, checked, want time.Time }{
		"checked":     {at, at.Add(time.Hour), at.Add(time.Hour + 30*24*time.Hour)},
		"not checked": {at, time.Time{}, at.Add(30 * 24 * time.Hour)},
	} {
		m := metrics.New(metrics.Options{Releases: func() []api.RunnerRelease {
			return []api.RunnerRelease{{OS: "linux", Arch: "arm64", Version: "2.1.0", Published: c.published, Checked: c.checked}}
		}})
		const series = `tasuki_runner_release_end_timestamp_seconds{arch="arm64",os="linux"}`
		if got := scrape(t, m)[series]; got != float64(c.want.Unix()) {
			t.Errorf("%s: %v, want %v", name, got, c.want.Unix())
		}
	}
}

// A new agent counts the job that it adopts from when it began: the one before
// counted the rest.
func TestARestartCountsNothingTwice(t *testing.T) {
	m := metrics.New(metrics.Options{})
	now := time.Now()
	m.Watch(func() api.Status {
		return api.Status{Slots: 1, Now: now.Add(20 * time.Second), Runners: []api.Runner{{Name: "a", Pool: "p", State: runner.Busy, Since: now.Add(-time.Hour)}}}
	})
	if got := scrape(t, m)[`tasuki_slot_busy_seconds_total{slot="0"}`]; got < 19 || got > 21 {
		t.Errorf("20 s after the start the adopted job counts %v s", got)
	}
	m.Emit(event.Event{Time: now.Add(time.Minute), Kind: event.RunnerMoved, Pool: "p", Runner: "a", From: runner.Busy, To: runner.Leaving, Took: 3660})
	if got := scrape(t, m)[`tasuki_slot_busy_seconds_total{slot="0"}`]; got < 59 || got > 61 {
		t.Errorf("a minute after the start the adopted job counts %v s", got)
	}
}

func TestLabelsAreBounded(t *testing.T) {
	m := metrics.New(metrics.Options{Disk: func() (metrics.Disk, error) { return metrics.Disk{}, errors.New("no such file system") }})
	for i := range 1000 {
		m.GitHubCall("GET", "route"+strconv.Itoa(i), 200, time.Second)
		life(m, "runner"+strconv.Itoa(i), at, time.Second, whole...)
		m.Emit(event.Event{Kind: event.RunnerJob, Pool: "linux", Runner: "j" + strconv.Itoa(i), Job: runner.Job{Conclusion: "word" + strconv.Itoa(i)}})
	}
	got := scrape(t, m)
	var ours []string
	for series := range got {
		if strings.HasPrefix(series, "tasuki_") {
			ours = append(ours, series)
		}
	}
	if slices.Sort(ours); len(ours) > 2000 {
		t.Errorf("%d series", len(ours))
	}
	if got[`tasuki_jobs_total{conclusion="unknown",pool="linux"}`] != 2000 {
		t.Error("conclusions that nobody knows are not counted as such")
	}
}

func BenchmarkScrape(b *testing.B) {
	m := everything()
	for i := range 500 {
		life(m, "r"+strconv.Itoa(i), at, time.Second, whole...)
	}
	for b.Loop() {
		m.Handler().ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/metrics", nil))
	}
}
