package emulator

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/mirego/tasuki/internal/base/problem"
)

// maxFaults bounds a list, and so what a request is compared with.
const maxFaults = 1000

// ParseFaults reads a list of faults as YAML or JSON; file is what problems name. The error is a problem.List:
// everything that is wrong, with its place and what to do about it.
//
// A fault's keys are the fields of Fault, as JSON names them. Durations are texts such as "30s", or whole
// nanoseconds. The key incident names a fault to begin with, which the other keys change.
func ParseFaults(file string, data []byte) ([]Fault, error) {
	p := &faultParser{file: file}
	var doc yaml.Node
	if err := yaml.Unmarshal(data, &doc); err != nil {
		p.notYAML(err)
		return nil, p.problems
	}
	root := &doc
	if len(doc.Content) > 0 {
		root = doc.Content[0]
	}
	if root.Kind == 0 || root.Kind == yaml.ScalarNode && root.Tag == "!!null" {
		return nil, nil // nothing goes wrong
	}
	if root.Kind != yaml.SequenceNode {
		p.fail(root, "the faults are no list", "begin each with a hyphen: - incident: NAME")
		return nil, p.problems
	}
	if len(root.Content) > maxFaults {
		p.fail(root, fmt.Sprintf("there are %d faults", len(root.Content)), fmt.Sprintf("write at most %d", maxFaults))
		return nil, p.problems
	}
	var out []Fault
	for _, item := range root.Content {
		out = append(out, p.fault(item))
	}
	if len(p.problems) > 0 {
		return nil, p.problems.Sorted()
	}
	return out, nil
}

// faultParser reads faults and notes what is wrong with them.
type faultParser struct {
	file     string
	problems problem.List
}

func (p *faultParser) fail(at *yaml.Node, what, mend string) {
	p.problems = append(p.problems, problem.Problem{File: p.file, Line: max(at.Line, 1), Column: max(at.Column, 1), What: what, Mend: mend})
}

var yamlLine = regexp.MustCompile(`line (\d+)`)

// notYAML notes that the text cannot be read, at the line that the error names.
func (p *faultParser) notYAML(err error) {
	at := &yaml.Node{}
	if m := yamlLine.FindStringSubmatch(err.Error()); m != nil {
		at.Line, _ = strconv.Atoi(m[1])
	}
	p.fail(at, "cannot be read as YAML: "+strings.ReplaceAll(strings.TrimPrefix(err.Error(), "yaml: "), "\n", " "), "")
}

// fault reads one fault.
func (p *faultParser) fault(item *yaml.Node) Fault {
	var f Fault
	if item.Kind == yaml.AliasNode {
		item = item.Alias
	}
	if item.Kind != yaml.MappingNode {
		p.fail(item, "a fault has keys and values", "write - incident: NAME, or - {route: GET runners, status: 502}")
		return f
	}
	at, before := map[string]*yaml.Node{}, len(p.problems)
	for i := 0; i+1 < len(item.Content); i += 2 {
		key, value := item.Content[i], item.Content[i+1]
		if at[key.Value] != nil {
			p.fail(key, fmt.Sprintf("%q stands here a second time", key.Value), "keep one")
		}
		at[key.Value] = value
		if key.Value == "incident" { // first of all: the other keys change it
			f = p.incident(value)
		}
	}
	for i := 0; i+1 < len(item.Content); i += 2 {
		p.set(&f, item.Content[i], item.Content[i+1])
	}
	if len(p.problems) == before {
		p.sense(f, item, at)
	}
	return f
}

func (p *faultParser) incident(value *yaml.Node) Fault {
	names := slices.Sorted(maps.Keys(incidents))
	if value.Kind != yaml.ScalarNode {
		p.fail(value, "an incident is a name", "there are: "+strings.Join(names, ", "))
		return Fault{}
	}
	f, err := Incident(value.Value)
	if err != nil {
		p.fail(value, fmt.Sprintf("there is no incident %q", value.Value), meant(value.Value, names, "there are"))
	}
	return f
}

// meant says what was probably meant, else all that there is.
func meant(word string, known []string, all string) string {
	if near := problem.Nearest(word, known); near != "" {
		return fmt.Sprintf("did you mean %q?", near)
	}
	return all + ": " + strings.Join(known, ", ")
}

