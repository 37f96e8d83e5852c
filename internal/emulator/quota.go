package emulator

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Quota is how many REST calls there may be in a window of time. The scale-set service and what runner
// programs speak have none, as at GitHub.
type Quota struct {
	// Core is for all calls but those for Registration: 5,000 when zero, no limit when negative.
	Core int
	// Registration is for JIT configurations and runners that register: 10,000 when zero, no limit when
	// negative.
	Registration int
	// Window is after how long the count begins anew: 1 h when zero.
	Window time.Duration
}

// Buckets of the quota.
const (
	bucketCore         = "core"
	bucketRegistration = "actions_runner_registration"
)

func (q Quota) withDefaults() Quota {
	if q.Core == 0 {
		q.Core = 5000
	}
	if q.Registration == 0 {
		q.Registration = 10000
	}
	if q.Window <= 0 {
		q.Window = time.Hour
	}
	return q
}

func (q Quota) limit(bucket string) int {
	if bucket == bucketRegistration {
		return q.Registration
	}
	return q.Core
}

// usage is what was used of a bucket in the window that ends then.
type usage struct {
	used  int
	reset time.Time
}

// left returns what remains; none is used when there is no limit.
func (u usage) left(limit int) int { return max(limit-u.used, 0) }

// bucketOf says which bucket a request is counted in; none if it is free.
func bucketOf(r *http.Request) string {
	path := r.URL.Path
	first, _, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	switch {
	case strings.HasSuffix(path, "/generate-jitconfig"), path == "/actions/runners/register":
		return bucketRegistration
	case first == "repos", first == "orgs", first == "enterprises", first == "app", first == "user", first == "users",
		path == "/actions/runner-registration":
		return bucketCore
	}
	return ""
}

// using returns the bucket's usage, of a new window if the last has ended. The lock is held.
func (e *Emulator) using(bucket string) *usage {
	u := e.usage[bucket]
	if u == nil || !time.Now().Before(u.reset) {
		u = &usage{reset: time.Now().Add(e.opts.Quota.Window)}
		e.usage[bucket] = u
	}
	return u
}

// metered counts REST calls, refuses those beyond the quota, and says on each what is left.
func (e *Emulator) metered(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		bucket := bucketOf(r)
		limit := e.opts.Quota.limit(bucket)
		if bucket == "" || limit < 0 {
			next.ServeHTTP(w, r)
			return
		}
		e.mu.Lock()
		u := e.using(bucket)
		refused := u.used >= limit
		if !refused {
			u.used++
		}
		now := *u
		e.mu.Unlock()
		for name, value := range map[string]int64{
			"Limit": int64(limit), "Remaining": int64(now.left(limit)), "Used": int64(now.used), "Reset": now.reset.Unix(),
		} {
			w.Header().Set("X-RateLimit-"+name, strconv.FormatInt(value, 10))
		}
		w.Header().Set("X-RateLimit-Resource", bucket)
		if refused {
			githubError(w, http.StatusForbidden, "API rate limit exceeded for installation ID 1.")
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (e *Emulator) getRateLimit(w http.ResponseWriter, _ *http.Request) {
	e.mu.Lock()
	rate := func(bucket string) map[string]any {
		limit, u := e.opts.Quota.limit(bucket), *e.using(bucket)
		if limit < 0 {
			limit = 1 << 30
		}
		return map[string]any{"limit": limit, "used": u.used, "remaining": u.left(limit), "reset": u.reset.Unix()}
	}
	core, registration := rate(bucketCore), rate(bucketRegistration)
	e.mu.Unlock()
	writeJSON(w, http.StatusOK, map[string]any{
		"resources": map[string]any{bucketCore: core, bucketRegistration: registration}, "rate": core,
	})
}
