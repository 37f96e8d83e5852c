package console

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	// streamPace is how often a stream looks although nothing has happened: some
	// of what a page shows has no event.
	streamPace = time.Second
	// streamGap is the least time between two looks, so that a burst of events
	// costs a stream no more than this.
	streamGap = 80 * time.Millisecond
	// heartbeat is how long a stream is silent at most: a page that hears
	// nothing for longer knows that the way is broken.
	heartbeat = 10 * time.Second
	// writeTimeout is how long a reader may take over what it is sent.
	writeTimeout = 10 * time.Second
	// maxStreams bounds the streams of all sessions.
	maxStreams = 128
	// retryPause is what a browser waits before it comes back; pages add a
	// back-off of their own.
	retryPause = 2 * time.Second
)

// stream is one reader.
type stream struct {
	w    http.ResponseWriter
	rc   *http.ResponseController
	last time.Time // when something was sent
}

// openStream begins an answer of server-sent events.
func (c *Console) openStream(w http.ResponseWriter) (*stream, error) {
	if c.streams.Add(1) > maxStreams {
		c.streams.Add(-1)
		return nil, fmt.Errorf("%d pages are open: close some", maxStreams)
	}
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("X-Accel-Buffering", "no") // for a proxy before us
	s := &stream{w: w, rc: http.NewResponseController(w)}
	if err := s.write(fmt.Sprintf("retry: %d\n\n", retryPause.Milliseconds())); err != nil {
		c.streams.Add(-1)
		return nil, err
	}
	return s, nil
}

// send writes one message. Its data has no line end, as JSON has none.
func (s *stream) send(kind, id string, data any) error {
	b, err := json.Marshal(data)
	if err != nil {
		return err
	}
	var m strings.Builder
	if id != "" {
		m.WriteString("id: " + id + "\n")
	}
	m.WriteString("event: " + kind + "\ndata: " + string(b) + "\n\n")
	return s.write(m.String())
}

// write gives a reader some time, and no more.
func (s *stream) write(text string) error {
	if err := s.rc.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return err
	}
	if _, err := s.w.Write([]byte(text)); err != nil {
		return err
	}
	s.last = time.Now()
	return s.rc.Flush()
}

// beat sends a sign of life if nothing else was sent.
func (s *stream) beat() error {
	if time.Since(s.last) < heartbeat {
		return nil
	}
	return s.send("beat", "", time.Now().UnixMilli())
}

// view renders the parts of a page that change.
type view func(context.Context) (map[string]string, error)

// parts renders templates, each for the element of its name.
func (c *Console) parts(names []string, data any) (map[string]string, error) {
	out := map[string]string{}
	for _, name := range names {
		var b bytes.Buffer
		if err := c.still.ExecuteTemplate(&b, "part-"+name, data); err != nil {
			return nil, err
		}
		out[name] = b.String()
	}
	return out, nil
}

// live keeps an open page up to date.
func (c *Console) live(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	var see view
	switch q.Get("page") {
	case "now":
		see = c.nowView
	case "run":
		see = c.runView(q.Get("name"))
	case "images":
		see = c.imagesView()
	default:
		return fmt.Errorf("there is no stream of %q: %w", clip(q.Get("page"), 40), errBad)
	}
	s, err := c.openStream(w)
	if err != nil {
		return err
	}
	defer c.streams.Add(-1)
	f := follower{c: c, stream: s, see: see, lanes: q.Get("page") == "now", sent: map[string]string{}}
	if f.lanes {
		if f.window, err = windowOf(q.Get("window")); err != nil {
			f.window = time.Hour
		}
		// A page that comes back by itself, and not by its browser, says it in the query.
		f.resume(cmp.Or(r.Header.Get("Last-Event-ID"), q.Get("last")))
	}
	f.run(r.Context(), sessionOf(r))
	return nil
}

// follower is a stream of a page.
type follower struct {
	c      *Console
	stream *stream
	see    view
	lanes  bool
	window time.Duration
	seq    uint64            // the lanes up to here were sent
	sent   map[string]string // what each part was last
}

// resume goes on where a stream before this one ended, if this process made it.
func (f *follower) resume(id string) {
	born, seq, ok := strings.Cut(id, ".")
	if n, err := strconv.ParseUint(seq, 10, 64); ok && err == nil && born == f.c.born {
		f.seq = n
	}
}

// run sends what changes until the reader goes, the session ends, or ctx does.
func (f *follower) run(ctx context.Context, s *session) {
	tick := time.NewTicker(streamPace)
	defer tick.Stop()
	gap := time.NewTimer(0)
	defer gap.Stop()
	for {
		changed := f.c.opt.Feed.wait() // before the look: nothing falls between
		if !f.c.gate.goesOn(s, time.Now()) {
			_ = f.stream.send("over", "", "the session has ended")
			return
		}
		if err := f.update(ctx); err != nil {
			return
		}
		gap.Reset(streamGap)
		select {
		case <-gap.C:
		case <-ctx.Done():
			return
		}
		select {
		case <-changed:
		case <-tick.C:
		case <-s.ended:
		case <-ctx.Done():
			return
		}
	}
}

// update sends what is not as the reader knows it.
func (f *follower) update(ctx context.Context) error {
	if f.lanes {
		whole := f.seq == 0
		lanes, seq := f.c.opt.Feed.since(f.seq, time.Now().Add(-f.window))
		if whole || len(lanes) > 0 {
			id := f.c.born + "." + strconv.FormatUint(seq, 10)
			data := map[string]any{"now": time.Now().UnixMilli(), "whole": whole, "lanes": lanes}
			if err := f.stream.send("lanes", id, data); err != nil {
				return err
			}
			f.seq = max(seq, 1)
		}
	}
	parts, err := f.see(ctx)
	if err != nil {
		f.c.log.Warn("page is not kept up to date", "err", err)
		return err
	}
	news := map[string]string{}
	for name, text := range parts {
		if f.sent[name] != text {
			f.sent[name], news[name] = text, text
		}
	}
	if len(news) > 0 {
		return f.stream.send("parts", "", news)
	}
	return f.stream.beat()
}

// windowOf reads how much of the past a timeline shows.
func windowOf(text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if err != nil || d < time.Minute || d > feedAge {
		return 0, fmt.Errorf("cannot show the last %q: %w", clip(text, 20), errBad)
	}
	return d, nil
}
