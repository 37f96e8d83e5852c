package monitoring

import (
	"fmt"
	"strings"
	"time"
)

// Severities of alerts.
const (
	Critical = "critical" // jobs wait or fail: now
	Warning  = "warning"  // they will: today
)

// Alert is one rule of Prometheus.
type Alert struct {
	Name     string
	Expr     string        // in PromQL
	For      time.Duration // that it must hold
	Severity string
	Summary  string // one line, with Prometheus's own templates
	Says     string // what it means, and what comes next
}

// Runbook is where a person reads what to do.
func (a Alert) Runbook() string { return Guide + "#" + Anchor(a.Name) }

// Anchor is the anchor that a heading in Markdown has at GitHub.
func Anchor(heading string) string {
	return strings.ReplaceAll(strings.ToLower(heading), " ", "-")
}

// Alerts returns the rules, the most urgent first.
func Alerts(o Options) []Alert {
	const (
		on     = `{{ $labels.host }}`
		onPool = `{{ $labels.host }}, pool {{ $labels.pool }}`
	)
	return []Alert{
		{"TasukiHostSilent", `up{job="tasuki"} == 0`, 3 * time.Minute, Critical,
			on + " is silent",
			"Prometheus gets no metrics from it: the host, its agent, the network or the token is at fault. Its guests go on without the agent."},
		{"TasukiGitHubRefused", `sum by (host, status) (increase(tasuki_github_refusals_total{job="tasuki"}[10m])) > 0`, 2 * time.Minute, Critical,
			"GitHub refuses " + on + " with {{ $labels.status }}",
			"No runner can be registered with a credential that GitHub does not take (401, 403); 429 asks for patience."},
		{"TasukiRunnerVersionRefused", `max by (host, pool) (tasuki_runner_version_deprecated{job="tasuki"}) == 1`, time.Minute, Critical,
			"GitHub gives no jobs to the runner program of " + onPool,
			"The version of the runner program in its guests is too old. Jobs for the pool stay queued."},
		{"TasukiQueueOld", fmt.Sprintf(`max by (host, pool) (tasuki_job_oldest_waiting_seconds{job="tasuki"}) > %d`, int(o.QueueAge.Seconds())), time.Minute, Critical,
			"a job of " + onPool + " waits for {{ $value | humanizeDuration }}",
			"GitHub gave it to the pool, and no runner has taken it."},
		{"TasukiPoolWaits", `max by (host, pool, reason) (tasuki_pool_waiting{job="tasuki",reason!~"no-slot|most|yielded|pulling"}) == 1`, 15 * time.Minute, Critical,
			onPool + " has too few runners: {{ $labels.reason }}",
			"Nothing but full slots, a pull and the pool's own bounds are good reasons to wait."},
		{"TasukiRunnerNotRegistered", `sum by (host, pool) (increase(tasuki_runners_ended_total{job="tasuki",result="failed",state=~"cloning|connecting|launching|registering"}[15m])) >= 2`, 0, Warning,
			"runners of " + onPool + " do not register in time",
			"Guests were made, and GitHub did not see their runners before the deadline. They are thrown away and made anew."},
		{"TasukiImageRollFailed", `max by (host, pool) (tasuki_image_rejected{job="tasuki"}) == 1`, time.Minute, Warning,
			"the new image of " + onPool + " does not work",
			"Its first runners failed. The pool stays on the image before."},
		{"TasukiSlotLeaked", `tasuki_slots_leaked{job="tasuki"} > 0`, 10 * time.Minute, Warning,
			on + " has lost {{ $value }} slots",
			"The hypervisor counts guests that are no more, and refuses new ones. Only a reboot is known to help."},
		{"TasukiRunnerVersionNearEnd", `(min by (host, os, arch) (tasuki_runner_release_end_timestamp_seconds{job="tasuki"}) - time()) < 10 * 86400`, 15 * time.Minute, Warning,
			"the runner program for {{ $labels.os }} on " + on + " is good for {{ $value | humanizeDuration }}",
			"The host could not ask GitHub for a newer release for weeks. GitHub gives jobs to a release for 30 days after the next one."},
		{"TasukiDiskLow", `tasuki_disk_free_bytes{job="tasuki"} / tasuki_disk_size_bytes{job="tasuki"} < 0.1`, 10 * time.Minute, Warning,
			on + " has {{ $value | humanizePercentage }} of its disk left",
			"Images and guests need room; a pull that finds none keeps the pool on its old image."},
		{"TasukiHostProblem", `tasuki_problems{job="tasuki"} > 0`, 15 * time.Minute, Warning,
			on + " has {{ $value }} problems",
			"tasuki status on the host says which."},
	}
}
