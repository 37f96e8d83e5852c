package history

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/mirego/tasuki/internal/api"
)

// maxSteps bounds the answer of Series.
const maxSteps = 1000

// Series returns what Stats does, for each step of the time from Since to
// Until, which must be given; the last step may be cut short. Where Since and
// the step are whole hours it is read from the sums of hours.
func (h *History) Series(ctx context.Context, q api.RunQuery, step time.Duration) ([]api.RunStats, error) {
	q.Since, q.Until = q.Since.UTC(), q.Until.UTC()
	if step < time.Second || !q.Until.After(q.Since) || q.Until.Sub(q.Since)/step >= maxSteps {
		return nil, fmt.Errorf("cannot read the history from %v to %v in steps of %v: at most %d steps", q.Since, q.Until, step, maxSteps)
	}
	sums := make([]tally, (q.Until.Sub(q.Since)+step-1)/step)
	err := h.with(ctx, func(ctx context.Context, db *sql.DB) error {
		tx, err := db.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
		if err != nil {
			return err
		}
		defer func() { _ = tx.Rollback() }()
		return sumUpSteps(ctx, tx, q, step, sums)
	})
	if err != nil {
		return nil, fmt.Errorf("cannot read the history: %w", err)
	}
	out := make([]api.RunStats, len(sums))
	for i, sum := range sums {
		since := q.Since.Add(time.Duration(i) * step)
		until := since.Add(step)
		if until.After(q.Until) {
			until = q.Until
		}
		out[i] = sum.told(since, until)
	}
	return out, nil
}

// sumUpSteps takes hours from their sums where steps are made of them, and the
// rest from the runs.
func sumUpSteps(ctx context.Context, tx *sql.Tx, q api.RunQuery, step time.Duration, sums []tally) error {
	at := func(ms int64) *tally { return &sums[int(time.UnixMilli(ms).Sub(q.Since)/step)] }
	rest := q
	if step%hour == 0 && q.Since.Equal(q.Since.Truncate(hour)) {
		until, err := summedUntil(ctx, tx)
		if err != nil {
			return err
		}
		to := q.Until.Truncate(hour)
		if until.Before(to) {
			to = until
		}
		if to.After(q.Since) {
			rest.Since = to
			err := eachHour(ctx, tx, api.RunQuery{Pool: q.Pool, Since: q.Since, Until: to}, func(ms int64, t tally) { at(ms).merge(t) })
			if err != nil {
				return err
			}
		}
	}
	return eachEnded(ctx, tx, rest, func(r ended) { at(r.ended).add(r) })
}

// eachHour calls do for the sums of the hours that begin in a time.
func eachHour(ctx context.Context, tx *sql.Tx, q api.RunQuery, do func(ms int64, t tally)) error {
	rows, err := tx.QueryContext(ctx, "SELECT hour, sums FROM hours WHERE hour >= ? AND hour < ? AND (? = '' OR pool = ?)",
		q.Since.UnixMilli(), q.Until.UnixMilli(), q.Pool, q.Pool)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var ms int64
		var text sql.RawBytes
		var t tally
		if err := rows.Scan(&ms, &text); err != nil {
			return err
		}
		if err := json.Unmarshal(text, &t); err != nil {
			return errors.Join(errSpread, err)
		}
		do(ms, t)
	}
	return rows.Err()
}
