// Package problem is how mistakes in a file that a person wrote are told.
//
// A Problem is one mistake: where it stands, what is wrong and what to do about
// it. A List is all mistakes of a file, or of several, and an error: who mends a
// file wants to hear of all of them at once.
package problem

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Problem is one mistake in a file.
type Problem struct {
	File         string
	Line, Column int    // from 1
	Key          string // where in the file's structure, such as jobs.build.services; empty where that says nothing
	What         string // what is wrong
	Mend         string // what to do about it; may be empty
}

// Error is "file:line:column: key: what; mend", without what is empty.
func (p Problem) Error() string {
	s := fmt.Sprintf("%s:%d:%d: ", p.File, p.Line, p.Column)
	if p.Key != "" {
		s += p.Key + ": "
	}
	s += p.What
	if p.Mend != "" {
		s += "; " + p.Mend
	}
	return s
}

// List is every mistake there is.
type List []Problem

// Error is one line per problem.
func (l List) Error() string {
	lines := make([]string, len(l))
	for i, p := range l {
		lines[i] = p.Error()
	}
	return strings.Join(lines, "\n")
}

// Sorted returns the problems in the order of their files and places, and what
// was found twice once. The list itself may change its order.
func (l List) Sorted() List {
	slices.SortStableFunc(l, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return slices.CompactFunc(l, func(a, b Problem) bool {
		return a.File == b.File && a.Line == b.Line && a.Column == b.Column && a.What == b.What
	})
}

// Nearest returns the known word that was probably meant, or "". Known words are
// in lower case.
func Nearest(word string, known []string) string {
	best, least := "", 3
	plain := strings.NewReplacer("-", "", "_", "")
	for _, k := range known {
		if strings.EqualFold(plain.Replace(k), plain.Replace(word)) {
			return k
		}
		if d := distance(strings.ToLower(word), k); d < least && d < len(k) {
			best, least = k, d
		}
	}
	return best
}

// longest word that is compared letter by letter.
const longest = 40

// distance counts the letters to add, drop or change to turn a into b.
func distance(a, b string) int {
	if len(a) > longest || len(b) > longest {
		return longest
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}