// faultKeys take the value of each key.
var faultKeys = map[string]func(*Fault, *yaml.Node) error{
	"incident":    func(*Fault, *yaml.Node) error { return nil }, // was taken already
	"route":       func(f *Fault, n *yaml.Node) error { return takeText(&f.Route, n) },
	"message":     takeMessage,
	"skip":        func(f *Fault, n *yaml.Node) error { return takeNumber(&f.Skip, n, 0, 1<<30) },
	"times":       func(f *Fault, n *yaml.Node) error { return takeNumber(&f.Times, n, 0, 1<<30) },
	"for":         func(f *Fault, n *yaml.Node) error { return takeDuration(&f.For, n) },
	"delay":       func(f *Fault, n *yaml.Node) error { return takeDuration(&f.Delay, n) },
	"twice":       func(f *Fault, n *yaml.Node) error { return takeBool(&f.Twice, n) },
	"status":      func(f *Fault, n *yaml.Node) error { return takeNumber(&f.Status, n, 100, 599) },
	"body":        func(f *Fault, n *yaml.Node) error { return takeText(&f.Body, n) },
	"no_body":     func(f *Fault, n *yaml.Node) error { return takeBool(&f.NoBody, n) },
	"retry_after": func(f *Fault, n *yaml.Node) error { return takeDuration(&f.RetryAfter, n) },
	"lose_reply":  func(f *Fault, n *yaml.Node) error { return takeBool(&f.LoseReply, n) },
	"bom":         func(f *Fault, n *yaml.Node) error { return takeBool(&f.BOM, n) },
	"evict":       func(f *Fault, n *yaml.Node) error { return takeBool(&f.Evict, n) },
	"collect":     func(f *Fault, n *yaml.Node) error { return takeBool(&f.Collect, n) },
	"lose":        func(f *Fault, n *yaml.Node) error { return takeBool(&f.Lose, n) },
	"nameless":    func(f *Fault, n *yaml.Node) error { return takeBool(&f.Nameless, n) },
	"trapdoor":    func(f *Fault, n *yaml.Node) error { return takeBool(&f.Trapdoor, n) },
	"lapse":       func(f *Fault, n *yaml.Node) error { return takeDuration(&f.Lapse, n) },
	"assigned": func(f *Fault, n *yaml.Node) error {
		f.Assigned = new(int)
		return takeNumber(f.Assigned, n, 0, 1<<30)
	},
}

func (p *faultParser) set(f *Fault, key, value *yaml.Node) {
	take := faultKeys[key.Value]
	if take == nil {
		p.fail(key, fmt.Sprintf("unknown key %q in a fault", key.Value), meant(key.Value, slices.Sorted(maps.Keys(faultKeys)), "known here"))
		return
	}
	if value.Kind == yaml.AliasNode {
		value = value.Alias
	}
	if err := take(f, value); err != nil {
		what, mend, _ := strings.Cut(err.Error(), "; ")
		p.fail(value, fmt.Sprintf("%q: %s", key.Value, what), mend)
	}
}

// sense notes what a fault asks for and does not go together.
func (p *faultParser) sense(f Fault, item *yaml.Node, at map[string]*yaml.Node) {
	has := func(keys ...string) string {
		for _, k := range keys {
			if at[k] != nil {
				return k
			}
		}
		return ""
	}
	where := func(key string) *yaml.Node {
		if n := at[key]; n != nil {
			return n
		}
		return item
	}
	switch k := ""; {
	case f.Message != "":
		if k = has("route", "status", "body", "no_body", "retry_after", "lose_reply", "bom", "evict", "collect", "assigned", "trapdoor", "lapse"); k != "" {
			p.fail(where(k), fmt.Sprintf("%q is not for messages", k), "for a message there are lose, delay, twice and nameless")
		} else if f.effects() == 0 {
			p.fail(item, "nothing happens to the message", "add lose, delay, twice or nameless")
		}
	case f.ofSets():
		if k = has("route", "status", "body", "no_body", "retry_after", "lose_reply", "bom", "evict", "collect", "twice", "delay", "lose", "nameless"); k != "" {
			p.fail(where(k), fmt.Sprintf("%q is not for assigned, trapdoor and lapse", k), "write two faults")
		}
	case f.Lose || f.Nameless:
		p.fail(item, "it is not said which message", "add message: JobStarted, or another kind")
	case f.effects() == 0:
		p.fail(item, "nothing happens to the requests", "add delay, status, no_body, lose_reply, twice, bom, evict or collect")
	case f.Status == 0 && (f.Body != "" || f.RetryAfter > 0):
		p.fail(where(has("body", "retry_after")), "without a status nothing is answered", "add status: 503")
	}
}

func takeText(to *string, n *yaml.Node) error {
	if n.Kind != yaml.ScalarNode {
		return errors.New("it is no text")
	}
	*to = n.Value
	return nil
}

func takeMessage(f *Fault, n *yaml.Node) error {
	kinds := []string{jobAssigned, jobAvailable, jobCompleted, jobStarted}
	if n.Kind != yaml.ScalarNode || !slices.Contains(kinds, n.Value) {
		return fmt.Errorf("%q is no kind of message; there are: %s", n.Value, strings.Join(kinds, ", "))
	}
	f.Message = n.Value
	return nil
}

func takeBool(to *bool, n *yaml.Node) error {
	if n.Tag != "!!bool" || n.Decode(to) != nil {
		return fmt.Errorf("%q is neither true nor false; write true", n.Value)
	}
	return nil
}

func takeNumber(to *int, n *yaml.Node, least, most int) error {
	var v int
	if n.Tag != "!!int" || n.Decode(&v) != nil || v < least || v > most {
		return fmt.Errorf("%q is no whole number from %d to %d; write one", n.Value, least, most)
	}
	*to = v
	return nil
}

func takeDuration(to *time.Duration, n *yaml.Node) error {
	var v int64
	if n.Tag == "!!int" && n.Decode(&v) == nil && v >= 0 {
		*to = time.Duration(v)
		return nil
	}
	d, err := time.ParseDuration(n.Value)
	if n.Kind != yaml.ScalarNode || err != nil || d < 0 {
		return fmt.Errorf("%q is no duration; write 30s, 10m or 1h30m", n.Value)
	}
	*to = d
	return nil
}
