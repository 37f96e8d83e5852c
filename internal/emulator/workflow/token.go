package workflow

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"

	"github.com/mirego/tasuki/internal/emulator/workflow/expr"
)

// Token is a template token: a value of the workflow file in which expressions are still unevaluated. The
// zero Token is null. It is immutable.
type Token struct {
	kind   tokenKind
	scalar any // nil, bool, float64 or string
	list   []Token
	pairs  []pair
	expr   *expr.Expr
	text   string // how an expression is written in the file, for people
}

type tokenKind int

// The kinds have the numbers that the job message gives them.
const (
	tokenScalar   tokenKind = 0
	tokenSequence tokenKind = 1
	tokenMapping  tokenKind = 2
	tokenExpr     tokenKind = 3
)

type pair struct {
	Key   string
	Value Token
}

func literal(s string) Token { return Token{scalar: s} }

func mapToken(pairs ...pair) Token { return Token{kind: tokenMapping, pairs: pairs} }

// MarshalJSON writes the token as the job message has it: scalars bare, everything else as an object with its type.
func (t Token) MarshalJSON() ([]byte, error) {
	switch t.kind {
	case tokenSequence:
		return encode(struct {
			Type tokenKind `json:"type"`
			Seq  []Token   `json:"seq"`
		}{t.kind, t.list})
	case tokenMapping:
		return encode(struct {
			Type tokenKind `json:"type"`
			Map  []pair    `json:"map"`
		}{t.kind, t.pairs})
	case tokenExpr:
		return encode(struct {
			Type tokenKind `json:"type"`
			Expr string    `json:"expr"`
		}{t.kind, t.expr.Source()})
	}
	if f, ok := t.scalar.(float64); ok && (math.IsNaN(f) || math.IsInf(f, 0)) {
		return encode(expr.String(f))
	}
	return encode(t.scalar)
}

// encode is json.Marshal without the escapes for HTML, so that a message stays readable.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, fmt.Errorf("cannot encode a token: %w", err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// eval evaluates every expression in the token.
func (t Token) eval(s expr.Scope) (any, error) {
	switch t.kind {
	case tokenSequence:
		list := make([]any, len(t.list))
		for i, item := range t.list {
			v, err := item.eval(s)
			if err != nil {
				return nil, err
			}
			list[i] = v
		}
		return list, nil
	case tokenMapping:
		o := &expr.Object{}
		for _, p := range t.pairs {
			v, err := p.Value.eval(s)
			if err != nil {
				return nil, err
			}
			o.Set(p.Key, v)
		}
		return o, nil
	case tokenExpr:
		return t.expr.Eval(s)
	}
	return t.scalar, nil
}

// uses says whether an expression in the token names one of the contexts.
func (t Token) uses(contexts ...string) bool {
	if t.kind == tokenExpr {
		for _, c := range contexts {
			if t.expr.Uses(c) {
				return true
			}
		}
	}
	for _, item := range t.list {
		if item.uses(contexts...) {
			return true
		}
	}
	for _, p := range t.pairs {
		if p.Value.uses(contexts...) {
			return true
		}
	}
	return false
}

// static says whether the token has no expression at all.
func (t Token) static() bool {
	if t.kind == tokenExpr {
		return false
	}
	for _, item := range t.list {
		if !item.static() {
			return false
		}
	}
	for _, p := range t.pairs {
		if !p.Value.static() {
			return false
		}
	}
	return true
}

// written returns a scalar as the file has it, expressions included.
func (t Token) written() string {
	if t.kind == tokenExpr {
		return t.text
	}
	return expr.String(t.scalar)
}

// ContextData is the contexts that a job's expressions see, for the job message.
type ContextData struct{ contexts *expr.Object }

// MarshalJSON writes the contexts in the message's own encoding: objects as {"t":2,"d":[{"k","v"}]}, lists as
// {"t":1,"a":[...]}, scalars bare.
func (c ContextData) MarshalJSON() ([]byte, error) {
	out := map[string]any{}
	if c.contexts != nil {
		for _, k := range c.contexts.Keys() {
			v, _ := c.contexts.Get(k)
			out[k] = contextValue(v)
		}
	}
	return encode(out)
}

type (
	contextEntry struct {
		Key   string `json:"k"`
		Value any    `json:"v"`
	}
	contextObject struct {
		Type    int            `json:"t"`
		Entries []contextEntry `json:"d,omitempty"`
	}
	contextList struct {
		Type  int   `json:"t"`
		Items []any `json:"a,omitempty"`
	}
)

func contextValue(v any) any {
	switch v := v.(type) {
	case *expr.Object:
		o := contextObject{Type: 2}
		for _, k := range v.Keys() {
			value, _ := v.Get(k)
			o.Entries = append(o.Entries, contextEntry{k, contextValue(value)})
		}
		return o
	case []any:
		l := contextList{Type: 1}
		for _, item := range v {
			l.Items = append(l.Items, contextValue(item))
		}
		return l
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return expr.String(v)
		}
	}
	return v
}
