package history

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/mirego/tasuki/internal/api"
)

// tally sums up runs that ended. Durations are counted in buckets whose bounds
// grow by a factor, so that a sum of sums keeps every percentile to within two
// hundredths of its value.
type tally struct {
	Runs        int            `json:"n,omitempty"`
	Jobs        int            `json:"j,omitempty"`
	Failed      int            `json:"f,omitempty"`
	Busy        int64          `json:"b,omitempty"` // ms
	Waited      spread         `json:"w,omitzero"`
	Turnaround  spread         `json:"t,omitzero"`
	Worked      spread         `json:"d,omitzero"`
	Conclusions map[string]int `json:"c,omitempty"`
	Failures    map[string]int `json:"e,omitempty"`
}

// growth is the factor between the bounds of a spread's buckets.
const growth = 1.04

// maxReasons bounds the reasons of failures in one tally.
const maxReasons = 50

// otherReason counts what is beyond.
const otherReason = "other reasons"

// spread counts durations by bucket.
type spread struct {
	Max     int64 // ms
	Buckets map[int]int
}

// IsZero says whether there is none.
func (s spread) IsZero() bool { return len(s.Buckets) == 0 }

// MarshalText writes the largest, and pairs of bucket and count, as numbers of
// variable length in base64: months are read at once.
func (s spread) MarshalText() ([]byte, error) {
	b := binary.AppendVarint(nil, s.Max)
	for _, bucket := range slices.Sorted(maps.Keys(s.Buckets)) {
		b = binary.AppendVarint(binary.AppendVarint(b, int64(bucket)), int64(s.Buckets[bucket]))
	}
	return base64.StdEncoding.AppendEncode(nil, b), nil
}

var errSpread = errors.New("the sums of an hour are unreadable")

// UnmarshalText reads what MarshalText wrote.
func (s *spread) UnmarshalText(text []byte) error {
	b, err := base64.StdEncoding.AppendDecode(nil, text)
	if err != nil {
		return errSpread
	}
	next := func() int64 {
		v, n := binary.Varint(b)
		if n <= 0 {
			b, err = nil, errSpread
			return 0
		}
		b = b[n:]
		return v
	}
	s.Max, s.Buckets = next(), make(map[int]int, len(b)/3)
	for len(b) > 0 {
		bucket := int(next())
		s.Buckets[bucket] += int(next())
	}
	return err
}

func (s *spread) add(ms int64, n int) {
	if s.Buckets == nil {
		s.Buckets = map[int]int{}
	}
	s.Buckets[int(math.Ceil(math.Log(float64(max(ms, 1)))/math.Log(growth)))] += n
	s.Max = max(s.Max, ms)
}

func (s *spread) merge(o spread) {
	for bucket, n := range o.Buckets {
		if s.Buckets == nil {
			s.Buckets = map[int]int{}
		}
		s.Buckets[bucket] += n
	}
	s.Max = max(s.Max, o.Max)
}

// told returns the percentiles, in seconds.
func (s spread) told() api.Spread {
	out := api.Spread{Max: float64(s.Max) / 1000}
	for _, n := range s.Buckets {
		out.Count += n
	}
	buckets := slices.Sorted(maps.Keys(s.Buckets))
	at := func(p float64) float64 {
		rank, seen := int(math.Ceil(p*float64(out.Count))), 0
		for _, b := range buckets {
			if seen += s.Buckets[b]; seen >= rank {
				middle := math.Pow(growth, float64(b)-0.5)
				return math.Round(min(middle, float64(s.Max))) / 1000
			}
		}
		return 0
	}
	out.P50, out.P90, out.P95, out.P99 = at(0.50), at(0.90), at(0.95), at(0.99)
	return out
}

// ended is what a tally needs of a run that ended.
type ended struct {
	pool                       string
	ended                      int64
	failed                     bool
	failure, conclusion        string
	job                        bool
	waited, turnaround, worked sql.NullInt64
}

func (t *tally) add(r ended) {
	t.Runs++
	if r.failed {
		t.Failed++
		count(&t.Failures, reasonOf(r.failure), 1)
	}
	if r.job {
		t.Jobs++
		count(&t.Conclusions, cmp.Or(r.conclusion, "unknown"), 1)
	}
	if r.waited.Valid {
		t.Waited.add(r.waited.Int64, 1)
	}
	if r.turnaround.Valid {
		t.Turnaround.add(r.turnaround.Int64, 1)
	}
	if r.worked.Valid {
		t.Worked.add(r.worked.Int64, 1)
		t.Busy += r.worked.Int64
	}
}

func (t *tally) merge(o tally) {
	t.Runs, t.Jobs, t.Failed, t.Busy = t.Runs+o.Runs, t.Jobs+o.Jobs, t.Failed+o.Failed, t.Busy+o.Busy
	t.Waited.merge(o.Waited)
	t.Turnaround.merge(o.Turnaround)
	t.Worked.merge(o.Worked)
	for word, n := range o.Conclusions {
		count(&t.Conclusions, word, n)
	}
	for reason, n := range o.Failures {
		count(&t.Failures, reason, n)
	}
}

