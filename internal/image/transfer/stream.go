package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/mirego/tasuki/internal/image/tartfmt"
)

// watchdog ends a request on whose connection nothing happens.
type watchdog struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	timer  *time.Timer
	limit  time.Duration
}

func newWatchdog(ctx context.Context, limit time.Duration) (context.Context, *watchdog) {
	ctx, cancel := context.WithCancelCause(ctx)
	w := &watchdog{ctx: ctx, cancel: cancel, limit: limit}
	w.timer = time.AfterFunc(limit, func() { cancel(errStalled) })
	return ctx, w
}

// watch gives what comes next the full limit again.
func (w *watchdog) watch() { w.timer.Reset(w.limit) }

// rest suspends the watch while we are the ones who are busy.
func (w *watchdog) rest() { w.timer.Stop() }

func (w *watchdog) stop() {
	w.timer.Stop()
	w.cancel(nil)
}

// explain names the stall as the cause of an error, if it is.
func (w *watchdog) explain(err error) error {
	if errors.Is(context.Cause(w.ctx), errStalled) {
		return &wireError{errStalled}
	}
	return err
}

// watchedBody is a request's body whose reading proves that it is being sent.
type watchedBody struct {
	io.ReadCloser
	ctx   context.Context
	dog   *watchdog
	limit *Limiter
}

func (b *watchedBody) Read(p []byte) (int, error) {
	b.dog.rest()
	n, err := b.ReadCloser.Read(p)
	if limitErr := b.limit.wait(b.ctx, n); limitErr != nil {
		return n, limitErr
	}
	b.dog.watch()
	return n, err
}

// enoughProgress is how much must arrive for a stream's failures to be forgiven.
const enoughProgress = 256 << 10

// stream reads one blob and reconnects where a connection was cut, going on
// from the byte that comes next. It does not verify the digest.
type stream struct {
	c    *client
	ctx  context.Context
	desc tartfmt.Descriptor
	off  int64 // bytes delivered

	body  io.ReadCloser
	dog   *watchdog
	fails int
	since int64 // off at the last failure
}

func (c *client) stream(ctx context.Context, d tartfmt.Descriptor) *stream {
	return &stream{c: c, ctx: ctx, desc: d}
}

// Read implements io.Reader. Its errors are final.
func (s *stream) Read(p []byte) (int, error) {
	for s.off < s.desc.Size {
		if s.body == nil {
			if err := s.connect(); err != nil {
				if err := s.failed(err); err != nil {
					return 0, err
				}
				continue
			}
		}
		s.dog.watch()
		n, err := s.body.Read(p[:min(int64(len(p)), s.desc.Size-s.off)])
		s.dog.rest()
		s.off += int64(n)
		if limitErr := s.c.opt.Limit.wait(s.ctx, n); limitErr != nil {
			return n, limitErr
		}
		if err != nil && s.off < s.desc.Size {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			err = s.dog.explain(&wireError{fmt.Errorf("connection was cut after %d of %d bytes: %w", s.off, s.desc.Size, err)})
			s.Close()
			if err := s.failed(err); err != nil {
				return n, err
			}
		}
		if n > 0 {
			return n, nil
		}
	}
	return 0, io.EOF
}

// failed counts a failure and waits, or returns the error if it is the last.
// A blob of the wrong length is for the caller to start anew.
func (s *stream) failed(err error) error {
	if _, ok := errors.AsType[*corruptError](err); ok {
		return err
	}
	if s.off-s.since >= enoughProgress {
		s.fails = 0
	}
	s.since = s.off
	s.fails++
	return s.c.pause(s.ctx, "blob", s.fails, err)
}

func (s *stream) connect() error {
	ctx, dog := newWatchdog(s.ctx, 2*s.c.opt.Stall)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.c.url("blobs", s.desc.Digest), nil)
	if err != nil {
		dog.stop()
		return err
	}
	want := http.StatusOK
	if s.off > 0 {
		want = http.StatusPartialContent
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", s.off))
	}
	resp, err := s.c.do(req, want, http.StatusOK)
	if err != nil {
		err = dog.explain(err)
		dog.stop()
		return err
	}
	s.body, s.dog = resp.Body, dog
	skip := int64(0)
	if resp.StatusCode == http.StatusOK {
		skip = s.off // the registry does not know ranges and begins anew
	}
	if left := resp.ContentLength; left >= 0 && left != s.desc.Size-s.off+skip {
		s.Close()
		return &corruptError{fmt.Errorf("blob %s has %d bytes in the registry, not %d", s.desc.Digest, left+s.off-skip, s.desc.Size)}
	}
	if _, err := io.CopyN(io.Discard, s.body, skip); err != nil {
		s.Close()
		return &wireError{err}
	}
	return nil
}

// Close drops the connection.
func (s *stream) Close() {
	if s.body == nil {
		return
	}
	_ = s.body.Close()
	s.dog.stop()
	s.body, s.dog = nil, nil
}
