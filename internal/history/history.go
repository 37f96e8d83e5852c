// Package history keeps what became of the runners of a host, and of their
// jobs, in one SQLite file.
//
// A run is the life of one runner with the job that it executed. Its row is
// written from events: each carries the whole record, so that the next event of
// a runner mends what a crash or a full queue lost. Events are taken without
// waiting and written in batches, by one goroutine; what finds no room is
// counted. Hours that are over are summed up in rows of their own, so that
// figures over months are read from some thousand rows, and stay when the runs
// themselves were pruned.
//
// Times are milliseconds since 1970, UTC, whatever the machine's zone. The file
// has mode 0600: it names repositories and jobs, and holds no secret. Nothing
// depends on it: a file that is damaged is moved aside, and a new one begun.
package history

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/mirego/tasuki/internal/event"
	"github.com/mirego/tasuki/internal/runner"
)

// The defaults of Options.
const (
	DefaultAge  = 90 * 24 * time.Hour
	DefaultSize = 1 << 30
)

const (
	// queued is how many events may wait for the disk before one is lost.
	queued = 4096
	// gather is how long events are gathered for one transaction.
	gather = 200 * time.Millisecond
	// keepHouse is how often hours are summed up and old runs pruned.
	keepHouse = 5 * time.Minute
	// writeTimeout bounds one transaction.
	writeTimeout = 30 * time.Second
)

// Options say how much is kept.
type Options struct {
	Age  time.Duration // of runs, and of the sums of hours; 0: DefaultAge
	Size int64         // of the file in bytes, roughly; 0: DefaultSize
	Log  *slog.Logger  // nil: slog.Default
}

// History is an event.Sink, and answers questions. Its methods may be called at
// the same time. One process at a time may use a file.
type History struct {
	path string
	opt  Options
	done chan struct{} // closed when the writer has ended
	stop context.CancelFunc

	take   sync.Mutex // guards what Emit uses
	slots  event.Slots
	queue  chan item
	closed bool
	lost   int64

	use  sync.RWMutex // held for writing while the file is replaced
	db   *sql.DB
	hurt chan struct{} // holds a value when a reader met damage

	// Of the writer's goroutine alone.
	pending map[string]item
	failing bool
}

// item is what an event says of one runner.
type item struct {
	host       string
	at         time.Time
	record     runner.Record
	slot       int           // -1: not known
	turnaround time.Duration // 0: the event ends none
}

// Open opens the file, or makes it, and begins to take events. A file that is
// damaged, or was written by a later version, is moved aside.
func Open(path string, opt Options) (*History, error) {
	opt.Age = cmp.Or(opt.Age, DefaultAge)
	opt.Size = cmp.Or(opt.Size, DefaultSize)
	if opt.Log == nil {
		opt.Log = slog.Default()
	}
	h := &History{
		path: path, opt: opt, done: make(chan struct{}), queue: make(chan item, queued),
		hurt: make(chan struct{}, 1), pending: map[string]item{},
	}
	if err := h.open(); err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	h.stop = stop
	go h.write(ctx)
	return h, nil
}

// open opens the file, and another in its place if it cannot be used.
func (h *History) open() error {
	db, err := openFile(h.path)
	if damaged(err) || errors.Is(err, errLater) {
		aside, moved := moveAside(h.path)
		if moved != nil {
			return fmt.Errorf("cannot move the damaged history aside: %w", moved)
		}
		h.opt.Log.Error("history could not be used; it was moved aside and a new one begins", "file", aside, "err", err)
		db, err = openFile(h.path)
	}
	if err != nil {
		return fmt.Errorf("cannot open the history %q: %w", h.path, err)
	}
	h.db = db
	return nil
}

// Emit implements event.Sink.
func (h *History) Emit(e event.Event) {
	h.take.Lock()
	defer h.take.Unlock()
	seat := h.slots.See(e)
	if e.Record == nil || e.Kind != event.RunnerMoved && e.Kind != event.RunnerJob {
		return
	}
	i := item{host: e.Host, at: e.Time, record: *e.Record, slot: seat.Slot, turnaround: seat.Turnaround}
	if h.closed {
		h.lost++
		return
	}
	select {
	case h.queue <- i:
	default:
		h.lost++
	}
}

