package github

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/go-github/v82/github"

	"github.com/mirego/tasuki/internal/base/backoff"
)

// The buckets that GitHub counts our calls in. Source: docs.github.com, REST
// API, "Get rate limit status".
const (
	bucketCore         = "core"
	bucketRegistration = "actions_runner_registration"
	everything         = "" // a limit that is for all calls
)

const (
	// maxFailures is how many calls in a row may fail by GitHub's fault until the
	// gate is shut for a while.
	maxFailures = 5
	// spread is how much longer than asked we stay away, at most: many hosts are
	// told the same moment.
	spread = 5 * time.Second
	// mostDoublings bounds the pause after limits without a word: 16 min.
	mostDoublings = 4
)

// failurePace is how long the gate stays shut after failures in a row.
var failurePace = backoff.Policy{First: 2 * time.Second, Most: time.Minute}

// Quota is what is left of a limit, as GitHub told last.
type Quota struct {
	Bucket           string // "core", "actions_runner_registration", ...
	Limit, Remaining int    // calls
	Reset            time.Time
}

// LimitError says that GitHub is to be left alone for a while, and nothing was
// sent, or was done.
type LimitError struct {
	After time.Duration // from when the error was made; never negative
	Until time.Time
	What  string // why: in GitHub's words where it said something
}

func (e *LimitError) Error() string {
	// Not how long: the text stays the same while people wait.
	return fmt.Sprintf("GitHub is left alone until %s: %s", e.Until.UTC().Format("15:04:05 UTC"), e.What)
}

// RetryAfter is how long no request shall be sent.
func (e *LimitError) RetryAfter() time.Duration { return e.After }

// gate keeps calls back that GitHub would refuse or cannot answer.
type gate struct {
	random func() float64

	mu       sync.Mutex
	shut     map[string]closure // by bucket
	quota    map[string]Quota
	named    map[string]string // GitHub's word for a bucket, by ours
	failures int               // in a row
	unsaid   int               // limits in a row without a word of how long
}

type closure struct {
	until time.Time
	what  string
}

func newGate(random func() float64) *gate {
	return &gate{random: random, shut: map[string]closure{}, quota: map[string]Quota{}, named: map[string]string{}}
}

// pass returns a LimitError if the request shall not be sent now.
func (g *gate) pass(r request, now time.Time) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, bucket := range []string{everything, g.bucket(r)} {
		c, shut := g.shut[bucket]
		if shut && now.Before(c.until) {
			return &LimitError{After: c.until.Sub(now), Until: c.until, What: c.what}
		}
		delete(g.shut, bucket)
	}
	return nil
}

// bucketOf says where GitHub's documents count a call.
func bucketOf(r request) string {
	if strings.HasSuffix(r.path, "/generate-jitconfig") {
		return bucketRegistration
	}
	return bucketCore
}

// bucket says where GitHub counts a call, in its own word if it told one. The
// caller holds g.mu.
func (g *gate) bucket(r request) string { return cmp.Or(g.named[bucketOf(r)], bucketOf(r)) }

// observe learns from a reply and returns its error, which is a LimitError if
// GitHub wants to be left alone.
func (g *gate) observe(r request, res *github.Response, err error, now time.Time) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	bucket := g.count(r, res, now)
	if limit := limitOf(err, now); limit != nil {
		if !limit.primary {
			bucket = everything
		}
		pause := limit.pause
		if limit.unsaid {
			pause <<= min(g.unsaid, mostDoublings)
			g.unsaid++
		}
		if pause > 0 {
			pause += time.Duration(g.random() * float64(min(pause, spread)))
		}
		return g.close(bucket, pause, limit.what, now)
	}
	if !failed(res, err) {
		g.failures, g.unsaid = 0, 0
		return err
	}
	if g.failures++; g.failures >= maxFailures {
		what := fmt.Sprintf("it failed %d times in a row, at last: %s", g.failures, cause(res, err))
		_ = g.close(everything, failurePace.Delay(g.failures-maxFailures+1, g.random), what, now)
	}
	return err
}

func (g *gate) close(bucket string, pause time.Duration, what string, now time.Time) *LimitError {
	c := closure{until: now.Add(pause), what: what}
	if before := g.shut[bucket]; before.until.Before(c.until) {
		g.shut[bucket] = c
	}
	return &LimitError{After: pause, Until: c.until, What: what}
}