func count(m *map[string]int, key string, n int) {
	if *m == nil {
		*m = map[string]int{}
	}
	if _, known := (*m)[key]; !known && len(*m) >= maxReasons {
		key = otherReason
	}
	(*m)[key] += n
}

// reasonOf is what failures of one kind have in common: no numbers, and not
// what differs from one to the next behind the second colon.
func reasonOf(failure string) string {
	parts := strings.SplitN(failure, ": ", 3)
	text := strings.Join(parts[:min(2, len(parts))], ": ")
	var b strings.Builder
	digit := false
	for _, r := range text {
		if r >= '0' && r <= '9' {
			if !digit {
				b.WriteByte('N')
			}
			digit = true
			continue
		}
		digit = false
		b.WriteRune(r)
	}
	words := []rune(b.String())
	return string(words[:min(len(words), 120)])
}

const hour = time.Hour

// Stats returns what the runs of a time amount to that ended in it. Of the
// query Pool, Since and Until count. It is exact to the millisecond in its
// bounds and counts, and to two hundredths in percentiles.
func (h *History) Stats(ctx context.Context, q api.RunQuery) (api.RunStats, error) {
	if q.Until.IsZero() {
		q.Until = time.Now()
	}
	q.Since, q.Until = q.Since.UTC(), q.Until.UTC()
	var sum tally
	err := h.with(ctx, func(ctx context.Context, db *sql.DB) error {
		tx, err := db.BeginTx(ctx, &sql.TxOptions{ReadOnly: true}) // one view of runs and hours
		if err != nil {
			return err
		}
		defer func() { _ = tx.Rollback() }()
		sum, err = sumUp(ctx, tx, q)
		return err
	})
	if err != nil {
		return api.RunStats{}, fmt.Errorf("cannot read the history: %w", err)
	}
	return sum.told(q.Since, q.Until), nil
}

// told returns what a tally amounts to.
func (t tally) told(since, until time.Time) api.RunStats {
	out := api.RunStats{
		Since: since, Until: until, Runs: t.Runs, Jobs: t.Jobs, Failed: t.Failed, Busy: float64(t.Busy) / 1000,
		Queue: t.Waited.told(), Turnaround: t.Turnaround.told(), Job: t.Worked.told(),
		Conclusions: map[string]int{}, Failures: []api.Failure{},
	}
	maps.Copy(out.Conclusions, t.Conclusions)
	for reason, n := range t.Failures {
		out.Failures = append(out.Failures, api.Failure{Reason: reason, Count: n})
	}
	slices.SortFunc(out.Failures, func(a, b api.Failure) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), strings.Compare(a.Reason, b.Reason))
	})
	return out
}

// sumUp takes whole hours from their sums, and the rest from the runs.
func sumUp(ctx context.Context, tx *sql.Tx, q api.RunQuery) (sum tally, err error) {
	until, err := summedUntil(ctx, tx)
	if err != nil {
		return sum, err
	}
	from := q.Since.Truncate(hour)
	if from.Before(q.Since) {
		from = from.Add(hour)
	}
	to := q.Until.Truncate(hour)
	if until.Before(to) {
		to = until
	}
	if !to.After(from) {
		return sum, addRuns(ctx, tx, &sum, q)
	}
	head, whole, tail := q, q, q
	head.Until, whole.Since, whole.Until, tail.Since = from, from, to, to
	if err := addRuns(ctx, tx, &sum, head); err != nil {
		return sum, err
	}
	if err := addRuns(ctx, tx, &sum, tail); err != nil {
		return sum, err
	}
	return sum, eachHour(ctx, tx, whole, func(_ int64, t tally) { sum.merge(t) })
}

// addRuns adds the runs that ended from Since on and before Until.
func addRuns(ctx context.Context, tx *sql.Tx, sum *tally, q api.RunQuery) error {
	return eachEnded(ctx, tx, q, func(r ended) { sum.add(r) })
}

func eachEnded(ctx context.Context, tx *sql.Tx, q api.RunQuery, do func(ended)) error {
	if !q.Until.After(q.Since) {
		return nil
	}
	rows, err := tx.QueryContext(ctx, `SELECT pool, ended, failed, failure, conclusion, busy IS NOT NULL, waited, turnaround, worked
		FROM runs WHERE ended >= ? AND ended < ? AND (? = '' OR pool = ?)`,
		q.Since.UnixMilli(), q.Until.UnixMilli(), q.Pool, q.Pool)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var r ended
		if err := rows.Scan(&r.pool, &r.ended, &r.failed, &r.failure, &r.conclusion, &r.job, &r.waited, &r.turnaround, &r.worked); err != nil {
			return err
		}
		do(r)
	}
	return rows.Err()
}
