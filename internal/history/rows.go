package history

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"time"

	"github.com/mirego/tasuki/internal/api"
	"github.com/mirego/tasuki/internal/runner"
)

// upsert writes a run, or what is newer of it. What only an earlier event knew
// stays: the slot, and the turnaround that it ended.
const upsert = `
INSERT INTO runs (runner, host, pool, scope, image, slot, state, failed, failure, created, updated, ended, idle, busy, done,
	turnaround, waited, worked, job_id, job_name, repository, workflow, run_id, url, conclusion, queued, started, completed, steps)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (runner) DO UPDATE SET
	host = excluded.host, pool = excluded.pool, scope = excluded.scope, image = excluded.image,
	slot = CASE WHEN runs.slot >= 0 THEN runs.slot ELSE excluded.slot END,
	state = excluded.state, failed = excluded.failed, failure = excluded.failure, updated = excluded.updated, ended = excluded.ended,
	idle = excluded.idle, busy = excluded.busy, done = excluded.done, turnaround = COALESCE(excluded.turnaround, runs.turnaround),
	waited = excluded.waited, worked = excluded.worked, job_id = excluded.job_id, job_name = excluded.job_name,
	repository = excluded.repository, workflow = excluded.workflow, run_id = excluded.run_id, url = excluded.url,
	conclusion = excluded.conclusion, queued = excluded.queued, started = excluded.started, completed = excluded.completed,
	steps = excluded.steps
WHERE excluded.updated >= runs.updated`

// latest is how late a run may be written and be in the sums of its hour.
const latest = 24 * time.Hour

// writeAll writes what is gathered in one transaction.
func (h *History) writeAll(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, writeTimeout, fmt.Errorf("it takes longer than %v", writeTimeout))
	defer cancel()
	return h.with(ctx, func(ctx context.Context, db *sql.DB) error {
		tx, err := db.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		defer func() { _ = tx.Rollback() }()
		stmt, err := tx.PrepareContext(ctx, upsert)
		if err != nil {
			return err
		}
		defer stmt.Close()
		oldest := time.Time{}
		for _, i := range h.pending {
			values, err := i.row()
			if err != nil {
				return err
			}
			if _, err := stmt.ExecContext(ctx, values...); err != nil {
				return err
			}
			if end := i.record.Since; i.record.State == runner.Gone && (oldest.IsZero() || end.Before(oldest)) {
				oldest = end
			}
		}
		if err := unsum(ctx, tx, oldest); err != nil {
			return err
		}
		return tx.Commit()
	})
}

// unsum lets the hours from a run's end on be summed up anew, if they were
// already: the run was written late, by a disk that took nothing for a while.
func unsum(ctx context.Context, tx *sql.Tx, end time.Time) error {
	if end.IsZero() {
		return nil
	}
	at := end.UTC().Truncate(hour)
	_, err := tx.ExecContext(ctx, "UPDATE facts SET value = ? WHERE name = ? AND value > ? AND value <= ?",
		at.UnixMilli(), summed, at.UnixMilli(), at.Add(latest).UnixMilli())
	return err
}

// row returns the values of upsert.
func (i item) row() ([]any, error) {
	r, j := i.record, i.record.Job
	steps, err := encode(r.Steps)
	if err != nil {
		return nil, fmt.Errorf("cannot write the steps of %q: %w", r.Name, err)
	}
	idle, busy, done := first(r, runner.Idle), first(r, runner.Busy), time.Time{}
	if !busy.IsZero() && r.State != runner.Busy {
		done = r.Last(runner.Busy)
	}
	created, ended := r.Created, time.Time{}
	if created.IsZero() {
		created = i.at
	}
	if r.State == runner.Gone {
		ended = r.Since
	}
	return []any{
		r.Name, i.host, r.Pool, r.Scope, r.Image, i.slot, string(r.State), r.Failed, r.Failure, created.UnixMilli(), i.at.UnixMilli(), ms(ended),
		ms(idle), ms(busy), ms(done), span(i.turnaround), between(j.Queued, j.Started), between(busy, done),
		j.ID, j.Name, j.Repository, j.Workflow, j.RunID, j.URL, j.Conclusion, ms(j.Queued), ms(j.Started), ms(j.Completed), steps,
	}, nil
}

// first returns when a runner came into a state first; zero: never.
func first(r runner.Record, state runner.State) time.Time {
	for _, v := range r.Steps {
		if v.State == state {
			return v.Start
		}
	}
	return time.Time{}
}

// ms is a time as it is stored; NULL for none.
func ms(t time.Time) sql.NullInt64 {
	return sql.NullInt64{Int64: t.UnixMilli(), Valid: !t.IsZero()}
}

func span(d time.Duration) sql.NullInt64 {
	return sql.NullInt64{Int64: d.Milliseconds(), Valid: d > 0}
}

// between is the time from one moment to another; NULL where one is not known.
func between(from, to time.Time) sql.NullInt64 {
	return sql.NullInt64{Int64: max(0, to.Sub(from).Milliseconds()), Valid: !from.IsZero() && !to.IsZero()}
}

