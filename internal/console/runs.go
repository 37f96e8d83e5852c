package console

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/mirego/tasuki/internal/api"
)

// span of time that the page Runs shows, and the step of its plots.
type reach struct {
	Word string // in the address
	Text string
	age  time.Duration
	step time.Duration
}

// Steps of whole hours are read from sums; others go through the runs.
var reaches = []reach{
	{"1h", "1 h", time.Hour, time.Minute},
	{"6h", "6 h", 6 * time.Hour, 10 * time.Minute},
	{"24h", "24 h", 24 * time.Hour, 30 * time.Minute},
	{"7d", "7 d", 7 * 24 * time.Hour, 3 * time.Hour},
	{"30d", "30 d", 30 * 24 * time.Hour, 12 * time.Hour},
	{"90d", "90 d", 90 * 24 * time.Hour, 24 * time.Hour},
}

// conclusions are those that can be asked for, GitHub's words.
var conclusions = []string{"success", "failure", "cancelled", "timed_out", "skipped"}

// runsShown is how many runs a page lists.
const runsShown = 100

// runs is what the page Runs shows.
type runs struct {
	Pools       []string
	Conclusions []string
	Reaches     []reachLink
	Ask         ask
	Stats       api.RunStats
	Full        float64 // share of the slots' time that went to jobs
	Runs        []api.Run
	Plots       plots
	Older       string // address of the runs before these; empty: there are none
	Newer       string // address of the first page, from a later one
	More        bool   // of failures than are shown
}

type reachLink struct {
	reach
	Href string
	Here bool
}

// ask is what somebody asks for.
type ask struct {
	Pool, Conclusion, Repository string
	Failed, Jobs                 bool
	Reach                        reach
	Before                       time.Time // runs that began before; zero: all
}

func askOf(v url.Values) (ask, error) {
	a := ask{
		Pool: v.Get("pool"), Conclusion: v.Get("conclusion"), Repository: v.Get("repository"),
		Failed: v.Get("failed") != "", Jobs: v.Get("jobs") != "", Reach: reaches[2],
	}
	if word := v.Get("time"); word != "" {
		i := slices.IndexFunc(reaches, func(r reach) bool { return r.Word == word })
		if i < 0 {
			return a, fmt.Errorf("cannot show runs of %q: %w", clip(word, 20), errBad)
		}
		a.Reach = reaches[i]
	}
	if text := v.Get("before"); text != "" {
		var err error
		if a.Before, err = time.Parse(time.RFC3339Nano, text); err != nil {
			return a, fmt.Errorf("cannot read the time %q: %w", clip(text, 40), errBad)
		}
	}
	return a, nil
}

// href is the address of what is asked for.
func (a ask) href() string {
	v := url.Values{}
	for name, text := range map[string]string{"pool": a.Pool, "conclusion": a.Conclusion, "repository": a.Repository, "time": a.Reach.Word} {
		if text != "" {
			v.Set(name, text)
		}
	}
	for name, on := range map[string]bool{"failed": a.Failed, "jobs": a.Jobs} {
		if on {
			v.Set(name, "1")
		}
	}
	if !a.Before.IsZero() {
		v.Set("before", a.Before.UTC().Format(time.RFC3339Nano))
	}
	return "/runs?" + v.Encode()
}

func (c *Console) runsPage(w http.ResponseWriter, r *http.Request) error {
	if c.opt.Runs == nil {
		return errNoHistory
	}
	a, err := askOf(r.URL.Query())
	if err != nil {
		return err
	}
	s := c.opt.Status()
	p := runs{Ask: a, Conclusions: conclusions}
	for _, pool := range s.Pools {
		p.Pools = append(p.Pools, pool.Name)
	}
	if a.Pool != "" && !slices.Contains(p.Pools, a.Pool) { // one of earlier
		p.Pools = append(p.Pools, a.Pool)
	}
	for _, of := range reaches {
		other := a
		other.Reach, other.Before = of, time.Time{}
		p.Reaches = append(p.Reaches, reachLink{of, other.href(), of.Word == a.Reach.Word})
	}
	now := time.Now().UTC()
	q := api.RunQuery{Pool: a.Pool, Since: now.Add(-a.Reach.age).Truncate(a.Reach.step), Until: now}
	steps, err := c.opt.Runs.Series(r.Context(), q, a.Reach.step)
	if err != nil {
		return err
	}
	if p.Stats, err = c.opt.Runs.Stats(r.Context(), q); err != nil {
		return err
	}
	p.Plots = plotsOf(steps, s.Slots)
	p.Full = share(p.Stats.Busy, s.Slots, p.Stats.Until.Sub(p.Stats.Since))
	if len(p.Stats.Failures) > 8 {
		p.Stats.Failures, p.More = p.Stats.Failures[:8], true
	}
	if err := p.list(r, c.opt.Runs, q); err != nil {
		return err
	}
	return c.show(w, r, http.StatusOK, "runs", page{Title: "Runs", Here: "runs", Body: p})
}

// list reads the runs of one page.
func (p *runs) list(r *http.Request, from Runs, q api.RunQuery) error {
	a := p.Ask
	q.Conclusion, q.Repository, q.Failed, q.Jobs = a.Conclusion, a.Repository, a.Failed, a.Jobs
	q.Limit = runsShown + 1
	if !a.Before.IsZero() {
		q.Until = a.Before
		first := a
		first.Before = time.Time{}
		p.Newer = first.href()
	}
	list, err := from.Runs(r.Context(), q)
	if err != nil {
		return err
	}
	if len(list) > runsShown {
		list = list[:runsShown]
		older := a
		older.Before = list[runsShown-1].Created
		p.Older = older.href()
	}
	p.Runs = list
	return nil
}

// share is how much of the time of slots something took, from 0 to 1.
func share(seconds float64, slots int, of time.Duration) float64 {
	if slots < 1 || of <= 0 {
		return 0
	}
	return min(1, seconds/(float64(slots)*of.Seconds()))
}

// plots are the data of the plots: times in seconds since 1970, and a list of
// values for each line. A nil is a step without a value.
type plots struct {
	At         []int64    `json:"at"`
	Step       int64      `json:"step"`
	Good       []int      `json:"good"`
	Bad        []int      `json:"bad"`
	Other      []int      `json:"other"`
	Queue50    []*float64 `json:"queue50"`
	Queue95    []*float64 `json:"queue95"`
	Turnaround []*float64 `json:"turnaround"`
	Full       []float64  `json:"full"`
}

func plotsOf(steps []api.RunStats, slots int) plots {
	p := plots{At: []int64{}}
	for i, s := range steps {
		if i == 0 {
			p.Step = int64(s.Until.Sub(s.Since).Seconds())
		}
		good, bad := s.Conclusions["success"], 0
		for word, n := range s.Conclusions {
			if badConclusion(word) {
				bad += n
			}
		}
		p.At = append(p.At, s.Since.Unix())
		p.Good, p.Bad, p.Other = append(p.Good, good), append(p.Bad, bad), append(p.Other, s.Jobs-good-bad)
		p.Queue50, p.Queue95 = append(p.Queue50, known(s.Queue, s.Queue.P50)), append(p.Queue95, known(s.Queue, s.Queue.P95))
		p.Turnaround = append(p.Turnaround, known(s.Turnaround, s.Turnaround.P50))
		p.Full = append(p.Full, 100*share(s.Busy, slots, s.Until.Sub(s.Since)))
	}
	return p
}

// known is a value of a spread; nil: it counts nothing.
func known(s api.Spread, v float64) *float64 {
	if s.Count == 0 {
		return nil
	}
	return &v
}
