package boards

import "github.com/grafana/grafana-foundation-sdk/go/cog"

// The log lines of a host, as Alloy sends them.
const (
	events   = `{job="tasuki",stream="events",host=~"$host"}`
	agentLog = `{job="tasuki",stream="agent",host=~"$host"}`
)

// host is the dashboard of one machine.
func host() board {
	return board{
		uid: "tasuki-host", title: "Tasuki / Host", about: "One host: its slots, the steps of its runners, its log beside them.", oneHost: true,
		rows: []row{
			{"Now", hostNow()},
			{"Slots and what happened", []panel{
				{shape: timeline, title: "Slots", asks: "What did each slot do, and when?", width: 14, height: 12,
					queries: ask("slot {{slot}}", `tasuki_slot_state{%s}`, ofHost)},
				{shape: lines, title: "Events", asks: "What happened at the moment that the timeline shows?", width: 10, height: 12,
					queries: []query{{expr: events + ` | json | line_format "{{.kind}} {{.runner}} {{.pool}} {{.from}} → {{.to}} {{.reason}}"`}}},
			}},
			{"Steps", hostSteps()},
			{"Trouble", []panel{
				{shape: lines, title: "Failures", asks: "Which runners failed, and why?", width: 12,
					queries: []query{{expr: events + ` | json | failed="true" | line_format "{{.kind}} {{.runner}} {{.reason}}"`}}},
				{shape: lines, title: "Agent's log", asks: "What did the agent warn about?", width: 12,
					queries: []query{{expr: agentLog + ` | json | level=~"WARN|ERROR"`}}},
			}},
			{"Machine", hostMachine()},
		},
	}
}

func hostNow() []panel {
	one := cog.ToPtr(1.0)
	return []panel{
		{shape: number, title: "Problems", asks: "How many things does tasuki status say are wrong?", width: 4, warn: one,
			queries: ask("", `sum(tasuki_problems{%s})`, ofHost)},
		{shape: number, title: "Slots", asks: "How many guests can run at once?", width: 4,
			queries: ask("", `sum(tasuki_slots{%s})`, ofHost)},
		{shape: number, title: "Slots that leaked", asks: "How many slots did the hypervisor lose? A reboot brings them back.", width: 4, warn: one,
			queries: ask("", `sum(tasuki_slots_leaked{%s})`, ofHost)},
		{shape: number, title: "Drained", asks: "Does the host take new runners? 1: it does not.", width: 4, warn: one,
			queries: ask("", `max(tasuki_host_draining{%s})`, ofHost)},
		{shape: number, title: "Utilisation", asks: "Which part of the last hour went to jobs?", width: 4, unit: "percentunit",
			queries: ask("", `sum(rate(tasuki_slot_busy_seconds_total{%[1]s}[1h])) / sum(tasuki_slots{%[1]s})`, ofHost)},
		{shape: number, title: "Up", asks: "Since when does the agent run?", width: 4, unit: "s",
			queries: ask("", `time() - max(process_start_time_seconds{%s})`, ofHost)},
	}
}

func hostSteps() []panel {
	return []panel{
		{shape: graph, title: "Mean of each step", asks: "Which step of a runner's life is slow?", width: 12, unit: "s",
			queries: ask("{{state}}", `sum by (state) (rate(tasuki_runner_step_seconds_sum{%[1]s}[30m])) / sum by (state) (rate(tasuki_runner_step_seconds_count{%[1]s}[30m]))`, ofPool)},
		{shape: graph, title: "95th percentile of each step", asks: "And which only sometimes?", width: 12, unit: "s",
			queries: ask("{{state}}", `histogram_quantile(0.95, sum by (le, state) (rate(tasuki_runner_step_seconds_bucket{%s}[30m])))`, ofPool)},
		{shape: stacked, title: "Runners by state", asks: "Where are the runners now?", width: 12,
			queries: ask("{{state}}", `sum by (state) (tasuki_runners{%s})`, ofPool)},
		{shape: rows, title: "Pools that wait", asks: "Why has a pool fewer runners than it wants?", width: 12,
			queries: ask("", `sum by (pool, reason) (tasuki_pool_waiting{%s}) > 0`, ofPool)},
		{shape: graph, title: "Utilisation of each slot", asks: "Are all slots of use?", width: 12, unit: "percentunit",
			queries: ask("slot {{slot}}", `rate(tasuki_slot_busy_seconds_total{%s}[15m])`, ofHost)},
		{shape: graph, title: "Runners that ended", asks: "How many per hour, and how many of them failed?", width: 12,
			queries: ask("{{result}}", `sum by (result) (increase(tasuki_runners_ended_total{%s}[1h]))`, ofPool)},
	}
}

func hostMachine() []panel {
	return []panel{
		{shape: graph, title: "GitHub's answers", asks: "How long does GitHub take, 95 of 100 times?", width: 12, unit: "s",
			queries: ask("{{route}}", `histogram_quantile(0.95, sum by (le, route) (rate(tasuki_github_request_seconds_bucket{%s}[30m])))`, ofHost)},
		{shape: graph, title: "Disk", asks: "How much room is left for images and guests?", width: 12, unit: "bytes", queries: []query{
			{`tasuki_disk_free_bytes{` + ofHost + `}`, "free"}, {`tasuki_disk_size_bytes{` + ofHost + `}`, "size"},
		}},
		{shape: graph, title: "Agent's memory", asks: "Does the agent itself grow?", width: 8, unit: "bytes",
			queries: ask("resident", `process_resident_memory_bytes{%s}`, ofHost)},
		{shape: graph, title: "Agent's goroutines", asks: "Does something hang in it?", width: 8,
			queries: ask("goroutines", `go_goroutines{%s}`, ofHost)},
		{shape: graph, title: "Agent's processor time", asks: "What does the agent cost?", width: 8, unit: "percentunit",
			queries: ask("of one core", `rate(process_cpu_seconds_total{%s}[5m])`, ofHost)},
		{shape: graph, title: "Events lost", asks: "Is what you see all that happened?", width: 24, height: 5,
			queries: ask("{{reader}}", `increase(tasuki_events_lost_total{%s}[1h])`, ofHost)},
	}
}
