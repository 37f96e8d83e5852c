package emulator

import (
	"bytes"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Fault is one thing that goes wrong: with requests; with the job messages of scale sets, when Message is
// set; or with the scale sets themselves, when Assigned, Trapdoor or Lapse is set. Several may match one
// request; their delays add up and the first that answers or loses the reply decides.
type Fault struct {
	// Route says which requests: "METHOD PIECE", or only "PIECE"; PIECE is a part of the path. Empty means all.
	Route string `json:"route,omitempty"`
	// Message says which job messages instead: JobAvailable, JobAssigned, JobStarted or JobCompleted.
	Message string `json:"message,omitempty"`
	// Skip lets that many matches pass first.
	Skip int `json:"skip,omitempty"`
	// Times is how many matches are hit; 0 means all of them.
	Times int `json:"times,omitempty"`
	// For is how long the fault lasts from when it was set; 0 means for ever.
	For time.Duration `json:"for,omitempty"`

	// Delay holds the request before anything else, or the message.
	Delay time.Duration `json:"delay,omitempty"`
	// Twice does the request two times and gives the second answer, or sends the message two times.
	Twice bool `json:"twice,omitempty"`

	// Status answers instead of doing anything; 0 does it.
	Status int `json:"status,omitempty"`
	// Body goes with Status; GitHub's error JSON when empty.
	Body string `json:"body,omitempty"`
	// NoBody answers Status, 200 when 0, with nothing.
	NoBody bool `json:"no_body,omitempty"`
	// RetryAfter goes with Status, as the header in whole seconds.
	RetryAfter time.Duration `json:"retry_after,omitempty"`
	// LoseReply does what was asked and cuts the connection instead of answering.
	LoseReply bool `json:"lose_reply,omitempty"`
	// BOM puts a byte order mark before the answer if that is JSON.
	BOM bool `json:"bom,omitempty"`
	// Evict ends the session of the scale set that the path names before anything is done.
	Evict bool `json:"evict,omitempty"`
	// Collect removes the registration of the runner that asks, if it has no job, before anything is done.
	Collect bool `json:"collect,omitempty"`

	// Lose keeps the message from being sent.
	Lose bool `json:"lose,omitempty"`
	// Nameless sends the message without the runner's name and id.
	Nameless bool `json:"nameless,omitempty"`

	// Assigned is what statistics give as totalAssignedJobs, whatever is true.
	Assigned *int `json:"assigned,omitempty"`
	// Trapdoor withholds for ever, from a set that announces a capacity of 0, the jobs that are queued meanwhile.
	Trapdoor bool `json:"trapdoor,omitempty"`
	// Lapse is after how long an assignment lapses that no runner came for.
	Lapse time.Duration `json:"lapse,omitempty"`
}

// ofSets says whether the fault is about scale sets rather than requests or messages.
func (f Fault) ofSets() bool { return f.Assigned != nil || f.Trapdoor || f.Lapse > 0 }

// effects counts what happens to what the fault hits.
func (f Fault) effects() int {
	n := 0
	for _, does := range []bool{
		f.Delay > 0, f.Twice, f.Status != 0, f.NoBody, f.LoseReply, f.BOM, f.Evict, f.Collect, f.Lose, f.Nameless, f.ofSets(),
	} {
		if does {
			n++
		}
	}
	return n
}

type fault struct {
	Fault
	seen int
	set  time.Time
}

// SetFaults replaces the faults; none ends them.
func (e *Emulator) SetFaults(faults []Fault) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.faults = nil
	for _, f := range faults {
		e.faults = append(e.faults, &fault{Fault: f, set: time.Now()})
	}
}

// count returns the faults that match and hit now, and counts the match. The lock is held.
func (e *Emulator) count(matches func(Fault) bool) []Fault {
	var out []Fault
	for _, f := range e.faults {
		if !matches(f.Fault) || f.For > 0 && time.Since(f.set) >= f.For {
			continue
		}
		f.seen++
		if f.seen > f.Skip && (f.Times == 0 || f.seen <= f.Skip+f.Times) {
			out = append(out, f.Fault)
		}
	}
	return out
}

