package github_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mirego/tasuki/internal/emulator"
	"github.com/mirego/tasuki/internal/github"
	"github.com/mirego/tasuki/internal/runner"
)

// limited is a GitHub that counts what it is asked and whose clock is ours.
type limited struct {
	url   string
	calls atomic.Int64
	now   time.Time
	reply http.HandlerFunc
}

func newLimited(t *testing.T) *limited {
	t.Helper()
	l := &limited{now: now, reply: answer(200, `{"total_count":0,"runners":[]}`)}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		l.calls.Add(1)
		l.reply(w, r)
	}))
	t.Cleanup(srv.Close)
	l.url = srv.URL
	return l
}

func (l *limited) account(t *testing.T, random float64) *github.Account {
	t.Helper()
	a, err := github.NewAccount(github.Options{URL: l.url, Log: slog.New(slog.DiscardHandler),
		Now: func() time.Time { return l.now }, Random: func() float64 { return random }})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func scopeOf(t *testing.T, a *github.Account, name string) *github.Client {
	t.Helper()
	c, err := a.Scope(name)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// waits calls f, which must be told to wait for so long, having sent so many requests.
func (l *limited) waits(t *testing.T, what string, f func() error, pause time.Duration, sent int64) {
	t.Helper()
	before := l.calls.Load()
	err := f()
	limit, ok := errors.AsType[*github.LimitError](err)
	if !ok || limit.RetryAfter() != pause || l.calls.Load()-before != sent {
		t.Errorf("%s: %v, %d requests; want a pause of %s and %d requests", what, err, l.calls.Load()-before, pause, sent)
	}
}

// The quota is not burnt by asking again: while GitHub wants to be left alone
// nothing is sent, not even for other scopes of the same token.
func TestIncidentRateLimitBurnNothingIsSentMeanwhile(t *testing.T) {
	l := newLimited(t)
	a := l.account(t, 0)
	one, two := scopeOf(t, a, "octo/demo"), scopeOf(t, a, "acme")
	list := func(c *github.Client) func() error {
		return func() error { _, err := c.Runners(context.Background()); return err }
	}
	good := l.reply
	l.reply = answer(429, `{"message":"slow down"}`, "Retry-After", "30")
	l.waits(t, "told", list(one), 30*time.Second, 1)
	l.reply = good
	l.now = l.now.Add(10 * time.Second)
	for range 20 {
		l.waits(t, "left alone", list(one), 20*time.Second, 0)
		l.waits(t, "left alone by the other scope", list(two), 20*time.Second, 0)
	}
	l.waits(t, "in every bucket", func() error {
		_, err := one.Credential(t.Context(), runner.Registration{Name: "a"})
		return err
	}, 20*time.Second, 0)
	l.now = l.now.Add(20 * time.Second)
	if err := list(two)(); err != nil {
		t.Errorf("after the pause: %v", err)
	}
	l.reply = answer(429, "", "Retry-After", "30")
	want := "cannot list the runners of octo/demo: GitHub is left alone until 20:01:00 UTC: 429 Too Many Requests"
	for range 2 { // the reason is the same while it lasts
		if err := list(one)(); err == nil || err.Error() != want {
			t.Errorf("got %v\nwant %s", err, want)
		}
		l.now = l.now.Add(time.Second)
	}
}

func TestHostsDoNotReturnTogether(t *testing.T) {
	l := newLimited(t)
	c := scopeOf(t, l.account(t, 0.5), "octo")
	l.reply = answer(429, "", "Retry-After", "30")
	l.waits(t, "jitter", func() error { _, err := c.Runners(t.Context()); return err }, 32500*time.Millisecond, 1)
}

func TestALimitWithoutAWordGrows(t *testing.T) {
	l := newLimited(t)
	c := scopeOf(t, l.account(t, 0), "octo")
	l.reply = answer(403, `{"message":"You have exceeded a secondary rate limit."}`)
	for _, pause := range []time.Duration{1, 2, 4, 8, 16, 16} {
		l.waits(t, "secondary", func() error { _, err := c.Runners(t.Context()); return err }, pause*time.Minute, 1)
		l.now = l.now.Add(pause * time.Minute)
	}
}

// A bucket that is used up does not stop calls that GitHub counts elsewhere:
// the search for jobs must not keep runners from registering.
func TestEachBucketIsForItself(t *testing.T) {
	l := newLimited(t)
	c := scopeOf(t, l.account(t, 0), "octo")
	reset := fmt.Sprint(now.Add(10 * time.Minute).Unix())
	l.reply = func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			answer(201, jitReply, "X-RateLimit-Resource", "actions_runner_registration", "X-RateLimit-Limit", "10000", "X-RateLimit-Remaining", "9999", "X-RateLimit-Reset", reset)(w, r)
			return
		}
		answer(200, `{"total_count":0,"runners":[]}`, "X-RateLimit-Resource", "core", "X-RateLimit-Limit", "5000", "X-RateLimit-Remaining", "0", "X-RateLimit-Reset", reset)(w, r)
	}
	if _, err := c.Runners(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.waits(t, "the last call was used", func() error { _, err := c.Runners(t.Context()); return err }, 10*time.Minute, 0)
	if _, err := c.Credential(t.Context(), runner.Registration{Name: "a"}); err != nil {
		t.Errorf("registering: %v", err)
	}
	want := []github.Quota{
		{Bucket: "actions_runner_registration", Limit: 10000, Remaining: 9999, Reset: now.Add(10 * time.Minute)},
		{Bucket: "core", Limit: 5000, Remaining: 0, Reset: now.Add(10 * time.Minute)},
	}
	if diff := cmp.Diff(want, c.Quota()); diff != "" {
		t.Errorf("quota (-want +got):\n%s", diff)
	}
}

func TestAServerInTroubleIsLeftAlone(t *testing.T) {
	l := newLimited(t)
	c := scopeOf(t, l.account(t, 1), "octo")
	good := l.reply
	l.reply = answer(502, "<html>")
	list := func() error { _, err := c.Runners(t.Context()); return err }
	for range 4 {
		if err := list(); errors.As(err, new(*github.LimitError)) {
			t.Fatalf("too early: %v", err)
		}
	}
	_ = list()
	l.waits(t, "the fifth failure shuts the gate", list, 2*time.Second, 0)
	l.now = l.now.Add(2 * time.Second)
	_ = list()
	l.waits(t, "and longer", list, 4*time.Second, 0)
	if err := list(); err.Error() != "cannot list the runners of octo: GitHub is left alone until 20:00:06 UTC: it failed 6 times in a row, at last: 502 Bad Gateway" {
		t.Errorf("the reason: %v", err)
	}
	l.now = l.now.Add(4 * time.Second)
	l.reply = good
	if err := list(); err != nil {
		t.Errorf("it is well again: %v", err)
	}
	l.reply = answer(502, "<html>")
	if err := list(); errors.As(err, new(*github.LimitError)) || list() == nil {
		t.Errorf("the count did not begin anew: %v", err)
	}
}

// What the caller or the credential is to blame for is not GitHub's failure.
func TestOnlyGitHubsFailuresCount(t *testing.T) {
	l := newLimited(t)
	c := scopeOf(t, l.account(t, 0), "octo")
	for _, h := range []http.HandlerFunc{answer(404, notFound), answer(401, `{"message":"Bad credentials"}`), answer(422, `{}`)} {
		l.reply = h
		for range 6 {
			if _, err := c.Runners(t.Context()); err == nil || errors.As(err, new(*github.LimitError)) {
				t.Errorf("got %v", err)
			}
		}
	}
	gone, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("the host stops"))
	for range 6 {
		if _, err := c.Runners(gone); err == nil || err.Error() != "cannot list the runners of octo: the host stops" {
			t.Errorf("got %v", err)
		}
	}
	l.reply = answer(200, `{"total_count":0,"runners":[]}`)
	if _, err := c.Runners(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestEmulatorQuotaIsHonoured(t *testing.T) {
	e := emulator.New(emulator.Options{Quota: emulator.Quota{Core: 3}})
	c, err := github.New(github.Options{URL: "http://127.0.0.1:1", Scope: "octo", HTTP: emulator.Transport{Handler: e.Handler()}})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		_, err := c.Runners(t.Context())
		if limited := errors.As(err, new(*github.LimitError)); limited != (i >= 3) {
			t.Errorf("call %d: %v", i+1, err)
		}
	}
	if _, err := c.Credential(t.Context(), runner.Registration{Name: "a", Labels: []string{"x"}}); err != nil {
		t.Errorf("registering is counted elsewhere: %v", err)
	}
	if q := c.Quota(); len(q) != 2 || q[1].Bucket != "core" || q[1].Remaining != 0 || q[1].Limit != 3 {
		t.Errorf("quota %+v", q)
	}
}
