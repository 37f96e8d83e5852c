package workflow

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
