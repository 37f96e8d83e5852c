package workflow

import (
	"errors"
	"fmt"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/mirego/tasuki/internal/emulator/workflow/expr"
)

const openExpr = "${{"

// compiler turns the values of one file into tokens and reports what is wrong with them.
type compiler struct {
	*source
	problems *Problems
}

// where is the place of a value: its path for people, and what expressions may use there.
type where struct {
	path  string
	place expr.Place
}

// at returns the place of a workflow key; key is GitHub's generic name for it.
func at(path, key string) where { return where{path: path, place: expr.At(key)} }

func (w where) under(name string) where {
	w.path += "." + name
	return w
}

// refuse reports a problem at a node.
func (c *compiler) refuse(n *yaml.Node, path, format string, args ...any) {
	c.report(n.Line, n.Column, path, fmt.Sprintf(format, args...))
}

func (c *compiler) report(line, col int, path, message string) {
	*c.problems = append(*c.problems, Problem{File: c.file, Line: max(line, 1), Column: max(col, 1), Key: path, What: message})
}

// token compiles a value of any shape; nil for a nil node. Scalars keep their type.
func (c *compiler) token(n *yaml.Node, w where) *Token {
	if n == nil {
		return nil
	}
	t := c.value(n, w, false)
	return &t
}

// textToken compiles a value whose scalars GitHub makes texts: env, with, names.
func (c *compiler) textToken(n *yaml.Node, w where) *Token {
	if n == nil {
		return nil
	}
	t := c.value(n, w, true)
	return &t
}

func (c *compiler) value(n *yaml.Node, w where, text bool) Token {
	n = resolve(n)
	switch n.Kind {
	case yaml.SequenceNode:
		t := Token{kind: tokenSequence, list: []Token{}}
		for i, item := range items(n) {
			t.list = append(t.list, c.value(item, where{fmt.Sprintf("%s[%d]", w.path, i), w.place}, text))
		}
		return t
	case yaml.MappingNode:
		t := Token{kind: tokenMapping, pairs: []pair{}}
		for k, v := range entries(n) {
			if strings.Contains(k.Value, openExpr) {
				c.refuse(k, w.path, "expressions in keys are not supported")
				continue
			}
			t.pairs = append(t.pairs, pair{k.Value, c.value(v, w.under(k.Value), text)})
		}
		return t
	}
	v := scalar(n)
	if _, ok := v.(string); ok {
		return c.template(n, w)
	}
	if text {
		v = expr.String(v)
	}
	return Token{scalar: v}
}

// template compiles a text with ${{ }} in it and checks what the expressions use.
func (c *compiler) template(n *yaml.Node, w where) Token {
	t, used, err := parseTemplate(n.Value)
	if err != nil {
		c.badExpression(n, w, 0, err)
		return Token{}
	}
	for _, u := range used {
		c.check(n, w, u.expr, u.offset)
	}
	return t
}

func (c *compiler) badExpression(n *yaml.Node, w where, offset int, err error) {
	if e, ok := errors.AsType[*expr.Error](err); ok {
		offset += e.Offset
	}
	line, col := c.position(n, offset)
	c.report(line, col, w.path, err.Error())
}

func (c *compiler) check(n *yaml.Node, w where, e *expr.Expr, offset int) {
	for _, err := range e.Check(w.place) {
		c.badExpression(n, w, offset, err)
	}
}

// condition compiles an `if`, where ${{ }} may be left out. It returns nil for a nil node.
func (c *compiler) condition(n *yaml.Node, w where) *expr.Expr {
	if n == nil {
		return nil
	}
	if n.Kind != yaml.ScalarNode {
		return nil // actionlint has said so
	}
	text, isText := scalar(n).(string)
	if !isText {
		text = expr.String(scalar(n))
	}
	if strings.Contains(text, openExpr) {
		t := c.template(n, w)
		return t.expr
	}
	e, err := expr.Parse(text)
	if err != nil {
		c.badExpression(n, w, 0, err)
		return nil
	}
	c.check(n, w, e, 0)
	return e
}

// used is an expression and where it begins in its text.
type used struct {
	expr   *expr.Expr
	offset int
}

// parseTemplate makes one token of a text: "a ${{ x }} b" becomes format('a {0} b', x), as GitHub does it.
// The offset of an *expr.Error counts from the text's begin.
func parseTemplate(text string) (Token, []used, error) {
	if !strings.Contains(text, openExpr) {
		return literal(text), nil, nil
	}
	var all []used
	var format, args strings.Builder
	literals := false
	rest := 0
	for {
		before, _, more := strings.Cut(text[rest:], openExpr)
		literals = literals || before != ""
		format.WriteString(escapeFormat.Replace(before))
		if !more {
			break
		}
		begin := rest + len(before) + len(openExpr)
		if !strings.Contains(text[begin:], "}}") {
			return Token{}, nil, &expr.Error{Offset: begin - len(openExpr), Message: "the expression is not closed: }} is missing"}
		}
		e, n, err := expr.ParseEmbedded(text[begin:])
		if err != nil {
			if bad, ok := errors.AsType[*expr.Error](err); ok {
				bad.Offset += begin
			}
			return Token{}, nil, err
		}
		fmt.Fprintf(&format, "{%d}", len(all))
		args.WriteString(", " + e.Source())
		all = append(all, used{e, begin})
		rest = begin + n
	}
	if len(all) == 1 && !literals {
		return Token{kind: tokenExpr, expr: all[0].expr, text: text}, all, nil
	}
	whole, err := expr.Parse("format('" + format.String() + "'" + args.String() + ")")
	if err != nil {
		return Token{}, nil, &expr.Error{Message: "too long with its expressions: " + err.Error()}
	}
	return Token{kind: tokenExpr, expr: whole, text: text}, all, nil
}

var escapeFormat = strings.NewReplacer("'", "''", "{", "{{", "}", "}}")
