package metrics

import (
	"fmt"
	"slices"
	"strings"
)

// Kind is what a metric is to Prometheus.
type Kind string

// The kinds of metrics.
const (
	Counter   Kind = "counter"
	Gauge     Kind = "gauge"
	Histogram Kind = "histogram" // native, and classic with Buckets
)

// Metric is one row of the table of all metrics.
type Metric struct {
	Name   string
	Kind   Kind
	Labels []string
	Help   string // a sentence without its full stop
}

// Unit is the unit of a metric's values, which its name ends in.
func (m Metric) Unit() string {
	name := strings.TrimSuffix(m.Name, "_total")
	for suffix, unit := range map[string]string{
		"_timestamp_seconds": "seconds since 1970, UTC", "_seconds": "seconds", "_bytes": "bytes", "_ratio": "0 to 1", "_info": "always 1",
	} {
		if strings.HasSuffix(name, suffix) && !(suffix == "_seconds" && strings.HasSuffix(name, "_timestamp_seconds")) {
			return unit
		}
	}
	return ""
}

// Buckets are the upper bounds of every classic histogram, in seconds: from a
// tenth of a second to two days, since jobs do wait for hours (incident
// histogram-lies).
var Buckets = []float64{
	0.1, 0.25, 0.5, 1, 2, 5, 10, 15, 20, 30, 45, 60, 120, 300, 600,
	1200, 1800, 3600, 2 * 3600, 4 * 3600, 8 * 3600, 24 * 3600, 48 * 3600,
}

// The names that the code uses more than once, or builds a vector of.
const (
	jobs          = "tasuki_jobs_total"
	jobQueue      = "tasuki_job_queue_seconds"
	jobDuration   = "tasuki_job_duration_seconds"
	oldestWaiting = "tasuki_job_oldest_waiting_seconds"
	turnaround    = "tasuki_slot_turnaround_seconds"
	stepDuration  = "tasuki_runner_step_seconds"
	runnersEnded  = "tasuki_runners_ended_total"
	busyTime      = "tasuki_slot_busy_seconds_total"
	pullBytes     = "tasuki_image_pull_bytes_total"
	reusedBytes   = "tasuki_image_reused_bytes_total"
	imageFailures = "tasuki_image_failures_total"
	imageRolls    = "tasuki_image_rolls_total"
	imagesPruned  = "tasuki_images_pruned_total"
	prunedBytes   = "tasuki_image_pruned_bytes_total"
	deprecations  = "tasuki_runners_deprecated_total"
	orphans       = "tasuki_orphans_removed_total"
	gitHubCalls   = "tasuki_github_requests_total"
	gitHubTime    = "tasuki_github_request_seconds"
	refusals      = "tasuki_github_refusals_total"
)

