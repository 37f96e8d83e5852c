package emulator

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Slow delays requests.
func Slow(route string, by time.Duration) Fault { return Fault{Route: route, Delay: by} }

// ServerError answers the next requests with 502 and a page that is not JSON.
func ServerError(route string, times int) Fault {
	return Fault{Route: route, Times: times, Status: http.StatusBadGateway, Body: "<html><body>Unicorn!</body></html>"}
}

// RateLimited answers the next requests with 429 and Retry-After.
func RateLimited(route string, times int, after time.Duration) Fault {
	return Fault{Route: route, Times: times, Status: http.StatusTooManyRequests, RetryAfter: after}
}

// JITLostReply makes the next JIT configurations, of either kind, and loses their replies: the registration
// exists, and a second try under the same name answers 409.
func JITLostReply(times int) Fault {
	return Fault{Route: "POST /generate", Times: times, LoseReply: true}
}

// TokenCallFails answers the next requests for a registration token with a page that is not JSON, and 200.
func TokenCallFails(times int) Fault {
	return Fault{Route: "POST registration-token", Times: times, Status: http.StatusOK, Body: "<html><body>Please try again</body></html>"}
}

// NeverRegister keeps runner programs from getting a session: their registrations stay, offline.
func NeverRegister(times int) Fault {
	return Fault{Route: "POST /broker/session", Times: times, Status: http.StatusServiceUnavailable}
}

// RegistrationExpired answers the next token requests as if the registration had been collected.
func RegistrationExpired(times int) Fault {
	return Fault{Route: "POST /oauth/token", Times: times, Status: http.StatusBadRequest,
		Body: `{"error":"invalid_client","error_description":"Registration was not found."}`}
}

// RegistrationCollected removes the registrations of the next idle runners that poll.
func RegistrationCollected(times int) Fault {
	return Fault{Route: "GET /broker/message", Times: times, Collect: true}
}

// VersionDeprecated refuses the next polls of runners as GitHub refuses those of releases that are too old.
func VersionDeprecated(times int) Fault {
	return Fault{Route: "GET /broker/message", Times: times, Status: http.StatusForbidden,
		Body: fmt.Sprintf(`{"source":%q,"errorKind":%q,"statusCode":403,"errorMessage":%q}`, brokerSource, versionTooOld, deprecation("2.300.0"))}
}

// LostCompletion does the next completions and loses their replies.
func LostCompletion(times int) Fault {
	return Fault{Route: "POST completejob", Times: times, LoseReply: true}
}

// SessionConflict refuses the next sessions of scale sets as if another listener held one.
func SessionConflict(times int) Fault {
	return Fault{Route: "POST /sessions", Times: times, Status: http.StatusConflict,
		Body: runtimeException("RunnerScaleSetSessionConflictException", "The runner scale set already has an active session for owner another-host.")}
}

// SessionEvicted ends the session of a scale set at the next polls of its queue.
func SessionEvicted(times int) Fault { return Fault{Route: "GET /queue/", Times: times, Evict: true} }

// QueueTokenExpired refuses the tokens of the next polls of scale sets' queues.
func QueueTokenExpired(times int) Fault {
	return Fault{Route: "GET /queue/", Times: times, Status: http.StatusUnauthorized, NoBody: true}
}

// EmptyPoll answers the next polls of scale sets' queues with 200 and nothing.
func EmptyPoll(times int) Fault { return Fault{Route: "GET /queue/", Times: times, NoBody: true} }

// LostCompleted keeps the next JobCompleted messages from being sent.
func LostCompleted(times int) Fault { return Fault{Message: jobCompleted, Times: times, Lose: true} }

// LateStarted sends the next JobStarted messages later.
func LateStarted(times int, by time.Duration) Fault {
	return Fault{Message: jobStarted, Times: times, Delay: by}
}

// StaleStatistics says for a time that so many jobs are assigned to each scale set, whatever is true; 0 is
// for ever.
func StaleStatistics(assigned int, d time.Duration) Fault {
	return Fault{Assigned: &assigned, For: d}
}

