package workflow

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Problem is one thing in a workflow that is wrong or that this emulator does not do.
type Problem struct {
	File    string
	Line    int    // from 1
	Col     int    // from 1
	Key     string // where in the file, such as jobs.build.services; empty where no key is to blame
	Message string
}

func (p Problem) String() string {
	text := fmt.Sprintf("%s:%d:%d: ", p.File, p.Line, p.Col)
	if p.Key != "" {
		text += p.Key + ": "
	}
	return text + p.Message
}

// Problems is the error that Load and Parse return: everything that is wrong, in the file's order.
type Problems []Problem

// Error has one line "file:line:col: key: message" for each problem.
func (p Problems) Error() string {
	lines := make([]string, len(p))
	for i, problem := range p {
		lines[i] = problem.String()
	}
	return strings.Join(lines, "\n")
}

// tidy sorts the problems and drops what was found twice.
func (p Problems) tidy() Problems {
	slices.SortStableFunc(p, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Col, b.Col))
	})
	return slices.CompactFunc(p, func(a, b Problem) bool {
		return a.File == b.File && a.Line == b.Line && a.Col == b.Col && a.Message == b.Message
	})
}
