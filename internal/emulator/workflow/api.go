package workflow

import (
	"encoding/json"
	"time"
)

// Context is what the outside of a workflow contributes to one run of it: the repository it pretends
// to belong to, the event that started it, and what its secrets and variables hold.
type Context struct {
	Repository      string // owner/name
	RepositoryOwner string // the part before the slash when empty
	Ref             string // refs/heads/main
	SHA             string // 40 hexadecimal digits
	Actor           string
	EventName       string // push, workflow_dispatch ...

	// The addresses as the guest that executes the job sees them, without a slash at the end.
	ServerURL  string
	APIURL     string
	GraphQLURL string

	RunID      int64
	RunNumber  int64
	RunAttempt int64

	Secrets map[string]string
	Vars    map[string]string
	Inputs  map[string]string // what a person would type for on.workflow_dispatch.inputs
	Event   map[string]any    // the webhook's payload, as encoding/json decodes it

	// NewID makes the GUIDs of jobs and steps; random ones when nil.
	NewID func() string
}

// State says how far a job is.
type State string

// The states of a job, in their order.
const (
	Pending   State = "pending"   // waits for the jobs it needs, or for max-parallel
	Queued    State = "queued"    // handed out by Next: a runner may take it
	Completed State = "completed" // has a conclusion
)

// The conclusions of a job and of a run, in the words of GitHub's REST API.
const (
	Success   = "success"
	Failure   = "failure"
	Cancelled = "cancelled"
	Skipped   = "skipped"
)

// RunsOn says which runners may take a job: those that carry every label and, where Group is not
// empty, belong to that runner group. Labels compare without regard to case.
type RunsOn struct {
	Labels []string
	Group  string
}

// Job is one job of a run: one combination where the job has a matrix. The fields are for reading; the
// Run that made the job writes them, under the lock that its owner holds.
type Job struct {
	ID              string // GUID
	Key             string // its key under jobs:
	Name            string // as people see it: "test (linux, 22)"
	RunsOn          RunsOn
	Timeout         time.Duration
	ContinueOnError bool
	Needs           []string // keys of the jobs named by needs:

	State      State
	Conclusion string            // empty until State is Completed
	Reason     string            // why the workflow itself concluded the job: an `if` that was false, an expression that failed
	Outputs    map[string]string // as Conclude was told

	// Steps lists the job's steps as the message names them, so that a server can tie results to names.
	// It is empty until the job is queued.
	Steps []StepInfo

	run  *Run
	def  *jobDef
	inst instance
}

// StepInfo names one step of a job.
type StepInfo struct {
	ID   string // GUID: the id that the runner reports results under
	Name string // as people see it before expressions in it are evaluated
}

// Parts are the parts of the job message that follow from the workflow; the server adds the envelope:
// plan, timeline, resources, tokens. It is ready for json.Marshal under the names of the message.
type Parts struct {
	JobDisplayName       string              `json:"jobDisplayName"`
	JobName              string              `json:"jobName"`
	Steps                []Step              `json:"steps"`
	EnvironmentVariables []Token             `json:"environmentVariables"`
	Defaults             []Token             `json:"defaults"`
	JobOutputs           *Token              `json:"jobOutputs"`
	ContextData          ContextData         `json:"contextData"`
	Variables            map[string]Variable `json:"variables"` // the secrets
	FileTable            []string            `json:"fileTable"`
	Mask                 []MaskHint          `json:"mask"`
}

// Variable is one entry of the message's variables.
type Variable struct {
	Value    string `json:"value"`
	IsSecret bool   `json:"isSecret,omitempty"`
}

// MaskHint tells the runner what to replace by *** in logs; Type is always "regex".
type MaskHint struct {
	Type  string `json:"type"`
	Value string `json:"value"`
}

// Step is one step of the job message.
type Step struct {
	Type             string    `json:"type"` // always "action"
	Reference        Reference `json:"reference"`
	ID               string    `json:"id"`
	Name             string    `json:"name"`
	ContextName      string    `json:"contextName"`
	DisplayNameToken *Token    `json:"displayNameToken,omitempty"`
	Condition        string    `json:"condition"`
	ContinueOnError  *Token    `json:"continueOnError,omitempty"`
	TimeoutInMinutes *Token    `json:"timeoutInMinutes,omitempty"`
	Environment      *Token    `json:"environment,omitempty"`
	Inputs           *Token    `json:"inputs,omitempty"`
}

// Reference says what a step executes: a script, an action of another repository, or one of its own tree.
type Reference struct {
	Type           string `json:"type"` // "script" or "repository"
	Name           string `json:"name,omitempty"`
	Ref            string `json:"ref,omitempty"`
	RepositoryType string `json:"repositoryType,omitempty"` // "GitHub", or "self" for ./path
	Path           string `json:"path,omitempty"`
}

var (
	_ json.Marshaler = Token{}
	_ json.Marshaler = ContextData{}
)
