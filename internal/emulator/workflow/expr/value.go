package expr

import (
	"maps"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// Object is an ordered mapping whose keys compare without regard to case. The zero value is empty and
// ready for use.
type Object struct {
	keys   []string
	values map[string]any // by folded key
}

// NewObject returns an object of alternating keys and values, for literals in code.
func NewObject(pairs ...any) *Object {
	o := &Object{}
	for pair := range slices.Chunk(pairs, 2) {
		o.Set(pair[0].(string), pair[1])
	}
	return o
}

// Set stores a value; a key that is there already, in whatever case, keeps its place and its spelling.
func (o *Object) Set(key string, value any) {
	if o.values == nil {
		o.values = map[string]any{}
	}
	f := fold(key)
	if _, there := o.values[f]; !there {
		o.keys = append(o.keys, key)
	}
	o.values[f] = value
}

// Get returns a value and whether the key is there.
func (o *Object) Get(key string) (any, bool) {
	v, ok := o.values[fold(key)]
	return v, ok
}

// Keys returns the keys in the order in which they were set.
func (o *Object) Keys() []string { return slices.Clone(o.keys) }

// Len returns how many keys there are.
func (o *Object) Len() int { return len(o.keys) }

// Clone returns a copy that shares the values.
func (o *Object) Clone() *Object {
	c := &Object{}
	for _, k := range o.keys {
		v, _ := o.Get(k)
		c.Set(k, v)
	}
	return c
}

// FromGo converts what encoding/json decodes (maps, slices, scalars) into a value of this package; the keys
// of a map come in alphabetical order. Other numbers become float64.
func FromGo(v any) any {
	switch v := v.(type) {
	case map[string]any:
		o := &Object{}
		for _, k := range slices.Sorted(maps.Keys(v)) {
			o.Set(k, FromGo(v[k]))
		}
		return o
	case map[string]string:
		o := &Object{}
		for _, k := range slices.Sorted(maps.Keys(v)) {
			o.Set(k, v[k])
		}
		return o
	case []any:
		list := make([]any, len(v))
		for i, item := range v {
			list[i] = FromGo(item)
		}
		return list
	case int:
		return float64(v)
	case int64:
		return float64(v)
	default:
		return v
	}
}

// Truthy says whether a value counts as true: everything but null, false, 0, NaN and the empty string.
func Truthy(v any) bool {
	switch v := v.(type) {
	case nil:
		return false
	case bool:
		return v
	case float64:
		return v != 0 && !math.IsNaN(v)
	case string:
		return v != ""
	default:
		return true
	}
}

// String converts a value as ${{ }} does within a text.
func String(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case bool:
		return strconv.FormatBool(v)
	case float64:
		return formatNumber(v)
	case string:
		return v
	case *Object:
		return "Object"
	default:
		return "Array"
	}
}

// Number converts a value as comparisons do; what is no number becomes NaN.
func Number(v any) float64 {
	switch v := v.(type) {
	case nil:
		return 0
	case bool:
		if v {
			return 1
		}
		return 0
	case float64:
		return v
	case string:
		return parseNumber(v)
	default:
		return math.NaN()
	}
}

// formatNumber writes a number as the runner's "G15" does: 15 digits, an exponent from 1E+15 on.
func formatNumber(f float64) string {
	switch {
	case math.IsNaN(f):
		return "NaN"
	case math.IsInf(f, 1):
		return "Infinity"
	case math.IsInf(f, -1):
		return "-Infinity"
	case f == 0:
		return "0" // -0 as well
	}
	return strconv.FormatFloat(f, 'G', 15, 64)
}

var decimal = regexp.MustCompile(`^[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?$`)

func parseNumber(s string) float64 {
	s = strings.TrimSpace(s)
	switch {
	case s == "":
		return 0
	case decimal.MatchString(s):
		if f, err := strconv.ParseFloat(s, 64); err == nil {
			return f
		}
	case strings.HasPrefix(s, "0x"):
		if n, err := strconv.ParseUint(s[2:], 16, 32); err == nil {
			return float64(int32(n))
		}
	case strings.HasPrefix(s, "0o"):
		if n, err := strconv.ParseUint(s[2:], 8, 32); err == nil {
			return float64(int32(n))
		}
	case s == "Infinity", s == "+Infinity":
		return math.Inf(1)
	case s == "-Infinity":
		return math.Inf(-1)
	}
	return math.NaN()
}

// fold makes two strings equal that differ in case alone.
func fold(s string) string { return strings.Map(unicode.ToUpper, s) }

func primitive(v any) bool {
	switch v.(type) {
	case nil, bool, float64, string:
		return true
	}
	return false
}

// Equal compares as == does: values of different kinds are made numbers first, strings differ not by case,
// and lists and objects are equal only to themselves.
func Equal(a, b any) bool {
	a, b = coerce(a, b)
	switch a := a.(type) {
	case nil:
		return b == nil
	case bool:
		b, ok := b.(bool)
		return ok && a == b
	case float64:
		b, ok := b.(float64)
		return ok && a == b // NaN equals nothing
	case string:
		b, ok := b.(string)
		return ok && fold(a) == fold(b)
	case *Object:
		b, ok := b.(*Object)
		return ok && a == b
	case []any:
		b, ok := b.([]any)
		return ok && len(a) == len(b) && len(a) > 0 && &a[0] == &b[0]
	}
	return false
}

// less and greater say nothing about values that cannot be ordered: both are false then.
func less(a, b any) bool { return greater(b, a) }

func greater(a, b any) bool {
	a, b = coerce(a, b)
	switch a := a.(type) {
	case bool:
		b, ok := b.(bool)
		return ok && a && !b
	case float64:
		b, ok := b.(float64)
		return ok && a > b
	case string:
		b, ok := b.(string)
		return ok && fold(a) > fold(b)
	}
	return false
}

// coerce brings two primitives of different kinds to numbers.
func coerce(a, b any) (any, any) {
	if sameKind(a, b) || !primitive(a) || !primitive(b) {
		return a, b
	}
	return Number(a), Number(b)
}

func sameKind(a, b any) bool {
	switch a.(type) {
	case nil:
		return b == nil
	case bool:
		_, ok := b.(bool)
		return ok
	case float64:
		_, ok := b.(float64)
		return ok
	case string:
		_, ok := b.(string)
		return ok
	}
	return false
}
