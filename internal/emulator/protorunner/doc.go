// Package protorunner is a small runner program: it speaks the protocol of GitHub's own runner from a JIT
// configuration to the end of its one job, and executes nothing. Tests use it, in this process or as one
// of its own, where a job of a given length is all that matters.
//
// It is shaped to the official contracts, not to our emulator: addresses are resolved as .NET does (a base
// that lacks its slash loses its last part), RSA parts must have their full length, the job token must be a
// JWT, the worker starts after the first renewal, the status goes Busy and the poll is re-issued. It prints
// the official runner's lines.
//
// A job "runs" for Options.Hold, or until it is cancelled; then its log is uploaded and its conclusion,
// Options.Conclusion, is reported.
package protorunner
