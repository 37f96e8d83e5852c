package github

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/google/go-github/v82/github"

	"github.com/mirego/tasuki/internal/runner"
)

// unsaidPause is how long to leave GitHub alone when it says that we ask too
// much and not for how long. Source: docs.github.com, "Best practices for using
// the REST API".
const unsaidPause = time.Minute

// LimitError says that GitHub wants to be left alone for a while.
type LimitError struct {
	After time.Duration // from when the error was made; never negative
	What  string        // in GitHub's words
}

func (e *LimitError) Error() string {
	return fmt.Sprintf("GitHub asks to wait %s: %s", e.After.Round(time.Second), e.What)
}

// RetryAfter is how long no request shall be sent.
func (e *LimitError) RetryAfter() time.Duration { return e.After }

// explain turns an error of a request into one of ours, about what was to be
// done ("list the runners").
func (c *Client) explain(doing string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("cannot %s of %s: %w", doing, c.scope.name, c.meaning(err))
}

func (c *Client) meaning(err error) error {
	if limit := c.limit(err); limit != nil {
		return limit
	}
	res := reply(err)
	if res == nil {
		return err
	}
	what := words(err, res)
	switch res.StatusCode {
	case http.StatusUnauthorized:
		return fmt.Errorf("%w: %s: the token is wrong, has expired or was revoked", runner.ErrDenied, what)
	case http.StatusForbidden, http.StatusNotFound:
		if sso := res.Header.Get("X-GitHub-SSO"); sso != "" {
			return fmt.Errorf("%w: %s: the token is not authorised for single sign-on: %s", runner.ErrDenied, what, sso)
		}
		return fmt.Errorf("%w: %s: either there is no %s or the token may not manage its runners: %s",
			runner.ErrDenied, what, c.scope.name, c.scope.needs)
	}
	return errors.New(what)
}

// limit returns the pause that GitHub asks for, or nil.
func (c *Client) limit(err error) error {
	if e, ok := errors.AsType[*github.RateLimitError](err); ok {
		return &LimitError{max(0, e.Rate.Reset.Sub(c.now())), "the hour's requests are used up"}
	}
	if e, ok := errors.AsType[*github.AbuseRateLimitError](err); ok {
		pause := unsaidPause
		if e.RetryAfter != nil {
			pause = max(0, *e.RetryAfter)
		}
		return &LimitError{pause, cmp.Or(e.Message, "too many requests")}
	}
	res := reply(err)
	if res == nil {
		return nil
	}
	pause, said := c.pause(res)
	switch {
	case res.StatusCode == http.StatusTooManyRequests,
		said && (res.StatusCode == http.StatusForbidden || res.StatusCode == http.StatusServiceUnavailable):
		return &LimitError{pause, words(err, res)}
	}
	return nil
}

// pause reads the headers that say how long to wait.
func (c *Client) pause(res *http.Response) (_ time.Duration, said bool) {
	if after := res.Header.Get("Retry-After"); after != "" {
		if n, err := strconv.Atoi(after); err == nil {
			return max(0, time.Duration(n)*time.Second), true
		}
		if at, err := http.ParseTime(after); err == nil {
			return max(0, at.Sub(c.now())), true
		}
	}
	if res.Header.Get("X-Ratelimit-Remaining") == "0" {
		if n, err := strconv.ParseInt(res.Header.Get("X-Ratelimit-Reset"), 10, 64); err == nil {
			return max(0, time.Unix(n, 0).Sub(c.now())), true
		}
	}
	return unsaidPause, false
}

// status returns the HTTP status of an error's reply; 0: there was none.
func status(err error) int {
	if res := reply(err); res != nil {
		return res.StatusCode
	}
	return 0
}

func reply(err error) *http.Response {
	if e, ok := errors.AsType[*github.ErrorResponse](err); ok {
		return e.Response
	}
	if e, ok := errors.AsType[*github.TwoFactorAuthError](err); ok {
		return e.Response
	}
	return nil
}

// words is what GitHub said: its status and message. A page that is not of its
// API is not repeated.
func words(err error, res *http.Response) string {
	said := fmt.Sprintf("%d %s", res.StatusCode, http.StatusText(res.StatusCode))
	e, ok := errors.AsType[*github.ErrorResponse](err)
	if !ok || e.Message == "" {
		return said
	}
	said += ": " + strings.TrimSuffix(e.Message, ".")
	for _, detail := range e.Errors {
		if detail.Message != "" {
			said += "; " + detail.Message
		}
	}
	return said
}