// table has every metric of ours. A metric is made from its row, so none is
// missing here; docs/reference/metrics.md is a copy.
var table = []Metric{
	{"tasuki_build_info", Gauge, []string{"version", "go_version"}, "The agent's version"},
	{"tasuki_host_draining", Gauge, nil, "1 while the host takes no new runners"},
	{"tasuki_problems", Gauge, nil, "Things that are wrong with the host, as tasuki status lists them"},

	{"tasuki_slots", Gauge, []string{"state", "reason"}, "Slots of the host by what they do. The sum is the host's slots. reason says why a free slot is free, and is empty for others"},
	{"tasuki_slots_leaked", Gauge, nil, "Slots that the hypervisor counts as taken although no guest runs in them"},
	{"tasuki_slot_state", Gauge, []string{"slot"}, "What the slot does: " + slotCodes()},
	{busyTime, Counter, []string{"slot"}, "Time in which the slot's runner executed a job, the present job included. Its rate is the slot's utilisation"},
	{turnaround, Histogram, []string{"pool"}, "From the end of a job to the moment when the slot's next runner listens. A slot that nobody wanted meanwhile does not count"},

	{"tasuki_pool_wanted_runners", Gauge, []string{"pool"}, "Runners that shall wait for a job or be on their way"},
	{"tasuki_pool_waiting", Gauge, []string{"pool", "reason"}, "1 while the pool has fewer runners than it wants; reason says why"},
	{"tasuki_pool_draining", Gauge, []string{"pool"}, "1 while the pool takes no new runners"},

	{"tasuki_runners", Gauge, []string{"pool", "state"}, "Runners of this host by the state of their life"},
	{runnersEnded, Counter, []string{"pool", "result", "state"}, "Runners that are gone. result is well or failed; state is where it failed"},
	{stepDuration, Histogram, []string{"pool", "state"}, "How long runners stayed in a state, counted when they leave it"},
	{"tasuki_runner_version_deprecated", Gauge, []string{"pool"}, "1 while GitHub gives no jobs to the version of the runner program that the pool's guests run"},
	{deprecations, Counter, []string{"pool"}, "Runners that GitHub gave no jobs because of the version of their program"},
	{"tasuki_runner_release_info", Gauge, []string{"os", "arch", "version"}, "The newest release of the runner program that is kept on this host"},
	{"tasuki_runner_release_published_timestamp_seconds", Gauge, []string{"os", "arch"}, "When that release was published, as far as that is known"},
	{"tasuki_runner_release_checked_timestamp_seconds", Gauge, []string{"os", "arch"}, "When GitHub last said that it is the newest; 0: not since the agent started"},
	{"tasuki_runner_release_end_timestamp_seconds", Gauge, []string{"os", "arch"}, "Until when GitHub gives jobs to that release at least: 30 days after it was last known to be the newest. It moves on with each check"},

	{jobs, Counter, []string{"pool", "conclusion"}, "Jobs that are over. conclusion is GitHub's word, or unknown where the pool's scope does not tell it"},
	{jobQueue, Histogram, []string{"pool"}, "From the moment when GitHub queued a job to its start, where the pool's scope tells it"},
	{jobDuration, Histogram, []string{"pool"}, "How long runners executed jobs"},
	{oldestWaiting, Gauge, []string{"pool"}, "How long the oldest job that GitHub gave to the pool waits for a runner; 0: none waits"},
	{"tasuki_jobs_waiting", Gauge, []string{"pool"}, "Jobs that GitHub gave to the pool and that no runner has taken yet"},

	{"tasuki_image_info", Gauge, []string{"pool", "image", "digest"}, "The image that new guests of the pool are made from"},
	{"tasuki_image_pulled_timestamp_seconds", Gauge, []string{"pool"}, "When the pool's image came to this host"},
	{pullBytes, Counter, []string{"pool"}, "Bytes of images that came from registries, as they travel"},
	{reusedBytes, Counter, []string{"pool"}, "Bytes of images, as they would travel, that did not: another image of this host had them"},
	{"tasuki_image_pull_progress_ratio", Gauge, []string{"pool"}, "How much of an image is here while it is pulled; absent when none is"},
	{imageFailures, Counter, []string{"pool"}, "Times that the pool's image could not be brought, each cause once until it is brought"},
	{imageRolls, Counter, []string{"pool", "result"}, "Newer images that were tried. result is proven, and the pool went over to it, or rejected, and it stayed"},
	{"tasuki_image_trying", Gauge, []string{"pool"}, "1 while a newer image is here that no runner of the pool has proven yet"},
	{"tasuki_image_rejected", Gauge, []string{"pool"}, "1 while the pool's reference means an image whose first runners failed, and the pool stays on the one before"},
	{"tasuki_image_pinned", Gauge, []string{"pool"}, "1 while a person keeps the pool on one image: tasuki image pin or rollback"},
	{imagesPruned, Counter, nil, "Images, and remains of pulls, that were removed to keep space free"},
	{prunedBytes, Counter, nil, "What those images took"},
	{orphans, Counter, []string{"pool"}, "Guests and registrations of ours that nobody kept and that were taken away"},

	{gitHubCalls, Counter, []string{"method", "route", "status"}, "Requests to GitHub's REST API. status is that of the reply, or none"},
	{gitHubTime, Histogram, []string{"route"}, "How long requests to GitHub's REST API took"},
	{refusals, Counter, []string{"status"}, "Requests that GitHub refused: 401 does not know the credential, 403 forbids, 429 asks for patience"},
	{"tasuki_github_quota_limit", Gauge, []string{"scope", "resource"}, "Calls that GitHub allows in its window. Scopes that share a credential share it"},
	{"tasuki_github_quota_remaining", Gauge, []string{"scope", "resource"}, "Calls that are left of it"},
	{"tasuki_github_quota_reset_timestamp_seconds", Gauge, []string{"scope", "resource"}, "When the window ends"},

	{"tasuki_disk_size_bytes", Gauge, nil, "Size of the file system that the agent's home is on"},
	{"tasuki_disk_free_bytes", Gauge, nil, "What the agent may still write to it"},
	{"tasuki_events_lost_total", Counter, []string{"reader"}, "Events that a reader did not keep: log is the event log, history the history of runs"},
}

// Table returns every metric of ours, in the order of the reference.
func Table() []Metric { return slices.Clone(table) }

// row returns the row of a metric.
func row(name string) Metric {
	i := slices.IndexFunc(table, func(m Metric) bool { return m.Name == name })
	if i < 0 {
		panic(fmt.Sprintf("metric %q has no row", name)) // a defect that every test meets
	}
	return table[i]
}

// Reference returns the reference of the metrics as Markdown, made from the
// table. docs/reference/metrics.md is a copy.
func Reference() string {
	var b strings.Builder
	b.WriteString(referenceHead)
	b.WriteString("| Metric | Type | Labels | Unit | Meaning |\n|---|---|---|---|---|\n")
	for _, m := range table {
		labels := ""
		if len(m.Labels) > 0 {
			labels = "`" + strings.Join(m.Labels, "`, `") + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s. |\n", m.Name, m.Kind, labels, m.Unit(), m.Help)
	}
	b.WriteString("\n## Values of labels\n\n| Label | Values |\n|---|---|\n")
	for _, l := range labelValues() {
		fmt.Fprintf(&b, "| `%s` | %s |\n", l.name, l.values)
	}
	fmt.Fprintf(&b, "\n## Histograms\n\nEach is served as a native histogram to a Prometheus that asks for them, and as a classic one with these bounds, in seconds:\n%s.\n", bounds())
	b.WriteString(referenceFoot)
	return b.String()
}

func bounds() string {
	var words []string
	for _, v := range Buckets {
		words = append(words, fmt.Sprintf("%g", v))
	}
	return strings.Join(words, ", ")
}

const referenceHead = `# Metrics

<!-- Generated from internal/metrics by "go test ./internal/metrics -update". Do not edit. -->

What an agent serves at ` + "`/metrics`" + `: on its Unix socket always, on ` + "`metrics.listen`" + ` of [the configuration](config.md) to whoever
has the token. [The guide](../monitoring.md#metrics) says how Prometheus gets there, and what to ask.

Counters and histograms begin at 0 with each start of the agent. Gauges say what is now. No label has a value that grows with the
number of jobs or runners.

`

const referenceFoot = `
## Also served

` + "`go_*` and `process_*`" + `: the agent's memory, goroutines, processor time and open files, as every Go program with Prometheus's
client tells them.
`
