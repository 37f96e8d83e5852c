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

const (
	// settled is how long after its end an hour is summed up: what is learned of
	// a job comes a little later than its end.
	settled = 10 * time.Minute
	// summed is the fact up to when hours are summed up.
	summed = "summed_until"
	// pruneChunk is how many runs are deleted at once, so that readers and the
	// writer are not held up.
	pruneChunk = 2000
)

// keepHouse sums up hours that are over and deletes what is too old or too
// much.
func (h *History) keepHouse(ctx context.Context, now time.Time) {
	err := errors.Join(h.sumHours(ctx, now), h.prune(ctx, now))
	if damaged(err) {
		h.replace()
	}
	if err != nil {
		h.opt.Log.Warn("history was not tidied up", "err", err)
	}
}

// summedUntil returns the end of the last hour that was summed up; zero time:
// none was.
func summedUntil(ctx context.Context, tx *sql.Tx) (time.Time, error) {
	var at int64
	err := tx.QueryRowContext(ctx, "SELECT value FROM facts WHERE name = ?", summed).Scan(&at)
	if errors.Is(err, sql.ErrNoRows) {
		return time.Time{}, nil
	}
	return time.UnixMilli(at).UTC(), err
}

// sumHours sums up the hours that are over and were not yet, a day at a time.
func (h *History) sumHours(ctx context.Context, now time.Time) error {
	for ctx.Err() == nil {
		more, err := h.sumDay(ctx, now.UTC().Add(-settled).Truncate(hour))
		if err != nil {
			return fmt.Errorf("cannot sum up hours: %w", err)
		}
		if !more {
			break
		}
	}
	return nil
}

// sumDay sums up hours before until, a day's at most, and says whether there
// may be more.
func (h *History) sumDay(ctx context.Context, until time.Time) (more bool, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, writeTimeout, fmt.Errorf("it takes longer than %v", writeTimeout))
	defer cancel()
	err = h.with(ctx, func(ctx context.Context, db *sql.DB) error {
		tx, err := db.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		defer func() { _ = tx.Rollback() }()
		from, err := summedUntil(ctx, tx)
		if err != nil {
			return err
		}
		// What ended before the first run that is left is summed up or gone.
		var oldest sql.NullInt64
		if err := tx.QueryRowContext(ctx, "SELECT min(ended) FROM runs WHERE ended >= ?", ms(from).Int64).Scan(&oldest); err != nil {
			return err
		}
		if first := timeOf(oldest).Truncate(hour); oldest.Valid && first.After(from) {
			from = first
		}
		if !oldest.Valid || !from.Before(until) {
			return setFact(ctx, tx, summed, until)
		}
		to := from.Add(24 * time.Hour)
		if to.After(until) {
			to = until
		}
		more = to.Before(until)
		if err := sumRange(ctx, tx, from, to); err != nil {
			return err
		}
		return setFact(ctx, tx, summed, to)
	})
	return more, err
}

// setFact writes a time down, and ends the transaction. It never goes back.
func setFact(ctx context.Context, tx *sql.Tx, name string, at time.Time) error {
	_, err := tx.ExecContext(ctx, "INSERT INTO facts VALUES (?, ?) ON CONFLICT DO UPDATE SET value = max(value, excluded.value)", name, at.UnixMilli())
	if err != nil {
		return err
	}
	return tx.Commit()
}

// sumRange writes the sums of the hours from one to another.
func sumRange(ctx context.Context, tx *sql.Tx, from, to time.Time) error {
	type key struct {
		hour int64
		pool string
	}
	sums := map[key]*tally{}
	err := eachEnded(ctx, tx, api.RunQuery{Since: from, Until: to}, func(r ended) {
		at := key{time.UnixMilli(r.ended).UTC().Truncate(hour).UnixMilli(), r.pool}
		if sums[at] == nil {
			sums[at] = &tally{}
		}
		sums[at].add(r)
	})
	if err != nil {
		return err
	}
	for at, t := range sums {
		b, err := json.Marshal(t)
		if err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, "INSERT OR REPLACE INTO hours VALUES (?, ?, ?)", at.hour, at.pool, string(b)); err != nil {
			return err
		}
	}
	return nil
}

// prune deletes what is older than the history's age, and the oldest runs while
// the file is larger than it may be. Runs of hours that are not summed up go
// last.
func (h *History) prune(ctx context.Context, now time.Time) error {
	oldest := now.Add(-h.opt.Age).Truncate(hour).UnixMilli() // runs and sums of the same hours
	for ctx.Err() == nil {
		deleted, err := h.exec(ctx, "DELETE FROM runs WHERE id IN (SELECT id FROM runs WHERE ended < ? ORDER BY ended LIMIT ?)", oldest, pruneChunk)
		if err != nil {
			return fmt.Errorf("cannot prune the history: %w", err)
		}
		if deleted < pruneChunk {
			break
		}
	}
	if _, err := h.exec(ctx, "DELETE FROM hours WHERE hour < ?", oldest); err != nil {
		return fmt.Errorf("cannot prune the history: %w", err)
	}
	for ctx.Err() == nil {
		if _, err := h.exec(ctx, "PRAGMA incremental_vacuum"); err != nil {
			return fmt.Errorf("cannot shrink the history: %w", err)
		}
		size, err := h.size(ctx)
		if err != nil || size <= h.opt.Size {
			return err
		}
		deleted, err := h.exec(ctx, "DELETE FROM runs WHERE id IN (SELECT id FROM runs WHERE ended IS NOT NULL ORDER BY ended LIMIT ?)", pruneChunk)
		if err != nil || deleted == 0 {
			return err
		}
	}
	return nil
}

func (h *History) exec(ctx context.Context, statement string, args ...any) (changed int64, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, writeTimeout, fmt.Errorf("it takes longer than %v", writeTimeout))
	defer cancel()
	err = h.with(ctx, func(ctx context.Context, db *sql.DB) error {
		res, err := db.ExecContext(ctx, statement, args...)
		if err == nil {
			changed, err = res.RowsAffected()
		}
		return err
	})
	return changed, err
}

// size returns how much of the file is used, in bytes.
func (h *History) size(ctx context.Context) (size int64, err error) {
	err = h.with(ctx, func(ctx context.Context, db *sql.DB) error {
		return db.QueryRowContext(ctx, `SELECT (page_count - freelist_count) * page_size
			FROM pragma_page_count, pragma_freelist_count, pragma_page_size`).Scan(&size)
	})
	return size, err
}