func timeOf(v sql.NullInt64) time.Time {
	if !v.Valid {
		return time.Time{}
	}
	return time.UnixMilli(v.Int64).UTC()
}

// encode writes steps in a third of the room that their own form takes.
func encode(steps []runner.Visit) (string, error) {
	out := make([][3]any, 0, len(steps))
	for _, v := range steps {
		end := int64(0)
		if !v.End.IsZero() {
			end = v.End.UnixMilli()
		}
		out = append(out, [3]any{v.State, v.Start.UnixMilli(), end})
	}
	b, err := json.Marshal(out)
	return string(b), err
}

func decode(text string) ([]runner.Visit, error) {
	var rows [][3]json.RawMessage
	if err := json.Unmarshal([]byte(text), &rows); err != nil {
		return nil, err
	}
	var out []runner.Visit
	for _, row := range rows {
		var v runner.Visit
		var start, end int64
		for i, to := range []any{&v.State, &start, &end} {
			if err := json.Unmarshal(row[i], to); err != nil {
				return nil, err
			}
		}
		v.Start = time.UnixMilli(start).UTC()
		if end != 0 {
			v.End = time.UnixMilli(end).UTC()
		}
		out = append(out, v)
	}
	return out, nil
}

// Settle ends the runs that never did and that nobody keeps any more: their
// agent was killed, and what came last was lost. Call it with the runners that
// the journal names, before they change.
func (h *History) Settle(ctx context.Context, live []string) error {
	names, err := json.Marshal(append([]string{}, live...))
	if err != nil {
		return fmt.Errorf("cannot end lost runs: %w", err)
	}
	err = h.with(ctx, func(ctx context.Context, db *sql.DB) error {
		_, err := db.ExecContext(ctx,
			"UPDATE runs SET ended = updated WHERE ended IS NULL AND runner NOT IN (SELECT value FROM json_each(?))", string(names))
		return err
	})
	if err != nil {
		return fmt.Errorf("cannot end lost runs: %w", err)
	}
	return nil
}

const defaultLimit = 100

// Runs returns the runs that a query means, the latest first.
func (h *History) Runs(ctx context.Context, q api.RunQuery) ([]api.Run, error) {
	where, args := "WHERE 1", []any{}
	and := func(condition string, values ...any) {
		where += " AND " + condition
		args = append(args, values...)
	}
	if q.Runner != "" {
		and("runner = ?", q.Runner)
	}
	if q.Pool != "" {
		and("pool = ?", q.Pool)
	}
	if q.Conclusion != "" {
		and("conclusion = ?", q.Conclusion)
	}
	if q.Repository != "" {
		and("repository = ?", q.Repository)
	}
	if q.Failed {
		and("(failed OR conclusion IN ('failure', 'timed_out', 'startup_failure'))")
	}
	if q.Jobs {
		and("busy IS NOT NULL")
	}
	if !q.Since.IsZero() {
		and("(ended IS NULL OR ended >= ?)", q.Since.UnixMilli())
	}
	if !q.Until.IsZero() {
		and("created < ?", q.Until.UnixMilli())
	}
	limit := q.Limit
	if limit <= 0 {
		limit = defaultLimit
	}
	out := []api.Run{}
	err := h.with(ctx, func(ctx context.Context, db *sql.DB) error {
		rows, err := db.QueryContext(ctx, selectRuns+where+" ORDER BY created DESC LIMIT ?", append(args, limit)...)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			run, err := scan(rows)
			if err != nil {
				return err
			}
			out = append(out, run)
		}
		return rows.Err()
	})
	if err != nil {
		return nil, fmt.Errorf("cannot read the history: %w", err)
	}
	return out, nil
}

const selectRuns = `SELECT runner, host, pool, scope, image, slot, state, failed, failure, created, ended, idle, busy, done, turnaround,
	job_id, job_name, repository, workflow, run_id, url, conclusion, queued, started, completed, steps FROM runs `

func scan(rows *sql.Rows) (api.Run, error) {
	var r api.Run
	var steps string
	var created, ended, idle, busy, done, turnaround, queued, started, completed sql.NullInt64
	err := rows.Scan(&r.Runner, &r.Host, &r.Pool, &r.Scope, &r.Image, &r.Slot, &r.State, &r.Failed, &r.Failure,
		&created, &ended, &idle, &busy, &done, &turnaround, &r.Job.ID, &r.Job.Name, &r.Job.Repository, &r.Job.Workflow,
		&r.Job.RunID, &r.Job.URL, &r.Job.Conclusion, &queued, &started, &completed, &steps)
	if err != nil {
		return r, err
	}
	r.Created, r.Ended, r.Idle, r.Busy, r.Done = timeOf(created), timeOf(ended), timeOf(idle), timeOf(busy), timeOf(done)
	r.Job.Queued, r.Job.Started, r.Job.Completed = timeOf(queued), timeOf(started), timeOf(completed)
	r.Turnaround = float64(turnaround.Int64) / 1000
	if r.Steps, err = decode(steps); err != nil {
		return r, fmt.Errorf("the steps of %q are unreadable: %w", r.Runner, err)
	}
	return r, nil
}
