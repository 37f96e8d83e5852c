package transfer

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/mirego/tasuki/internal/image"
)

// mostRetryAfter is the longest pause that a registry can ask us for.
const mostRetryAfter = 5 * time.Minute

var errStalled = errors.New("the registry sent nothing for too long")

// wireError is a failure of the connection; another try may help.
type wireError struct{ err error }

func (e *wireError) Error() string { return e.err.Error() }
func (e *wireError) Unwrap() error { return e.err }

// corruptError says that what arrived is not what the manifest names. Another
// try helps if the damage was done on the way.
type corruptError struct{ err error }

func (e *corruptError) Error() string { return e.err.Error() }
func (e *corruptError) Unwrap() error { return e.err }

// statusError is an answer that we did not want.
type statusError struct {
	method, path string
	code         int
	text         string
	retryAfter   time.Duration
}

func (e *statusError) Error() string {
	s := fmt.Sprintf("registry answered %d %s", e.code, http.StatusText(e.code))
	if e.method != "" {
		s += fmt.Sprintf(" to %s %s", e.method, e.path)
	}
	if e.text != "" {
		s += ": " + e.text
	}
	if e.code == http.StatusUnauthorized || e.code == http.StatusForbidden {
		s += "; check the user name and password (registries in the configuration), and that this user may read or write the repository"
	}
	return s
}

// RetryAfter is how long the registry wants to be left alone; 0: it did not say.
func (e *statusError) RetryAfter() time.Duration { return e.retryAfter }

func newStatusError(req *http.Request, resp *http.Response) *statusError {
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 8<<10))
	return &statusError{
		method: req.Method, path: req.URL.Path, code: resp.StatusCode,
		text: errorText(body), retryAfter: parseRetryAfter(resp.Header),
	}
}

// errorText is the message of the distribution specification's error body.
func errorText(body []byte) string {
	var answer struct {
		Errors []struct{ Code, Message string }
	}
	if json.Unmarshal(body, &answer) != nil {
		return ""
	}
	var parts []string
	for _, e := range answer.Errors {
		parts = append(parts, strings.TrimSpace(e.Code+" "+e.Message))
	}
	return strings.Join(parts, ", ")
}

// parseRetryAfter reads RFC 9110's Retry-After: seconds or a date.
func parseRetryAfter(h http.Header) time.Duration {
	v := h.Get("Retry-After")
	if v == "" {
		return 0
	}
	var d time.Duration
	if s, err := strconv.ParseUint(v, 10, 31); err == nil {
		d = time.Duration(s) * time.Second
	} else if t, err := http.ParseTime(v); err == nil {
		d = time.Until(t)
	}
	return min(max(d, 0), mostRetryAfter)
}

func retryAfter(err error) time.Duration {
	if e, ok := errors.AsType[*statusError](err); ok {
		return e.retryAfter
	}
	return 0
}

// classify turns errors of a round trip, and of the library's handshake, into
// ours.
func classify(err error) error {
	if e, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return fmt.Errorf("the registry's certificate is not trusted: %w; install its CA on this host", e)
	}
	if e, ok := errors.AsType[*transport.Error](err); ok {
		text := e.Error()
		if len(e.Errors) > 0 {
			text = e.Errors[0].String()
		}
		return &statusError{code: e.StatusCode, text: text}
	}
	if errors.Is(err, errPlain) {
		return errPlain
	}
	if e, ok := errors.AsType[*url.Error](err); ok {
		path := e.URL
		if u, parseErr := url.Parse(e.URL); parseErr == nil {
			path = u.Path // the query of an upload says nothing to people
		}
		err = fmt.Errorf("%s %s: %w", strings.ToUpper(e.Op), path, e.Err)
	}
	return &wireError{err}
}

// transient says whether another try may help.
func transient(err error) bool {
	if e, ok := errors.AsType[*statusError](err); ok {
		switch e.code {
		case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusInternalServerError,
			http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
			return true
		}
		return false
	}
	if errors.Is(err, context.Canceled) && !errors.Is(err, errStalled) {
		return false
	}
	if _, ok := errors.AsType[*wireError](err); ok {
		return true
	}
	_, ok := errors.AsType[*corruptError](err)
	return ok
}

// missing turns a 404 into the sentinel.
func missing(err error, ref image.Ref) error {
	if e, ok := errors.AsType[*statusError](err); ok && e.code == http.StatusNotFound {
		if e.text == "" { // answers to HEAD have no words
			return fmt.Errorf("%w: %s", image.ErrNotInRegistry, ref)
		}
		return fmt.Errorf("%w: %s (%s)", image.ErrNotInRegistry, ref, e.text)
	}
	return err
}
