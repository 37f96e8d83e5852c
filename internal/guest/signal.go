package guest

import (
	"strings"

	"github.com/mirego/tasuki/internal/image"
)

// SignalKind is what a line of a runner program tells.
type SignalKind string

// The kinds of signals.
const (
	Connected        SignalKind = "connected"         // it reached GitHub (official runner only)
	Listening        SignalKind = "listening"         // it waits for a job
	JobStarted       SignalKind = "job-started"       // Job is its name
	JobFinished      SignalKind = "job-finished"      // Job; Result where the line tells it
	RegistrationGone SignalKind = "registration-gone" // GitHub does not know the runner any more
	Deprecated       SignalKind = "deprecated"        // GitHub gives no jobs to this version
	SessionConflict  SignalKind = "session-conflict"  // GitHub sees another runner of this name
)

// Signal is what one line of a runner program tells. It is a hint, and a job
// can print such lines too: a conclusion always comes from GitHub.
type Signal struct {
	Kind   SignalKind
	Job    string // the job's display name
	Result string // as the runner writes it: "Succeeded", "Failed", "Canceled", ...
	Text   string // the line without its time and marks
}

// Read finds the signal in a line of a runner program of this kind, if there
// is one.
func Read(kind, line string) (Signal, bool) {
	text := bare(line)
	var s Signal
	switch kind {
	case image.RunnerAct:
		s = readAct(text)
	case image.RunnerOfficial:
		s = readOfficial(text)
	default: // a program of its own may write either
		if s = readOfficial(text); s.Kind == "" {
			s = readAct(text)
		}
	}
	s.Text = text
	return s, s.Kind != ""
}

// readAct knows the lines of github-act-runner v0.13.0 (actionsrunner/runner.go
// and worker_context.go). Those about a job begin with "NAME ( URL ): ".
func readAct(text string) Signal {
	switch {
	case strings.HasPrefix(text, "Listening for Jobs: "):
		return Signal{Kind: Listening}
	case strings.HasPrefix(text, "Fatal: It looks like this runner has been removed from GitHub"):
		return Signal{Kind: RegistrationGone}
	case failsFor(text, "is deprecated and cannot receive messages"):
		return Signal{Kind: Deprecated}
	case failsFor(text, "SessionConflict"), failsFor(text, "already has an active session"):
		return Signal{Kind: SessionConflict}
	}
	_, rest, ok := strings.Cut(text, " ( ")
	if ok {
		_, rest, ok = strings.Cut(rest, " ): ")
	}
	if !ok {
		rest = text
	}
	if job, ok := strings.CutPrefix(rest, "Running Job '"); ok {
		return Signal{Kind: JobStarted, Job: strings.TrimSuffix(job, "'")}
	}
	if job, ok := strings.CutPrefix(rest, "Finished Job '"); ok {
		// The last quote ends the name, which may hold quotes itself.
		end := strings.LastIndexByte(job, '\'')
		if end < 0 {
			return Signal{}
		}
		_, result, _ := strings.Cut(job[end:], "' with Status ")
		return Signal{Kind: JobFinished, Job: job[:end], Result: result}
	}
	return Signal{}
}

// failsFor says whether text is a complaint about the session for this reason.
func failsFor(text, reason string) bool {
	return strings.HasPrefix(text, "Failed to ") && strings.Contains(text, reason)
}

// readOfficial knows the lines of actions/runner (Runner.cs, JobDispatcher.cs
// and MessageListener.cs of src/Runner.Listener).
func readOfficial(text string) Signal {
	const completed = " completed with result: "
	switch {
	case text == "Connected to GitHub":
		return Signal{Kind: Connected}
	case text == "Listening for Jobs":
		return Signal{Kind: Listening}
	case strings.HasPrefix(text, "Running job: "):
		return Signal{Kind: JobStarted, Job: strings.TrimPrefix(text, "Running job: ")}
	case strings.HasPrefix(text, "Job ") && strings.Contains(text, completed):
		at := strings.LastIndex(text, completed) // the name may hold these words
		return Signal{Kind: JobFinished, Job: text[len("Job "):at], Result: text[at+len(completed):]}
	case strings.Contains(text, "Registration ") && strings.Contains(text, " was not found"),
		strings.Contains(text, "The runner registration has been deleted from the server"),
		strings.HasPrefix(text, "The runner no longer exists on the server"):
		return Signal{Kind: RegistrationGone}
	case strings.Contains(text, "is deprecated and cannot receive messages"):
		return Signal{Kind: Deprecated}
	case strings.HasPrefix(text, "A session for this runner already exists"),
		strings.HasPrefix(text, "Runner connect error: Error: Conflict"):
		return Signal{Kind: SessionConflict}
	}
	return Signal{}
}

// bare strips a line's end, its marks and the runner's "2006-01-02 15:04:05Z: ".
func bare(line string) string {
	line = strings.TrimLeft(strings.TrimSpace(line), "√✓× \t")
	for _, layout := range []string{"0000-00-00 00:00:00Z: ", "0000-00-00T00:00:00Z ", "0000-00-00T00:00:00.0000000Z "} {
		if looksLike(line, layout) {
			line = line[len(layout):]
			break
		}
	}
	return strings.TrimLeft(line, "√✓× \t")
}

// looksLike says whether s begins as layout does, with any digit for a 0.
func looksLike(s, layout string) bool {
	if len(s) < len(layout) {
		return false
	}
	for i := range len(layout) {
		if layout[i] == '0' && '0' <= s[i] && s[i] <= '9' {
			continue
		}
		if s[i] != layout[i] {
			return false
		}
	}
	return true
}
