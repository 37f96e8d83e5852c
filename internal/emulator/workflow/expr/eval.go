package expr

import (
	"fmt"
	"math"
	"strings"

	"github.com/rhysd/actionlint"
)

// Scope is what an expression can see.
type Scope struct {
	Contexts *Object // github, needs, matrix ...

	// Status answers success, failure, always and cancelled, named in lower case. It is asked only where
	// the place offers them.
	Status func(function string) bool
}

// Eval evaluates the expression.
func (e *Expr) Eval(s Scope) (any, error) {
	v, err := s.eval(e.root)
	if err != nil {
		return nil, fmt.Errorf("cannot evaluate %s: %w", abbreviate(e.src), err)
	}
	return plain(v), nil
}

// filtered is the list that a * makes: what follows applies to each of its items, and items without the
// property drop out. It is a plain list to everything else.
type filtered []any

func plain(v any) any {
	if f, ok := v.(filtered); ok {
		return []any(f)
	}
	return v
}

func (s Scope) eval(n actionlint.ExprNode) (any, error) {
	switch n := n.(type) {
	case *actionlint.NullNode:
		return nil, nil
	case *actionlint.BoolNode:
		return n.Value, nil
	case *actionlint.IntNode:
		return float64(n.Value), nil
	case *actionlint.FloatNode:
		return n.Value, nil
	case *actionlint.StringNode:
		return n.Value, nil
	case *actionlint.VariableNode:
		return s.context(n.Name)
	case *actionlint.ObjectDerefNode:
		return s.access(n.Receiver, func() (any, error) { return n.Property, nil })
	case *actionlint.IndexAccessNode:
		return s.access(n.Operand, func() (any, error) { return s.eval(n.Index) })
	case *actionlint.ArrayDerefNode:
		v, err := s.eval(n.Receiver)
		return filter(v), err
	case *actionlint.NotOpNode:
		v, err := s.eval(n.Operand)
		return !Truthy(v), err
	case *actionlint.LogicalOpNode:
		return s.logical(n)
	case *actionlint.CompareOpNode:
		return s.compare(n)
	case *actionlint.FuncCallNode:
		return s.call(n)
	}
	return nil, fmt.Errorf("unknown expression %T", n)
}

func (s Scope) context(name string) (any, error) {
	if s.Contexts != nil {
		if v, ok := s.Contexts.Get(name); ok {
			return v, nil
		}
	}
	return nil, fmt.Errorf("unknown context %q", name)
}

func (s Scope) access(receiver actionlint.ExprNode, index func() (any, error)) (any, error) {
	v, err := s.eval(receiver)
	if err != nil {
		return nil, err
	}
	i, err := index()
	if err != nil {
		return nil, err
	}
	list, ok := v.(filtered)
	if !ok {
		found, _ := item(v, plain(i))
		return found, nil
	}
	out := filtered{}
	for _, each := range list {
		if found, ok := item(each, plain(i)); ok {
			out = append(out, found)
		}
	}
	return out, nil
}

// item returns one property of an object or one element of a list.
func item(v, index any) (any, bool) {
	if !primitive(index) {
		return nil, false
	}
	switch v := v.(type) {
	case *Object:
		return v.Get(String(index))
	case []any:
		n := math.Floor(Number(index))
		if n >= 0 && n < float64(len(v)) { // false for NaN
			return v[int(n)], true
		}
	}
	return nil, false
}

func filter(v any) filtered {
	out := filtered{}
	switch v := v.(type) {
	case filtered:
		for _, each := range v {
			out = append(out, filter(each)...)
		}
	case []any:
		out = append(out, v...)
	case *Object:
		for _, k := range v.keys {
			value, _ := v.Get(k)
			out = append(out, value)
		}
	}
	return out
}

// logical returns one of its operands, as in JavaScript, not a boolean.
func (s Scope) logical(n *actionlint.LogicalOpNode) (any, error) {
	left, err := s.eval(n.Left)
	if err != nil {
		return nil, err
	}
	if Truthy(left) == (n.Kind == actionlint.LogicalOpNodeKindOr) {
		return left, nil
	}
	return s.eval(n.Right)
}

func (s Scope) compare(n *actionlint.CompareOpNode) (any, error) {
	left, err := s.eval(n.Left)
	if err != nil {
		return nil, err
	}
	right, err := s.eval(n.Right)
	if err != nil {
		return nil, err
	}
	a, b := plain(left), plain(right)
	switch n.Kind {
	case actionlint.CompareOpNodeKindEq:
		return Equal(a, b), nil
	case actionlint.CompareOpNodeKindNotEq:
		return !Equal(a, b), nil
	case actionlint.CompareOpNodeKindLess:
		return less(a, b), nil
	case actionlint.CompareOpNodeKindLessEq:
		return less(a, b) || Equal(a, b), nil
	case actionlint.CompareOpNodeKindGreater:
		return greater(a, b), nil
	case actionlint.CompareOpNodeKindGreaterEq:
		return greater(a, b) || Equal(a, b), nil
	}
	return nil, fmt.Errorf("unknown operator %q", n.Kind)
}

func (s Scope) call(n *actionlint.FuncCallNode) (any, error) {
	name := strings.ToLower(n.Callee)
	if name == "case" {
		return s.choose(n.Args)
	}
	if status := isStatus(name); status && s.Status != nil {
		return s.Status(name), nil
	}
	f, ok := functions[name]
	if !ok || f.call == nil {
		return nil, fmt.Errorf("function %q is not available here", n.Callee)
	}
	if len(n.Args) < f.least || len(n.Args) > f.most {
		return nil, fmt.Errorf("function %q has %d parameters", n.Callee, len(n.Args))
	}
	args := make([]any, len(n.Args))
	for i, arg := range n.Args {
		v, err := s.eval(arg)
		if err != nil {
			return nil, err
		}
		args[i] = plain(v)
	}
	return f.call(args)
}

// choose evaluates case(condition, value, ..., default): only what it must.
func (s Scope) choose(args []actionlint.ExprNode) (any, error) {
	for len(args) >= 2 {
		v, err := s.eval(args[0])
		if err != nil {
			return nil, err
		}
		yes, ok := v.(bool)
		if !ok {
			return nil, fmt.Errorf("a condition of case is no boolean: %s", abbreviate(String(plain(v))))
		}
		if yes {
			return s.eval(args[1])
		}
		args = args[2:]
	}
	if len(args) == 0 {
		return nil, fmt.Errorf("case has no default")
	}
	return s.eval(args[0])
}