// TokenExpired answers the next calls about runners as if their token had expired, whoever's it is.
func TokenExpired(times int) Fault {
	return Fault{Route: "/actions/runners", Times: times, Status: http.StatusUnauthorized, Body: `{"message":"Bad credentials","status":"401"}`}
}

// AdminTokenExpired answers the next calls to the scale-set service as if the token of its admin connection had
// expired early.
func AdminTokenExpired(times int) Fault {
	return Fault{Route: "/_apis/runtime/", Times: times, Status: http.StatusUnauthorized, NoBody: true}
}

// RegistrationRefused refuses the next admin connections, as if a fresh registration token had not been
// replicated yet.
func RegistrationRefused(times int) Fault {
	return Fault{Route: "POST /actions/runner-registration", Times: times, Status: http.StatusForbidden}
}

// JobStillRunning refuses to remove the next runners of scale sets, as if each had a job.
func JobStillRunning(times int) Fault {
	return Fault{Route: "DELETE /agents/", Times: times, Status: http.StatusBadRequest,
		Body: runtimeException("JobStillRunningException", "The runner is still running a job.")}
}

// DuplicatePost does the next registrations two times: the second meets the first, as when a proxy sends a request again.
func DuplicatePost(times int) Fault { return Fault{Route: "POST /generate", Times: times, Twice: true} }

// DuplicateMessages sends the next job messages of a kind two times.
func DuplicateMessages(kind string, times int) Fault {
	return Fault{Message: kind, Times: times, Twice: true}
}

// CapacityTrapdoor withholds for ever, from a scale set that announces a capacity of 0, what is queued meanwhile.
func CapacityTrapdoor() Fault { return Fault{Trapdoor: true} }

// AssignmentLapses lets the next assignments lapse early.
func AssignmentLapses(times int, after time.Duration) Fault { return Fault{Times: times, Lapse: after} }

// ByteOrderMark begins all JSON with one.
func ByteOrderMark() Fault { return Fault{BOM: true} }

// incidents are faults that others met, under the names that we call them by.
var incidents = map[string]func() Fault{
	"jit-lost-reply":              func() Fault { return JITLostReply(1) },
	"token-call-fails":            func() Fault { return TokenCallFails(1) },
	"never-registers":             func() Fault { return NeverRegister(1) },
	"idle-registration-collected": func() Fault { return RegistrationCollected(1) },
	"version-deprecated":          func() Fault { return VersionDeprecated(0) },
	"rate-limit-burn":             func() Fault { return RateLimited("", 10, time.Minute) },
	"session-conflict":            func() Fault { return SessionConflict(1) },
	"session-evicted":             func() Fault { return SessionEvicted(1) },
	"empty-200":                   func() Fault { return EmptyPoll(1) },
	"lost-completed":              func() Fault { return LostCompleted(1) },
	"late-started":                func() Fault { return LateStarted(1, 10*time.Minute) },
	"stale-statistics":            func() Fault { return StaleStatistics(34, 0) },
	"queue-token-expired":         func() Fault { return QueueTokenExpired(1) },
	"token-expired":               func() Fault { return TokenExpired(1) },
	"admin-token-expired":         func() Fault { return AdminTokenExpired(1) },
	"registration-refused":        func() Fault { return RegistrationRefused(2) },
	"job-still-running":           func() Fault { return JobStillRunning(1) },
	"duplicate-post":              func() Fault { return DuplicatePost(1) },
	"duplicate-completed":         func() Fault { return DuplicateMessages(jobCompleted, 1) },
	"capacity-zero-trapdoor":      CapacityTrapdoor,
	"assignment-lapses":           func() Fault { return AssignmentLapses(1, time.Second) },
	"byte-order-mark":             ByteOrderMark,
	"server-errors":               func() Fault { return ServerError("", 5) },
	"slow":                        func() Fault { return Slow("", 2*time.Second) },
	"lost-completion":             func() Fault { return LostCompletion(1) },
}

// Incident returns the fault of that name, which may be changed before it is set; the names are those of
// the documentation.
func Incident(name string) (Fault, error) {
	if make := incidents[name]; make != nil {
		return make(), nil
	}
	return Fault{}, fmt.Errorf("cannot find incident %q: there are %s", name,
		strings.Join(slices.Sorted(maps.Keys(incidents)), ", "))
}
