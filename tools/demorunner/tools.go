//go:build tools

// Package demorunner pins the runner program that the guests of `tasuki demo`
// carry. It holds no code of ours: the blank import below only keeps the
// requirement in go.mod, so that `go build` of the runner's own main package
// inside this module yields one exact version.
package demorunner

import _ "github.com/ChristopherHX/github-act-runner"