// count keeps what is left of the limits and returns the call's bucket. A
// bucket that is empty is left alone until it is full again.
func (g *gate) count(r request, res *github.Response, now time.Time) string {
	bucket := g.bucket(r)
	if res == nil || res.Response == nil || res.Header.Get("X-Ratelimit-Limit") == "" {
		return bucket
	}
	if named := res.Header.Get("X-Ratelimit-Resource"); named != "" {
		g.named[bucketOf(r)], bucket = named, named
	}
	q := Quota{Bucket: bucket, Limit: res.Rate.Limit, Remaining: res.Rate.Remaining, Reset: res.Rate.Reset.UTC()}
	g.quota[bucket] = q
	if q.Remaining == 0 && q.Limit > 0 && q.Reset.After(now) {
		_ = g.close(bucket, q.Reset.Sub(now), usedUp(q.Limit), now)
	}
	return bucket
}

func usedUp(limit int) string {
	if limit == 0 {
		return "the hour's calls are used up"
	}
	return fmt.Sprintf("all %d calls of the hour are used up", limit)
}

// quotas returns what is left of the limits, by bucket.
func (g *gate) quotas() []Quota {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.SortedFunc(maps.Values(g.quota), func(a, b Quota) int { return strings.Compare(a.Bucket, b.Bucket) })
}

// Quota returns what is left of GitHub's limits, as it told with its last
// replies. It sends nothing; empty: it told nothing, as a GitHub Enterprise
// Server without limits. Scopes that share a token share it.
func (c *Client) Quota() []Quota { return c.id.gate.quotas() }

// failed says whether a call failed by GitHub's fault, or that of what is
// between us.
func failed(res *github.Response, err error) bool {
	switch {
	case res != nil && res.Response != nil:
		return res.StatusCode >= http.StatusInternalServerError
	case err == nil, errors.Is(err, context.Canceled):
		return false
	}
	// Without a reply it is the network, unless we did not even ask.
	_, limited := errors.AsType[*LimitError](err)
	_, ours := errors.AsType[*credentialError](err)
	return !limited && !ours
}

func cause(res *github.Response, err error) string {
	if res != nil && res.Response != nil {
		return res.Status
	}
	return err.Error()
}

// limit is a pause that GitHub asks for.
type limit struct {
	pause   time.Duration
	what    string
	primary bool // of one bucket
	unsaid  bool // GitHub did not say how long
}

// limitOf returns the pause that GitHub asks for with an error, or nil.
func limitOf(err error, now time.Time) *limit {
	if e, ok := errors.AsType[*github.RateLimitError](err); ok {
		pause, said := pauseOf(e.Response, now)
		return &limit{pause, usedUp(e.Rate.Limit), true, !said}
	}
	if e, ok := errors.AsType[*github.AbuseRateLimitError](err); ok {
		pause, said := pauseOf(e.Response, now)
		return &limit{pause: pause, unsaid: !said, what: cmp.Or(strings.TrimSuffix(e.Message, "."), "too many requests")}
	}
	res := reply(err)
	if res == nil {
		return nil
	}
	pause, said := pauseOf(res, now)
	switch {
	case res.StatusCode == http.StatusTooManyRequests,
		// go-github knows a secondary limit by the page that it links, which not
		// every server does.
		res.StatusCode == http.StatusForbidden && strings.Contains(strings.ToLower(words(err, res)), "rate limit"),
		said && (res.StatusCode == http.StatusForbidden || res.StatusCode == http.StatusServiceUnavailable):
		return &limit{pause: pause, unsaid: !said, what: words(err, res)}
	}
	return nil
}

// pauseOf reads the headers that say how long to wait.
func pauseOf(res *http.Response, now time.Time) (_ time.Duration, said bool) {
	if after := res.Header.Get("Retry-After"); after != "" {
		if n, err := strconv.Atoi(after); err == nil {
			return max(0, time.Duration(n)*time.Second), true
		}
		if at, err := http.ParseTime(after); err == nil {
			return max(0, at.Sub(now)), true
		}
	}
	if res.Header.Get("X-Ratelimit-Remaining") == "0" {
		if n, err := strconv.ParseInt(res.Header.Get("X-Ratelimit-Reset"), 10, 64); err == nil {
			return max(0, time.Unix(n, 0).Sub(now)), true
		}
	}
	return unsaidPause, false
}
