package workflow

import (
	"errors"
	"fmt"
	"slices"

	"github.com/mirego/tasuki/internal/emulator/workflow/expr"
)

// maxMatrix is how many jobs one matrix may make:
// https://docs.github.com/en/actions/reference/limits
const maxMatrix = 256

// combination is one job of a matrix.
type combination struct {
	values   *expr.Object
	original []string // the keys that came from the matrix's own lists: include must not change those
}

// expandMatrix makes the combinations of an evaluated matrix by GitHub's rules: every combination of the lists,
// the first list varying slowest, less those that exclude matches in part, and then what include adds. See
// https://docs.github.com/en/actions/how-tos/write-workflows/choose-what-workflows-do/run-job-variations
func expandMatrix(v any) ([]*expr.Object, error) {
	m, ok := v.(*expr.Object)
	if !ok {
		return nil, fmt.Errorf("the matrix is not a mapping but %s", kindOf(v))
	}
	var include, exclude []*expr.Object
	lists := &expr.Object{}
	for _, key := range m.Keys() {
		value, _ := m.Get(key)
		var err error
		switch key {
		case "include":
			include, err = mappings(key, value)
		case "exclude":
			exclude, err = mappings(key, value)
		default:
			list, ok := value.([]any)
			if !ok || len(list) == 0 {
				err = fmt.Errorf("matrix vector %q is not a list with values but %s", key, kindOf(value))
			}
			lists.Set(key, list)
		}
		if err != nil {
			return nil, err
		}
	}
	for _, e := range exclude {
		for _, key := range e.Keys() {
			if _, there := lists.Get(key); !there {
				return nil, fmt.Errorf("matrix exclude key %q does not match any key within the matrix", key)
			}
		}
	}
	combinations, err := product(lists)
	if err != nil {
		return nil, err
	}
	combinations = slices.DeleteFunc(combinations, func(c combination) bool {
		return slices.ContainsFunc(exclude, func(e *expr.Object) bool { return matches(e, c.values, e.Keys()) })
	})
	combinations = addIncludes(combinations, include)
	return collect(combinations)
}

func collect(combinations []combination) ([]*expr.Object, error) {
	if len(combinations) == 0 {
		return nil, errors.New("the matrix makes no job")
	}
	if len(combinations) > maxMatrix {
		return nil, fmt.Errorf("the matrix makes %d jobs, at most %d are allowed", len(combinations), maxMatrix)
	}
	out := make([]*expr.Object, len(combinations))
	for i, c := range combinations {
		out[i] = c.values
	}
	return out, nil
}

// product combines the lists; no lists make no combination.
func product(lists *expr.Object) ([]combination, error) {
	if lists.Len() == 0 {
		return nil, nil
	}
	all := []*expr.Object{{}}
	for _, key := range lists.Keys() {
		list, _ := lists.Get(key)
		var next []*expr.Object
		for _, c := range all {
			for _, v := range list.([]any) {
				// exclude may bring the number down again, so the bound here is a generous one.
				if len(next) > 16*maxMatrix {
					return nil, fmt.Errorf("the matrix has more than %d combinations", 16*maxMatrix)
				}
				n := c.Clone()
				n.Set(key, v)
				next = append(next, n)
			}
		}
		all = next
	}
	combinations := make([]combination, len(all))
	for i, values := range all {
		combinations[i] = combination{values, lists.Keys()}
	}
	return combinations, nil
}

// addIncludes adds each include to every combination whose original values it would not change, and makes a
// combination of its own of one that fits nowhere.
func addIncludes(combinations []combination, include []*expr.Object) []combination {
	var extra []combination
	for _, inc := range include {
		fits := false
		for _, c := range combinations {
			if !matches(inc, c.values, c.original) {
				continue
			}
			fits = true
			for _, key := range inc.Keys() {
				if !slices.ContainsFunc(c.original, func(o string) bool { return expr.Equal(o, key) }) {
					v, _ := inc.Get(key)
					c.values.Set(key, v)
				}
			}
		}
		if !fits {
			extra = append(extra, combination{values: inc.Clone()})
		}
	}
	return append(combinations, extra...)
}

// matches says whether a filter has the same values as a combination, for those of the keys that it names.
func matches(filter, values *expr.Object, keys []string) bool {
	for _, key := range keys {
		want, named := filter.Get(key)
		if !named {
			continue
		}
		got, _ := values.Get(key)
		if !matchesValue(want, got) {
			return false
		}
	}
	return true
}

// matchesValue compares scalars as == does; a mapping or list needs to match only in what the filter names.
func matchesValue(want, got any) bool {
	switch want := want.(type) {
	case *expr.Object:
		got, ok := got.(*expr.Object)
		return ok && matches(want, got, want.Keys())
	case []any:
		got, ok := got.([]any)
		if !ok || len(want) > len(got) {
			return false
		}
		for i, w := range want {
			if !matchesValue(w, got[i]) {
				return false
			}
		}
		return true
	}
	return expr.Equal(want, got)
}

func mappings(key string, v any) ([]*expr.Object, error) {
	list, ok := v.([]any)
	if !ok {
		return nil, fmt.Errorf("matrix %s is not a list but %s", key, kindOf(v))
	}
	out := make([]*expr.Object, len(list))
	for i, item := range list {
		if out[i], ok = item.(*expr.Object); !ok {
			return nil, fmt.Errorf("matrix %s has something other than a mapping: %s", key, kindOf(item))
		}
	}
	return out, nil
}

func kindOf(v any) string {
	switch v := v.(type) {
	case nil:
		return "null"
	case *expr.Object:
		return "a mapping"
	case []any:
		if len(v) == 0 {
			return "an empty list"
		}
		return "a list"
	case string:
		return fmt.Sprintf("the text %q", v)
	}
	return expr.String(v)
}

// matrixName is the name of a matrix's job that has none of its own: "test (linux, 22)", cut to GitHub's 100
// characters.
func matrixName(name string, values *expr.Object) string {
	const most = 100
	suffix := ""
	for _, text := range leaves(values) {
		if suffix != "" {
			suffix += ", "
		}
		suffix += text
	}
	if suffix == "" {
		return name
	}
	full := []rune(name + " (" + suffix + ")")
	if len(full) > most {
		return string(full[:most-3]) + "..."
	}
	return string(full)
}

func leaves(v any) []string {
	var out []string
	switch v := v.(type) {
	case *expr.Object:
		for _, k := range v.Keys() {
			value, _ := v.Get(k)
			out = append(out, leaves(value)...)
		}
	case []any:
		for _, item := range v {
			out = append(out, leaves(item)...)
		}
	default:
		if text := expr.String(v); text != "" {
			out = append(out, text)
		}
	}
	return out
}
