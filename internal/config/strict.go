package config

import (
	"fmt"
	"path/filepath"
	"reflect"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"
)

// Document is another file of ours that is read by the rules of the configuration:
// an unknown key is a mistake, every mistake is told with its place, no secret
// may stand in it. Its struct has the tags that Config's fields have.
type Document struct{ k checker }

// ParseDocument decodes data into the struct that into points to. Path is what
// problems name and what relative paths start from.
func ParseDocument(path string, data []byte, into any) *Document {
	d := &decoder{file: path, at: positions{}}
	f := &Document{checker{d: d, c: &Config{file: path, at: d.at}, dir: filepath.Dir(path)}}
	root := d.parse(data)
	switch {
	case root != nil:
		ast.Walk(secretFinder{d}, root)
		d.value(root, reflect.ValueOf(into).Elem(), "", "", 0)
	case len(d.problems) == 0:
		d.fail(&token.Position{}, "the file says nothing", "")
	}
	f.k.unread = len(d.problems)
	return f
}

// Says reports whether the file has a value at a path, such as "steps[0].run".
func (f *Document) Says(path string) bool {
	_, ok := f.k.c.at[path]
	return ok
}

// Place is where the value at a path begins: "FILE:LINE", or the file's name
// where it has none.
func (f *Document) Place(path string) string {
	at, ok := f.k.c.at[path]
	if !ok {
		return f.k.c.file
	}
	return fmt.Sprintf("%s:%d", f.k.c.file, at.value.Line)
}

// Bad notes a mistake in the value at a path, or, where the file has none, in
// the value around it.
func (f *Document) Bad(path, what, mend string) {
	paths := []string{path}
	for i := strings.LastIndexAny(path, ".["); i > 0; i = strings.LastIndexAny(path, ".[") {
		path = path[:i]
		paths = append(paths, path)
	}
	f.k.bad(paths, what, mend)
}

// Source checks where the secret at a path is, without reading it.
func (f *Document) Source(path string, s *Source) { f.k.source(path, s) }

// Path is a path of the file's: relative to its folder, "~/" being the home.
func (f *Document) Path(p string) string { return f.k.path(p) }

// Err is every mistake found so far as Problems, in the file's order; nil if
// there is none.
func (f *Document) Err() error {
	if len(f.k.d.problems) == 0 {
		return nil
	}
	return f.k.d.problems.Sorted()
}

// ReadFile reads a file of bounded size, as Load does. Its error names no path.
func ReadFile(path string) ([]byte, error) { return readSmall(path) }

// ReferenceTable writes the keys of a struct with such tags as Markdown. v
// holds the defaults.
func ReferenceTable(b *strings.Builder, path, title string, v any) {
	section(b, path, title, reflect.ValueOf(v))
}
