// Package cli is the command line: one file per command, listed in one slice.
//
// Results go to stdout, talk to stderr. An error is one line, "tasuki: …",
// and where we know what to do about it a second, "hint: …"; the exit statuses
// are 0 (well), 1 (a job failed, or the answer is no) and 2 (trouble of ours
// or of the user's), mapped from errors in one table (errors.go). File wire.go
// is the only place of the program that picks adapters.
//
// Docs/reference/cli.md is generated from the commands.
package cli
