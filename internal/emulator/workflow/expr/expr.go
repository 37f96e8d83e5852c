// Package expr evaluates the expressions of GitHub Actions workflows, ${{ ... }}, by GitHub's rules:
// values of different kinds compare as numbers, texts compare without regard to case, what is not there is null.
// actionlint parses an expression; checking which contexts and functions a place offers, and evaluating, is ours.
//
// A value is nil, bool, float64, string, []any or *Object. A Scope is what an expression can see.
//
// The rules come from https://docs.github.com/en/actions/reference/workflows-and-actions/expressions; where
// that page is silent, the behaviour of the evaluator in actions/runner is what we follow.
package expr

import (
	"fmt"
	"slices"
	"strings"

	"github.com/rhysd/actionlint"
)

// GitHub's own limits for one expression.
const (
	maxLength = 21000 // characters
	maxDepth  = 50    // nested operators, calls and accesses
)

// Expr is one parsed expression. It is immutable.
type Expr struct {
	root actionlint.ExprNode
	src  string
}

// Error is what is wrong with an expression's text.
type Error struct {
	Offset  int // in bytes, from the expression's begin
	Message string
}

func (e *Error) Error() string { return e.Message }

// Parse parses an expression without its ${{ }}.
func Parse(src string) (*Expr, error) {
	e, n, err := ParseEmbedded(src + "}}")
	if err != nil {
		return nil, err
	}
	if rest := src[min(n-2, len(src)):]; strings.TrimSpace(rest) != "" {
		return nil, &Error{n - 2, fmt.Sprintf("unexpected %q after the expression", rest)}
	}
	return e, nil
}

// ParseEmbedded parses an expression that begins right after a ${{, and returns where its }} ends.
func ParseEmbedded(src string) (*Expr, int, error) {
	end := len(src)
	if end > maxLength {
		// The lexer copies nothing, but its parser recurses: a bound on the text bounds the depth.
		end = maxLength
	}
	lexer := actionlint.NewExprLexer(src[:end])
	root, lintErr := actionlint.NewExprParser().Parse(lexer)
	if lintErr != nil {
		if end < len(src) {
			return nil, 0, &Error{0, fmt.Sprintf("the expression is longer than %d characters", maxLength)}
		}
		return nil, 0, &Error{lintErr.Offset, lintErr.Message}
	}
	n := lexer.Offset()
	e := &Expr{root: root, src: strings.TrimSpace(src[:n-2])}
	return e, n, e.limits()
}

// limits refuses what GitHub would, and the one thing that actionlint's parser groups otherwise than GitHub.
func (e *Expr) limits() error {
	var err error
	depth := 0
	actionlint.VisitExprNode(e.root, func(n, _ actionlint.ExprNode, entering bool) {
		if !entering {
			depth--
			return
		}
		if depth++; depth > maxDepth && err == nil {
			err = &Error{n.Token().Offset, fmt.Sprintf("the expression nests deeper than %d levels", maxDepth)}
		}
		if c, ok := n.(*actionlint.CompareOpNode); ok && err == nil {
			if _, chained := c.Right.(*actionlint.CompareOpNode); chained {
				err = &Error{c.Right.Token().Offset, "a comparison to the right of a comparison is not supported: write it on the left, in parentheses"}
			}
		}
	})
	return err
}

// Source returns the expression's text.
func (e *Expr) Source() string { return e.src }

// Uses says whether the expression names the context, such as "needs".
func (e *Expr) Uses(context string) bool {
	return e.some(func(n actionlint.ExprNode) bool {
		v, ok := n.(*actionlint.VariableNode)
		return ok && v.Name == context
	})
}

// CallsStatus says whether the expression calls success, failure, always or cancelled: then no success() is
// implied.
func (e *Expr) CallsStatus() bool {
	return e.some(func(n actionlint.ExprNode) bool {
		f, ok := n.(*actionlint.FuncCallNode)
		return ok && slices.Contains(statusFunctions, strings.ToLower(f.Callee))
	})
}

func (e *Expr) some(is func(actionlint.ExprNode) bool) bool {
	found := false
	actionlint.VisitExprNode(e.root, func(n, _ actionlint.ExprNode, entering bool) {
		found = found || entering && is(n)
	})
	return found
}

// Place says what an expression may use where it stands. The functions that are always there
// (contains, format ...) are not listed.
type Place struct {
	Contexts  []string // lower case
	Functions []string // lower case: status functions, hashfiles
}

// At returns the place of a workflow key such as "jobs.<job_id>.if", as GitHub documents it:
// https://docs.github.com/en/actions/reference/workflows-and-actions/contexts#context-availability
func At(key string) Place {
	contexts, functions := actionlint.WorkflowKeyAvailability(key)
	return Place{Contexts: contexts, Functions: functions}
}

// Check returns everything that the expression uses and the place does not offer.
func (e *Expr) Check(p Place) []*Error {
	var errs []*Error
	actionlint.VisitExprNode(e.root, func(n, _ actionlint.ExprNode, entering bool) {
		if !entering {
			return
		}
		switch n := n.(type) {
		case *actionlint.VariableNode:
			if !slices.Contains(p.Contexts, n.Name) {
				errs = append(errs, &Error{n.Token().Offset, unknownContext(n.Name, p)})
			}
		case *actionlint.FuncCallNode:
			if msg := wrongCall(n, p); msg != "" {
				errs = append(errs, &Error{n.Token().Offset, msg})
			}
		}
	})
	return errs
}

func unknownContext(name string, p Place) string {
	if len(p.Contexts) == 0 {
		return fmt.Sprintf("context %q is not available: no context is here", name)
	}
	if _, known := actionlint.AllContexts[name]; known {
		return fmt.Sprintf("context %q is not available here: only %s are", name, strings.Join(p.Contexts, ", "))
	}
	return fmt.Sprintf("unknown context %q: there are %s", name, strings.Join(p.Contexts, ", "))
}

func wrongCall(n *actionlint.FuncCallNode, p Place) string {
	name := strings.ToLower(n.Callee)
	special := slices.Contains(statusFunctions, name) || name == "hashfiles"
	f, known := functions[name]
	switch {
	case !known && !special:
		return fmt.Sprintf("unknown function %q", n.Callee)
	case special && !slices.Contains(p.Functions, name):
		return fmt.Sprintf("function %q is not available here", n.Callee)
	case name == "hashfiles":
		f = function{least: 1, most: 255}
	}
	if len(n.Args) < f.least {
		return fmt.Sprintf("function %q has too few parameters: %d, needed are %d", n.Callee, len(n.Args), f.least)
	}
	if len(n.Args) > f.most {
		return fmt.Sprintf("function %q has too many parameters: %d, at most %d", n.Callee, len(n.Args), f.most)
	}
	if name == "case" && len(n.Args)%2 == 0 {
		return fmt.Sprintf("function %q needs pairs of condition and value, and a default: %d parameters are even", n.Callee, len(n.Args))
	}
	return ""
}
