package workflow

import (
	"strconv"
	"strings"

	"github.com/mirego/tasuki/internal/emulator/workflow/expr"
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

// githubContext makes the github context of a run. What only the runner knows (workspace, action, token ...)
// the runner adds. See https://docs.github.com/en/actions/reference/workflows-and-actions/contexts#github-context
func (w *Workflow) githubContext(c Context, event *expr.Object) *expr.Object {
	kind, name := refName(c.Ref)
	_, host, _ := strings.Cut(c.ServerURL, "://")
	return expr.NewObject(
		"repository", c.Repository,
		"repository_owner", c.RepositoryOwner,
		"repositoryUrl", "git://"+host+"/"+c.Repository+".git",
		"workflow", w.Name,
		"workflow_ref", c.Repository+"/"+w.File+"@"+c.Ref,
		"workflow_sha", c.SHA,
		"event_name", c.EventName,
		"event", event,
		"server_url", c.ServerURL,
		"api_url", c.APIURL,
		"graphql_url", c.GraphQLURL,
		"run_id", strconv.FormatInt(c.RunID, 10),
		"run_number", strconv.FormatInt(c.RunNumber, 10),
		"run_attempt", strconv.FormatInt(c.RunAttempt, 10),
		"actor", c.Actor,
		"triggering_actor", c.Actor,
		"sha", c.SHA,
		"ref", c.Ref,
		"ref_name", name,
		"ref_type", kind,
		"ref_protected", false,
		"head_ref", pullRequestRef(event, "head"),
		"base_ref", pullRequestRef(event, "base"),
		"secret_source", "Actions",
	)
}

// pullRequestRef returns the branch at one side of a pull request, and nothing for other events.
func pullRequestRef(event *expr.Object, side string) string {
	var v any = event
	for _, key := range []string{"pull_request", side, "ref"} {
		o, ok := v.(*expr.Object)
		if !ok {
			return ""
		}
		v, _ = o.Get(key)
	}
	return expr.String(v)
}

func refName(ref string) (kind, name string) {
	if tag, ok := strings.CutPrefix(ref, "refs/tags/"); ok {
		return "tag", tag
	}
	return "branch", strings.TrimPrefix(ref, "refs/heads/")
}

// eventPayload is the webhook's payload: the one given, or the few fields that any event has.
func eventPayload(c Context, inputs *expr.Object) *expr.Object {
	event, ok := expr.FromGo(c.Event).(*expr.Object)
	if !ok || event.Len() == 0 {
		_, name, _ := strings.Cut(c.Repository, "/")
		event = expr.NewObject(
			"ref", c.Ref,
			"repository", expr.NewObject("name", name, "full_name", c.Repository, "owner", expr.NewObject("login", c.RepositoryOwner)),
			"sender", expr.NewObject("login", c.Actor),
		)
	}
	if inputs.Len() > 0 {
		event.Set("inputs", inputs)
	}
	return event
}

// withDefaults fills what a context may leave out.
func (c Context) withDefaults() Context {
	if c.RepositoryOwner == "" {
		c.RepositoryOwner, _, _ = strings.Cut(c.Repository, "/")
	}
	if c.EventName == "" {
		c.EventName = "push"
	}
	c.RunID, c.RunNumber, c.RunAttempt = max(c.RunID, 1), max(c.RunNumber, 1), max(c.RunAttempt, 1)
	if c.NewID == nil {
		c.NewID = newGUID
	}
	return c
}
