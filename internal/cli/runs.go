package cli

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/mirego/tasuki/internal/api"
	"github.com/mirego/tasuki/internal/base/human"
	"github.com/mirego/tasuki/internal/config"
)

func newRuns(a *app) *cobra.Command {
	var q api.RunQuery
	var since config.Duration
	var asJSON, stats bool
	cmd := &cobra.Command{
		Use:   "runs",
		Short: "Show past runners and their jobs, and what they amount to",
		Long: "Show past and present runners of this host with the job that each executed, the latest first. With --stats, what\n" +
			"those that ended amount to: percentiles of queue time and turnaround, utilisation, failures by reason.\n" +
			"Times are of your zone; --json prints UTC.",
		Example: "  tasuki runs --failed --since 24h\n  tasuki runs --pool linux --stats --since 30d",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			now := time.Now()
			if since > 0 {
				q.Since = now.Add(-time.Duration(since))
			}
			if stats {
				return a.showStats(cmd, q, asJSON)
			}
			runs, err := a.client().Runs(cmd.Context(), q)
			if err != nil {
				return err
			}
			if asJSON {
				return writeJSON(a.stdout, runs)
			}
			if len(runs) == 0 {
				fmt.Fprintln(a.stderr, "no such runs")
				return nil
			}
			_, err = fmt.Fprint(a.stdout, runTable(runs, now, statusStyle{width: width(a.stdout), colour: colours(a.stdout)}))
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&q.Pool, "pool", "", "only those of this `pool`")
	f.BoolVar(&q.Failed, "failed", false, "only those whose job or runner failed")
	f.BoolVar(&q.Jobs, "jobs", false, "only those that executed a job")
	f.StringVar(&q.Conclusion, "conclusion", "", "only those whose job ended with this `word`: success, failure, cancelled ...")
	f.StringVar(&q.Repository, "repository", "", "only those with a job of this `owner/name`")
	f.TextVar(&since, "since", config.Duration(0), "only those that ended in this last `time`, such as 90m, 24h or 30d, or have not ended")
	f.IntVarP(&q.Limit, "limit", "n", 50, "at most so many, the latest")
	f.BoolVar(&stats, "stats", false, "show what they amount to; of the filters --pool and --since count")
	f.BoolVar(&asJSON, "json", false, "print the API's answer")
	return cmd
}

func (a *app) showStats(cmd *cobra.Command, q api.RunQuery, asJSON bool) error {
	ctx := cmd.Context()
	s, err := a.client().Stats(ctx, api.RunQuery{Pool: q.Pool, Since: q.Since})
	if err != nil {
		return err
	}
	if asJSON {
		return writeJSON(a.stdout, s)
	}
	host, err := a.client().Status(ctx)
	if err != nil {
		return err
	}
	_, err = fmt.Fprint(a.stdout, statsText(s, host.Slots, statusStyle{width: width(a.stdout), colour: colours(a.stdout)}))
	return err
}

func writeJSON(w interface{ Write([]byte) (int, error) }, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// runTable writes runs for a person, one a line.
func runTable(runs []api.Run, now time.Time, style statusStyle) string {
	rows := [][]cell{header("BEGAN", "RUNNER", "POOL", "RESULT", "WAITED", "JOB TOOK", "JOB")}
	for _, r := range runs {
		result, colour := resultOf(r)
		waited, took := "-", "-"
		if !r.Job.Queued.IsZero() && !r.Job.Started.IsZero() {
			waited = human.Duration(r.Job.Started.Sub(r.Job.Queued))
		}
		if !r.Busy.IsZero() {
			took = human.Duration(firstKnown(r.Done, r.Ended, now).Sub(r.Busy))
		}
		what := jobText(r.Job)
		if r.Failed {
			what = strings.TrimPrefix(what+"; "+oneLine(r.Failure), "; ")
		}
		rows = append(rows, []cell{
			{text: r.Created.Local().Format("01-02 15:04:05"), colour: dim}, {text: r.Runner}, {text: r.Pool}, {text: result, colour: colour},
			{text: waited}, {text: took}, {text: what},
		})
	}
	return style.table(rows)
}

// firstKnown returns the first of some times that is known.
func firstKnown(times ...time.Time) time.Time {
	for _, t := range times {
		if !t.IsZero() {
			return t
		}
	}
	return time.Time{}
}

// resultOf is how a run ended, in a word.
func resultOf(r api.Run) (word, colour string) {
	switch {
	case r.Failed:
		return "failed", red
	case r.Ended.IsZero():
		return string(r.State), ""
	case r.Job.Conclusion == "success":
		return "success", green
	case r.Job.Conclusion != "":
		return r.Job.Conclusion, red
	case !r.Busy.IsZero():
		return "done", green
	}
	return "no job", dim
}

// statsText writes statistics for a person.
func statsText(s api.RunStats, slots int, style statusStyle) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s ended, with %s; %s failed\n", human.Count(s.Runs, "runner"), human.Count(s.Jobs, "job"), human.Count(s.Failed, "runner"))
	if span := s.Until.Sub(s.Since).Seconds(); slots > 0 && span > 0 && !s.Since.IsZero() {
		fmt.Fprintf(&b, "%.0f %% of the time of %s went to jobs\n", 100*s.Busy/(span*float64(slots)), human.Count(slots, "slot"))
	}
	rows := [][]cell{header("", "COUNT", "P50", "P90", "P95", "P99", "MAX")}
	for _, line := range []struct {
		name string
		of   api.Spread
	}{{"queued to started", s.Queue}, {"turnaround", s.Turnaround}, {"job", s.Job}} {
		row := []cell{{text: line.name, colour: bold}, {text: fmt.Sprint(line.of.Count)}}
		for _, v := range []float64{line.of.P50, line.of.P90, line.of.P95, line.of.P99, line.of.Max} {
			text := "-"
			if line.of.Count > 0 {
				text = seconds(v)
			}
			row = append(row, cell{text: text})
		}
		rows = append(rows, row)
	}
	b.WriteString("\n" + style.table(rows))
	if len(s.Conclusions) > 0 {
		words := []string{}
		for word, n := range s.Conclusions {
			words = append(words, fmt.Sprintf("%d %s", n, word))
		}
		slices.SortFunc(words, func(x, y string) int {
			var a, b int
			_, _ = fmt.Sscan(x, &a)
			_, _ = fmt.Sscan(y, &b)
			return cmp.Or(cmp.Compare(b, a), strings.Compare(x, y))
		})
		b.WriteString("\njobs: " + strings.Join(words, ", ") + "\n")
	}
	if len(s.Failures) > 0 {
		rows := [][]cell{header("FAILED", "BECAUSE (numbers left out)")}
		for _, f := range s.Failures {
			rows = append(rows, []cell{{text: fmt.Sprint(f.Count), colour: red}, {text: oneLine(f.Reason)}})
		}
		b.WriteString("\n" + style.table(rows))
	}
	return b.String()
}
