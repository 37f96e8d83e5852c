package workflow

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/mirego/tasuki/internal/emulator/workflow/expr"
)

// stepDef is one step as every job made of its definition is sent it, but for the GUID.
type stepDef struct {
	step Step
	name string // for people
}

// stepCompiler compiles the steps of one job.
type stepCompiler struct {
	*compiler
	tree      Tree
	checkouts *checkouts
	names     map[string]int // how often a context name was made up
	taken     map[string]bool
	roots     []string // the path inputs of the checkouts before: where a local action may lie
	actions   []string // the local actions being looked at, to find one that uses itself
}

func (c *stepCompiler) steps(list *yaml.Node, jobPath string, defaults []Token) []stepDef {
	c.names, c.taken = map[string]int{}, map[string]bool{}
	for _, n := range items(list) {
		if id := get(n, "id"); id != nil {
			c.taken[strings.ToLower(id.Value)] = true
		}
	}
	var defs []stepDef
	for i, n := range items(list) {
		path := fmt.Sprintf("%s.steps[%d]", jobPath, i)
		switch {
		case get(n, "run") != nil:
			defs = append(defs, c.run(n, path, defaults))
		case get(n, "uses") != nil:
			if def, ok := c.uses(n, path); ok {
				defs = append(defs, def)
			}
		default:
			for k := range entries(n) { // actionlint says so where neither key is there
				if k.Value == "run" || k.Value == "uses" {
					c.refuse(k, path+"."+k.Value, "it is empty")
				}
			}
		}
	}
	return defs
}

// common compiles what steps of both kinds have.
func (c *stepCompiler) common(n *yaml.Node, path, madeUp string) Step {
	place := func(name string) where { return at(path+"."+name, "jobs.<job_id>.steps."+name) }
	s := Step{
		Type:             "action",
		Name:             madeUp,
		Condition:        stepCondition(c.condition(get(n, "if"), place("if"))),
		ContinueOnError:  c.token(get(n, "continue-on-error"), place("continue-on-error")),
		TimeoutInMinutes: c.token(get(n, "timeout-minutes"), place("timeout-minutes")),
		Environment:      c.textToken(get(n, "env"), place("env")),
		DisplayNameToken: c.textToken(get(n, "name"), place("name")),
	}
	if id := get(n, "id"); id != nil {
		s.ContextName = id.Value
	} else {
		s.ContextName = c.unique(madeUp)
	}
	return s
}

// unique makes a context name for a step without an id: __run, __run_2 ...
func (c *stepCompiler) unique(base string) string {
	for {
		c.names[base]++
		name := base
		if c.names[base] > 1 {
			name = fmt.Sprintf("%s_%d", base, c.names[base])
		}
		if !c.taken[strings.ToLower(name)] {
			return name
		}
	}
}

// stepCondition is the condition as the runner wants it: success() is implied where no status function is called.
func stepCondition(e *expr.Expr) string {
	switch {
	case e == nil:
		return "success()"
	case e.CallsStatus():
		return e.Source()
	}
	return "success() && (" + e.Source() + ")"
}

func (c *stepCompiler) run(n *yaml.Node, path string, defaults []Token) stepDef {
	place := func(name string) where { return at(path+"."+name, "jobs.<job_id>.steps."+name) }
	s := c.common(n, path, "__run")
	s.Reference = Reference{Type: "script"}
	script := get(n, "run")
	inputs := []pair{{"script", *c.textToken(script, place("run"))}}
	// The official runner applies the defaults itself; others know only what the step says, so it says it.
	shell := c.textToken(get(n, "shell"), place("run"))
	if shell == nil {
		shell = runDefault(defaults, "shell")
	}
	if shell != nil {
		inputs = append(inputs, pair{"shell", *shell})
	}
	dir := c.textToken(get(n, "working-directory"), place("working-directory"))
	if dir == nil {
		dir = runDefault(defaults, "working-directory")
	}
	if dir != nil {
		inputs = append(inputs, pair{"workingDirectory", *dir})
	}
	t := mapToken(inputs...)
	s.Inputs = &t
	return named(s, firstLine(script.Value))
}

// runDefault returns a value of defaults.run, the job's before the workflow's.
func runDefault(defaults []Token, key string) *Token {
	for _, d := range slices.Backward(defaults) {
		for _, p := range d.pairs {
			if p.Key != "run" {
				continue
			}
			for _, q := range p.Value.pairs {
				if q.Key == key {
					return &q.Value
				}
			}
		}
	}
	return nil
}

// named gives a step without a name the one that GitHub shows: Run and what it runs.
func named(s Step, what string) stepDef {
	if s.DisplayNameToken == nil {
		t, _, err := parseTemplate("Run " + what)
		if err != nil { // an expression that goes on in the next line
			t = literal("Run " + what)
		}
		s.DisplayNameToken = &t
	}
	return stepDef{step: s, name: s.DisplayNameToken.written()}
}

func firstLine(script string) string {
	line, _, _ := strings.Cut(strings.TrimLeft(script, " \t\r\n"), "\n")
	return strings.TrimRight(line, " \t\r")
}

var notInName = regexp.MustCompile(`[^A-Za-z0-9_-]`)

func (c *stepCompiler) uses(n *yaml.Node, path string) (stepDef, bool) {
	uses := get(n, "uses")
	ref, ok := c.reference(n, uses, path+".uses")
	if !ok {
		return stepDef{}, false
	}
	madeUp := "__self"
	if ref.Name != "" {
		madeUp = "__" + notInName.ReplaceAllString(ref.Name, "_")
	}
	s := c.common(n, path, madeUp)
	s.Reference = ref
	s.Inputs = c.textToken(get(n, "with"), at(path+".with", "jobs.<job_id>.steps.with"))
	return named(s, uses.Value), true
}

// reference says what uses: means, or refuses it.
func (c *stepCompiler) reference(step, uses *yaml.Node, path string) (Reference, bool) {
	text := uses.Value
	name, version, versioned := strings.Cut(text, "@")
	switch {
	case strings.Contains(text, openExpr):
		c.refuse(uses, path, "an expression cannot name an action: %q", text)
	case strings.HasPrefix(text, "./"):
		return Reference{Type: "repository", RepositoryType: "self", Path: text}, c.localAction(uses, path)
	case strings.HasPrefix(text, "docker://"):
		c.refuse(uses, path, "not supported: container actions such as %q", text)
	case strings.EqualFold(name, "actions/checkout"):
		if !versioned || version == "" {
			c.refuse(uses, path, "%q names no version: write actions/checkout@v4", text)
			return Reference{}, false
		}
		c.checkoutInputs(get(step, "with"), strings.TrimSuffix(path, ".uses")+".with")
		return Reference{Type: "repository", Name: name, Ref: version, RepositoryType: "GitHub"}, true
	default:
		c.refuse(uses, path, "not supported: action %q; there are actions/checkout and composite actions of the tree (./path)", text)
	}
	return Reference{}, false
}