// requestFaults returns the faults that this request meets.
func (e *Emulator) requestFaults(r *http.Request) []Fault {
	if strings.HasPrefix(r.URL.Path, adminPrefix) {
		return nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.count(func(f Fault) bool {
		method, piece, both := strings.Cut(f.Route, " ")
		if !both {
			method, piece = r.Method, f.Route
		}
		return f.Message == "" && !f.ofSets() && method == r.Method && strings.Contains(r.URL.Path, piece)
	})
}

// messageFaults returns the faults that a job message of that kind meets. The lock is held.
func (e *Emulator) messageFaults(kind string) []Fault {
	return e.count(func(f Fault) bool { return f.Message == kind })
}

// statisticsFaults returns the faults that statistics meet now. The lock is held.
func (e *Emulator) statisticsFaults() []Fault {
	return e.count(func(f Fault) bool { return f.Assigned != nil })
}

// trapdoor says whether a job that is queued now falls through the trapdoor. The lock is held.
func (e *Emulator) trapdoor() bool {
	return len(e.count(func(f Fault) bool { return f.Trapdoor })) > 0 || e.opts.ScaleSets.ZeroTrapdoor
}

// lapseOf is after how long an assignment that is made now lapses. The lock is held.
func (e *Emulator) lapseOf() time.Duration {
	d := e.opts.ScaleSets.AssignTimeout
	for _, f := range e.count(func(f Fault) bool { return f.Lapse > 0 }) {
		d = f.Lapse
	}
	return d
}

// faulty serves one request with whatever goes wrong with it.
func (e *Emulator) faulty(w http.ResponseWriter, r *http.Request, next http.Handler) {
	faults := e.requestFaults(r)
	for _, f := range faults {
		if f.Delay > 0 && !pause(r, f.Delay) {
			return
		}
		if f.Evict {
			e.evictAt(r.URL.Path)
		}
		if f.Collect {
			e.collectCaller(r)
		}
		if f.Twice {
			again(next, r)
		}
		if f.BOM {
			w = &markedWriter{ResponseWriter: w}
		}
		switch {
		case f.Status != 0 || f.NoBody:
			f.answer(w)
			return
		case f.LoseReply:
			next.ServeHTTP(&voidWriter{header: http.Header{}}, r)
			panic(http.ErrAbortHandler) // net/http cuts the connection, without a word in the log
		}
	}
	next.ServeHTTP(w, r)
}

// pause returns false if the asker went away first.
func pause(r *http.Request, d time.Duration) bool {
	wait := time.NewTimer(d)
	defer wait.Stop()
	select {
	case <-wait.C:
		return true
	case <-r.Context().Done():
		return false
	}
}

// again serves a request for nobody and leaves it as it was.
func again(next http.Handler, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBody))
	if err != nil {
		return // the true request will meet it too
	}
	twin := r.Clone(r.Context())
	twin.Body = io.NopCloser(bytes.NewReader(body))
	next.ServeHTTP(&voidWriter{header: http.Header{}}, twin)
	r.Body = io.NopCloser(bytes.NewReader(body))
}

func (f Fault) answer(w http.ResponseWriter) {
	if f.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(f.RetryAfter.Seconds()+0.999)))
	}
	switch {
	case f.NoBody:
		w.WriteHeader(max(f.Status, http.StatusOK))
	case f.Body == "":
		githubError(w, f.Status, http.StatusText(f.Status))
	default:
		if strings.HasPrefix(f.Body, "{") {
			w.Header().Set("Content-Type", "application/json; charset=utf-8")
		}
		w.WriteHeader(f.Status)
		io.WriteString(w, f.Body)
	}
}

var setInPath = regexp.MustCompile(`/(?:runnerscalesets|queue)/(\d+)`)

// evictAt ends the session of the scale set that a path names.
func (e *Emulator) evictAt(path string) {
	m := setInPath.FindStringSubmatch(path)
	if m == nil {
		return
	}
	id, _ := strconv.ParseInt(m[1], 10, 64)
	e.mu.Lock()
	defer e.mu.Unlock()
	if s := e.sets[id]; s != nil {
		e.evict(s)
	}
}

// collectCaller removes the registration of the runner that asks.
func (e *Emulator) collectCaller(r *http.Request) {
	client := e.subject(bearer(r), kindRunner)
	e.mu.Lock()
	defer e.mu.Unlock()
	if found := e.runnerByClient(client); found != nil && found.gone == registered && found.job == nil {
		e.collect(found)
	}
}

// voidWriter takes an answer that nobody gets.
type voidWriter struct{ header http.Header }

func (v *voidWriter) Header() http.Header         { return v.header }
func (v *voidWriter) Write(b []byte) (int, error) { return len(b), nil }
func (v *voidWriter) WriteHeader(int)             {}

const byteOrderMark = "\xef\xbb\xbf"

// markedWriter begins JSON with a byte order mark.
type markedWriter struct {
	http.ResponseWriter
	begun bool
}

func (m *markedWriter) Write(b []byte) (int, error) {
	if !m.begun && strings.HasPrefix(m.Header().Get("Content-Type"), "application/json") {
		m.begun = true
		if _, err := io.WriteString(m.ResponseWriter, byteOrderMark); err != nil {
			return 0, err
		}
	}
	m.begun = true
	return m.ResponseWriter.Write(b)
}
