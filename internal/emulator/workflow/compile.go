package workflow

import (
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/mirego/tasuki/internal/emulator/workflow/expr"
)

// jobDef is one entry under jobs:, its values compiled. A nil Token is a key that is not there.
type jobDef struct {
	key             string
	needs           []string
	ancestors       []string   // the jobs it needs, and those that they need
	cond            *expr.Expr // nil stands for success()
	name            *Token
	runsOn          *Token
	timeout         *Token
	continueOnError *Token
	matrix          *Token
	failFast        *Token
	maxParallel     *Token
	env             *Token
	defaults        []Token // the workflow's, then the job's
	outputs         *Token
	steps           []stepDef
}

// unsupported lists the keys of a job that are refused, and what to do instead.
var unsupported = []struct{ key, hint string }{
	{"services", "start what the job needs in a step"},
	{"container", "jobs run in the guest itself"},
	{"environment", "there are no deployments here"},
	{"concurrency", "only a concurrency of the whole workflow is accepted, without effect; use needs or max-parallel"},
	{"uses", "reusable workflows cannot be called"},
	{"snapshot", "images are built by recipes"},
}

func (c *compiler) workflow(tree Tree) *Workflow {
	w := &Workflow{File: pathIn(tree.Dir, c.file), tree: tree}
	w.Name = w.File
	if n := get(c.root, "name"); n != nil && n.Value != "" {
		w.Name = n.Value
	}
	c.textToken(get(c.root, "run-name"), at("run-name", "run-name"))
	c.token(get(c.root, "concurrency"), at("concurrency", "concurrency"))
	w.inputs = c.dispatchInputs()
	w.env = c.textToken(get(c.root, "env"), at("env", "env"))
	defaults := c.textToken(get(c.root, "defaults"), at("defaults", "defaults"))

	checkouts := &checkouts{depth: 1}
	for key, n := range entries(get(c.root, "jobs")) {
		if key.Value == "" || n.Kind != yaml.MappingNode {
			continue // actionlint has said so
		}
		w.jobs = append(w.jobs, c.job(key.Value, n, defaults, &stepCompiler{compiler: c, tree: tree, checkouts: checkouts}))
	}
	w.tree.Depth = checkouts.depth
	linkNeeds(w.jobs)
	return w
}

func (c *compiler) job(key string, n *yaml.Node, defaults *Token, sc *stepCompiler) *jobDef {
	path := "jobs." + key
	place := func(name string) where { return at(path+"."+name, "jobs.<job_id>."+name) }
	for _, u := range unsupported {
		if k, _ := find(n, u.key); k != nil {
			c.refuse(k, path+"."+u.key, "not supported: %s", u.hint)
		}
	}
	d := &jobDef{
		key:             key,
		needs:           texts(get(n, "needs")),
		cond:            c.condition(get(n, "if"), place("if")),
		name:            c.textToken(get(n, "name"), place("name")),
		runsOn:          c.textToken(get(n, "runs-on"), place("runs-on")),
		timeout:         c.token(get(n, "timeout-minutes"), place("timeout-minutes")),
		continueOnError: c.token(get(n, "continue-on-error"), place("continue-on-error")),
		env:             c.textToken(get(n, "env"), place("env")),
		outputs:         c.textToken(get(n, "outputs"), at(path+".outputs", "jobs.<job_id>.outputs.<output_id>")),
	}
	if k, _ := find(n, "runs-on"); k != nil && d.runsOn == nil {
		c.refuse(k, path+".runs-on", "it names no label or group")
	}
	if strategy := get(n, "strategy"); strategy != nil {
		w := place("strategy")
		d.matrix = c.token(get(strategy, "matrix"), w.under("matrix"))
		d.failFast = c.token(get(strategy, "fail-fast"), w.under("fail-fast"))
		d.maxParallel = c.token(get(strategy, "max-parallel"), w.under("max-parallel"))
		c.checkMatrix(strategy, d, w)
	}
	if defaults != nil {
		d.defaults = append(d.defaults, *defaults)
	}
	if t := c.textToken(get(n, "defaults"), at(path+".defaults", "jobs.<job_id>.defaults.run")); t != nil {
		d.defaults = append(d.defaults, *t)
	}
	d.steps = sc.steps(get(n, "steps"), path, d.defaults)
	return d
}

// checkMatrix expands a matrix that no expression can change, so that its mistakes show before anything starts.
func (c *compiler) checkMatrix(strategy *yaml.Node, d *jobDef, w where) {
	if d.matrix == nil || !d.matrix.static() || d.matrix.kind != tokenMapping {
		return
	}
	v, err := d.matrix.eval(expr.Scope{})
	if err == nil {
		_, err = expandMatrix(v)
	}
	if err != nil {
		k, _ := find(strategy, "matrix")
		c.refuse(k, w.path+".matrix", "%v", err)
	}
}

// texts reads one text or a list of them.
func texts(n *yaml.Node) []string {
	if n == nil {
		return nil
	}
	if n.Kind == yaml.ScalarNode {
		return []string{n.Value}
	}
	var list []string
	for _, item := range items(n) {
		list = append(list, item.Value)
	}
	return list
}

// linkNeeds spells needs as the jobs spell themselves and finds every job's ancestors.
func linkNeeds(jobs []*jobDef) {
	byKey := map[string]*jobDef{}
	for _, d := range jobs {
		byKey[strings.ToLower(d.key)] = d
	}
	for _, d := range jobs {
		for i, need := range d.needs {
			if needed := byKey[strings.ToLower(need)]; needed != nil {
				d.needs[i] = needed.key
			}
		}
	}
	for _, d := range jobs {
		seen := map[string]bool{}
		var visit func(*jobDef)
		visit = func(d2 *jobDef) {
			for _, need := range d2.needs {
				if needed := byKey[strings.ToLower(need)]; needed != nil && !seen[needed.key] {
					seen[needed.key] = true
					d.ancestors = append(d.ancestors, needed.key)
					visit(needed)
				}
			}
		}
		visit(d)
	}
}
