package scaleset

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/mirego/tasuki/internal/base/secret"
	"github.com/mirego/tasuki/internal/github"
	"github.com/mirego/tasuki/internal/runner"
)

const (
	// callTimeout bounds one call with its reply, pollTimeout one that waits for
	// a message, which GitHub answers after 50 s.
	callTimeout = 30 * time.Second
	pollTimeout = 70 * time.Second
	// maxReply bounds a reply: 50 job messages are some 50 kB.
	maxReply = 8 << 20
	// renewBefore is how long before it expires our token is replaced.
	renewBefore = 5 * time.Minute
	// renewPause is how long a token is used at least.
	renewPause = 30 * time.Second
)

// Service is GitHub's Actions service for one scope. Its calls may be made at
// the same time; each is sent once, with one exception: a call that is refused
// with 401 is sent again after a new login.
type Service struct {
	client *github.Client

	turn  chan struct{} // holds one value while somebody logs in
	login github.Service
	renew time.Time

	mu    sync.Mutex
	until time.Time // nothing is sent before
	what  string
}

// NewService returns the service for a client's scope; it sends nothing.
func NewService(c *github.Client) *Service {
	return &Service{client: c, turn: make(chan struct{}, 1)}
}

// Client is the scope's client of the REST API.
func (s *Service) Client() *github.Client { return s.client }

// Error is a refusal of the service.
type Error struct {
	Status  int
	Type    string // the exception's name, as "RunnerScaleSetSessionConflictException"
	Message string
	Request string // GitHub's name for the request, for its support
}

func (e *Error) Error() string {
	text := fmt.Sprintf("%d %s", e.Status, http.StatusText(e.Status))
	if e.Message != "" {
		text += ": " + strings.TrimSuffix(e.Message, ".")
	}
	if e.Request != "" {
		text += " (request " + e.Request + ")"
	}
	return text
}

// Is says whether the refusal is one of runner's sentinels.
func (e *Error) Is(target error) bool {
	switch target {
	case runner.ErrExists:
		return strings.Contains(e.Type, "AgentExistsException")
	case runner.ErrBusy:
		return strings.Contains(e.Type, "JobStillRunningException")
	case runner.ErrDenied:
		return e.Status == http.StatusUnauthorized || e.Status == http.StatusForbidden
	}
	return false
}

// statusOf returns the status of a refusal; 0: it is none.
func statusOf(err error) int {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Status
	}
	return 0
}

func (s *Service) enter(ctx context.Context) (github.Service, error) {
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return github.Service{}, context.Cause(ctx)
	}
	now := time.Now()
	if !s.login.Token.Empty() && now.Before(s.renew) {
		return s.login, nil
	}
	next, err := s.client.Service(ctx)
	if err != nil {
		return github.Service{}, err
	}
	s.login, s.renew = next, next.Expires.Add(-renewBefore)
	if least := now.Add(renewPause); s.renew.Before(least) {
		s.renew = least
	}
	return next, nil
}

// refused forgets a token that the service does not take any more.
func (s *Service) refused(token secret.String) {
	s.turn <- struct{}{}
	defer func() { <-s.turn }()
	if s.login.Token.Reveal() == token.Reveal() {
		s.login = github.Service{}
	}
}

// request is one call.
type request struct {
	method string
	path   string     // below the service
	query  url.Values // beside it
	body   any
	// token is a session's; at is then a whole address, unless there is a path.
	token    secret.String
	at       *url.URL
	capacity *int
}

// do makes one call and decodes its reply into v. It returns false for a
// reply without a body. The caller bounds ctx.
func (s *Service) do(ctx context.Context, r request, v any) (bool, error) {
	for again := true; ; again = false {
		if err := s.shut(); err != nil {
			return false, err
		}
		req, used, err := s.build(ctx, r)
		if err != nil {
			return false, err
		}
		res, err := s.client.HTTP().RoundTrip(req)
		if err != nil {
			if ctx.Err() != nil {
				err = context.Cause(ctx)
			}
			return false, err
		}
		some, err := s.read(res, v)
		if statusOf(err) != http.StatusUnauthorized || !r.token.Empty() || !again {
			return some, err
		}
		s.refused(used)
	}
}

// build also returns our own token that the request carries.
func (s *Service) build(ctx context.Context, r request) (*http.Request, secret.String, error) {
	u, token, used := r.at, r.token, secret.String{}
	if r.path != "" {
		login, err := s.enter(ctx)
		if err != nil {
			return nil, used, err
		}
		if token.Empty() {
			token, used = login.Token, login.Token
		}
		u = login.URL.JoinPath("_apis", r.path)
		q := login.URL.Query()
		for k, v := range r.query {
			q[k] = v
		}
		q.Set("api-version", "6.0-preview")
		u.RawQuery = q.Encode()
	}
	var body io.Reader
	if r.body != nil {
		b, err := json.Marshal(r.body)
		if err != nil {
			return nil, used, fmt.Errorf("cannot write a request: %w", err)
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, r.method, u.String(), body)
	if err != nil {
		return nil, used, errors.New("cannot make a request of the service's address")
	}
	req.Header.Set("Authorization", "Bearer "+token.Reveal())
	req.Header.Set("Content-Type", "application/json")
	// The service expects JSON here. Source: actions/scaleset, common_client.go.
	req.Header.Set("User-Agent", fmt.Sprintf(`{"system":"tasuki","version":%q,"kind":"scaleset"}`, s.client.UserAgent()))
	if r.capacity != nil {
		req.Header.Set("Accept", "application/json; api-version=6.0-preview")
		req.Header.Set("X-ScaleSetMaxCapacity", strconv.Itoa(*r.capacity))
	}
	return req, used, nil
}

// byteOrderMark begins some of the service's replies.
var byteOrderMark = []byte("\xef\xbb\xbf")

var errNoAnswer = errors.New("the reply is not one of the Actions service")

func (s *Service) read(res *http.Response, v any) (bool, error) {
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, maxReply+1))
	switch {
	case err != nil:
		return false, fmt.Errorf("cannot read the reply: %w", err)
	case len(b) > maxReply:
		return false, errNoAnswer
	}
	b = bytes.TrimSpace(bytes.TrimPrefix(b, byteOrderMark))
	if res.StatusCode >= 300 {
		return false, s.judge(res, b)
	}
	if len(b) == 0 || v == nil {
		return false, nil
	}
	if err := json.Unmarshal(b, v); err != nil {
		return false, errNoAnswer // a page of a proxy is not repeated
	}
	return true, nil
}

// judge makes an error of a refusal, and keeps calls back if the service asks
// for it.
func (s *Service) judge(res *http.Response, body []byte) error {
	e := &Error{Status: res.StatusCode, Request: res.Header.Get("X-GitHub-Request-Id")}
	var said struct {
		Type    string `json:"typeName"`
		Message string `json:"message"`
	}
	if json.Unmarshal(body, &said) == nil {
		e.Type, e.Message = said.Type, said.Message
	}
	after, err := strconv.Atoi(res.Header.Get("Retry-After"))
	if err != nil || after <= 0 || res.StatusCode != http.StatusTooManyRequests && res.StatusCode != http.StatusServiceUnavailable {
		return e
	}
	s.mu.Lock()
	s.until, s.what = time.Now().Add(time.Duration(after)*time.Second), e.Error()
	s.mu.Unlock()
	return s.shut()
}

// shut returns a github.LimitError while the service wants to be left alone.
func (s *Service) shut() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if left := time.Until(s.until); left > 0 {
		return &github.LimitError{After: left, Until: s.until, What: s.what}
	}
	return nil
}
