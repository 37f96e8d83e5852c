package runnerdist

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/mirego/tasuki/internal/runner"
)

const (
	// maxArchive bounds an archive in bytes: releases have some 200 MB.
	maxArchive = 2 << 30
	// maxRedirects bounds the way to an archive; GitHub's has one.
	maxRedirects = 5
)

// fetch brings an archive into partial/, whole and with the right checksum,
// going on with what is there. It returns when the archive was published.
func (c *Cache) fetch(ctx context.Context, d runner.Download) (time.Time, error) {
	path := c.partial(d)
	have, err := sizeOf(path)
	if err != nil {
		return time.Time{}, err
	}
	published, err := c.download(ctx, d, path, have)
	if err != nil {
		if errors.Is(err, syscall.ENOSPC) {
			_ = os.Remove(path) // so that others have room
			err = fmt.Errorf("the disk is full: %w", err)
		}
		return time.Time{}, err
	}
	sum, err := sumOf(path)
	if err != nil {
		return time.Time{}, err
	}
	if sum != d.SHA256 {
		_ = os.Remove(path)
		return time.Time{}, fmt.Errorf("wrong checksum: GitHub says %s and the archive has %s", d.SHA256, sum)
	}
	return published, nil
}

// download appends to the file what it lacks.
func (c *Cache) download(ctx context.Context, d runner.Download, path string, have int64) (_ time.Time, err error) {
	ctx, cut := context.WithCancelCause(ctx)
	defer cut(nil)
	res, err := c.get(ctx, d, have)
	if err != nil {
		return time.Time{}, err
	}
	defer res.Body.Close()
	published := time.Now().UTC()
	if at, err := http.ParseTime(res.Header.Get("Last-Modified")); err == nil && at.Before(published) {
		published = at.UTC()
	}
	switch {
	case res.StatusCode == http.StatusOK:
		have = 0 // a server without ranges
	case res.StatusCode == http.StatusPartialContent && startsAt(res, have):
	case res.StatusCode == http.StatusPartialContent:
		_ = os.Remove(path)
		return time.Time{}, fmt.Errorf("%s gave another part than the one from byte %d", res.Request.URL.Host, have)
	case res.StatusCode == http.StatusRequestedRangeNotSatisfiable && have > 0:
		// Nothing is left to bring, or what is here is of something else: the
		// checksum tells.
		return published, nil
	default:
		return time.Time{}, refusal(res)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return time.Time{}, err
	}
	defer func() {
		if closed := f.Close(); err == nil {
			err = closed
		}
	}()
	if err := f.Truncate(have); err != nil {
		return time.Time{}, err
	}
	if _, err := f.Seek(have, io.SeekStart); err != nil {
		return time.Time{}, err
	}
	body := newPatient(res.Body, c.opt.Stall, cut)
	defer body.timer.Stop()
	got, err := io.Copy(f, io.LimitReader(body, maxArchive-have))
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return time.Time{}, fmt.Errorf("the download ended after %d bytes: %w", have+got, err)
	}
	if res.ContentLength >= 0 && got != res.ContentLength {
		return time.Time{}, fmt.Errorf("the download ended after %d bytes of %d", have+got, have+res.ContentLength)
	}
	return published, f.Sync()
}

// get asks for the archive from a byte on. The token goes to the address that
// GitHub gave with it, and net/http does not carry it to another host.
func (c *Cache) get(ctx context.Context, d runner.Download, from int64) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, d.URL, nil)
	if err != nil {
		return nil, errors.New("its address cannot be used")
	}
	if !d.Token.Empty() {
		req.Header.Set("Authorization", "Bearer "+d.Token.Reveal())
	}
	if from > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", from))
	}
	res, err := c.http.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if ue, ok := errors.AsType[*url.Error](err); ok {
			err = ue.Err // its address may be signed
		}
		return nil, fmt.Errorf("%s does not give it: %w", req.URL.Host, err)
	}
	return res, nil
}

// startsAt says whether a part begins where it was asked for.
func startsAt(res *http.Response, from int64) bool {
	return strings.HasPrefix(res.Header.Get("Content-Range"), fmt.Sprintf("bytes %d-", from))
}

func refusal(res *http.Response) error {
	host := res.Request.URL.Host
	switch res.StatusCode {
	case http.StatusNotFound:
		return fmt.Errorf("%s does not have it (404)", host)
	case http.StatusUnauthorized, http.StatusForbidden:
		return fmt.Errorf("%s refuses it (%d)", host, res.StatusCode)
	}
	return fmt.Errorf("%s answered %s", host, res.Status)
}

// onlySafe is the policy for redirects.
func onlySafe(req *http.Request, via []*http.Request) error {
	if len(via) >= maxRedirects {
		return fmt.Errorf("more than %d redirects", maxRedirects)
	}
	return safe(req.URL.String())
}

// safe refuses addresses over which others could read a token, or keep an
// archive back: plain http is for this very machine only.
func safe(address string) error {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" {
		return errors.New("its address cannot be used")
	}
	ip := net.ParseIP(u.Hostname())
	if u.Scheme == "https" || u.Scheme == "http" && (u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()) {
		return nil
	}
	return fmt.Errorf("its address at %s is not https", u.Host)
}

// patient reads from a body and gives it up when it brings nothing for a while.
type patient struct {
	body  io.Reader
	stall time.Duration
	timer *time.Timer
}

func newPatient(body io.Reader, stall time.Duration, cut context.CancelCauseFunc) *patient {
	return &patient{body, stall, time.AfterFunc(stall, func() { cut(fmt.Errorf("nothing came for %v", stall)) })}
}

func (p *patient) Read(b []byte) (int, error) {
	n, err := p.body.Read(b)
	if n > 0 && err == nil {
		p.timer.Reset(p.stall)
	}
	return n, err
}
