// Package demoview shows a demo to a person: what happens while it happens,
// and at the end what came of it.
//
// On a terminal a View keeps a live block at the bottom (one line for each
// runner, one for each task with its bar, one for the jobs) and redraws it in
// place; what stays true scrolls above it. Elsewhere each transition is one
// line. Report, which comes at the end, is the same in both.
//
// Text that comes out of guests is shown without its control characters: a
// job's log must not drive the terminal of whoever reads it.
package demoview
