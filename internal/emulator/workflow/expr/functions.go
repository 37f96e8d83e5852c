package expr

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

var statusFunctions = []string{"success", "failure", "always", "cancelled"}

func isStatus(name string) bool { return slices.Contains(statusFunctions, name) }

// function is one that every place offers.
type function struct {
	least, most int // parameters
	call        func(args []any) (any, error)
}

// functions by their name in lower case, after
// https://docs.github.com/en/actions/reference/workflows-and-actions/expressions#functions.
// hashFiles is not among them: only a runner has the files.
var functions = map[string]function{
	"contains":   {2, 2, contains},
	"startswith": {2, 2, startsWith},
	"endswith":   {2, 2, endsWith},
	"format":     {1, 255, format},
	"join":       {1, 2, join},
	"tojson":     {1, 1, toJSON},
	"fromjson":   {1, 1, fromJSON},
	"case":       {3, 255, nil}, // evaluates its parameters itself
}

func contains(args []any) (any, error) {
	if list, ok := args[0].([]any); ok {
		return slices.ContainsFunc(list, func(each any) bool { return Equal(each, args[1]) }), nil
	}
	return ofTexts(args, strings.Contains)
}

func startsWith(args []any) (any, error) { return ofTexts(args, strings.HasPrefix) }

func endsWith(args []any) (any, error) { return ofTexts(args, strings.HasSuffix) }

// ofTexts compares without regard to case; it is false for lists and objects.
func ofTexts(args []any, is func(s, part string) bool) (any, error) {
	if !primitive(args[0]) || !primitive(args[1]) {
		return false, nil
	}
	return is(fold(String(args[0])), fold(String(args[1]))), nil
}

func toJSON(args []any) (any, error) { return ToJSON(args[0]) }

func fromJSON(args []any) (any, error) { return FromJSON(String(args[0])) }

func join(args []any) (any, error) {
	separator := ","
	if len(args) == 2 {
		separator = ""
		if primitive(args[1]) {
			separator = String(args[1])
		}
	}
	list, ok := args[0].([]any)
	if !ok {
		if primitive(args[0]) {
			return String(args[0]), nil
		}
		return "", nil
	}
	var b strings.Builder
	for i, each := range list {
		if i > 0 {
			b.WriteString(separator)
		}
		b.WriteString(String(each))
		if b.Len() > maxResult {
			return nil, errTooLong
		}
	}
	return b.String(), nil
}

// format replaces {0}, {1} ...; {{ and }} stand for braces.
func format(args []any) (any, error) {
	text := String(args[0])
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case (c == '{' || c == '}') && i+1 < len(text) && text[i+1] == c:
			b.WriteByte(c)
			i++
		case c == '{':
			number, _, closed := strings.Cut(text[i+1:], "}")
			n, err := strconv.ParseUint(number, 10, 8)
			if !closed || err != nil {
				return nil, fmt.Errorf("the format string is invalid: %s", abbreviate(text))
			}
			if int(n)+1 >= len(args) {
				return nil, fmt.Errorf("the format string references more arguments than were supplied: %s", abbreviate(text))
			}
			b.WriteString(String(args[n+1]))
			i += len(number) + 1
		case c == '}':
			return nil, fmt.Errorf("the format string is invalid: %s", abbreviate(text))
		default:
			b.WriteByte(c)
		}
		if b.Len() > maxResult {
			return nil, errTooLong
		}
	}
	return b.String(), nil
}
