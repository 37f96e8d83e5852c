package config

import (
	"reflect"
	"strings"
)

// field is one key of a struct, those of inlined structs included.
type field struct {
	name  string
	index []int
	tag   reflect.StructTag
	typ   reflect.Type
}

// fieldsOf lists the keys of a struct in its order.
func fieldsOf(t reflect.Type) []field {
	var out []field
	for i := range t.NumField() {
		f := t.Field(i)
		name, rest, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		if f.Anonymous && rest == "inline" {
			for _, inner := range fieldsOf(f.Type) {
				inner.index = append([]int{i}, inner.index...)
				out = append(out, inner)
			}
			continue
		}
		if name != "" && f.IsExported() {
			out = append(out, field{name, []int{i}, f.Tag, f.Type})
		}
	}
	return out
}
