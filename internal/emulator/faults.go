package emulator

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Fault is one thing that goes wrong with requests. Several may match one request; their delays add up
// and the first that answers or loses the reply decides.
type Fault struct {
	// Route says which requests: "METHOD PIECE", or only "PIECE"; PIECE is a part of the path. Empty means all.
	Route string `json:"route"`
	// Skip lets that many matching requests pass first.
	Skip int `json:"skip,omitempty"`
	// Times is how many requests are hit; 0 means all of them.
	Times int `json:"times,omitempty"`
	// Delay holds the request before anything else.
	Delay time.Duration `json:"delay,omitempty"`
	// Status answers instead of doing anything; 0 does it.
	Status int `json:"status,omitempty"`
	// Body goes with Status; GitHub's error JSON when empty.
	Body string `json:"body,omitempty"`
	// RetryAfter goes with Status, as the header in whole seconds.
	RetryAfter time.Duration `json:"retry_after,omitempty"`
	// LoseReply does what was asked and cuts the connection instead of answering.
	LoseReply bool `json:"lose_reply,omitempty"`
}

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

// JITLostReply makes the next JIT configurations and loses their replies: the registration exists, and a
// second try under the same name answers 409.
func JITLostReply(times int) Fault {
	return Fault{Route: "POST generate-jitconfig", Times: times, LoseReply: true}
}

// NeverRegister keeps runner programs from getting a session: their registrations stay, offline.
func NeverRegister(times int) Fault {
	return Fault{Route: "POST /session", Times: times, Status: http.StatusServiceUnavailable}
}

// RegistrationExpired answers the next token requests as if the registration had been collected.
func RegistrationExpired(times int) Fault {
	return Fault{Route: "POST /oauth/token", Times: times, Status: http.StatusBadRequest,
		Body: `{"error":"invalid_client","error_description":"Registration was not found."}`}
}

// LostCompletion does the next completions and loses their replies.
func LostCompletion(times int) Fault {
	return Fault{Route: "POST completejob", Times: times, LoseReply: true}
}

type fault struct {
	Fault
	seen int
}

// SetFaults replaces the faults; none ends them.
func (e *Emulator) SetFaults(faults []Fault) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.faults = nil
	for _, f := range faults {
		e.faults = append(e.faults, &fault{Fault: f})
	}
}

// hits returns the faults that this request meets, and counts it.
func (e *Emulator) hits(r *http.Request) []Fault {
	if strings.HasPrefix(r.URL.Path, adminPrefix) {
		return nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	var out []Fault
	for _, f := range e.faults {
		method, piece, both := strings.Cut(f.Route, " ")
		if !both {
			method, piece = r.Method, f.Route
		}
		if method != r.Method || !strings.Contains(r.URL.Path, piece) {
			continue
		}
		f.seen++
		if f.seen > f.Skip && (f.Times == 0 || f.seen <= f.Skip+f.Times) {
			out = append(out, f.Fault)
		}
	}
	return out
}

// inject applies the faults of one request; true means that it is dealt with.
func (e *Emulator) inject(w http.ResponseWriter, r *http.Request, next http.Handler) bool {
	for _, f := range e.hits(r) {
		if f.Delay > 0 {
			wait := time.NewTimer(f.Delay)
			select {
			case <-wait.C:
			case <-r.Context().Done():
				wait.Stop()
				return true
			}
		}
		switch {
		case f.Status != 0:
			if f.RetryAfter > 0 {
				w.Header().Set("Retry-After", strconv.Itoa(int(f.RetryAfter.Seconds()+0.999)))
			}
			if f.Body == "" {
				githubError(w, f.Status, http.StatusText(f.Status))
				return true
			}
			w.WriteHeader(f.Status)
			w.Write([]byte(f.Body))
			return true
		case f.LoseReply:
			next.ServeHTTP(&voidWriter{header: http.Header{}}, r)
			panic(http.ErrAbortHandler) // net/http cuts the connection, without a word in the log
		}
	}
	return false
}

// voidWriter takes an answer that nobody gets.
type voidWriter struct{ header http.Header }

func (v *voidWriter) Header() http.Header         { return v.header }
func (v *voidWriter) Write(b []byte) (int, error) { return len(b), nil }
func (v *voidWriter) WriteHeader(int)             {}
