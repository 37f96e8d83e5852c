package transfer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/mirego/tasuki/internal/image"
)

// ErrDenied says that the registry does not let this user, or nobody, do what
// was asked (401 or 403).
var ErrDenied = errors.New("the registry refuses this user")

// mostTagPages bounds how much of a long list Tags reads.
const mostTagPages = 50

// Is makes refusals ErrDenied.
func (e *statusError) Is(target error) bool {
	return target == ErrDenied && (e.code == http.StatusUnauthorized || e.code == http.StatusForbidden)
}

// Tags lists the tags of ref's repository, in the registry's order. The error
// wraps image.ErrNotInRegistry if there is no such repository.
func Tags(ctx context.Context, ref image.Ref, opt Options) ([]string, error) {
	opt = opt.withDefaults()
	fail := func(err error) ([]string, error) {
		return nil, fmt.Errorf("cannot list the tags of %s/%s: %w", ref.Registry(), ref.Name(), err)
	}
	c, err := newClient(ctx, ref, opt, scopePull)
	if err != nil {
		return fail(err)
	}
	defer c.close()
	var tags []string
	last := ""
	for range mostTagPages {
		page, more, err := c.tags(ctx, last)
		if err != nil {
			return fail(err)
		}
		tags = append(tags, page...)
		if !more || len(page) == 0 {
			break
		}
		last = page[len(page)-1]
	}
	return tags, nil
}

// tags fetches one page, from after last.
func (c *client) tags(ctx context.Context, last string) (page []string, more bool, err error) {
	err = c.retry(ctx, "tags", func(ctx context.Context) error {
		ctx, cancel := c.brief(ctx)
		defer cancel()
		query := url.Values{"n": {"1000"}}
		if last != "" {
			query.Set("last", last)
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.url("tags", "list")+"?"+query.Encode(), nil)
		if err != nil {
			return err
		}
		resp, err := c.do(req, http.StatusOK)
		if err != nil {
			return missing(err, c.ref)
		}
		defer resp.Body.Close()
		var answer struct {
			Tags []string `json:"tags"`
		}
		if err := json.NewDecoder(io.LimitReader(resp.Body, 8<<20)).Decode(&answer); err != nil {
			return &wireError{err}
		}
		page, more = answer.Tags, strings.Contains(resp.Header.Get("Link"), "next")
		return nil
	})
	return page, more, err
}
