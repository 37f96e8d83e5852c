package github

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/mirego/tasuki/internal/base/secret"
)

// tokenLife is how long a token is used before its source is asked again.
const tokenLife = time.Minute

// transport adds the token to requests for the API's own host, and to no
// other: a redirect must not carry it away.
type transport struct {
	next         http.RoundTripper
	source       func(context.Context) (secret.String, error)
	scheme, host string
	now          func() time.Time

	mu    sync.Mutex
	token secret.String
	read  time.Time
}

// RoundTrip implements http.RoundTripper.
func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	if t.source == nil || req.URL.Host != t.host || req.URL.Scheme != t.scheme {
		return t.next.RoundTrip(req)
	}
	token, err := t.get(req.Context())
	if err != nil {
		if req.Body != nil {
			_ = req.Body.Close()
		}
		return nil, fmt.Errorf("cannot get a token for GitHub: %w", err)
	}
	req = req.Clone(req.Context())
	req.Header.Set("Authorization", "Bearer "+token.Reveal())
	res, err := t.next.RoundTrip(req)
	if err == nil && res.StatusCode == http.StatusUnauthorized {
		t.forget()
	}
	return res, err
}

// get asks the source at most once a minute. It holds the lock meanwhile:
// everybody else would only ask the same.
func (t *transport) get(ctx context.Context) (secret.String, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.token.Empty() && t.now().Sub(t.read) < tokenLife {
		return t.token, nil
	}
	token, err := t.source(ctx)
	if err != nil {
		return secret.String{}, err
	}
	if err := checkToken(token.Reveal()); err != nil {
		return secret.String{}, err
	}
	t.token, t.read = token, t.now()
	return token, nil
}

func (t *transport) forget() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.token = secret.String{}
}

// checkToken refuses what cannot be a token without saying what it is: an
// error page, several lines. The length of one is not bounded: those of Apps
// grew from 40 to some 520 characters.
func checkToken(token string) error {
	if token == "" {
		return fmt.Errorf("its source gave nothing")
	}
	for _, r := range token {
		if r <= ' ' || r > '~' {
			return fmt.Errorf("its source gave %d characters that are no token: a token has no space or line break", len(token))
		}
	}
	return nil
}
