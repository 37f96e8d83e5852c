package config

import (
	"encoding"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"

	"github.com/mirego/tasuki/internal/base/problem"
)

// maxNodes bounds how much a file may unfold to by its aliases.
const maxNodes = 100_000

// maxDepth bounds how deep values may lie within each other.
const maxDepth = 50

// place is where a key and its value stand.
type place struct{ key, value token.Position }

// positions are the places of all that the file says, by path ("pools[0].cpus").
type positions map[string]place

// decoder fills a struct from YAML's syntax tree and notes every mistake
// instead of ending at the first, which the YAML library's own does.
type decoder struct {
	file     string
	problems Problems
	at       positions
	anchors  map[string]ast.Node
	nodes    int
	newPool  func() Pool // a pool that has the defaults
}

func (d *decoder) fail(p *token.Position, what, mend string) {
	d.problems = append(d.problems, Problem{File: d.file, Line: max(p.Line, 1), Column: max(p.Column, 1), What: what, Mend: mend})
}

// parse returns the one document of a file, nil if it says nothing.
func (d *decoder) parse(data []byte) (root ast.Node) {
	defer func() {
		if r := recover(); r != nil { // the parser gives up on some broken files so
			root = nil
			d.fail(&token.Position{}, "cannot be read as YAML", "")
		}
	}()
	f, err := parser.ParseBytes(data, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		where, what := &token.Position{}, err.Error()
		if ye, ok := errors.AsType[yaml.Error](err); ok {
			what = ye.GetMessage()
			if tk := ye.GetToken(); tk != nil && tk.Position != nil {
				where = tk.Position
			}
		}
		d.fail(where, "cannot be read as YAML: "+what, "")
		return nil
	}
	for i, doc := range f.Docs {
		if i > 0 && doc.Body != nil {
			d.fail(doc.Body.GetToken().Position, "a second document", "keep one document per file")
			break
		}
		root = doc.Body
	}
	d.anchors = map[string]ast.Node{}
	if root != nil {
		ast.Walk(anchorFinder(d.anchors), root)
	}
	return root
}

// anchorFinder collects what anchors name.
type anchorFinder map[string]ast.Node

func (a anchorFinder) Visit(n ast.Node) ast.Visitor {
	if an, ok := n.(*ast.AnchorNode); ok && an.Name != nil {
		a[an.Name.GetToken().Value] = an.Value
	}
	return a
}

// plain looks through anchors, aliases and tags.
func (d *decoder) plain(n ast.Node) ast.Node {
	for range maxDepth {
		switch v := n.(type) {
		case *ast.AnchorNode:
			n = v.Value
		case *ast.TagNode:
			n = v.Value
		case *ast.AliasNode:
			name := v.Value.GetToken().Value
			target, ok := d.anchors[name]
			if !ok {
				d.fail(v.GetToken().Position, fmt.Sprintf("alias %q has no anchor", name), fmt.Sprintf("write &%s before the value that is meant", name))
				return nil
			}
			n = target
		default:
			return n
		}
	}
	return nil
}

// value decodes n into v. The path is where it stands; key its last word.
func (d *decoder) value(n ast.Node, v reflect.Value, path, key string, depth int) {
	if n == nil {
		return
	}
	where := valuePosition(n)
	pl := d.at[path]
	pl.value = *where
	d.at[path] = pl
	if n = d.plain(n); n == nil {
		return
	}
	if d.nodes++; d.nodes > maxNodes || depth > maxDepth {
		if d.nodes == maxNodes+1 || depth == maxDepth+1 {
			d.fail(where, "the file unfolds to too much", "use fewer aliases")
		}
		return
	}
	if _, null := n.(*ast.NullNode); null {
		d.fail(where, fmt.Sprintf("%q has no value", key), "give it one or remove the key")
		return
	}
	if u, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok {
		d.text(n, u, where, key)
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		fresh := reflect.New(v.Type().Elem())
		d.value(n, fresh.Elem(), path, key, depth+1)
		v.Set(fresh)
	case reflect.Struct:
		d.structure(n, v, path, key, depth)
	case reflect.Slice:
		d.slice(n, v, path, key, depth)
	case reflect.Map:
		d.mapping(n, v, path, key, depth)
	default:
		d.scalar(n, v, where, key)
	}
}

