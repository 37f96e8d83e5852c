package workflow

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/mirego/tasuki/internal/emulator/workflow/expr"
)

// maxActionDepth is how deep composite actions may use one another, as on GitHub:
// https://docs.github.com/en/actions/reference/workflows-and-actions/metadata-syntax
const maxActionDepth = 10

// inComposite is what expressions in the steps of a composite action may use. GitHub does not list it; these
// are the contexts that its runner hands on. secrets is not among them.
var inComposite = expr.Place{
	Contexts:  []string{"env", "github", "inputs", "job", "matrix", "needs", "runner", "steps", "strategy", "vars"},
	Functions: []string{"success", "failure", "always", "cancelled", "hashfiles"},
}

// localAction looks at an action of the tree itself, ./path, as far as it can be seen before the job's checkout.
func (c *stepCompiler) localAction(uses *yaml.Node, keyPath string) bool {
	if c.tree.Dir == "" {
		return true
	}
	file, text, err := c.readAction(uses.Value)
	if err != nil {
		c.refuse(uses, keyPath, "%v", err)
		return false
	}
	if slices.Contains(c.actions, file) || len(c.actions) >= maxActionDepth {
		c.refuse(uses, keyPath, "action %q uses itself, or actions nest deeper than %d", uses.Value, maxActionDepth)
		return false
	}
	src, err := readSource(file, text)
	if problems, ok := errors.AsType[Problems](err); ok {
		*c.problems = append(*c.problems, problems...)
		return false
	}
	inner := &stepCompiler{
		compiler: &compiler{source: src, problems: c.problems}, tree: c.tree, checkouts: c.checkouts,
		roots: c.roots, actions: append(slices.Clone(c.actions), file),
	}
	before := len(*c.problems)
	inner.composite(uses.Value)
	return len(*c.problems) == before
}

// readAction finds the action.yml of ./path in the tree, below the folder of a checkout with a path too. The
// file's name is relative to the working directory where it can be, as the workflow's own is.
func (c *stepCompiler) readAction(uses string) (file string, text []byte, err error) {
	dir := path.Clean(strings.TrimPrefix(uses, "./"))
	if !filepath.IsLocal(dir) && dir != "." {
		return "", nil, fmt.Errorf("action %q lies outside the tree", uses)
	}
	candidates := []string{dir}
	for _, root := range c.roots {
		if rest, ok := strings.CutPrefix(dir+"/", root+"/"); ok {
			candidates = append(candidates, path.Clean(rest))
		}
	}
	root, err := os.OpenRoot(c.tree.Dir)
	if err != nil {
		return "", nil, fmt.Errorf("cannot look for action %q: %w", uses, err)
	}
	defer root.Close()
	for _, dir := range candidates {
		for _, name := range []string{"action.yml", "action.yaml"} {
			file := path.Join(dir, name)
			text, err := root.ReadFile(filepath.FromSlash(file))
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			return c.shownAs(file), text, err
		}
	}
	return "", nil, fmt.Errorf("action %q is not in the tree: there is no %s", uses, path.Join(dir, "action.yml"))
}

func (c *stepCompiler) shownAs(file string) string {
	full := filepath.Join(c.tree.Dir, filepath.FromSlash(file))
	if wd, err := os.Getwd(); err == nil {
		if rel, err := filepath.Rel(wd, full); err == nil && filepath.IsLocal(rel) {
			return rel
		}
	}
	return full
}

// composite checks an action.yml.
func (c *stepCompiler) composite(uses string) {
	runs := get(c.root, "runs")
	using := get(runs, "using")
	switch {
	case runs == nil || using == nil:
		c.report(1, 1, "runs.using", fmt.Sprintf("action %q does not say how it runs", uses))
		return
	case using.Value != "composite":
		c.refuse(using, "runs.using", "not supported: an action that uses %q; only composite ones are", using.Value)
		return
	}
	steps := get(runs, "steps")
	if steps == nil || steps.Kind != yaml.SequenceNode {
		c.refuse(using, "runs.steps", "a composite action needs steps")
		return
	}
	for i, n := range items(steps) {
		c.compositeStep(n, fmt.Sprintf("runs.steps[%d]", i))
	}
}

func (c *stepCompiler) compositeStep(n *yaml.Node, path string) {
	run, uses := get(n, "run"), get(n, "uses")
	switch {
	case run == nil && uses == nil:
		c.refuse(n, path, "the step has neither run nor uses")
	case run != nil && uses != nil:
		c.refuse(n, path, "the step has both run and uses")
	case run != nil && get(n, "shell") == nil:
		c.refuse(run, path+".run", "a run step of a composite action needs a shell")
	case uses != nil:
		c.reference(n, uses, path+".uses")
	}
	for k, v := range entries(n) {
		w := where{path + "." + k.Value, inComposite}
		switch k.Value {
		case "if":
			c.condition(v, w)
		case "run", "shell", "working-directory", "env", "with", "name", "continue-on-error":
			c.textToken(v, w)
		case "uses", "id":
		default:
			c.refuse(k, w.path, "unknown key of a composite action's step")
		}
	}
}
