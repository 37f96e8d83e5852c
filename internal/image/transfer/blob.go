package transfer

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/mirego/tasuki/internal/image/tartfmt"
)

// corruptTries is how often a blob is fetched anew because it arrived damaged.
const corruptTries = 3

// fetch reads a blob through sink and verifies its digest. Where the blob is
// damaged, or its stream fails in a way that a new start may mend, it begins
// again; begin is called before each attempt (n from 1). Errors of the sink
// itself are final unless they wrap tartfmt.ErrCorrupt.
func (c *client) fetch(ctx context.Context, m *meter, d tartfmt.Descriptor, begin func(n int) error, sink func(io.Reader) error) error {
	for n := 1; ; n++ {
		if err := begin(n); err != nil {
			return err
		}
		err := c.fetchOnce(ctx, m, d, sink)
		if err == nil {
			return nil
		}
		if _, corrupt := errors.AsType[*corruptError](err); !corrupt || n >= corruptTries {
			return err
		}
		if err := c.pause(ctx, "blob", n, err); err != nil {
			return err
		}
	}
}

func (c *client) fetchOnce(ctx context.Context, m *meter, d tartfmt.Descriptor, sink func(io.Reader) error) (err error) {
	s := c.stream(ctx, d)
	defer s.Close()
	defer func() {
		if err != nil {
			m.add(-s.off)
		}
	}()
	sum := sha256.New()
	in := io.TeeReader(s, io.MultiWriter(sum, counter{m}))
	if err := sink(in); err != nil {
		if errors.Is(err, tartfmt.ErrCorrupt) {
			return &corruptError{fmt.Errorf("blob %s: %w", d.Digest, err)}
		}
		return err
	}
	if _, err := io.Copy(io.Discard, in); err != nil { // what the sink left counts for the digest
		return err
	}
	if got := fmt.Sprintf("sha256:%x", sum.Sum(nil)); got != d.Digest {
		return &corruptError{fmt.Errorf("blob %s arrived with the digest %s", d.Digest, got)}
	}
	return nil
}

// counter is a writer that only counts.
type counter struct{ m *meter }

func (c counter) Write(p []byte) (int, error) {
	c.m.add(int64(len(p)))
	return len(p), nil
}

// fetchBytes reads a small blob whole.
func (c *client) fetchBytes(ctx context.Context, m *meter, d tartfmt.Descriptor, limit int64) ([]byte, error) {
	if d.Size > limit {
		return nil, fmt.Errorf("blob %s of type %q has %d bytes, more than %d", d.Digest, d.MediaType, d.Size, limit)
	}
	m.grow(d.Size)
	var b []byte
	err := c.fetch(ctx, m, d, func(int) error { return nil }, func(r io.Reader) (err error) {
		b, err = io.ReadAll(r)
		return err
	})
	return b, err
}

// fetchFile writes a blob to path; the file is there only if it is right.
func (c *client) fetchFile(ctx context.Context, m *meter, d tartfmt.Descriptor, path string) (err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, f.Close())
		if err != nil {
			_ = os.Remove(path)
		}
	}()
	m.grow(d.Size)
	begin := func(int) error {
		_, seekErr := f.Seek(0, io.SeekStart)
		return errors.Join(seekErr, f.Truncate(0))
	}
	return c.fetch(ctx, m, d, begin, func(r io.Reader) error {
		_, err := io.Copy(f, r)
		return err
	})
}
