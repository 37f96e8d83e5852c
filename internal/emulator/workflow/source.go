package workflow

import (
	"errors"
	"fmt"
	"iter"
	"math"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"
)

// Bounds on one file. GitHub has its own, of the same order; ours keep a hostile file from using up memory.
const (
	maxFileSize = 1 << 20
	maxNodes    = 50_000 // with aliases expanded
)

// source is the text of one YAML file as a tree. actionlint's own tree forgets the order of keys and whether
// a scalar was 3.10 or "3.10", both of which matter here, so values are read from this one.
type source struct {
	file  string // as problems name it
	lines []string
	root  *yaml.Node // nil when the file is empty
}

// readSource parses the YAML; its error is a Problems.
func readSource(file string, text []byte) (*source, error) {
	s := &source{file: file, lines: strings.Split(string(text), "\n")}
	if len(text) > maxFileSize {
		return nil, Problems{{File: file, Line: 1, Column: 1, What: fmt.Sprintf("the file is larger than %d bytes", maxFileSize)}}
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return nil, Problems{s.yamlProblem(err)}
	}
	if len(doc.Content) > 0 {
		s.root = doc.Content[0]
	}
	if size, ok := expandedSize(s.root, map[*yaml.Node]int{}); !ok || size > maxNodes {
		return nil, Problems{{File: file, Line: 1, Column: 1, What: fmt.Sprintf("the file has more than %d values with its aliases expanded, or one that contains itself", maxNodes)}}
	}
	return s, nil
}

// yamlProblem finds where a YAML error is. The parser counts columns from 0, and gives no place for an alias
// without an anchor.
func (s *source) yamlProblem(err error) Problem {
	message := strings.TrimPrefix(err.Error(), "yaml: ")
	line, col := 1, 1
	if pe, ok := errors.AsType[*yaml.ParserError](err); ok {
		line, col, message = max(pe.Line, 1), pe.Column+1, pe.Message
	} else if anchor := unknownAnchor.FindStringSubmatch(message); anchor != nil {
		for i, text := range s.lines {
			if at := strings.Index(text, "*"+anchor[1]); at >= 0 {
				line, col = i+1, at+1
				break
			}
		}
	}
	return Problem{File: s.file, Line: line, Column: col, What: "cannot parse as YAML: " + message}
}

var unknownAnchor = regexp.MustCompile(`unknown anchor '(.*)' referenced`)

// expandedSize counts the values below a node as often as aliases repeat them; not ok where a node contains itself.
func expandedSize(n *yaml.Node, known map[*yaml.Node]int) (int, bool) {
	const busy = -1
	if n == nil {
		return 0, true
	}
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if size, there := known[n]; there {
		return size, size != busy
	}
	known[n] = busy
	size := 1
	for _, child := range n.Content {
		below, ok := expandedSize(child, known)
		if !ok {
			return 0, false
		}
		size = min(size+below, maxNodes+1)
	}
	known[n] = size
	return size, true
}

// resolve follows an alias.
func resolve(n *yaml.Node) *yaml.Node {
	if n != nil && n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

// entries yields the keys and values of a mapping, and nothing for any other node.
func entries(n *yaml.Node) iter.Seq2[*yaml.Node, *yaml.Node] {
	return func(yield func(*yaml.Node, *yaml.Node) bool) {
		n := resolve(n)
		if n == nil || n.Kind != yaml.MappingNode {
			return
		}
		for i := 0; i+1 < len(n.Content); i += 2 {
			if !yield(resolve(n.Content[i]), resolve(n.Content[i+1])) {
				return
			}
		}
	}
}

// items returns the elements of a sequence, and nothing for any other node.
func items(n *yaml.Node) []*yaml.Node {
	n = resolve(n)
	if n == nil || n.Kind != yaml.SequenceNode {
		return nil
	}
	list := make([]*yaml.Node, len(n.Content))
	for i, c := range n.Content {
		list[i] = resolve(c)
	}
	return list
}

// find returns the key and the value under a name, or nil where it is not there.
func find(n *yaml.Node, name string) (key, value *yaml.Node) {
	for k, v := range entries(n) {
		if k.Value == name {
			return k, v
		}
	}
	return nil, nil
}

// get returns the value under a name, nil where it is not there or null.
func get(n *yaml.Node, name string) *yaml.Node {
	_, v := find(n, name)
	if v != nil && v.Kind == yaml.ScalarNode && scalar(v) == nil {
		return nil
	}
	return v
}

var (
	yamlInt   = regexp.MustCompile(`^[-+]?[0-9]+$`)
	yamlFloat = regexp.MustCompile(`^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$`)
)

// scalar reads a scalar by the core schema of YAML 1.2, as GitHub does: 3.10 without quotes is the number 3.1,
// yes is a text. The result is nil, bool, float64 or string.
func scalar(n *yaml.Node) any {
	const quoted = yaml.DoubleQuotedStyle | yaml.SingleQuotedStyle | yaml.LiteralStyle | yaml.FoldedStyle
	text := n.Value
	if n.Style&quoted != 0 || n.Style&yaml.TaggedStyle != 0 && n.Tag == "!!str" {
		return text
	}
	switch text {
	case "", "~", "null", "Null", "NULL":
		return nil
	case "true", "True", "TRUE":
		return true
	case "false", "False", "FALSE":
		return false
	case ".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF":
		return math.Inf(1)
	case "-.inf", "-.Inf", "-.INF":
		return math.Inf(-1)
	case ".nan", ".NaN", ".NAN":
		return math.NaN()
	}
	if yamlInt.MatchString(text) || yamlFloat.MatchString(text) {
		if f, err := strconv.ParseFloat(text, 64); err == nil {
			return f
		}
	}
	if strings.HasPrefix(text, "0x") || strings.HasPrefix(text, "0o") {
		if i, err := strconv.ParseUint(text, 0, 63); err == nil {
			return float64(i)
		}
	}
	return text
}

// position returns the line and column, from 1, of the byte at an offset in a scalar's value; exact for texts
// on one line and for | blocks, the scalar's begin for folded ones.
func (s *source) position(n *yaml.Node, offset int) (line, col int) {
	before := n.Value[:min(offset, len(n.Value))]
	newlines := strings.Count(before, "\n")
	inLine := len(before) - (strings.LastIndex(before, "\n") + 1)
	switch {
	case n.Style&yaml.LiteralStyle != 0:
		line = n.Line + 1 + newlines
		if line > len(s.lines) {
			return n.Line, n.Column
		}
		valueLine, _, _ := strings.Cut(n.Value[len(before)-inLine:], "\n")
		indent := strings.Index(s.lines[line-1], valueLine)
		return line, max(indent, 0) + inLine + 1
	case n.Style&yaml.FoldedStyle != 0 || newlines > 0 || strings.Contains(n.Value, "\n"):
		return n.Line, n.Column
	case n.Style&(yaml.DoubleQuotedStyle|yaml.SingleQuotedStyle) != 0:
		return n.Line, n.Column + inLine + 1
	}
	return n.Line, n.Column + inLine
}
