package history

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/mirego/tasuki/internal/runner"
)

// KeepHouse does at once what is done every few minutes.
func KeepHouse(h *History, now time.Time) error {
	ctx := context.Background()
	return errors.Join(h.sumHours(ctx, now), h.prune(ctx, now))
}

// ForgetSums forgets the sums of hours.
func ForgetSums(h *History) error {
	_, err := h.exec(context.Background(), "DELETE FROM hours; DELETE FROM facts")
	return err
}

// WriteAll writes records at once, past the queue.
func WriteAll(h *History, records []runner.Record) error {
	w := &History{path: h.path, opt: h.opt, db: h.db, hurt: h.hurt, pending: map[string]item{}}
	for i, r := range records {
		w.pending[r.Name] = item{host: "h", at: r.Since, record: r, slot: 0, turnaround: time.Duration(1+i%30) * time.Second}
		if len(w.pending) == 20_000 || i == len(records)-1 {
			if err := w.writeAll(context.Background()); err != nil {
				return err
			}
			clear(w.pending)
		}
	}
	return nil
}

// Hold keeps others from writing until it is released.
func Hold(h *History, held chan<- struct{}, release <-chan struct{}) {
	_ = h.with(context.Background(), func(ctx context.Context, db *sql.DB) error {
		tx, err := db.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		close(held)
		<-release
		return tx.Rollback()
	})
}
