package boards

import "github.com/grafana/grafana-foundation-sdk/go/cog"

// fleet is the dashboard for whoever is on call, and for whoever pays.
func fleet() board {
	return board{
		uid: "tasuki-fleet", title: "Tasuki / Fleet", about: "All hosts: are they well, what waits, how full are they.",
		rows: []row{
			{"Now", fleetNow()},
			{"Slots", []panel{
				{shape: timeline, title: "Slots", asks: "What did each slot of each host do, and when?", width: 24, height: 12,
					queries: ask("{{host}} {{slot}}", `tasuki_slot_state{%s}`, ofHost)},
				{shape: rows, title: "Pools that wait", asks: "Which pools have fewer runners than they want, and why?", width: 12,
					queries: ask("", `sum by (host, pool, reason) (tasuki_pool_waiting{%s}) > 0`, ofPool)},
				{shape: stacked, title: "Slots by what they do", asks: "How many slots are free, busy, or on their way between?", width: 12,
					queries: ask("{{state}}", `sum by (state) (tasuki_slots{%s})`, ofHost)},
			}},
			{"Jobs", fleetJobs()},
			{"Machines", fleetMachines()},
		},
	}
}

func fleetNow() []panel {
	one := cog.ToPtr(1.0)
	return []panel{
		{shape: number, title: "Hosts that answer", asks: "How many hosts does Prometheus reach?", width: 4,
			queries: ask("", `sum(up{%s})`, ofHost)},
		{shape: number, title: "Hosts that do not", asks: "How many hosts are silent?", width: 4, warn: one,
			queries: ask("", `count(up{%[1]s}) - sum(up{%[1]s})`, ofHost)},
		{shape: number, title: "Slots with a job", asks: "How full are the machines at this moment?", width: 4, unit: "percentunit",
			queries: ask("", `sum(tasuki_slots{%[1]s,state="busy"}) / sum(tasuki_slots{%[1]s})`, ofHost)},
		{shape: number, title: "Oldest job that waits", asks: "Does anybody wait for a runner, and for how long?", width: 4, unit: "s", warn: cog.ToPtr(900.0),
			queries: ask("", `max(tasuki_job_oldest_waiting_seconds{%s})`, ofPool)},
		{shape: number, title: "Jobs in the last hour", asks: "How much is done?", width: 4,
			queries: ask("", `sum(increase(tasuki_jobs_total{%s}[1h]))`, ofPool)},
		{shape: number, title: "Alerts", asks: "How many alerts fire?", width: 4, warn: one,
			queries: ask("", `count(ALERTS{alertname=~"Tasuki.*",alertstate="firing",host=~"$host"}) or vector(0)`)},
	}
}

func fleetJobs() []panel {
	return []panel{
		{shape: stacked, title: "Jobs per hour", asks: "How many jobs ended in each hour, and how?", width: 12,
			queries: ask("{{conclusion}}", `sum by (conclusion) (increase(tasuki_jobs_total{%s}[1h]))`, ofPool)},
		{shape: graph, title: "Queued to started", asks: "How long did people wait for a runner? For pools whose scope GitHub tells it.", width: 12, unit: "s",
			queries: percentiles("tasuki_job_queue_seconds", "30m", 50, 90, 99)},
		{shape: graph, title: "Oldest job that waits, by pool", asks: "Whom does a wait hit that still goes on? No percentile knows it yet.", width: 12, unit: "s",
			queries: ask("{{pool}}", `max by (pool) (tasuki_job_oldest_waiting_seconds{%s})`, ofPool)},
		{shape: graph, title: "Jobs that wait", asks: "How many jobs did GitHub give to each pool that no runner has taken?", width: 12,
			queries: ask("{{pool}}", `sum by (pool) (tasuki_jobs_waiting{%s})`, ofPool)},
		{shape: graph, title: "How long jobs take", asks: "Are the jobs longer than they were?", width: 12, unit: "s",
			queries: percentiles("tasuki_job_duration_seconds", "30m", 50, 90, 99)},
		{shape: stacked, title: "Runners that failed", asks: "In which step do runners fail, before they had a job or with it?", width: 12,
			queries: ask("{{pool}} {{state}}", `sum by (pool, state) (increase(tasuki_runners_ended_total{%s,result="failed"}[1h]))`, ofPool)},
	}
}

func fleetMachines() []panel {
	return []panel{
		{shape: graph, title: "Utilisation", asks: "Which part of the time of each host's slots goes to jobs?", width: 12, unit: "percentunit",
			queries: ask("{{host}}", `sum by (host) (rate(tasuki_slot_busy_seconds_total{%[1]s}[15m])) / sum by (host) (tasuki_slots{%[1]s})`, ofHost)},
		{shape: graph, title: "Turnaround", asks: "How long is a slot without a listening runner after a job?", width: 12, unit: "s",
			queries: percentiles("tasuki_slot_turnaround_seconds", "30m", 50, 90)},
		{shape: graph, title: "Requests to GitHub", asks: "What does GitHub answer?", width: 8, unit: "reqps",
			queries: ask("{{status}}", `sum by (status) (rate(tasuki_github_requests_total{%s}[5m]))`, ofHost)},
		{shape: graph, title: "Quota left", asks: "Do we come near GitHub's limit?", width: 8, unit: "percentunit",
			queries: ask("{{scope}} {{resource}}", `min by (scope, resource) (tasuki_github_quota_remaining{%[1]s} / tasuki_github_quota_limit{%[1]s})`, ofHost)},
		{shape: graph, title: "Disk free", asks: "Which host runs out of room?", width: 8, unit: "percentunit",
			queries: ask("{{host}}", `tasuki_disk_free_bytes{%[1]s} / tasuki_disk_size_bytes{%[1]s}`, ofHost)},
		{shape: rows, title: "Agents", asks: "Which version does each host run?", width: 12,
			queries: ask("", `sum by (host, version, go_version) (tasuki_build_info{%s})`, ofHost)},
		{shape: rows, title: "Runner program", asks: "For how many days at least does GitHub give jobs to the release that each host keeps?", width: 12, unit: "d",
			queries: ask("", `(min by (host, os, arch) (tasuki_runner_release_end_timestamp_seconds{%s}) - time()) / 86400`, ofHost)},
	}
}
