package protorunner

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/mirego/tasuki/internal/base/backoff"
)

// ErrGone says that GitHub does not know the registration any more.
var ErrGone = errors.New("the runner's registration was not found")

// ErrDeprecated says that GitHub gives no messages to a runner of this version.
var ErrDeprecated = errors.New("the runner's version is deprecated")

// refused reads from an answer that is no success what the official runner reads from it.
func refused(err error) error {
	if s, ok := errors.AsType[*statusError](err); ok && s.status == http.StatusForbidden {
		var body struct {
			Kind    string `json:"errorKind"`
			Message string `json:"errorMessage"`
		}
		if json.Unmarshal([]byte(s.body), &body) == nil && body.Kind == "RunnerVersionTooOld" {
			return fmt.Errorf("%w: %s", ErrDeprecated, body.Message)
		}
	}
	return err
}

// statusError is an answer that is no success.
type statusError struct {
	method, url string
	status      int
	body        string
}

func (e *statusError) Error() string {
	return fmt.Sprintf("%s %s answered %d: %s", e.method, e.url, e.status, strings.TrimSpace(e.body))
}

func statusOf(err error) int {
	if s, ok := errors.AsType[*statusError](err); ok {
		return s.status
	}
	return 0
}

// passing says whether a later try may succeed: nothing came back, or the server was out of order.
func passing(err error) bool {
	s := statusOf(err)
	return !errors.Is(err, ErrGone) && !errors.Is(err, ErrDeprecated) && (s == 0 || s == http.StatusTooManyRequests || s >= 500)
}

// conn sends requests under one bearer token.
type conn struct {
	client *http.Client
	token  string
}

// callTimeout bounds one request; a poll is held 50 s by the server.
const callTimeout = 100 * time.Second

// send makes one request. in and out may be nil; an empty answer leaves out alone. It returns the status.
func (c *conn) send(ctx context.Context, method, address string, in, out any) (int, error) {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return 0, fmt.Errorf("cannot encode the request to %s: %w", address, err)
		}
		body = bytes.NewReader(b)
	}
	return c.raw(ctx, method, address, body, http.Header{"Content-Type": {"application/json"}}, out)
}

func (c *conn) raw(ctx context.Context, method, address string, body io.Reader, h http.Header, out any) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, address, body)
	if err != nil {
		return 0, fmt.Errorf("cannot make the request %s %s: %w", method, address, err)
	}
	req.Header = h
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	resp, err := c.client.Do(req)
	if err != nil {
		return 0, fmt.Errorf("cannot reach the service: %w", err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, fmt.Errorf("cannot read the answer of %s: %w", address, err)
	}
	if resp.StatusCode/100 != 2 {
		return resp.StatusCode, &statusError{method, address, resp.StatusCode, string(b)}
	}
	if out != nil && len(b) > 0 {
		if t := resp.Header.Get("Content-Type"); !strings.HasPrefix(t, "application/json") {
			return resp.StatusCode, fmt.Errorf("cannot read the answer of %s: it is %q, not application/json", address, t)
		}
		if err := json.Unmarshal(b, out); err != nil {
			return resp.StatusCode, fmt.Errorf("cannot read the answer of %s: %w", address, err)
		}
	}
	return resp.StatusCode, nil
}

// authorize exchanges a signed assertion for an access token.
func (c *conn) authorize(ctx context.Context, cfg *Config) error {
	now := time.Now()
	var method jwt.SigningMethod = jwt.SigningMethodRS256
	if cfg.FIPS {
		method = jwt.SigningMethodPS256
	}
	assertion, err := jwt.NewWithClaims(method, jwt.MapClaims{
		"iss": cfg.ClientID, "sub": cfg.ClientID, "aud": cfg.TokenURL, "jti": rand.Text(),
		"nbf": now.Unix(), "exp": now.Add(5 * time.Minute).Unix(),
	}).SignedString(cfg.Key)
	if err != nil {
		return fmt.Errorf("cannot sign the assertion: %w", err)
	}
	form := url.Values{
		"grant_type":            {"client_credentials"},
		"client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"},
		"client_assertion":      {assertion},
	}
	var out struct {
		Token string `json:"access_token"`
	}
	_, err = (&conn{client: c.client}).raw(ctx, http.MethodPost, cfg.TokenURL, strings.NewReader(form.Encode()),
		http.Header{"Content-Type": {"application/x-www-form-urlencoded"}, "Accept": {"application/json"}}, &out)
	if err != nil {
		if s, ok := errors.AsType[*statusError](err); ok && strings.Contains(s.body, "invalid_client") {
			return fmt.Errorf("cannot get an access token: %w", ErrGone)
		}
		return fmt.Errorf("cannot get an access token: %w", err)
	}
	c.token = out.Token
	return nil
}

// insist tries a call again, at growing distances, while its error may pass and ctx lasts.
func insist(ctx context.Context, try func(context.Context) error) error {
	p := backoff.Policy{First: 100 * time.Millisecond, Most: 5 * time.Second}
	return p.Retry(ctx, passing, try)
}
