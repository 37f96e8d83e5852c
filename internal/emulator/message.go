package emulator

import (
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/mirego/tasuki/internal/emulator/workflow"
)

// jobMessage is what acquirejob answers: the workflow's parts in the service's envelope.
type jobMessage struct {
	workflow.Parts
	MessageType string                       `json:"messageType"`
	Plan        plan                         `json:"plan"`
	Timeline    map[string]any               `json:"timeline"`
	JobID       string                       `json:"jobId"`
	RequestID   int64                        `json:"requestId"`
	LockedUntil string                       `json:"lockedUntil"`
	Container   *struct{}                    `json:"jobContainer"`
	Services    *struct{}                    `json:"jobServiceContainers"`
	Environment *struct{}                    `json:"actionsEnvironment"`
	Workspace   struct{}                     `json:"workspace"`
	Resources   map[string][]endpoint        `json:"resources"`
	Variables   map[string]workflow.Variable `json:"variables"`
	ContextData json.RawMessage              `json:"contextData"`
	Billing     string                       `json:"billingOwnerId"`
}

type plan struct {
	Scope   string `json:"scopeIdentifier"`
	Type    string `json:"planType"`
	Group   string `json:"planGroup"`
	ID      string `json:"planId"`
	Version int    `json:"version"`
}

// endpoint is where a job talks to, and with which token.
type endpoint struct {
	Name          string            `json:"name"`
	URL           string            `json:"url"`
	IsShared      bool              `json:"isShared"`
	IsReady       bool              `json:"isReady"`
	Authorization map[string]any    `json:"authorization"`
	Data          map[string]string `json:"data"`
}

// jobMessage writes the message of a job for a runner that sees the emulator at base. The lock is held.
func (e *Emulator) jobMessage(j *job, base string) (*jobMessage, error) {
	parts, err := j.def.Parts()
	if err != nil {
		return nil, fmt.Errorf("cannot prepare job %q: %w", j.def.Name, err)
	}
	contexts, err := relocate(parts.ContextData, base)
	if err != nil {
		return nil, fmt.Errorf("cannot prepare the contexts of job %q: %w", j.def.Name, err)
	}
	token := e.jobToken(j)
	m := &jobMessage{
		Parts:       parts,
		MessageType: "RunnerJobRequest",
		Plan:        plan{e.instance, "actions", "actions", j.run.planID, 12},
		Timeline:    map[string]any{"id": j.timelineID, "changeId": 1, "location": nil},
		JobID:       j.def.ID,
		RequestID:   j.requestID,
		LockedUntil: "0001-01-01T00:00:00",
		Resources:   map[string][]endpoint{"endpoints": {e.jobEndpoint(j, base, token)}},
		Variables:   e.jobVariables(j, parts, base),
		ContextData: contexts,
		Billing:     "1",
	}
	m.Mask = append([]workflow.MaskHint{{Type: "regex", Value: token}}, parts.Mask...)
	return m, nil
}

// jobToken makes the job's credential: a JWT, since the official runner reads its claims. It outlives the
// longest job there can be, five days.
func (e *Emulator) jobToken(j *job) string {
	return e.mint(kindJob, j.def.ID, 5*24*time.Hour+time.Hour, jwt.MapClaims{
		"scp": fmt.Sprintf("Actions.GenericRead:%[1]s Actions.UploadArtifacts:%[1]s/1:Build/Build:%[2]s Actions.Results:%[2]s:%[3]s",
			e.instance, j.run.planID, j.def.ID),
		"ac":     fmt.Sprintf(`[{"Scope":%q,"Permission":3}]`, j.run.ref),
		"orchid": j.orchestrationID(), "orch_id": j.orchestrationID(),
		"run_id": fmt.Sprint(j.run.id), "repository": e.opts.Repository,
	})
}

func (j *job) orchestrationID() string { return j.run.planID + "." + j.def.Key + ".__default" }

func (e *Emulator) jobEndpoint(j *job, base, token string) endpoint {
	_, host, _ := strings.Cut(base, "://")
	feed := "ws://" + host
	if strings.HasPrefix(base, "https:") {
		feed = "wss://" + host
	}
	return endpoint{
		Name: "SystemVssConnection", URL: base + "/run/", IsReady: true,
		Authorization: map[string]any{"scheme": "OAuth", "parameters": map[string]string{"AccessToken": token}},
		Data: map[string]string{
			"ServerId": e.instance, "ServerName": "emulator",
			"CacheServerUrl": base + "/", "PipelinesServiceUrl": base + "/tenant/", "ResultsServiceUrl": base + "/",
			"FeedStreamUrl": feed + "/feed/" + j.def.ID,
		},
	}
}

// jobVariables adds the service's variables to the workflow's.
func (e *Emulator) jobVariables(j *job, parts workflow.Parts, base string) map[string]workflow.Variable {
	github := workflow.Variable{Value: "ghs_" + strings.ReplaceAll(newGUID(), "-", ""), IsSecret: true}
	all := maps.Clone(parts.Variables)
	if all == nil {
		all = map[string]workflow.Variable{}
	}
	all["system.github.token"], all["github_token"] = github, github
	for name, value := range map[string]string{
		"system.github.job":                          j.def.Key,
		"system.github.results_endpoint":             base + "/",
		"system.github.launch_endpoint":              base + "/",
		"system.runnerGroupName":                     j.runner.group.name,
		"system.orchestrationId":                     j.orchestrationID(),
		"DistributedTask.NewActionMetadata":          "true",
		"DistributedTask.EnableCompositeActions":     "true",
		"DistributedTask.EnhancedAnnotations":        "true",
		"DistributedTask.UploadStepSummary":          "true",
		"DistributedTask.AddWarningToNode12Action":   "false",
		"DistributedTask.DeprecateStepOutputCommand": "true",
	} {
		all[name] = workflow.Variable{Value: value}
	}
	return all
}

// relocate puts the runner's view of the emulator into the github context: a run may be queued before
// anybody knows how the guests will reach us.
func relocate(data workflow.ContextData, base string) (json.RawMessage, error) {
	raw, err := json.Marshal(data)
	if err != nil {
		return nil, err
	}
	var contexts map[string]json.RawMessage
	if err := json.Unmarshal(raw, &contexts); err != nil {
		return nil, err
	}
	type pair struct {
		Key   string          `json:"k"`
		Value json.RawMessage `json:"v"`
	}
	var github struct {
		Type int    `json:"t"`
		Dict []pair `json:"d"`
	}
	if contexts["github"] == nil {
		return raw, nil
	}
	if err := json.Unmarshal(contexts["github"], &github); err != nil {
		return nil, err
	}
	for _, place := range []struct{ key, url string }{
		{"server_url", base}, {"api_url", base + "/api/v3"}, {"graphql_url", base + "/api/graphql"},
	} {
		text, err := json.Marshal(place.url)
		if err != nil {
			return nil, err
		}
		for i := range github.Dict {
			if github.Dict[i].Key == place.key {
				github.Dict[i].Value = text
			}
		}
	}
	if contexts["github"], err = json.Marshal(github); err != nil {
		return nil, err
	}
	return json.Marshal(contexts)
}
