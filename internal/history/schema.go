package history

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// migrations make the file what this version wants, from what each earlier one
// left; PRAGMA user_version counts those that were made. They are added to and
// never changed.
var migrations = []string{`
CREATE TABLE runs (
	id         INTEGER PRIMARY KEY,
	runner     TEXT NOT NULL UNIQUE,
	host       TEXT NOT NULL,
	pool       TEXT NOT NULL,
	scope      TEXT NOT NULL,
	image      TEXT NOT NULL,
	slot       INTEGER NOT NULL,      -- from 0; -1: not known
	state      TEXT NOT NULL,
	failed     INTEGER NOT NULL,
	failure    TEXT NOT NULL,
	created    INTEGER NOT NULL,      -- this and all times: ms since 1970, UTC
	updated    INTEGER NOT NULL,
	ended      INTEGER,               -- NULL: it has not
	idle       INTEGER, busy INTEGER, done INTEGER,
	turnaround INTEGER,               -- this and the next two: ms
	waited     INTEGER,               -- of the job, from queued to started
	worked     INTEGER,
	job_id     INTEGER NOT NULL, job_name TEXT NOT NULL, repository TEXT NOT NULL, workflow TEXT NOT NULL,
	run_id     INTEGER NOT NULL, url TEXT NOT NULL, conclusion TEXT NOT NULL,
	queued     INTEGER, started INTEGER, completed INTEGER,
	steps      TEXT NOT NULL          -- JSON: [[state, start, end], ...]
);
CREATE INDEX runs_ended ON runs (ended);
CREATE INDEX runs_created ON runs (created);
CREATE INDEX runs_failed ON runs (created) WHERE (failed OR conclusion IN ('failure', 'timed_out', 'startup_failure'));
CREATE TABLE hours (
	hour INTEGER NOT NULL,            -- its beginning
	pool TEXT NOT NULL,
	sums TEXT NOT NULL,               -- JSON, a tally
	PRIMARY KEY (hour, pool)
) WITHOUT ROWID;
CREATE TABLE facts (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
`}

// errLater says that a later version has written the file.
var errLater = errors.New("it was written by a later version of this program")

// openFile opens a database and brings it to the present form.
func openFile(path string) (*sql.DB, error) {
	// SQLite gives its other files the mode of this one.
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(f.Chmod(0o600), f.Close()); err != nil {
		return nil, err
	}
	options := url.Values{"_pragma": {
		"auto_vacuum(INCREMENTAL)", "journal_mode(WAL)", "synchronous(NORMAL)", "busy_timeout(10000)", "journal_size_limit(16777216)",
	}, "_txlock": {"immediate"}}
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath(), RawQuery: options.Encode()}).String())
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(4)
	if err := migrate(db); err != nil {
		_ = db.Close()
		return nil, err
	}
	return db, nil
}

func migrate(db *sql.DB) error {
	ctx, cancel := context.WithTimeout(context.Background(), writeTimeout)
	defer cancel()
	var made int
	if err := db.QueryRowContext(ctx, "PRAGMA user_version").Scan(&made); err != nil {
		return err
	}
	if made > len(migrations) {
		return fmt.Errorf("%w (form %d, this one knows %d)", errLater, made, len(migrations))
	}
	for n := made; n < len(migrations); n++ {
		tx, err := db.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, migrations[n]+fmt.Sprintf("PRAGMA user_version = %d;", n+1))
		if err != nil {
			return errors.Join(fmt.Errorf("cannot bring it to form %d: %w", n+1, err), tx.Rollback())
		}
		if err := tx.Commit(); err != nil {
			return fmt.Errorf("cannot bring it to form %d: %w", n+1, err)
		}
	}
	return nil
}

// check looks for damage.
func check(db *sql.DB) error {
	ctx, cancel := context.WithTimeout(context.Background(), writeTimeout)
	defer cancel()
	var said string
	if err := db.QueryRowContext(ctx, "PRAGMA quick_check(1)").Scan(&said); err != nil {
		return err
	}
	if said != "ok" {
		return fmt.Errorf("%w: %s", errDamaged, said)
	}
	return nil
}

var errDamaged = errors.New("the file is damaged")

// interrupted says whether a look took too long: of a large file.
func interrupted(err error) bool {
	e, ok := errors.AsType[*sqlite.Error](err)
	return errors.Is(err, context.DeadlineExceeded) || ok && e.Code() == sqlite3.SQLITE_INTERRUPT
}

// damaged says whether an error means that the file itself is broken.
func damaged(err error) bool {
	if errors.Is(err, errDamaged) {
		return true
	}
	e, ok := errors.AsType[*sqlite.Error](err)
	if !ok {
		return false
	}
	code := e.Code() & 0xff // the rest says more
	return code == sqlite3.SQLITE_CORRUPT || code == sqlite3.SQLITE_NOTADB
}
