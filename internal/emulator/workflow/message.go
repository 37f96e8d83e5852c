package workflow

import (
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
)

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

// Format redacts a secret for every verb of fmt; only json.Marshal writes it.
func (v Variable) Format(f fmt.State, _ rune) {
	text := v.Value
	if v.IsSecret {
		text = "[redacted]"
	}
	_, _ = io.WriteString(f, text)
}

// MaskHint tells the runner what to replace by *** in logs; Type is always "regex".
type MaskHint struct {
	Type  string `json:"type"`
	Value string `json:"value"`
}

// Format redacts what the hint would hide.
func (m MaskHint) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "[redacted]") }

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

// Parts makes the parts of the message of a job that Next has returned.
func (j *Job) Parts() (Parts, error) {
	if len(j.Steps) == 0 {
		return Parts{}, fmt.Errorf("cannot make the message of job %q: it is %s", j.Name, j.State)
	}
	r := j.run
	p := Parts{
		JobDisplayName: j.Name,
		JobName:        j.Key,
		Defaults:       append([]Token{}, j.def.defaults...),
		JobOutputs:     j.def.outputs,
		Variables:      map[string]Variable{},
		FileTable:      []string{r.w.File},
		Mask:           []MaskHint{},
	}
	for i, d := range j.def.steps {
		s := d.step
		s.ID = j.Steps[i].ID
		p.Steps = append(p.Steps, s)
	}
	p.EnvironmentVariables = []Token{}
	for _, env := range []*Token{r.w.env, j.def.env} {
		if env != nil {
			p.EnvironmentVariables = append(p.EnvironmentVariables, *env)
		}
	}
	contexts := j.scope().Contexts
	if j.matrix == nil {
		contexts.Set("matrix", nil)
	}
	p.ContextData = ContextData{contexts}
	for name, value := range r.c.Secrets {
		p.Variables[name] = Variable{Value: value, IsSecret: true}
		p.Mask = append(p.Mask, masks(value)...)
	}
	slices.SortFunc(p.Mask, func(a, b MaskHint) int { return strings.Compare(a.Value, b.Value) })
	return p, nil
}

// masks hides a secret, and each line of one with several: a log has them one by one.
func masks(secret string) []MaskHint {
	var hints []MaskHint
	for part := range strings.Lines(secret) {
		if part = strings.TrimSpace(part); part != "" {
			hints = append(hints, MaskHint{Type: "regex", Value: regexp.QuoteMeta(part)})
		}
	}
	return hints
}
