package emulator

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Kinds of job messages.
const (
	jobAvailable = "JobAvailable"
	jobAssigned  = "JobAssigned"
	jobStarted   = "JobStarted"
	jobCompleted = "JobCompleted"
)

// most job messages that one message holds.
const maxBatch = 50

// firstMessage is below the first message's number; those of GitHub are as large.
const firstMessage = 100_072_000

// news is a job message on its way.
type news struct {
	due  time.Time
	body setEvent
}

// setEvent is a job message.
type setEvent struct {
	Type        string    `json:"messageType"`
	AcquireURL  string    `json:"acquireJobUrl,omitempty"`
	RequestID   int64     `json:"runnerRequestId"`
	Repository  string    `json:"repositoryName"`
	Owner       string    `json:"ownerName"`
	JobID       string    `json:"jobId"`
	WorkflowRef string    `json:"jobWorkflowRef"`
	Name        string    `json:"jobDisplayName"`
	RunID       int64     `json:"workflowRunId"`
	Event       string    `json:"eventName"`
	Labels      []string  `json:"requestLabels"`
	Queued      time.Time `json:"queueTime"`
	Assigned    time.Time `json:"scaleSetAssignTime"`
	Started     time.Time `json:"runnerAssignTime"`
	Finished    time.Time `json:"finishTime"`
	Result      string    `json:"result,omitempty"`
	RunnerID    *int64    `json:"runnerId,omitempty"`
	RunnerName  *string   `json:"runnerName,omitempty"`
}

// setMessage is a message as it was first delivered: it never changes.
type setMessage struct {
	ID         int64         `json:"messageId"`
	Type       string        `json:"messageType"`
	Body       string        `json:"body"` // JSON as text
	Statistics SetStatistics `json:"statistics"`
}

// SetStatistics are the figures that the service tells a scale set's listener.
type SetStatistics struct {
	Available  int `json:"totalAvailableJobs"`
	Acquired   int `json:"totalAcquiredJobs"`
	Assigned   int `json:"totalAssignedJobs"`
	Running    int `json:"totalRunningJobs"`
	Registered int `json:"totalRegisteredRunners"`
	Busy       int `json:"totalBusyRunners"`
	Idle       int `json:"totalIdleRunners"`
}

// event writes a job as a job message. The lock is held.
func (e *Emulator) event(s *scaleSet, kind string, j *job) setEvent {
	owner, repository, _ := strings.Cut(e.opts.Repository, "/")
	out := setEvent{
		Type: kind, Repository: repository, Owner: owner, JobID: j.claim.jobID, Name: j.def.Name,
		WorkflowRef: fmt.Sprintf("%s/.github/workflows/%s@%s", e.opts.Repository, baseName(j.run.file), j.run.ref),
		RunID:       j.run.id, Event: "push", Labels: append([]string{}, j.def.RunsOn.Labels...),
		RequestID: j.claim.requestID, Queued: j.queuedAt.UTC(), Assigned: utc(j.claim.assignedAt),
	}
	if out.JobID == "" {
		out.JobID = j.def.ID
	}
	if e.opts.ScaleSets.ZeroIDs {
		out.RunID = 0
	}
	if kind == jobAvailable {
		out.AcquireURL = fmt.Sprintf("%s/tenant/_apis/runtime/runnerscalesets/%d/acquirejobs", s.base, s.id)
		out.Assigned = time.Time{}
	}
	if kind == jobStarted || kind == jobCompleted {
		var id int64
		var name string
		if j.runner != nil && !j.startedAt.IsZero() {
			id, name = j.runner.id, j.runner.name
		}
		out.RunnerID, out.RunnerName, out.Started = &id, &name, utc(j.startedAt)
	}
	return out
}

func utc(t time.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	return t.UTC()
}

func baseName(path string) string { return path[strings.LastIndexAny(path, `/\`)+1:] }

// tell sends a job message to the set, unless a fault says otherwise. The lock is held.
func (e *Emulator) tell(s *scaleSet, kind string, j *job) { e.send(s, e.event(s, kind, j)) }

func (e *Emulator) tellResult(s *scaleSet, j *job, result string) {
	body := e.event(s, jobCompleted, j)
	body.Result, body.Finished = result, time.Now().UTC()
	e.send(s, body)
}

func (e *Emulator) send(s *scaleSet, body setEvent) {
	n, copies := news{due: time.Now(), body: body}, 1
	for _, f := range e.messageFaults(body.Type) {
		n.due = n.due.Add(f.Delay)
		if f.Lose {
			copies = 0
		}
		if f.Twice {
			copies *= 2
		}
		if f.Nameless && body.RunnerName != nil {
			n.body.RunnerID, n.body.RunnerName = new(int64), new(string)
		}
	}
	for range copies {
		s.news = append(s.news, n)
	}
}

// message returns the oldest unacknowledged message after that number, a new one if there are news, or
// nil. The lock is held.
func (e *Emulator) setMessage(s *scaleSet, after int64) *setMessage {
	for _, m := range s.sent {
		if m.ID > after {
			return m
		}
	}
	now := time.Now()
	var batch []setEvent
	s.news = slices.DeleteFunc(s.news, func(n news) bool {
		if n.due.After(now) || len(batch) == maxBatch {
			return false
		}
		batch = append(batch, n.body)
		return true
	})
	if len(batch) == 0 {
		return nil
	}
	body, err := json.Marshal(batch)
	if err != nil { // texts, numbers and times
		panic(err)
	}
	m := &setMessage{
		ID: firstMessage + e.next("setMessage"), Type: "RunnerScaleSetJobMessages", Body: string(body), Statistics: e.told(s),
	}
	s.sent = append(s.sent, m)
	return m
}

// acknowledge forgets a message.
func (s *scaleSet) acknowledge(id int64) {
	s.sent = slices.DeleteFunc(s.sent, func(m *setMessage) bool { return m.ID == id })
}

// statistics counts what is true of the set. The lock is held.
func (e *Emulator) statistics(s *scaleSet) SetStatistics {
	out := SetStatistics{Available: len(s.offered), Assigned: len(s.jobs)}
	for j := range s.jobs {
		if j.phase == running {
			out.Running++
		}
		if j.claim.acquired {
			out.Acquired++
		}
	}
	now := time.Now()
	for _, r := range e.runners {
		if r.set != s || r.gone != registered {
			continue
		}
		out.Registered++
		if r.busy() {
			out.Busy++
		} else if r.online(now, e.opts.OfflineAfter) {
			out.Idle++
		}
	}
	return out
}

// told are the statistics as the listener hears them. The lock is held.
func (e *Emulator) told(s *scaleSet) SetStatistics {
	out := e.statistics(s)
	for _, f := range e.statisticsFaults() {
		out.Assigned = *f.Assigned
	}
	return out
}
