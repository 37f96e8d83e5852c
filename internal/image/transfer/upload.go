package transfer

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
)

// has asks whether the registry has a blob.
func (c *client) has(ctx context.Context, digest string) (bool, error) {
	found := false
	err := c.retry(ctx, "look", func(ctx context.Context) error {
		ctx, cancel := c.brief(ctx)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodHead, c.url("blobs", digest), nil)
		if err != nil {
			return err
		}
		resp, err := c.do(req, http.StatusOK, http.StatusNotFound)
		if err != nil {
			return err
		}
		found = resp.StatusCode == http.StatusOK
		return resp.Body.Close()
	})
	return found, err
}

// blobSource is something to upload: it can be opened again for another try.
type blobSource struct {
	digest string
	size   int64
	open   func() (io.ReadCloser, error)
}

// upload sends a blob unless the registry has it.
func (c *client) upload(ctx context.Context, b blobSource) error {
	found, err := c.has(ctx, b.digest)
	if err != nil || found {
		return err
	}
	return c.retry(ctx, "upload", func(ctx context.Context) error { return c.uploadOnce(ctx, b) })
}

// session asks where the bytes of a blob are to be sent.
func (c *client) session(ctx context.Context, digest string) (to string, err error) {
	ctx, cancel := c.brief(ctx)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url("blobs", "uploads")+"/", nil)
	if err != nil {
		return "", err
	}
	resp, err := c.do(req, http.StatusAccepted)
	if err != nil {
		return "", err
	}
	_ = resp.Body.Close()
	return uploadURL(resp, digest)
}

func (c *client) uploadOnce(ctx context.Context, b blobSource) error {
	to, err := c.session(ctx, b.digest)
	if err != nil {
		return err
	}
	body, err := b.open()
	if err != nil {
		return err
	}
	// Once it has all bytes, the registry verifies and syncs them.
	ctx, dog := newWatchdog(ctx, 2*c.opt.Stall)
	defer dog.stop()
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, to, &watchedBody{body, ctx, dog, c.opt.Limit})
	if err != nil {
		_ = body.Close()
		return err
	}
	req.ContentLength = b.size
	if b.size == 0 {
		req.Body = http.NoBody
	}
	req.Header.Set("Content-Type", "application/octet-stream")
	resp, err := c.do(req, http.StatusCreated)
	if err != nil {
		return dog.explain(err)
	}
	return resp.Body.Close()
}

// uploadURL is where the registry wants the bytes of a blob.
func uploadURL(resp *http.Response, digest string) (string, error) {
	to, err := resp.Location()
	if err != nil {
		return "", fmt.Errorf("registry did not say where to upload to: %w", err)
	}
	q, err := url.ParseQuery(to.RawQuery)
	if err != nil {
		return "", fmt.Errorf("registry said to upload to %q: %w", to, err)
	}
	q.Set("digest", digest)
	to.RawQuery = q.Encode()
	return to.String(), nil
}

// mount makes a blob of another repository of the same registry one of ours,
// without moving it. It reports false where the registry does not do that.
func (c *client) mount(ctx context.Context, digest, from string) (mounted bool, err error) {
	err = c.retry(ctx, "mount", func(ctx context.Context) error {
		ctx, cancel := c.brief(ctx)
		defer cancel()
		q := url.Values{"mount": {digest}, "from": {from}}
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url("blobs", "uploads")+"/?"+q.Encode(), nil)
		if err != nil {
			return err
		}
		resp, err := c.do(req, http.StatusCreated, http.StatusAccepted)
		if err != nil {
			return err
		}
		mounted = resp.StatusCode == http.StatusCreated
		return resp.Body.Close()
	})
	return mounted, err
}