func (d *decoder) text(n ast.Node, u encoding.TextUnmarshaler, where *token.Position, key string) {
	s, ok := scalarText(n)
	if !ok {
		d.fail(where, fmt.Sprintf("%q must be a single value, not %s", key, kindName(n)), "")
		return
	}
	if err := u.UnmarshalText([]byte(s)); err != nil {
		what, mend, _ := strings.Cut(err.Error(), "; ")
		d.fail(where, fmt.Sprintf("%q: %s", key, what), mend)
	}
}

func (d *decoder) scalar(n ast.Node, v reflect.Value, where *token.Position, key string) {
	s, ok := scalarText(n)
	if !ok {
		d.fail(where, fmt.Sprintf("%q must be %s, not %s", key, goName(v.Type()), kindName(n)), "")
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(s)
	case reflect.Int:
		i, err := strconv.Atoi(s)
		if _, number := n.(*ast.IntegerNode); err != nil || !number {
			d.fail(where, fmt.Sprintf("%q must be a whole number, not %q", key, clip(s)), "")
			return
		}
		v.SetInt(int64(i))
	case reflect.Bool:
		b, ok := n.(*ast.BoolNode)
		if !ok {
			d.fail(where, fmt.Sprintf("%q must be true or false, not %q", key, clip(s)), "")
			return
		}
		v.SetBool(b.Value)
	}
}

func (d *decoder) slice(n ast.Node, v reflect.Value, path, key string, depth int) {
	seq, ok := n.(*ast.SequenceNode)
	if !ok {
		d.fail(valuePosition(n), fmt.Sprintf("%q must be a list, not %s", key, kindName(n)), "begin each item on a line of its own with a hyphen, or write [one, two]")
		return
	}
	out := reflect.MakeSlice(v.Type(), len(seq.Values), len(seq.Values))
	for i, item := range seq.Values {
		if item == nil {
			continue
		}
		elem := out.Index(i)
		if pool, ok := elem.Addr().Interface().(*Pool); ok && d.newPool != nil {
			*pool = d.newPool()
		}
		sub := fmt.Sprintf("%s[%d]", path, i)
		d.at[sub] = place{key: *valuePosition(item)}
		d.value(item, elem, sub, key, depth+1)
	}
	v.Set(out)
}

func (d *decoder) mapping(n ast.Node, v reflect.Value, path, key string, depth int) {
	entries, ok := d.entries(n, 0)
	if !ok {
		d.fail(valuePosition(n), fmt.Sprintf("%q must hold keys and values, not %s", key, kindName(n)), "")
		return
	}
	if v.IsNil() {
		v.Set(reflect.MakeMap(v.Type()))
	}
	for _, e := range entries {
		sub := path + "." + e.name
		d.at[sub] = place{key: *e.where}
		elem := reflect.New(v.Type().Elem()).Elem()
		d.value(e.node, elem, sub, e.name, depth+1)
		v.SetMapIndex(reflect.ValueOf(e.name).Convert(v.Type().Key()), elem)
	}
}

// notScalar is a struct that has something to say to who writes it as a single
// value.
type notScalar interface{ refuseScalar() string }

func (*Source) refuseScalar() string {
	return "a secret must not stand in the configuration; write {env: NAME}, {file: PATH} or {command: [PROGRAM, ARGUMENT]}"
}

func (*Text) refuseScalar() string {
	return "it is not clear whether this is a file or its content; write {source: FILE} or {content: TEXT}"
}

func (d *decoder) structure(n ast.Node, v reflect.Value, path, key string, depth int) {
	entries, ok := d.entries(n, 0)
	if !ok {
		if ns, special := v.Addr().Interface().(notScalar); special {
			what, mend, _ := strings.Cut(ns.refuseScalar(), "; ")
			d.fail(valuePosition(n), fmt.Sprintf("%q: %s", key, what), mend)
			return
		}
		d.fail(valuePosition(n), fmt.Sprintf("%q must hold keys and values, not %s", key, kindName(n)), "")
		return
	}
	fields := fieldsOf(v.Type())
	for _, e := range entries {
		if !slices.ContainsFunc(fields, func(f field) bool { return f.name == e.name }) {
			d.unknown(e, fields, key)
		}
	}
	for _, f := range fields { // in the struct's order: defaults come before pools
		i := slices.IndexFunc(entries, func(e entry) bool { return e.name == f.name })
		if i < 0 {
			continue
		}
		sub := strings.TrimPrefix(path+"."+f.name, ".")
		d.at[sub] = place{key: *entries[i].where}
		d.value(entries[i].node, v.FieldByIndex(f.index), sub, f.name, depth+1)
	}
}

