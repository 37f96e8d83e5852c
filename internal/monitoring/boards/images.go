package boards

import "github.com/grafana/grafana-foundation-sdk/go/cog"

// images is the dashboard of what guests are made from.
func images() board {
	one := cog.ToPtr(1.0)
	return board{
		uid: "tasuki-images", title: "Tasuki / Images", about: "Which image each pool of each host uses, how a new one spreads, and what it costs to bring it.",
		rows: []row{
			{"Versions", []panel{
				{shape: number, title: "Rejected", asks: "Does a pool stay on an older image because the newer one failed?", width: 6, warn: one,
					queries: ask("", `sum(tasuki_image_rejected{%s})`, ofPool)},
				{shape: number, title: "Images in use", asks: "How many different images do the pools use?", width: 6,
					queries: ask("", `count(count by (digest) (tasuki_image_info{%s}))`, ofPool)},
				{shape: number, title: "Oldest", asks: "How long ago did the image that came first come to its host?", width: 6, unit: "s",
					queries: ask("", `time() - min(tasuki_image_pulled_timestamp_seconds{%s})`, ofPool)},
				{shape: number, title: "Brought in the last hour", asks: "How much was pulled?", width: 6, unit: "bytes",
					queries: ask("", `sum(increase(tasuki_image_pull_bytes_total{%s}[1h]))`, ofPool)},
				{shape: rows, title: "Images over hosts", asks: "Which host uses which image?", width: 24, height: 10,
					queries: ask("", `sum by (host, pool, image, digest) (tasuki_image_info{%s})`, ofPool)},
				{shape: stacked, title: "How an image spreads", asks: "How many hosts have taken the new image?", width: 24,
					queries: ask("{{pool}} {{digest}}", `count by (pool, digest) (tasuki_image_info{%s})`, ofPool)},
			}},
			{"Pulls", []panel{
				{shape: graph, title: "Pulled", asks: "Who pulls, and how fast?", width: 12, unit: "Bps",
					queries: ask("{{host}}", `sum by (host) (rate(tasuki_image_pull_bytes_total{%s}[5m]))`, ofPool)},
				{shape: graph, title: "Progress", asks: "How far are the pulls that go on?", width: 12, unit: "percentunit",
					queries: ask("{{host}} {{pool}}", `tasuki_image_pull_progress_ratio{%s}`, ofPool)},
				{shape: graph, title: "Age", asks: "How long ago did each pool's image come?", width: 12, unit: "s",
					queries: ask("{{host}} {{pool}}", `time() - tasuki_image_pulled_timestamp_seconds{%s}`, ofPool)},
				{shape: stacked, title: "Images that could not be brought", asks: "Is the registry well?", width: 12,
					queries: ask("{{host}} {{pool}}", `sum by (host, pool) (increase(tasuki_image_failures_total{%s}[1h]))`, ofPool)},
			}},
		},
	}
}
