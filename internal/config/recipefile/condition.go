package recipefile

import (
	"fmt"
	"strings"
)

// parseCondition reads the words of "when". An empty condition is always met.
func parseCondition(s string) (met func(vars map[string]string) bool, err error) {
	var all []func(map[string]string) bool
	if strings.TrimSpace(s) != "" {
		for part := range strings.SplitSeq(s, "&&") {
			one, err := parseTerm(strings.TrimSpace(part))
			if err != nil {
				return nil, err
			}
			all = append(all, one)
		}
	}
	return func(vars map[string]string) bool {
		for _, one := range all {
			if !one(vars) {
				return false
			}
		}
		return true
	}, nil
}

func parseTerm(s string) (func(map[string]string) bool, error) {
	for _, op := range []string{"==", "!="} {
		name, value, ok := strings.Cut(s, op)
		if !ok {
			continue
		}
		name, value = strings.TrimSpace(name), strings.Trim(strings.TrimSpace(value), `"'`)
		if !envForm.MatchString(name) {
			return nil, fmt.Errorf("%q is not a condition", s)
		}
		return func(vars map[string]string) bool { return (vars[name] == value) == (op == "==") }, nil
	}
	name, not := strings.CutPrefix(s, "!")
	if name = strings.TrimSpace(name); !envForm.MatchString(name) {
		return nil, fmt.Errorf("%q is not a condition", s)
	}
	return func(vars map[string]string) bool { return truth(vars[name]) != not }, nil
}

// truth is what counts as yes.
func truth(value string) bool {
	switch strings.ToLower(value) {
	case "", "false", "no", "0":
		return false
	}
	return true
}

// conditionNames are the variables that a condition asks for.
func conditionNames(s string) []string {
	var names []string
	for part := range strings.SplitSeq(s, "&&") {
		name := strings.TrimPrefix(strings.TrimSpace(part), "!")
		if i := strings.IndexAny(name, "=!"); i >= 0 {
			name = name[:i]
		}
		if name = strings.TrimSpace(name); name != "" {
			names = append(names, name)
		}
	}
	return names
}