func (d *decoder) unknown(e entry, fields []field, in string) {
	var names []string
	for _, f := range fields {
		names = append(names, f.name)
	}
	mend := "known here: " + strings.Join(names, ", ")
	if near := problem.Nearest(e.name, names); near != "" {
		mend = fmt.Sprintf("did you mean %q?", near)
	}
	what := fmt.Sprintf("unknown key %q", clip(e.name))
	if in != "" {
		what += fmt.Sprintf(" in %q", in)
	}
	d.fail(e.where, what, mend)
}

// entry is one key of a YAML mapping.
type entry struct {
	name  string
	where *token.Position
	node  ast.Node
}

// entries returns the keys of a mapping, those merged with "<<" after its own.
// It is false if n is no mapping.
func (d *decoder) entries(n ast.Node, depth int) ([]entry, bool) {
	m, ok := n.(*ast.MappingNode)
	if !ok {
		return nil, false
	}
	var own, merged []entry
	for _, kv := range m.Values {
		where := kv.Key.GetToken().Position
		if _, merge := kv.Key.(*ast.MergeKeyNode); merge {
			if depth > maxDepth {
				continue
			}
			more, ok := d.merged(kv.Value, depth)
			if !ok {
				d.fail(where, `"<<" must name a mapping`, "write <<: *name")
			}
			merged = append(merged, more...)
			continue
		}
		name, ok := scalarText(d.plain(kv.Key))
		if !ok {
			d.fail(where, "a key must be a single word", "")
			continue
		}
		if i := slices.IndexFunc(own, func(e entry) bool { return e.name == name }); i >= 0 {
			d.fail(where, fmt.Sprintf("%q stands here a second time", clip(name)), fmt.Sprintf("it is in line %d already; keep one", own[i].where.Line))
			continue
		}
		own = append(own, entry{name, where, kv.Value})
	}
	for _, e := range merged {
		if len(own) < maxNodes && !slices.ContainsFunc(own, func(o entry) bool { return o.name == e.name }) {
			own = append(own, e)
		}
	}
	return own, true
}

func (d *decoder) merged(n ast.Node, depth int) ([]entry, bool) {
	n = d.plain(n)
	seq, ok := n.(*ast.SequenceNode)
	if !ok {
		return d.entries(n, depth+1)
	}
	var all []entry
	for _, item := range seq.Values {
		more, ok := d.entries(d.plain(item), depth+1)
		if !ok || len(all) > maxNodes {
			return nil, false
		}
		all = append(all, more...)
	}
	return all, true
}

// valuePosition is where a person sees a value begin: at a block mapping's
// first key, not at its colon.
func valuePosition(n ast.Node) *token.Position {
	if m, ok := n.(*ast.MappingNode); ok && len(m.Values) > 0 && m.GetToken().Value == ":" {
		return valuePosition(m.Values[0].Key)
	}
	if tk := n.GetToken(); tk != nil && tk.Position != nil {
		return tk.Position
	}
	return &token.Position{Line: 1, Column: 1}
}

// scalarText is a single value as it was written, or what it means if quoted.
func scalarText(n ast.Node) (string, bool) {
	switch v := n.(type) {
	case *ast.StringNode:
		return v.Value, true
	case *ast.LiteralNode:
		return v.Value.Value, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		return n.GetToken().Value, true
	}
	return "", false
}

func kindName(n ast.Node) string {
	switch n.(type) {
	case *ast.MappingNode:
		return "a mapping"
	case *ast.SequenceNode:
		return "a list"
	}
	return "a single value"
}

func goName(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Int:
		return "a whole number"
	case reflect.Bool:
		return "true or false"
	}
	return "text"
}

// clip shortens what a message repeats of the file, which may be a secret in
// the wrong place.
func clip(s string) string {
	if looksSecret(s) {
		return "[redacted]"
	}
	if len(s) > 60 {
		return strings.ToValidUTF8(s[:57], "") + "..."
	}
	return s
}
