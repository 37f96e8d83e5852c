// Package client speaks to the agent of this host over its Unix socket.
//
// A Client belongs to one home. Each call is one request; nothing is kept
// between them but idle connections. What the agent refuses is an *Error with
// its hint; that no agent listens is ErrNoAgent.
package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strconv"
	"time"

	"github.com/mirego/tasuki/internal/api"
	"github.com/mirego/tasuki/internal/event"
)

// callTimeout bounds every call that is no stream. Reload may have to ask for
// a hypervisor's trial boot.
const callTimeout = 2 * time.Minute

// ErrNoAgent: nobody listens on the home's socket.
var ErrNoAgent = errors.New("no agent runs")

// Error is what the agent answered instead of doing it.
type Error struct {
	Status  int // HTTP
	Message string
	Hint    string // what to do about it; may be empty
}

func (e *Error) Error() string { return e.Message }

// Client calls the agent of one home. Its methods may be called at the same
// time.
type Client struct {
	home string
	http *http.Client
}

// New returns a client of the agent of a home. It connects to nothing yet.
func New(home string) *Client {
	socket := filepath.Join(home, "tasuki.sock")
	return &Client{home: home, http: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			conn, err := d.DialContext(ctx, "unix", socket)
			if err != nil && ctx.Err() == nil {
				return nil, fmt.Errorf("%w at %s (%w)", ErrNoAgent, home, cause(err))
			}
			return conn, err
		},
	}}}
}

// cause drops the addresses of a network error, which say what we say already.
func cause(err error) error {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return op.Err
	}
	return err
}

// Status returns what the host does.
func (c *Client) Status(ctx context.Context) (api.Status, error) {
	var s api.Status
	return s, c.call(ctx, http.MethodGet, "/v1/status", nil, &s)
}

// Metrics copies the host's metrics to w, in Prometheus's text form.
func (c *Client) Metrics(ctx context.Context, w io.Writer) error {
	res, err := c.do(ctx, http.MethodGet, "/metrics", nil)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if _, err := io.Copy(w, res.Body); err != nil {
		return fmt.Errorf("cannot read the metrics: %w", err)
	}
	return nil
}

// Runs returns past and present runs, the latest first.
func (c *Client) Runs(ctx context.Context, q api.RunQuery) ([]api.Run, error) {
	var runs []api.Run
	return runs, c.call(ctx, http.MethodGet, "/v1/runs?"+values(q).Encode(), nil, &runs)
}

// Stats returns what the runs of a time amount to.
func (c *Client) Stats(ctx context.Context, q api.RunQuery) (api.RunStats, error) {
	var s api.RunStats
	return s, c.call(ctx, http.MethodGet, "/v1/stats?"+values(q).Encode(), nil, &s)
}

func values(q api.RunQuery) url.Values {
	v := url.Values{}
	for name, text := range map[string]string{"runner": q.Runner, "pool": q.Pool, "conclusion": q.Conclusion, "repository": q.Repository} {
		if text != "" {
			v.Set(name, text)
		}
	}
	for name, at := range map[string]time.Time{"since": q.Since, "until": q.Until} {
		if !at.IsZero() {
			v.Set(name, at.UTC().Format(time.RFC3339Nano))
		}
	}
	for name, on := range map[string]bool{"failed": q.Failed, "jobs": q.Jobs} {
		if on {
			v.Set(name, "true")
		}
	}
	if q.Limit > 0 {
		v.Set("limit", strconv.Itoa(q.Limit))
	}
	return v
}

// ConsoleLink returns a link that lets one browser into the web console, once.
func (c *Client) ConsoleLink(ctx context.Context) (api.ConsoleLink, error) {
	var l api.ConsoleLink
	return l, c.call(ctx, http.MethodPost, "/v1/console", nil, &l)
}

// Drain takes no new runners in a pool, or on the host if pool is empty.
func (c *Client) Drain(ctx context.Context, pool string) error {
	return c.call(ctx, http.MethodPost, "/v1/drain?pool="+url.QueryEscape(pool), nil, nil)
}

// Resume ends a Drain.
func (c *Client) Resume(ctx context.Context, pool string) error {
	return c.call(ctx, http.MethodPost, "/v1/resume?pool="+url.QueryEscape(pool), nil, nil)
}

// RefreshImage asks now what a pool's image means, and forgets what was rejected.
func (c *Client) RefreshImage(ctx context.Context, pool string) error {
	return c.call(ctx, http.MethodPost, imagePath(pool, "refresh"), nil, nil)
}

// RollbackImage goes to the pool's previous image until RefreshImage.
func (c *Client) RollbackImage(ctx context.Context, pool string) error {
	return c.call(ctx, http.MethodPost, imagePath(pool, "rollback"), nil, nil)
}