// Lost returns how many events were not written since Open.
func (h *History) Lost() int64 {
	h.take.Lock()
	defer h.take.Unlock()
	return h.lost
}

// Close writes what was taken and closes the file.
func (h *History) Close() error {
	h.take.Lock()
	if !h.closed {
		h.closed = true
		close(h.queue)
	}
	h.take.Unlock()
	<-h.done
	h.stop()
	h.use.Lock()
	defer h.use.Unlock()
	if h.db == nil {
		return nil
	}
	err := h.db.Close()
	h.db = nil
	if err != nil {
		return fmt.Errorf("cannot close the history: %w", err)
	}
	return nil
}

// write is the writer's goroutine.
func (h *History) write(ctx context.Context) {
	defer close(h.done)
	house := time.NewTicker(keepHouse)
	defer house.Stop()
	h.keepHouse(ctx, time.Now())
	var flush <-chan time.Time
	for {
		select {
		case i, open := <-h.queue:
			if !open {
				if !h.flush(ctx) {
					h.take.Lock()
					h.lost += int64(len(h.pending))
					h.take.Unlock()
				}
				return
			}
			h.gather(i)
			if flush == nil {
				flush = time.After(gather)
			}
		case <-flush:
			if flush = nil; !h.flush(ctx) {
				flush = time.After(10 * time.Second)
			}
		case <-h.hurt:
			h.replace()
		case now := <-house.C:
			h.keepHouse(ctx, now)
		}
	}
}

// gather keeps the newest that is known of each runner until it is written.
func (h *History) gather(i item) {
	name := i.record.Name
	before, there := h.pending[name]
	if !there && len(h.pending) >= queued {
		h.take.Lock()
		h.lost++
		h.take.Unlock()
		return
	}
	i.turnaround = max(i.turnaround, before.turnaround)
	if there && i.slot < 0 {
		i.slot = before.slot
	}
	h.pending[name] = i
}

// flush writes what is gathered; false: it has to be tried again.
func (h *History) flush(ctx context.Context) bool {
	if len(h.pending) == 0 {
		return true
	}
	err := h.writeAll(ctx)
	if damaged(err) || errors.Is(err, errAway) {
		h.replace()
		err = h.writeAll(ctx)
	}
	switch {
	case err != nil && !h.failing:
		h.failing = true
		h.opt.Log.Error("history is not written", "file", h.path, "err", err)
	case err == nil && h.failing:
		h.failing = false
		h.opt.Log.Info("history is written again")
	}
	if err == nil {
		clear(h.pending)
	}
	return err == nil
}

// replace begins a new file in place of one that was found damaged, or of none.
func (h *History) replace() {
	h.use.Lock()
	defer h.use.Unlock()
	if h.db != nil {
		err := check(h.db)
		if !damaged(err) && !interrupted(err) { // by now it is another
			return
		}
		_ = h.db.Close()
		h.db = nil
		aside, moved := moveAside(h.path)
		if moved != nil {
			h.opt.Log.Error("damaged history cannot be moved aside", "file", h.path, "err", moved)
			return
		}
		h.opt.Log.Error("history is damaged; it was moved aside and a new one begins", "file", aside, "err", err)
	}
	if err := h.open(); err != nil {
		h.opt.Log.Error("history cannot be opened again", "file", h.path, "err", err)
	}
}

var errAway = errors.New("the history could not be replaced: see the agent's log")

// with lends the open file.
func (h *History) with(ctx context.Context, use func(context.Context, *sql.DB) error) error {
	h.use.RLock()
	defer h.use.RUnlock()
	if h.db == nil {
		return errAway
	}
	err := use(ctx, h.db)
	if damaged(err) {
		select {
		case h.hurt <- struct{}{}:
		default:
		}
	}
	return err
}

// moveAside gives the files of a database another name, and returns it.
func moveAside(path string) (string, error) {
	aside := path + ".damaged-" + time.Now().UTC().Format("20060102T150405Z")
	if err := os.Rename(path, aside); err != nil {
		return "", err
	}
	for _, suffix := range []string{"-wal", "-shm"} {
		_ = os.Rename(path+suffix, aside+suffix)
	}
	return aside, nil
}
