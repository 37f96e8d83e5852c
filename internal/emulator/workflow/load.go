package workflow

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/rhysd/actionlint"
)

// Workflow is a workflow file that was checked whole. It is immutable and safe for concurrent use.
type Workflow struct {
	Name string // its name:, or its path
	File string // its path in the tree that it lies in, with slashes

	tree   Tree
	jobs   []*jobDef
	env    *Token
	inputs []inputDef // of on.workflow_dispatch
}

// Load reads a workflow file and checks it against the tree that it lies in. What is wrong, or not
// supported, comes back as Problems, all of it.
func Load(path string) (*Workflow, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("cannot read workflow: %w", err)
	}
	tree, err := findTree(path)
	if err != nil {
		return nil, fmt.Errorf("cannot read workflow: %w", err)
	}
	return parse(path, text, tree)
}

// Parse checks a workflow's text alone; name stands for its file. Local actions cannot be looked at then,
// and its actions/checkout brings nothing.
func Parse(name string, src []byte) (*Workflow, error) {
	return parse(name, src, Tree{})
}

// Tree says which files the workflow's actions/checkout brings.
func (w *Workflow) Tree() Tree { return w.tree }

func parse(name string, text []byte, tree Tree) (*Workflow, error) {
	src, err := readSource(name, text)
	if err != nil {
		return nil, err
	}
	problems := lint(name, text)
	c := &compiler{source: src, problems: &problems}
	w := c.workflow(tree)
	if len(problems) > 0 {
		return nil, problems.Sorted()
	}
	return w, nil
}

// lint has actionlint check the file's shape, and what of its rules GitHub refuses as well. Its other rules
// are advice (untrusted inputs, unknown labels) or need a network; expressions are checked while they are compiled.
func lint(name string, text []byte) (problems Problems) {
	defer func() {
		if r := recover(); r != nil {
			problems = append(problems, Problem{File: name, Line: 1, Column: 1, What: fmt.Sprintf("cannot parse: %v", r)})
		}
	}()
	w, errs := actionlint.Parse(text)
	if w != nil {
		visitor := actionlint.NewVisitor()
		rules := []actionlint.Rule{
			actionlint.NewRuleJobNeeds(), actionlint.NewRuleID(), actionlint.NewRuleEnvVar(), actionlint.NewRulePermissions(),
		}
		for _, r := range rules {
			visitor.AddPass(r)
		}
		if err := visitor.Visit(w); err != nil {
			problems = append(problems, Problem{File: name, Line: 1, Column: 1, What: err.Error()})
		}
		for _, r := range rules {
			errs = append(errs, r.Errs()...)
		}
	}
	for _, e := range errs {
		if strings.HasPrefix(e.Message, "anchor ") && strings.HasSuffix(e.Message, "is defined but not used") {
			continue // GitHub does not mind
		}
		problems = append(problems, Problem{File: name, Line: max(e.Line, 1), Column: max(e.Column, 1), What: e.Message})
	}
	return problems
}

// pathIn returns a file's path within a folder, with slashes.
func pathIn(dir, file string) string {
	abs, err := filepath.Abs(file)
	if err != nil || dir == "" {
		return filepath.ToSlash(file)
	}
	rel, err := filepath.Rel(dir, abs)
	if err != nil || !filepath.IsLocal(rel) {
		return filepath.ToSlash(file)
	}
	return filepath.ToSlash(rel)
}