// PinImage keeps the pool on one image; an empty digest ends that.
func (c *Client) PinImage(ctx context.Context, pool, digest string) error {
	return c.call(ctx, http.MethodPost, imagePath(pool, "pin"), api.Pin{Digest: digest}, nil)
}

func imagePath(pool, what string) string {
	return "/v1/pools/" + url.PathEscape(pool) + "/image/" + what
}

// Reload takes the changed configuration file over.
func (c *Client) Reload(ctx context.Context) error {
	return c.call(ctx, http.MethodPost, "/v1/reload", nil, nil)
}

// Hold keeps a runner's guest for d from now; 0 lets it go.
func (c *Client) Hold(ctx context.Context, name string, d time.Duration) error {
	return c.call(ctx, http.MethodPost, runnerPath(name, "hold"), api.Hold{Seconds: d.Seconds()}, nil)
}

// Login says how to log in to a runner's guest.
func (c *Client) Login(ctx context.Context, name string) (api.Login, error) {
	var l api.Login
	return l, c.call(ctx, http.MethodGet, runnerPath(name, "login"), nil, &l)
}

// Log copies the log of a runner's program to w; followed, until the runner is
// gone or ctx ends.
func (c *Client) Log(ctx context.Context, name string, follow bool, w io.Writer) error {
	return c.log(ctx, name, url.Values{"follow": {strconv.FormatBool(follow)}}, w)
}

// GuestConsole copies what a runner's guest wrote to its console to w, as Log does
// with the log of its program.
func (c *Client) GuestConsole(ctx context.Context, name string, follow bool, w io.Writer) error {
	return c.log(ctx, name, url.Values{"follow": {strconv.FormatBool(follow)}, "console": {"true"}}, w)
}

func (c *Client) log(ctx context.Context, name string, query url.Values, w io.Writer) error {
	res, err := c.do(ctx, http.MethodGet, runnerPath(name, "log")+"?"+query.Encode(), nil)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if _, err := io.Copy(w, res.Body); err != nil && ctx.Err() == nil {
		return fmt.Errorf("cannot read the log: %w", err)
	}
	return nil
}

// Events returns the events since a time (zero: from the first that is kept,
// or if followed from now), oldest first; followed, it goes on with each that
// happens until ctx or the agent ends. An error is the last thing it yields.
func (c *Client) Events(ctx context.Context, since time.Time, follow bool) iter.Seq2[event.Event, error] {
	query := url.Values{"follow": {strconv.FormatBool(follow)}}
	if !since.IsZero() {
		query.Set("since", since.UTC().Format(time.RFC3339Nano))
	}
	return func(yield func(event.Event, error) bool) {
		res, err := c.do(ctx, http.MethodGet, "/v1/events?"+query.Encode(), nil)
		if err != nil {
			yield(event.Event{}, err)
			return
		}
		defer res.Body.Close()
		lines := bufio.NewScanner(res.Body)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			var e event.Event
			if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
				yield(e, fmt.Errorf("cannot read an event: %w", err))
				return
			}
			if !yield(e, nil) {
				return
			}
		}
		if err := lines.Err(); err != nil && ctx.Err() == nil {
			yield(event.Event{}, fmt.Errorf("cannot read events: %w", err))
		}
	}
}

func runnerPath(name, what string) string { return "/v1/runners/" + url.PathEscape(name) + "/" + what }

func (c *Client) call(ctx context.Context, method, path string, in, out any) error {
	ctx, cancel := context.WithTimeoutCause(ctx, callTimeout, fmt.Errorf("the agent did not answer within %v", callTimeout))
	defer cancel()
	res, err := c.do(ctx, method, path, in)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if out == nil {
		return nil
	}
	if err := json.NewDecoder(res.Body).Decode(out); err != nil {
		return fmt.Errorf("cannot read the agent's answer: %w", err)
	}
	return nil
}

// do sends one request and returns a good answer.
func (c *Client) do(ctx context.Context, method, path string, in any) (*http.Response, error) {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return nil, fmt.Errorf("cannot ask the agent: %w", err)
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://tasuki"+path, body)
	if err != nil {
		return nil, fmt.Errorf("cannot ask the agent: %w", err)
	}
	res, err := c.http.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return nil, fmt.Errorf("cannot ask the agent: %w", context.Cause(ctx))
		}
		if ue, ok := errors.AsType[*url.Error](err); ok {
			err = ue.Err // its address is made up
		}
		return nil, err
	}
	if res.StatusCode < http.StatusBadRequest {
		return res, nil
	}
	defer res.Body.Close()
	var e api.Error
	if err := json.NewDecoder(io.LimitReader(res.Body, 1<<20)).Decode(&e); err != nil || e.Error == "" {
		e.Error = "the agent answered " + res.Status
	}
	return nil, &Error{Status: res.StatusCode, Message: e.Error, Hint: e.Hint}
}
